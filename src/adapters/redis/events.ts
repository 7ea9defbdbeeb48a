import { randomUUID } from 'node:crypto'
import type { TaskEvent, TaskEvents } from '../../domain/status/events.ts'
import type { Commands } from './commands.ts'
import type { Connection } from './connection.ts'
import { messageIn, textOf } from './event-messages.ts'
import { subscription } from './subscription.ts'

export interface RedisEventsOptions {
  readonly connection: Connection
  readonly commands: Pick<Commands, 'on'>
  readonly channel: string
  /** How often a replica says that it is there, ms. */
  readonly beatMs?: number
}

export interface RedisEvents extends TaskEvents {
  /** Asks the other replicas to say that they are there (`Pulse`). */
  ask (): void
  /** Another replica has asked. */
  onAsked (listener: () => void): void
  close (): void
}

/**
 * The events of all replicas, on one channel, each with its whole envelope: that of a task that runs stands in no ledger.
 * What is published here is heard here at once, and elsewhere by way of Redis, in order.
 *
 * Redis promises nothing about messages. So each replica listens for its own heartbeat: when that was sent and is not heard,
 * the line is dead, even if the connection looks alive. And a heartbeat tells the others when something before it could not
 * be sent. Throws when nobody can listen or speak.
 */
export async function redisEvents ({ connection, commands, channel, beatMs = 5000 }: RedisEventsOptions): Promise<RedisEvents> {
  const from = randomUUID()
  const { join, tell, miss } = audience()
  const listeners: Array<() => void> = []
  const send = async (event: TaskEvent | null, hasLost: boolean, asks = false): Promise<void> => {
    // A script is run where its key is at home: so messages stay in order in a cluster, too.
    await commands.on(channel, 'announce', textOf({ from, hasLost, event, asks }))
  }
  const heart = heartbeat(hasLost => send(null, hasLost))

  const hear = (bytes: Buffer): void => {
    const message = messageIn(bytes)
    if (message?.from === from) heart.heard()
    else if (message?.event) tell(message.event)
    else if (message?.asks === true) for (const listener of listeners) listener()
    else if (message?.hasLost) miss()
  }
  const resumed = (): void => {
    heart.heard() // what was said before can not be any more
    miss()
  }
  const line = await subscription({ connection, channel, hear, resumed })
  const timer = setInterval(() => { heart.beat(line.renew).catch(() => { /* whoever opened the store is told */ }) }, beatMs).unref()
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
      send(event, false).catch(heart.lost)
      tell(event)
    },
    subscribe: join,
    ask () { send(null, false, true).catch(() => { /* they say so by themselves, within a second */ }) },
    onAsked (listener) { listeners.push(listener) },
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

/** Who listens on this replica. */
function audience () {
  const listeners = new Set<{ readonly hear: (event: TaskEvent) => void, readonly onGap: () => void }>()
  return {
    join (hear: (event: TaskEvent) => void, onGap: () => void): () => void {
      const listener = { hear, onGap } // the same function may listen twice
      listeners.add(listener)
      return () => { listeners.delete(listener) }
    },
    tell (event: TaskEvent): void {
      // A copy: a listener may well end its own subscription, or another's, while it is told.
      for (const listener of [...listeners]) if (listeners.has(listener)) listener.hear(event)
    },
    miss (): void {
      for (const { onGap } of [...listeners]) onGap()
    }
  }
}
