import { readFileSync } from 'node:fs'
import { request } from 'node:https'
import { join } from 'node:path'
import t from 'tap'
import { calledBackGateway } from './helpers/callbacks.ts'
import { startGateway } from './helpers/gateway.ts'
import { type ExampleNginx, exampleHost, exampleNginx, replicasNginx } from './helpers/nginx.ts'
import { root } from './helpers/program.ts'
import { until } from './helpers/until.ts'

const someGateway = 'http://127.0.0.1:8080'

/** Calls what a certificate is for, over TLS. */
function callOver (
  { port, cert }: Pick<ExampleNginx, 'port' | 'cert'>,
  method: string,
  path: string
): Promise<{ status: number, text: string }> {
  return new Promise((resolve, reject) => {
    request(
      { host: '127.0.0.1', port, servername: exampleHost, ca: cert, method, path, headers: { host: exampleHost } },
      async response => {
        resolve({ status: response.statusCode!, text: Buffer.concat(await response.toArray()).toString() })
      }
    )
      .once('error', reject)
      .end()
  })
}

t.test('nginx takes the example as it is', async t => {
  const { check } = await exampleNginx(t, someGateway)
  t.doesNotThrow(check)
})

t.test('nginx takes the example for replicas, which compose puts in front of them', async t => {
  const { check } = await replicasNginx(t, 8080)
  t.doesNotThrow(check)
  t.match(readFileSync(join(root, 'docker-compose.yml'), 'utf8'), './config/examples/nginx-replicas.conf:/etc/nginx/')
})

t.test('no example ends an LLM call before the gateway does, or an SDK would buy it again', async t => {
  const { settings } = await startGateway(t)
  for (const name of ['nginx.conf', 'nginx-replicas.conf']) {
    const text = readFileSync(join(root, 'config/examples', name), 'utf8')
    const [, minutes] = /location ~ \^\/v1\(\?:beta\)\?\/ \{[^}]*proxy_read_timeout (\d+)m;/.exec(text) ?? []
    t.ok(Number(minutes) * 60_000 > settings.file.llm.totalMs, name)
  }
})

t.test('the secret of a callback is in no log of nginx, whether the gateway answers or not', async t => {
  const { origin, gateway, submit, mint, callbackPath } = await calledBackGateway(t)
  await submit(await mint('alice'))
  const nginx = await exampleNginx(t, origin)
  const call = (method: string, path: string) => callOver(nginx, method, path)
  await nginx.start()

  const secret = callbackPath().slice(-43)
  const knocks = [
    `/gateway/callbacks/${secret}`,
    `//gateway/callbacks/${secret}`,
    `/%67ateway/callbacks/${secret}?a=b`,
    `/gateway/results/${secret}`
  ]
  t.same(await call('POST', knocks[0]!), { status: 200, text: '{}' })
  for (const path of knocks) await call('POST', path)
  const moved = await fetch(`http://127.0.0.1:${nginx.plainPort}${knocks[0]}`, { method: 'POST', redirect: 'manual' })
  t.equal(moved.status, 308)
  await gateway.close()
  t.equal((await call('GET', '/livez')).status, 502)
  for (const path of knocks) t.equal((await call('POST', path)).status, 502, path)
  await until('the logs', () => nginx.logs().includes('/livez'))
  t.match(nginx.logs(), 'Connection refused', 'other trouble is still told')
  t.notMatch(nginx.logs(), secret)
})
