import { randomUUID } from 'node:crypto'
import { idempotencyMs, type LedgerTerms } from '../../domain/ledger.ts'
import type { Store } from '../../domain/store.ts'
import type { HeldKeys } from '../../domain/gone-keys.ts'
import { steadyClock, systemClock } from '../../domain/time.ts'
import { activeSubjects } from './active-subjects.ts'
import { redisBooks } from './books.ts'
import {
  type Commands, commands as commandsOver, type Connection, connection, type ConnectionSettings, type MemoryMark,
  memoryMark
} from './client.ts'
import { redisEvents, type RedisEvents, redisPollLeases } from './events.ts'
import { passingOn, redisCeilings, redisHolds } from './holds.ts'
import { type KeyNames, keyNames } from './keys.ts'
import { redisAccounts, redisIdempotency, redisLedger, redisTasks, redisUnfinishedTasks } from './ledger.ts'
import {
  redisAlarmBook, redisAudit, redisCallbackSecrets, redisDeliveries, redisRecords, redisUsage
} from './records.ts'
import { pulse as pulseOf, redisRepeats } from './repeats.ts'
import {
  redisGuestCounts, redisRates, redisRevocations, redisSpentProofs, redisTokens, redisUnknownCalls, redisUpstreamStates
} from './sessions.ts'
import { redisSubjects } from './subjects.ts'
import { taskOwners } from './task-owners.ts'

export interface Leadership {
  /** Whether this replica leads, from now on for a while. */
  leads (): Promise<boolean>
  /** Lets another one lead at once. */
  resign (): Promise<void>
}

/** A leader that has died is followed after this, ms. */
const leaseMs = 15_000

/** It saves work and protects nothing: what a leader does is right if two of them do it. */
export function redisLeadership ({ on }: Commands, { leader }: KeyNames): Leadership {
  const replica = randomUUID()
  return {
    leads: async () => await on(leader, 'lead', { replica, leaseMs }) === 1,
    async resign () { await on(leader, 'deleteValue', { value: replica }) }
  }
}

export interface RedisStoreOptions extends ConnectionSettings {
  readonly terms: LedgerTerms
  readonly now: () => number
  /** Monotonic ms; the system's when absent. */
  readonly elapsed?: () => number
  /** Told once each time that the server is found without what it was told. */
  readonly onGone?: (problem: string) => void
  /** What all keys begin with: two gateways that share a server and not their subjects need two. */
  readonly prefix?: string
}

/** Keys that `ping` writes in a cluster, so that each node most likely has one. */
const probes = 16
const probeMs = 60_000
/** A replica that has died holds no key after this, ms. The others say so again every few seconds. */
const heldMs = 60_000
const untold = (): void => {}

/**
 * Opens the store that replicas share. Nothing is recovered at start, for other replicas may be at work: what a dead
 * one has left is let go by its lease.
 */
export async function redisStore ({
  terms,
  now,
  elapsed = systemClock.elapsed,
  prefix = 'gw',
  onGone = untold,
  ...settings
}: RedisStoreOptions): Promise<Store> {
  const link = await connection(settings)
  const keys = keyNames(prefix)
  try {
    const mark = await memoryMark({ ...link, keys, onGone })
    const commands = passingOn(commandsOver({ connection: link, mark, keys, terms, now }), keys, now)
    const events = await redisEvents({ connection: link, commands, channel: keys.events(link.database) })
    return storeOver(link, commands, keys, { terms, now, elapsed, steady: steadyClock({ now, elapsed }), events, mark })
  } catch (error) {
    await link.close()
    throw link.unusable(error)
  }
}

interface Setting extends Pick<RedisStoreOptions, 'terms' | 'now'> {
  /** Monotonic ms. */
  readonly elapsed: () => number
  readonly events: RedisEvents
  readonly mark: MemoryMark
  /** As `steadyClock` makes it. */
  readonly steady: () => number
}

function redisHeldKeys ({ ask }: Commands, keys: KeyNames): HeldKeys {
  return {
    async hold (keyIds) {
      await ask(client => Promise.all(keyIds.map(keyId => client.set(keys.heldKey(keyId), 1, 'PX', heldMs))))
    },
    isHeld: async keyId => await ask(client => client.exists(keys.heldKey(keyId))) === 1
  }
}

function storeOver (link: Connection, commands: Commands, keys: KeyNames, setting: Setting): Store {
  const { terms, now, elapsed, steady, events, mark } = setting
  const countsSince = () => steady() - idempotencyMs
  const active = activeSubjects(commands, keys, setting)
  const owners = taskOwners(commands, keys, terms)
  const tasks = redisTasks(commands, owners, keys, setting)
  const callbacks = redisCallbackSecrets(commands, tasks, keys, terms)
  const deliveries = redisDeliveries(commands, owners, keys, setting)
  const tokens = redisTokens(commands, keys)
  const leadership = redisLeadership(commands, keys)
  const pulse = pulseOf({ commands, keys, events, beforeBeat: () => repeats.flush() })
  const repeats = redisRepeats(commands, pulse, elapsed)

  return {
    lost: 0,
    ledger: redisLedger({
      commands,
      active,
      owners,
      callbacks,
      deliveries,
      repeats,
      pulse,
      holds: redisHolds(commands, keys, setting),
      tasks,
      terms,
      now,
      countsSince
    }),
    unfinished: redisUnfinishedTasks(commands, active),
    idempotency: redisIdempotency(commands, countsSince),
    repeats,
    callbackSecrets: { reservationOf: callbacks.reservationOf },
    deliveries,
    accounts: redisAccounts(commands),
    ceilings: redisCeilings(commands, keys, setting),
    records: { ...redisRecords(commands, active, owners, keys), usage: span => redisUsage(commands, keys, span) },
    books: redisBooks({ commands, keys, terms, now }),
    audit: redisAudit(commands, keys),
    alarmBook: redisAlarmBook(commands, keys),
    revocations: redisRevocations(commands, keys, now),
    subjects: redisSubjects({ commands, tasks, tokens, keys, now }),
    tokens,
    guestCounts: redisGuestCounts(commands, keys),
    spentProofs: redisSpentProofs(commands, keys, now),
    events,
    creditsEvents: events.credits,
    // A status call has ended when a submit would have.
    leases: redisPollLeases(commands, keys, { now, leaseMs: terms.sentMs }),
    heldKeys: redisHeldKeys(commands, keys),
    rates: redisRates(commands, keys),
    unknownCalls: redisUnknownCalls(commands, keys),
    upstreamStates: redisUpstreamStates(commands, keys),
    leads: leadership.leads,
    tidy: () => active.forgetIdle(async subject => await commands.ofSubject(subject, 'trimLists', {}) === 0),
    async ping () {
      await mark.check()
      // A replica and a full server read on, so it has to be a write.
      await commands.ask(client => Promise.all(Array.from({ length: client.isCluster ? probes : 1 }, (_, index) =>
        client.set(keys.probe(index), 1, 'PX', probeMs))))
    },
    async close () {
      await pulse.close()
      events.close()
      await leadership.resign().catch(() => {}) // or its lease ends by itself
      await link.close()
    }
  }
}
