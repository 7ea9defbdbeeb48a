import t from 'tap'
import { redisContracts } from '../helpers/redis-contracts.ts'
import { redisServer } from '../helpers/redis-server.ts'

const { url } = await redisServer(t)
redisContracts(t, 'one Redis', url)
