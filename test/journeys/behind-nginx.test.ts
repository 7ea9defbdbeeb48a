import { writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import t, { type Test } from 'tap'
import { crankedGateway, intervalMs, statesOf } from '../helpers/cranked-gateway.ts'
import { openEvents } from '../helpers/event-source.ts'
import { startProgram } from '../helpers/program.ts'
import { closedPort } from '../helpers/raw-server.ts'
import { nginxPath } from '../helpers/system-packages.ts'
import { until } from '../helpers/until.ts'

/** As it comes: HTTP/1.0 to the gateway, and answers collected before they are passed on. */
const config = (port: number, origin: string): string => `
  daemon off;
  master_process off;
  pid nginx.pid;
  error_log stderr error;
  events { worker_connections 256; }
  http {
    access_log off;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    gzip on; gzip_types *; gzip_min_length 0; gzip_proxied any;
    server {
      listen 127.0.0.1:${port};
      location / { proxy_pass ${origin}; }
    }
  }`

async function nginx (t: Test, origin: string): Promise<string> {
  const folder = t.testdir({})
  const port = await closedPort()
  writeFileSync(`${folder}/nginx.conf`, config(port, origin))
  startProgram(t, [nginxPath(), '-p', folder, '-c', `${folder}/nginx.conf`, '-e', 'stderr'], { cwd: folder })
  await until('it listens', () => new Promise<boolean>(resolve => {
    const socket = connect(port, '127.0.0.1', () => {
      socket.destroy()
      resolve(true)
    }).on('error', () => resolve(false))
  }))
  return `http://127.0.0.1:${port}`
}

t.test('behind an nginx with its own defaults each event is there at once', async t => {
  const { mint, made, origin, pass } = await crankedGateway(t)
  const front = await nginx(t, origin)
  const token = await mint('alice')
  const taskId = await made(token)
  const [stream, all] = await Promise.all([`/gateway/tasks/${taskId}/events`, '/gateway/events'].map(path => openEvents(t, front + path, { token })))
  for (const count of [1, 2]) {
    await Promise.all([stream!.heard(count), all!.heard(count)])
    pass(intervalMs)
  }
  await Promise.all([stream!.over(), all!.heard(3)])
  t.notOk(stream!.isCut)
  for (const { events } of [stream!, all!]) t.strictSame(statesOf(events), ['pending', 'processing', 'success'])
  t.equal((await openEvents(t, `${front}/gateway/tasks/${taskId}/events`, { token, lastEventId: 'success' })).status, 204)
})
