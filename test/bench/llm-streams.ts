import { connect } from 'node:net'
import { setTimeout as wait } from 'node:timers/promises'
import { type Scripted, startGateway } from './gateways.ts'
import { median, percentile } from './numbers.ts'
import type { Comparison, Plan } from './plan.ts'
import type { Running } from './process.ts'
import { report } from './report.ts'
import { bearer, type Headers, json } from './shots.ts'
import { raw, type Stage } from './targets.ts'

/** A program that passes chat completions on. */
interface LlmTarget extends Running {
  readonly headers: Headers
}

/** What one round gave. */
export interface LlmMeasured {
  /** From the request to the first event, one call at a time. */
  readonly firstP50Ms: number
  readonly firstP99Ms: number
  readonly cpuMicrosPerEvent: number
  /** The most memory it ever took, on top of what it took when it was ready. */
  readonly addedBytes: number
  /** Events that never came, or came twice. */
  readonly lost: number
  /** Events that came in one piece with the one before, which the upstream had written a step earlier. */
  readonly merged: number
  /** Events that came later than a step after they were written. */
  readonly late: number
  /** How long an event was under way, ms. */
  readonly p99Ms: number
}

/** One event as it came: when it was written and read, Unix ms, and in which piece. */
export interface Told {
  readonly number: number
  readonly writtenAt: number
  readonly readAt: number
  readonly piece: number
}

type LlmComparison = Extract<Comparison, { kind: 'llm' }>

const prices = { 'gpt-*': { inputPerMillion: 100, outputPerMillion: 400 }, '*': 1 }

/** Ours and the floor, in turn. Both are warm: the first round, of fewer streams, does not count. */
export async function measureLlm (
  stage: Stage, ours: Scripted, { streams, events, stepMs }: LlmComparison, { rounds }: Pick<Plan, 'rounds'>
): Promise<ReadonlyMap<string, readonly LlmMeasured[]>> {
  const gateway = await startGateway(stage, { ...ours, prices })
  const targets: LlmTarget[] = [
    { ...await raw(stage, streams), headers: {} },
    { ...gateway, headers: bearer(await gateway.mint('bench-llm')) }
  ]
  const found = new Map(targets.map(({ name }): [string, LlmMeasured[]] => [name, []]))
  for (let round = 0; round <= rounds; round++) {
    for (const target of round % 2 === 1 ? targets : targets.toReversed()) {
      const measured = await measure(target, round === 0 ? Math.ceil(streams / 5) : streams, events, stepMs)
      if (round > 0) found.get(target.name)!.push(measured)
    }
  }
  return found
}

async function measure (target: LlmTarget, streams: number, events: number, stepMs: number): Promise<LlmMeasured> {
  const firsts: number[] = []
  for (let call = 0; call < streams; call++) {
    const began = now()
    firsts.push((await readStream(target, 1, 0))[0]!.readAt - began)
  }
  firsts.sort((a, b) => a - b)
  const before = target.cpuMicros()
  const all = await Promise.all(Array.from({ length: streams }, async (_, index) => {
    await wait(index % 50 * stepMs / 50) // not all in the same millisecond
    return await readStream(target, events, stepMs)
  }))
  const cpu = target.cpuMicros() - before
  return {
    firstP50Ms: percentile(firsts, 0.5),
    firstP99Ms: percentile(firsts, 0.99),
    cpuMicrosPerEvent: cpu / (streams * events),
    addedBytes: target.peakBytes() - target.idleBytes,
    ...judgeEvents(all, events, stepMs)
  }
}

/** What became of the events of all streams. */
export function judgeEvents (
  streams: ReadonlyArray<readonly Told[]>, events: number, stepMs: number
): Pick<LlmMeasured, 'lost' | 'merged' | 'late' | 'p99Ms'> {
  const ways = streams.flat().map(({ writtenAt, readAt }) => readAt - writtenAt).sort((a, b) => a - b)
  const isMerged = (told: Told, before: Told | undefined): boolean =>
    before !== undefined && told.piece === before.piece && told.writtenAt - before.writtenAt >= stepMs / 2
  return {
    lost: streams.reduce((sum, told) =>
      sum + events - told.filter(({ number }, index) => number === index).length, 0),
    merged: streams.flatMap(told => told.filter((one, index) => isMerged(one, told[index - 1]))).length,
    late: ways.filter(ms => ms > stepMs).length,
    p99Ms: percentile(ways, 0.99)
  }
}

function now (): number {
  return performance.timeOrigin + performance.now()
}

/** One call on a connection of its own, read to its end. Throws at anything but a stream. */
function readStream ({ port, headers }: LlmTarget, events: number, stepMs: number): Promise<Told[]> {
  const body = JSON.stringify({
    model: 'gpt-5.4', stream: true, max_completion_tokens: 2000, messages: [{ role: 'user', content: `${events}x${stepMs}` }]
  })
  const lines = { host: `127.0.0.1:${port}`, connection: 'close', ...json, ...headers, 'content-length': body.length }
  const head = Object.entries(lines).map(([name, value]) => `${name}: ${value}\r\n`).join('')
  return new Promise((resolve, reject) => {
    const told: Told[] = []
    const socket = connect({ port, host: '127.0.0.1' }).setEncoding('latin1')
    let [text, piece] = ['', 0]
    socket.on('data', chunk => {
      const readAt = now()
      if (piece++ === 0 && !String(chunk).startsWith('HTTP/1.1 200')) reject(new Error(`no stream: ${String(chunk).slice(0, 400)}`))
      text += chunk
      for (const [, number, writtenAt] of text.matchAll(/ w(\d+)@([\d.]+);/g)) {
        told.push({ number: Number(number), writtenAt: Number(writtenAt), readAt, piece })
      }
      text = text.slice(text.lastIndexOf(';"') + 1)
    })
    socket.once('error', reject)
    socket.once('close', () => resolve(told))
    socket.write(`POST /v1/chat/completions HTTP/1.1\r\n${head}\r\n${body}`)
  })
}

/** Each beside the first one, round by round. */
export function llmReport (found: ReadonlyMap<string, readonly LlmMeasured[]>): string {
  const [base] = found.values()
  const rows = Array.from(found, ([name, rounds]) => {
    const of = (key: keyof LlmMeasured) => rounds.map(round => round[key])
    const against = (key: keyof LlmMeasured) => median(of(key).map((value, at) => value / base![at]![key])).toFixed(2)
    const sum = (key: keyof LlmMeasured) => String(of(key).reduce((all, value) => all + value, 0))
    return [
      name,
      median(of('firstP50Ms')).toFixed(2), median(of('firstP99Ms')).toFixed(2), against('firstP99Ms'),
      median(of('cpuMicrosPerEvent')).toFixed(1), against('cpuMicrosPerEvent'),
      (median(of('addedBytes')) / 1e6).toFixed(0), against('addedBytes'),
      sum('lost'), sum('merged'), sum('late'), median(of('p99Ms')).toFixed(1)
    ]
  })
  const head = [
    '', 'first p50 ms', 'p99', '× raw', 'cpu µs/event', '× raw', 'memory added MB', '× raw', 'lost', 'merged', 'late', 'way p99 ms'
  ]
  return report([{ title: 'streams of LLM calls', head, rows }])
}
