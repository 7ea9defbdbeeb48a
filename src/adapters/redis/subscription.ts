import type { Redis } from 'ioredis'
import { backoffMs, type Connection } from './connection.ts'

export interface SubscriptionOptions {
  readonly connection: Pick<Connection, 'another' | 'lose'>
  readonly channel: string
  readonly hear: (message: Buffer) => void
  /** It listens again: what was said in the meantime is lost. */
  readonly resumed: () => void
}

/** Hears what is said on a channel. */
export interface Subscription {
  /** Listens over another connection, in a cluster perhaps to another node. */
  renew (): void
  close (): void
}

/**
 * Listens over a connection of its own. It is made again for ever; throws when it can not be made at first.
 *
 * The client's own way to come back does not say when it has, and in a cluster not that it has failed to.
 */
export async function subscription ({ connection, channel, hear, resumed }: SubscriptionOptions): Promise<Subscription> {
  let current: Redis
  let isClosed = false
  let timer: NodeJS.Timeout | undefined

  const listen = async (): Promise<void> => {
    const client = current = connection.another()
    client.on('messageBuffer', (_channel: Buffer, message: Buffer) => hear(message))
    await client.connect()
    try {
      await client.subscribe(channel)
    } catch (error) {
      client.disconnect()
      connection.lose(error as Error)
      throw error
    }
    client.once('end', () => again(1))
  }
  const again = (times: number): void => {
    if (isClosed) return
    timer = setTimeout(() => { listen().then(resumed, () => again(times + 1)) }, backoffMs(times)).unref()
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
