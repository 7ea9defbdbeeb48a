import express from 'express'
import { rateLimit } from 'express-rate-limit'
import { createProxyMiddleware } from 'http-proxy-middleware'
import jwt from 'jsonwebtoken'
import { Agent } from 'node:http'

/**
 * What a user would put together from the best known parts: Express, `express-rate-limit` in memory, `jsonwebtoken`, and
 * `http-proxy-middleware` with connections that are kept. It writes no log.
 */
const app = express()
app.disable('x-powered-by')

app.get('/livez', (request, response) => { response.json({ status: 'ok' }) })
app.use(rateLimit({
  windowMs: 60_000,
  limit: request => request.ip === process.env.LIMITED_ADDRESS ? 1 : 1_000_000_000
}))
app.use((request, response, next) => {
  try {
    jwt.verify((request.headers.authorization ?? '').replace(/^Bearer /, ''), process.env.JWT_SECRET)
  } catch {
    response.status(401).json({ error: 'no session' })
    return
  }
  next()
})
app.use(createProxyMiddleware({
  target: process.env.UPSTREAM,
  agent: new Agent({ keepAlive: true, maxSockets: 64 }),
  headers: { authorization: `Bearer ${process.env.APIXO_API_KEY}` }
}))

const server = app.listen({ port: Number(process.env.PORT), host: '127.0.0.1', backlog: 4096 })
server.keepAliveTimeout = 60_000
process.once('SIGTERM', () => process.exit())
