import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Redis } from 'ioredis'
import type { Test } from 'tap'
import { redisServerPath } from './system-packages.ts'
import { until } from './until.ts'

export interface RedisServerOptions {
  readonly password?: string
  /** Speaks TLS alone, with a certificate for localhost. */
  readonly tls?: Certificates
  /** Writes to disk before it answers, and knows everything after a restart. */
  readonly appendonly?: boolean
  /** `maxmemory-policy`. */
  readonly policy?: string
  /** Any other directive, as on the command line. */
  readonly directives?: readonly string[]
}

/** A real Redis on a port of loopback. It is killed, and its files go, when its test ends. */
export interface RedisServer {
  readonly port: number
  readonly url: string
  /** A client of the test's own, which waits for a server that is away. */
  readonly admin: Redis
  /** The machine fails: nothing is said to anybody. */
  kill (): Promise<void>
  /** On the same port, with the same files. */
  start (): Promise<void>
  /** The process holds still, as in a long garbage collection or behind a cut cable, and goes on. */
  freeze (): void
  thaw (): void
}

export async function redisServer (t: Test, options: RedisServerOptions = {}): Promise<RedisServer> {
  const port = await freePort()
  const folder = mkdtempSync(join(tmpdir(), 'gateway-redis-'))
  const { password, tls } = options
  const scheme = tls === undefined ? 'redis' : 'rediss'
  let child: ChildProcess | undefined
  const admin = new Redis({
    host: 'localhost',
    family: 4,
    port,
    lazyConnect: true,
    retryStrategy: () => 20,
    maxRetriesPerRequest: null,
    ...(password === undefined ? {} : { password }),
    ...(tls === undefined ? {} : { tls: { ca: tls.authority } })
  })
  admin.on('error', () => {}) // it goes on trying

  const server: RedisServer = {
    port,
    url: `${scheme}://${password === undefined ? '' : `:${encodeURIComponent(password)}@`}localhost:${port}`,
    admin,
    async start () {
      child = spawn(redisServerPath(), directives(port, folder, options), { stdio: 'ignore' })
      await admin.ping()
      await until('the server has read its files', async () => /loading:0/.test(await admin.info('persistence')))
    },
    async kill () {
      if (child === undefined) return
      const ended = child.exitCode === null && child.signalCode === null ? once(child, 'exit') : Promise.resolve()
      child.kill('SIGKILL')
      await ended
    },
    freeze () { child?.kill('SIGSTOP') },
    thaw () { child?.kill('SIGCONT') }
  }
  t.teardown(async () => {
    admin.disconnect()
    await server.kill()
    rmSync(folder, { recursive: true, force: true })
  })
  await server.start()
  return server
}

function directives (
  port: number,
  folder: string,
  { password, tls, appendonly = false, policy = 'noeviction', directives = [] }: RedisServerOptions
): string[] {
  return [
    '--bind', '127.0.0.1', '--dir', folder, '--save', '', '--daemonize', 'no', '--maxmemory-policy', policy,
    '--appendonly', appendonly ? 'yes' : 'no', '--appendfsync', 'always',
    ...(password === undefined ? [] : ['--requirepass', password, '--masterauth', password]),
    ...(tls === undefined ? ['--port', `${port}`] : tlsDirectives(port, tls)),
    ...directives
  ]
}

function tlsDirectives (port: number, { certificateFile, keyFile, authorityFile }: Certificates): string[] {
  return [
    '--port', '0', '--tls-port', `${port}`, '--tls-auth-clients', 'no',
    '--tls-cert-file', certificateFile, '--tls-key-file', keyFile, '--tls-ca-cert-file', authorityFile
  ]
}

export interface RedisCluster {
  readonly servers: readonly RedisServer[]
  readonly url: string
  /** Empties all nodes. */
  clear (): Promise<void>
}

const slots = 16384

/** Three masters that share the slots, and no replicas. */
export async function redisCluster (t: Test, options: RedisServerOptions = {}): Promise<RedisCluster> {
  const directives = ['--cluster-enabled', 'yes', '--cluster-node-timeout', '2000', ...options.directives ?? []]
  const servers = await Promise.all([0, 1, 2].map(() => redisServer(t, { ...options, directives })))
  for (const [index, { admin }] of servers.entries()) {
    const [first, last] = [index, index + 1].map(share => Math.ceil(share * slots / servers.length))
    await admin.call('CLUSTER', 'ADDSLOTSRANGE', first!, last! - 1)
    await admin.call('CLUSTER', 'SET-CONFIG-EPOCH', index + 1)
  }
  for (const { port } of servers.slice(1)) await servers[0]!.admin.cluster('MEET', '127.0.0.1', port)
  for (const { admin } of servers) {
    await until('the cluster has formed', async () => isWhole(await admin.cluster('INFO')))
  }
  return {
    servers,
    url: servers[0]!.url,
    clear: async () => { await Promise.all(servers.map(({ admin }) => admin.flushall())) }
  }
}

function isWhole (report: string): boolean {
  return /cluster_state:ok/.test(report) && /cluster_known_nodes:3/.test(report)
}

export interface Certificates {
  readonly authority: string
  readonly authorityFile: string
  readonly certificateFile: string
  readonly keyFile: string
}

/** An authority of its own, and a certificate of that for localhost. */
export function certificates (t: Test): Certificates {
  const folder = mkdtempSync(join(tmpdir(), 'gateway-tls-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  const openssl = (...args: string[]): string =>
    execFileSync('openssl', args, { cwd: folder, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] })
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes']
  openssl('req', '-x509', ...key, '-keyout', 'ca.key', '-out', 'ca.pem', '-subj', '/CN=test authority', '-days', '2')
  openssl(
    'req',
    '-x509',
    ...key,
    '-keyout',
    'server.key',
    '-out',
    'server.pem',
    '-subj',
    '/CN=localhost',
    '-days',
    '2',
    '-CA',
    'ca.pem',
    '-CAkey',
    'ca.key',
    '-addext',
    'subjectAltName=DNS:localhost,IP:127.0.0.1',
    '-addext',
    'basicConstraints=CA:FALSE'
  )
  return {
    authority: openssl('x509', '-in', 'ca.pem'),
    authorityFile: join(folder, 'ca.pem'),
    certificateFile: join(folder, 'server.pem'),
    keyFile: join(folder, 'server.key')
  }
}

async function freePort (): Promise<number> {
  for (;;) {
    const server = createServer().listen(0, '127.0.0.1')
    await once(server, 'listening')
    const { port } = server.address() as { port: number }
    server.close()
    await once(server, 'close')
    // A node of a cluster also listens ten thousand further on.
    if (port < 55_536) return port
  }
}
