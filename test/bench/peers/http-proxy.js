import proxy from '@fastify/http-proxy'
import jwt from '@fastify/jwt'
import rateLimit from '@fastify/rate-limit'
import Fastify, { LogController } from 'fastify'

/**
 * What a user would put together from parts: `@fastify/http-proxy` with a token check, a limit in memory and one
 * access line by pino. It keeps the key off the browser too; it knows nothing of tasks, owners or credits.
 */
const app = Fastify({
  logger: { file: process.env.LOG_FILE },
  logController: new LogController({ disableRequestLogging: true }) // its two lines a request cost more than one
})
const authorization = `Bearer ${process.env.APIXO_API_KEY}`

app.addHook('onResponse', async (request, reply) => {
  request.log.info(
    { method: request.method, url: request.url, status: reply.statusCode, ms: reply.elapsedTime },
    'request'
  )
})
app.get('/livez', async () => ({ status: 'ok' }))

await app.register(jwt, { secret: process.env.JWT_SECRET })
await app.register(rateLimit, {
  max: request => request.ip === process.env.LIMITED_ADDRESS ? 1 : 1_000_000_000,
  timeWindow: '1 minute'
})
await app.register(proxy, {
  upstream: process.env.UPSTREAM,
  prefix: '/api',
  rewritePrefix: '/api',
  preHandler: async request => { await request.jwtVerify() },
  replyOptions: { rewriteRequestHeaders: (_request, headers) => ({ ...headers, authorization }) }
})

await app.listen({ port: Number(process.env.PORT), host: '127.0.0.1', backlog: 4096 })
process.once('SIGTERM', () => process.exit())
