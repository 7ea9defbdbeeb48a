import { execFileSync } from 'node:child_process'
import { globSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { parse } from 'yaml'
import { environmentVariables } from '../src/settings.ts'
import { root } from './helpers/program.ts'

const read = (name: string): string => readFileSync(join(root, name), 'utf8')
const parsed = (name: string) => parse(read(name), { merge: true })
const { services } = parsed('docker-compose.yml')
const settings = environmentVariables.flatMap(({ name, secret }) => secret ? [name, `${name}_FILE`] : [name])
/** The image listens on them, and it is Docker that is told which of the machine's stand for them. */
const published = ['HOST', 'PORT']

t.test('compose hands on every setting, and nothing that is none', async t => {
  const handedOn = settings.filter(name => !published.includes(name))
  t.strictSame(Object.keys(services.gateway.environment).sort(), handedOn.sort())
  t.ok(Object.values(services.gateway.environment).every(value => value === null), 'as it is set, or not at all')
  t.strictSame(Object.keys(services.replica.environment).sort(), handedOn)
  for (const name of published) t.match(services.gateway.ports[0], `\${${name}:-`)
  t.match(read('Dockerfile'), /HOST=0\.0\.0\.0 \\\n +PORT=8080 /)
})

t.test('every service is locked down, asked for its health, and started again', async t => {
  t.strictSame(Object.keys(services), ['gateway', 'replica', 'proxy', 'redis'])
  for (const [name, service] of Object.entries<any>(services)) {
    t.match(
      service,
      {
        read_only: true,
        cap_drop: ['ALL'],
        security_opt: ['no-new-privileges:true'],
        restart: 'unless-stopped',
        healthcheck: { interval: '5s' }
      },
      name
    )
    t.equal(service.tmpfs[0], '/tmp', name)
    t.ok(
      (service.ports ?? []).every((port: string) => /^(?:127\.0\.0\.1|\$\{HOST:-127\.0\.0\.1\}):/.test(port)),
      `${name}: this machine alone`
    )
  }
  t.match(read('Dockerfile'), /^HEALTHCHECK --interval=5s /m)
})

t.test('the proxy is published where the example for replicas listens', async t => {
  const [, port] = /^ {2}listen (\d+);$/m.exec(read('config/examples/nginx-replicas.conf'))!
  t.match(services.proxy.ports, [new RegExp(`:${port}$`)])
  t.match(services.proxy.healthcheck.test.join(' '), `/${port}`)
})

t.test('the example with secrets in files names settings, and has a file for each', async t => {
  const { services: { gateway, replica }, secrets } = parsed('config/examples/docker-compose.secrets.yml')
  const named = environmentVariables.filter(({ secret }) => secret).map(({ name }) => `${name}_FILE`)
  t.strictSame(Object.keys(gateway.environment), named, 'every secret')
  t.strictSame(Object.values(gateway.environment), gateway.secrets.map((name: string) => `/run/secrets/${name}`))
  t.strictSame(Object.keys(secrets), gateway.secrets)
  t.same(replica, gateway)
  for (const [name, { file }] of Object.entries<any>(secrets)) t.equal(file, `./secrets/${name}`)
})

t.test('the lines of that example make files that can be read, in a folder that nobody else can open', async t => {
  const cwd = t.testdir({})
  const lines = Array.from(
    read('config/examples/docker-compose.secrets.yml').matchAll(/^# {3}(.+)$/gm),
    ([, line]) => line!
  )
  t.match(
    lines.pop(),
    /^docker compose -f docker-compose\.yml -f config\/examples\/docker-compose\.secrets\.yml up -d /
  )
  execFileSync('sh', ['-euc', lines.join('\n')], { cwd })
  t.equal(statSync(join(cwd, 'secrets')).mode & 0o777, 0o700)
  const names = globSync('*', { cwd: join(cwd, 'secrets') }).sort()
  t.strictSame(names, Object.keys(parsed('config/examples/docker-compose.secrets.yml').secrets).sort())
  for (const name of names) t.equal(statSync(join(cwd, 'secrets', name)).mode & 0o777, 0o644, name)
})
