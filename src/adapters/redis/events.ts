import type { Redis } from 'ioredis'
import { randomUUID } from 'node:crypto'
import { type CreditsEvent, type CreditsEvents, localChannel } from '../../domain/credit-notices.ts'
import type { PollLeases } from '../../domain/status-poller.ts'
import { type LastStatus, lastStatus, type TaskEvent, type TaskEvents } from '../../domain/task-status.ts'
import { backoffMs, type Commands, type Connection } from './client.ts'
import type { KeyNames } from './keys.ts'
import { headOf } from './scripts.ts'

/** What replicas tell each other: an event; or, without one, that they are there. */
interface Message {
  /** The replica that sent it. */
  readonly from: string
  /** Something that it has sent before did not go out. */
  readonly hasLost: boolean
  readonly event: TaskEvent | null
  readonly credits?: CreditsEvent | undefined
  /** It wants to know which others are there. */
  readonly asks?: boolean
}

const newline = 10

/** A line of JSON, which has no line break in it, and then the envelope as it is. */
export function textOf ({ from, hasLost, event, credits, asks }: Message): Buffer {
  const { body, ...about } = event ?? { body: Buffer.alloc(0) }
  const head = JSON.stringify({ from, hasLost, credits, asks: asks || undefined, ...about })
  return Buffer.concat([Buffer.from(`${head}\n`), body])
}

/** `null`: no replica of ours has sent this. Names that it does not know are a later version's. */
function messageIn (bytes: Buffer): Message | null {
  const end = bytes.indexOf(newline)
  const head = fieldsIn(bytes.subarray(0, Math.max(end, 0)).toString())
  if (typeof head.from !== 'string' || typeof head.hasLost !== 'boolean') return null
  const { from, hasLost, subject, taskId, model, state, isFinal, at } = head
  if (taskId === undefined) {
    return { from, hasLost, event: null, credits: creditsIn(head.credits), asks: head.asks === true }
  }
  const isText = (value: unknown): value is string => typeof value === 'string'
  if (
    !isText(subject) ||
    !isText(taskId) ||
    !isText(model) ||
    !isText(state) ||
    typeof isFinal !== 'boolean' ||
    typeof at !== 'number'
  ) { return null }
  return { from, hasLost, event: { subject, taskId, model, state, isFinal, at, body: bytes.subarray(end + 1) } }
}

function creditsIn (value: unknown): CreditsEvent | undefined {
  const { subject, plan, pool, window, usedPercent, left, resetsAt } = Object(value) as Fields
  const isWhole =
    typeof subject === 'string' &&
    typeof plan === 'string' &&
    (pool === null || typeof pool === 'string') &&
    typeof window === 'string' &&
    (usedPercent === 80 || usedPercent === 100) &&
    typeof left === 'number' &&
    (resetsAt === null || typeof resetsAt === 'number')
  return isWhole ? { subject, plan, pool, window, usedPercent, left, resetsAt } : undefined
}

type Fields = Readonly<Record<string, unknown>>

function fieldsIn (text: string): Fields {
  try {
    return Object(JSON.parse(text))
  } catch {
    return {}
  }
}

interface SubscriptionOptions {
  readonly connection: Pick<Connection, 'another' | 'reportLost'>
  readonly channel: string
  readonly onMessage: (message: Buffer) => void
  /** It listens again: what was said in the meantime is lost. */
  readonly onResumed: () => void
}

/** Hears what is said on a channel. */
interface Subscription {
  /** Listens over another connection, in a cluster perhaps to another node. */
  renew (): void
  close (): void
}

/**
 * Listens over a connection of its own. It is made again for ever; throws when it can not be made at first.
 *
 * The client's own way to come back does not say when it has, and in a cluster not that it has failed to.
 */
async function subscription (
  { connection, channel, onMessage, onResumed }: SubscriptionOptions
): Promise<Subscription> {
  let current: Redis
  let isClosed = false
  let timer: NodeJS.Timeout | undefined

  const listen = async (): Promise<void> => {
    const client = current = connection.another()
    client.on('messageBuffer', (_channel: Buffer, message: Buffer) => onMessage(message))
    await client.connect()
    try {
      await client.subscribe(channel)
    } catch (error) {
      client.disconnect()
      connection.reportLost(error as Error)
      throw error
    }
    client.once('end', () => again(1))
  }
  const again = (times: number): void => {
    if (isClosed) return
    timer = setTimeout(() => { listen().then(onResumed, () => again(times + 1)) }, backoffMs(times)).unref()
  }

  await listen()
  return {
    renew: () => current.disconnect(),
    close () {
      isClosed = true
      clearTimeout(timer)
      current.disconnect()
    }
  }
}

interface RedisEventsOptions {
  readonly connection: Connection
  readonly commands: Pick<Commands, 'on'>
  readonly channel: string
  /** How often a replica says that it is there, ms. */
  readonly beatMs?: number
}

export interface RedisEvents extends TaskEvents {
  /** On the same channel. */
  readonly credits: CreditsEvents
  /** Asks the other replicas to say that they are there (`Pulse`). */
  ask (): void
  /** Another replica has asked. */
  onAsked (listener: () => void): void
  close (): void
}

/**
 * The events of all replicas, on one channel, each with its whole envelope: that of a task that runs stands in no
 * ledger. What is published here is heard here at once, and elsewhere by way of Redis, in order.
 *
 * Redis promises nothing about messages. So each replica listens for its own heartbeat: when that was sent and is not
 * heard, the line is dead, even if the connection looks alive. And a heartbeat tells the others when something before
 * it could not be sent. Throws when nobody can listen or speak.
 */
export async function redisEvents ({
  connection,
  commands,
  channel,
  beatMs = 5000
}: RedisEventsOptions): Promise<RedisEvents> {
  const from = randomUUID()
  const { subscribe, emit, emitGap } = listeners()
  const credits = localChannel<CreditsEvent>()
  const whenAsked: Array<() => void> = []
  const send = async (message: Omit<Message, 'from'>): Promise<void> => {
    // A script is run where its key is at home: so messages stay in order in a cluster, too.
    await commands.on(channel, 'publishMessage', {}, textOf({ from, ...message }))
  }
  const heart = heartbeat(hasLost => send({ event: null, hasLost }))

  const onMessage = (bytes: Buffer): void => {
    const message = messageIn(bytes)
    if (message?.from === from) heart.heard()
    else if (message?.event) emit(message.event)
    else if (message?.credits) credits.publish(message.credits)
    else if (message?.asks === true) for (const listener of whenAsked) listener()
    else if (message?.hasLost) emitGap()
  }
  const onResumed = (): void => {
    heart.heard() // what was said before can not be any more
    emitGap()
  }
  const line = await subscription({ connection, channel, onMessage, onResumed })
  const timer = setInterval(() => {
    heart.beat(line.renew).catch(() => {
      /* the opener of the store is told */
    })
  }, beatMs).unref()
  const close = (): void => {
    clearInterval(timer)
    line.close()
  }
  await heart.beat(line.renew).catch((error: unknown) => {
    close()
    throw error
  })

  return {
    publish (event) {
      send({ event, hasLost: false }).catch(heart.lost)
      emit(event)
    },
    subscribe,
    credits: {
      publish (event) {
        send({ event: null, hasLost: false, credits: event }).catch(() => { /* the header says it each time */ })
        credits.publish(event)
      },
      subscribe: credits.subscribe
    },
    ask () {
      const asking = send({ event: null, hasLost: false, asks: true })
      asking.catch(() => { /* they say so by themselves, within a second */ })
    },
    onAsked (listener) { whenAsked.push(listener) },
    close
  }
}

/** Says that this replica is there, and finds out whether it hears itself. */
function heartbeat (send: (hasLost: boolean) => Promise<void>) {
  let isHeard = true
  let hasLost = false
  return {
    heard (): void { isHeard = true },
    /** Something could not be sent. */
    lost (): void { hasLost = true },
    /** `renew` is called when the one before was sent and not heard. */
    async beat (renew: () => void): Promise<void> {
      if (!isHeard) renew()
      const lost = hasLost
      isHeard = hasLost = false
      await send(lost).catch((error: unknown) => {
        isHeard = true // nobody can tell
        hasLost ||= lost
        throw error
      })
    }
  }
}

/** Those that listen on this replica. */
function listeners () {
  const all = new Set<{ readonly onEvent: (event: TaskEvent) => void, readonly onGap: () => void }>()
  return {
    subscribe (onEvent: (event: TaskEvent) => void, onGap: () => void): () => void {
      const listener = { onEvent, onGap } // the same function may listen twice
      all.add(listener)
      return () => { all.delete(listener) }
    },
    emit (event: TaskEvent): void {
      // A copy: a listener may well end its own subscription, or another's, while it is told.
      for (const listener of [...all]) if (all.has(listener)) listener.onEvent(event)
    },
    emitGap (): void {
      for (const { onGap } of [...all]) onGap()
    }
  }
}

interface PollLeasesOptions {
  readonly now: () => number
  /** A lease that was not released by then is free again, ms: longer than a status call may last. */
  readonly leaseMs: number
}

/**
 * How long the last answer outlives its interval, ms: the next one is being asked for then. It also bounds for how long
 * a replica whose clock is ahead can keep the others from asking.
 */
const slackMs = 60_000

/** The leases of all replicas: a key for each task, in a slot of its own, which goes by itself. */
export function redisPollLeases ({ on }: Commands, keys: KeyNames, { now, leaseMs }: PollLeasesOptions): PollLeases {
  /** A name for each lease that this replica has, by the task. */
  const askers = new Map<string, string>()

  const end = async (taskId: string, asker: string, last: LastStatus | null, intervalMs: number): Promise<void> => {
    const answer = last ?? undefined
    const request = { asker, freeAt: now() + intervalMs, keptMs: intervalMs + slackMs, answer: headOf(answer) }
    await on(keys.pollLease(taskId), 'releaseLease', request, answer?.body)
  }
  return {
    async acquire (taskId, intervalMs, hasNews = false) {
      const asker = randomUUID()
      const [at, keptMs] = [now(), leaseMs + slackMs]
      const request = { now: at, intervalMs, hasNews, asker, endsAt: at + leaseMs, keptMs }
      const reply = await on(keys.pollLease(taskId), 'acquireLease', request).catch((error: unknown) => {
        // It may have been given all the same, and then nobody would ask for as long as it lasts.
        end(taskId, asker, null, intervalMs).catch(() => {})
        throw error
      })
      if (reply === null) {
        askers.set(taskId, asker)
        return { acquired: true }
      }
      const [nextInMs, status, contentType, body] = reply as readonly [number, ...Array<Buffer | null>]
      return {
        acquired: false,
        last: status
          ? lastStatus({ status: Number(status), contentType: String(contentType), body: body! }, taskId)
          : null,
        nextInMs
      }
    },
    async release (taskId, last, intervalMs) {
      const asker = askers.get(taskId) ?? ''
      askers.delete(taskId)
      await end(taskId, asker, last, intervalMs)
    }
  }
}
