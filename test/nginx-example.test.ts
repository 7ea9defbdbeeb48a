import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { request } from 'node:https'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { calledBackGateway } from './helpers/callbacks.ts'
import { certificate } from './helpers/certificate.ts'
import { root, startProgram } from './helpers/program.ts'
import { closedPort } from './helpers/raw-server.ts'
import { nginxPath } from './helpers/system-packages.ts'
import { until } from './helpers/until.ts'

const example = readFileSync(join(root, 'config/examples/nginx.conf'), 'utf8')
const forReplicas = readFileSync(join(root, 'config/examples/nginx-replicas.conf'), 'utf8')

/** The example, with nothing changed but what a reader has to change, and the ports. */
async function nginx (t: Test, gatewayPort: string) {
  const { cert, key } = certificate(t, 'gateway.example')
  const folder = mkdtempSync(join(tmpdir(), 'gateway-nginx-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  const [port, plainPort] = [await closedPort(), await closedPort()]
  const file = (name: string, text: string): string => {
    writeFileSync(join(folder, name), text)
    return join(folder, name)
  }
  const site = file('site.conf', example
    .replace('127.0.0.1:8080', `127.0.0.1:${gatewayPort}`)
    .replace('listen 80;', `listen 127.0.0.1:${plainPort};`)
    .replace('listen 443 ssl;', `listen 127.0.0.1:${port} ssl;`)
    .replace('/etc/nginx/tls/gateway.example.pem', file('cert.pem', cert))
    .replace('/etc/nginx/tls/gateway.example.key', file('key.pem', key)))
  const config = file('nginx.conf', `
    daemon off; master_process off; pid ${folder}/nginx.pid; error_log ${folder}/error.log info;
    events {}
    http {
      access_log ${folder}/access.log;
      client_body_temp_path ${folder}/body; proxy_temp_path ${folder}/proxy; fastcgi_temp_path ${folder}/fastcgi;
      uwsgi_temp_path ${folder}/uwsgi; scgi_temp_path ${folder}/scgi;
      include ${site};
    }`)
  const logs = (): string => ['access.log', 'error.log'].map(name => readFileSync(join(folder, name), 'utf8')).join('')
  const call = (method: string, path: string, headers = {}) => new Promise<{ status: number, text: string }>((resolve, reject) => {
    request({ host: '127.0.0.1', port, servername: 'gateway.example', ca: cert, method, path, headers: { host: 'gateway.example', ...headers } }, async response => {
      resolve({ status: response.statusCode!, text: Buffer.concat(await response.toArray()).toString() })
    }).once('error', reject).end()
  })
  return { folder, config, plainPort, logs, call }
}

t.test('nginx takes the example as it is', async t => {
  const { folder, config } = await nginx(t, '8080')
  t.doesNotThrow(() => execFileSync(nginxPath(), ['-t', '-p', folder, '-c', config], { stdio: 'pipe' }))
})

t.test('nginx takes the example for replicas, which compose puts in front of them', async t => {
  const { folder, config } = await nginx(t, '8080')
  writeFileSync(join(folder, 'site.conf'), forReplicas.replace('replica:8080', '127.0.0.1:8080').replace('listen 80;', `listen 127.0.0.1:${await closedPort()};`))
  t.doesNotThrow(() => execFileSync(nginxPath(), ['-t', '-p', folder, '-c', config], { stdio: 'pipe' }))
  t.match(readFileSync(join(root, 'docker-compose.yml'), 'utf8'), './config/examples/nginx-replicas.conf:/etc/nginx/')
})

t.test('the secret of a callback is in no log of nginx, whether the gateway answers or not', async t => {
  const { origin, gateway, submit, mint, callbackPath } = await calledBackGateway(t)
  await submit(await mint('alice'))
  const { folder, config, plainPort, call, logs } = await nginx(t, new URL(origin).port)
  startProgram(t, [nginxPath(), '-p', folder, '-c', config], { cwd: folder })
  await until('nginx to listen', () => call('GET', '/livez').then(({ status }) => status === 200, () => false))

  const secret = callbackPath().slice(-43)
  const knocks = [`/gateway/callbacks/${secret}`, `//gateway/callbacks/${secret}`, `/%67ateway/callbacks/${secret}?a=b`, `/gateway/results/${secret}`]
  t.same(await call('POST', knocks[0]!), { status: 200, text: '{}' })
  for (const path of knocks) await call('POST', path)
  const moved = await fetch(`http://127.0.0.1:${plainPort}${knocks[0]}`, { method: 'POST', redirect: 'manual' })
  t.equal(moved.status, 308)
  await gateway.close()
  t.equal((await call('GET', '/livez')).status, 502)
  for (const path of knocks) t.equal((await call('POST', path)).status, 502, path)
  await until('the logs', () => logs().includes('/livez'))
  t.match(logs(), 'Connection refused', 'other trouble is still told')
  t.notMatch(logs(), secret)
})
