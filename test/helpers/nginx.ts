import { execFileSync } from 'node:child_process'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Test } from 'tap'
import { certificate } from './certificate.ts'
import { root, startProgram } from './program.ts'
import { closedPort } from './raw-server.ts'
import { nginxPath } from './system-packages.ts'
import { until } from './until.ts'

/** An nginx with nothing of the system's own. What it has started ends with its test. */
export interface Nginx {
  /** Throws when it does not take its configuration, with what it says of it. */
  check (): void
  /** Resolves when it listens. */
  start (): Promise<void>
  /** All it has logged so far. */
  logs (): string
}

/** The example in front of one gateway. */
export interface ExampleNginx extends Nginx {
  /** Where it speaks TLS, as `exampleHost`. */
  readonly port: number
  readonly plainPort: number
  /** In PEM. */
  readonly cert: string
}

export interface ExampleOptions {
  /** HTML, at `/page`: a front end beside the gateway. */
  readonly page?: string
}

/** As the example says. */
export const exampleHost = 'gateway.example'
const examples = join(root, 'config/examples')

/** The rest of what nginx has to be told. Paths are within its folder. */
const around = (sites: string): string => `
  daemon off;
  master_process off;
  pid nginx.pid;
  error_log error.log info;
  events {}
  http {
    access_log access.log;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    ${sites}
  }`

/** `sites` is what stands in `http`; `port` is one where it listens, and `files` are those that it names. */
export function nginx (t: Test, sites: string, port: number, files: Readonly<Record<string, string>> = {}): Nginx {
  const folder = mkdtempSync(join(tmpdir(), 'gateway-nginx-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  for (const [name, text] of Object.entries({ ...files, 'nginx.conf': around(sites) })) {
    writeFileSync(join(folder, name), text)
  }
  const options = ['-p', folder, '-c', 'nginx.conf', '-e', 'error.log']
  return {
    check: () => { execFileSync(nginxPath(), ['-t', ...options], { stdio: 'pipe' }) },
    async start () {
      startProgram(t, [nginxPath(), ...options], { cwd: folder })
      await until('nginx to listen', () => isListening(port))
    },
    logs: () => ['access.log', 'error.log'].map(name => readFileSync(join(folder, name), 'utf8')).join('')
  }
}

/** The example as it ships: nothing is changed but what a reader has to change, and the ports. */
export async function exampleNginx (t: Test, gateway: string, { page }: ExampleOptions = {}): Promise<ExampleNginx> {
  const { cert, key } = certificate(t, exampleHost)
  const [port, plainPort] = [await closedPort(), await closedPort()]
  const site = readFileSync(join(examples, 'nginx.conf'), 'utf8')
    .replace('127.0.0.1:8080', new URL(gateway).host)
    .replace('listen 80;', `listen 127.0.0.1:${plainPort};`)
    .replace('listen 443 ssl;', `listen 127.0.0.1:${port} ssl;`)
    .replace('/etc/nginx/tls/gateway.example.pem', 'cert.pem')
    .replace('/etc/nginx/tls/gateway.example.key', 'key.pem')
    .replace(
      '  location / {',
      `${page === undefined ? '' : '  location = /page { default_type text/html; alias page.html; }\n\n'}  location / {`
    )
  return {
    port,
    plainPort,
    cert,
    ...nginx(t, site, port, { 'cert.pem': cert, 'key.pem': key, 'page.html': page ?? '' })
  }
}

export interface ReplicasNginx extends Nginx {
  readonly origin: string
  /** What the name `replica` stands for, from now on. */
  setAddresses (addresses: readonly string[]): void
}

/** The example that compose puts in front of replicas, with these addresses of loopback for theirs, all on one port. */
export async function replicasNginx (
  t: Test,
  replicaPort: number,
  addresses: readonly string[] = ['127.0.0.1']
): Promise<ReplicasNginx> {
  const [port, names] = [await closedPort(), await nameServer(t, addresses)]
  const site = readFileSync(join(examples, 'nginx-replicas.conf'), 'utf8')
    .replace('resolver 127.0.0.11 ', `resolver 127.0.0.1:${names.port} `)
    .replace('replica:8080', `replica:${replicaPort}`)
    .replace('listen 8080;', `listen 127.0.0.1:${port};`)
  return { origin: `http://127.0.0.1:${port}`, setAddresses: names.setAddresses, ...nginx(t, site, port) }
}

/** Answers each question with the same addresses, as Docker's own does for a service (RFC 1035 section 4). */
async function nameServer (t: Test, addresses: readonly string[]) {
  const socket = createSocket('udp4')
  t.teardown(() => { socket.close() })
  socket.on('message', (question, { port, address }) => {
    const answer = Buffer.from(question)
    answer.writeUInt16BE(0x8180, 2) // an answer, without an error
    answer.writeUInt16BE(addresses.length, 6)
    const records = addresses.map(text => Buffer.from([
      0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, ...text.split('.').map(Number) // the name asked for, A, IN, one second
    ]))
    socket.send(Buffer.concat([answer, ...records]), port, address)
  })
  socket.bind(0, '127.0.0.1')
  await once(socket, 'listening')
  return { port: socket.address().port, setAddresses: (other: readonly string[]) => { addresses = other } }
}

function isListening (port: number): Promise<boolean> {
  return new Promise(resolve => {
    const socket = connect(port, '127.0.0.1', () => {
      socket.destroy()
      resolve(true)
    }).on('error', () => resolve(false))
  })
}
