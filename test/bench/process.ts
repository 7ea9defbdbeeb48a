import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync, readdirSync, readFileSync } from 'node:fs'
import { connect, createServer, type AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { processorTicks, scheduledNanos } from './numbers.ts'

/** The processor that the measured program has to itself, and the one that load and upstream share. */
export const cpus = { measured: 0, others: 1 } as const

const canPin = spawnSync('taskset', ['-c', `${cpus.measured},${cpus.others}`, 'true'], { stdio: 'ignore' }).status === 0
const ticksPerSecond = Number(spawnSync('getconf', ['CLK_TCK'], { encoding: 'utf8' }).stdout) || 100

/** Also those that a signal finds while they start, and nobody else knows of yet. */
const children = new Set<ChildProcess>()
process.on('exit', () => { for (const child of children) child.kill('SIGKILL') })

export interface Program {
  readonly name: string
  readonly command: readonly [string, ...string[]]
  readonly cpu: number
  readonly port: number
  /** Answers 200 once the program is ready; `null`: it is ready when it takes connections. */
  readonly readyPath: string | null
  readonly env: Readonly<Record<string, string>>
  readonly cwd: string
  /** Where its standard output and error go. */
  readonly logFile: string
}

export interface Running {
  readonly name: string
  readonly port: number
  readonly readySeconds: number
  /** Resident memory when it had just become ready. */
  readonly idleBytes: number
  /** User and system time since its start, in µs, all threads. */
  cpuMicros (): number
  residentBytes (): number
  /** The most that it ever was. */
  peakBytes (): number
  /** SIGTERM, and SIGKILL when that is not enough, or when asked for. */
  stop (signal?: 'SIGKILL'): Promise<void>
}

/** Whether programs are kept on processors of their own (needs `taskset` and two processors). */
export function pinned (): boolean {
  return canPin
}

/** Moves this process, which makes the load, to its processor. */
export function pinSelf (): void {
  if (canPin) spawnSync('taskset', ['-a', '-p', '-c', String(cpus.others), String(process.pid)], { stdio: 'ignore' })
}

/** A port that was free a moment ago. */
export async function freePort (): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}

/** Starts a program and waits until it is ready. Throws, with the end of its log, when it is not within 15 s. */
export async function start (program: Program): Promise<Running> {
  const { name, command, cpu, port, env, cwd, logFile } = program
  const [file, ...args] = canPin ? ['taskset', '-c', String(cpu), ...command] as const : command
  const log = openSync(logFile, 'a')
  const startedAt = performance.now()
  // Its environment is what the program is given and no more, lest a variable of this shell changes what is measured.
  const child = spawn(file, args, { cwd, env: { PATH: process.env.PATH, ...env }, stdio: ['ignore', log, log] })
  closeSync(log)
  children.add(child)
  child.once('exit', () => { children.delete(child) })
  try {
    await ready(child, program)
  } catch (error) {
    await stop(child)
    throw new Error(`${name} did not start: ${tail(logFile)}`, { cause: error })
  }
  const readySeconds = (performance.now() - startedAt) / 1000
  const bytes = (field: 'VmRSS' | 'VmHWM') =>
    Number(new RegExp(`${field}:\\s+(\\d+)`).exec(readFileSync(`/proc/${child.pid}/status`, 'utf8'))?.[1]) * 1024
  const residentBytes = () => bytes('VmRSS')
  return {
    name,
    port,
    readySeconds,
    idleBytes: residentBytes(),
    cpuMicros: () => cpuMicros(child.pid!), // taskset replaces itself by the program, so this is the program's own
    residentBytes,
    peakBytes: () => bytes('VmHWM'),
    stop: signal => stop(child, signal)
  }
}

/**
 * By the scheduler's own count, to the nanosecond, where the kernel keeps one. Else in ticks of 10 ms, which are off by
 * half a percent in two seconds.
 */
function cpuMicros (pid: number): number {
  try {
    const threads = readdirSync(`/proc/${pid}/task`)
    const nanos = threads.map(thread => scheduledNanos(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'utf8')))
    return nanos.reduce((sum, nano) => sum + nano, 0) / 1000
  } catch {
    return processorTicks(readFileSync(`/proc/${pid}/stat`, 'utf8')) / ticksPerSecond * 1e6
  }
}

async function ready (child: ChildProcess, { port, readyPath }: Program): Promise<void> {
  let gone: unknown = null
  child.once('error', error => { gone = error })
  child.once('exit', (code, signal) => { gone = new Error(`exit ${code ?? signal}`) })
  const until = performance.now() + 15_000
  while (performance.now() < until) {
    if (gone !== null) throw gone
    if (await (readyPath === null ? takesConnections(port) : answersWell(`http://127.0.0.1:${port}${readyPath}`))) {
      return
    }
    await sleep(10)
  }
  throw new Error('not ready within 15 s')
}

async function answersWell (url: string): Promise<boolean> {
  return await fetch(url, { signal: AbortSignal.timeout(1000) })
    .then(async response => { await response.arrayBuffer(); return response.ok }, () => false)
}

async function takesConnections (port: number): Promise<boolean> {
  const socket = connect(port, '127.0.0.1')
  try {
    await once(socket, 'connect')
    return true
  } catch {
    return false
  } finally {
    socket.destroy()
  }
}

async function stop (child: ChildProcess, signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return
  const exited = once(child, 'exit')
  child.kill(signal)
  const killer = setTimeout(() => child.kill('SIGKILL'), 12_000)
  await exited
  clearTimeout(killer)
}

export function tail (logFile: string): string {
  return readFileSync(logFile, 'utf8').slice(-2000)
}
