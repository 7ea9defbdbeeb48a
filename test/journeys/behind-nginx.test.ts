import t from 'tap'
import { crankedGateway, intervalMs, statesOf } from '../helpers/cranked-gateway.ts'
import { openEvents } from '../helpers/event-source.ts'
import { nginx } from '../helpers/nginx.ts'
import { closedPort } from '../helpers/raw-server.ts'

/** As it comes: HTTP/1.0 to the gateway, and answers collected before they are passed on. */
const site = (port: number, origin: string): string => `
  gzip on; gzip_types *; gzip_min_length 0; gzip_proxied any;
  server {
    listen 127.0.0.1:${port};
    location / { proxy_pass ${origin}; }
  }`

t.test('behind an nginx with its own defaults each event is there at once', async t => {
  const { mint, made, origin, pass } = await crankedGateway(t)
  const port = await closedPort()
  await nginx(t, site(port, origin), port).start()
  const front = `http://127.0.0.1:${port}`
  const token = await mint('alice')
  const taskId = await made(token)
  const [stream, all] = await Promise.all(
    [`/gateway/tasks/${taskId}/events`, '/gateway/events'].map(path => openEvents(t, front + path, { token }))
  )
  for (const count of [1, 2]) {
    await Promise.all([stream!.heard(count), all!.heard(count)])
    pass(intervalMs)
  }
  await Promise.all([stream!.over(), all!.heard(3)])
  t.notOk(stream!.isCut)
  for (const { events } of [stream!, all!]) t.strictSame(statesOf(events), ['pending', 'processing', 'success'])
  t.equal(
    (await openEvents(t, `${front}/gateway/tasks/${taskId}/events`, { token, lastEventId: 'success' })).status,
    204
  )
})
