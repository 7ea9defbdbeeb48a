import t from 'tap'
import { redisContracts } from '../helpers/redis-contracts.ts'
import { redisCluster } from '../helpers/redis-server.ts'

const { url } = await redisCluster(t)
redisContracts(t, 'a cluster of Redis', url)
