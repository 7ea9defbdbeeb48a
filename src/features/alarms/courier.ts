import {
  type ActiveAlarm, type AlarmBoard, type AlarmBook, alarmName, type BookedAlarm
} from '../../domain/alarms.ts'
import type { Secret, SecretRef } from '../../domain/secret.ts'
import type { Clock } from '../../domain/time.ts'
import { type DeliveryAttempt, hasArrived, webhookHeaders, type WebhookSender } from '../../domain/webhooks.ts'
import { isForgettable, messageOf, newsOf, sayEveryMs, seenFrom, seenMs, testMessage, toldAfter } from './entries.ts'

type Sent = Pick<DeliveryAttempt, 'status' | 'error'>

interface AlarmTargetOptions {
  readonly sender: WebhookSender
  readonly url: string
  /** Newest first: a message has a signature for each. */
  readonly secrets: SecretRef<readonly Secret[]>
  /** Our own origin; `null` where nobody has said it. */
  readonly publicUrl: string | null
  readonly now: () => number
}

/** The operator's own server. */
export interface AlarmTarget {
  tell (message: { readonly id: string, readonly body: Buffer }): Promise<Sent>
  /** A message that says that it is a test. */
  test (): Promise<Sent>
  readonly publicUrl: string | null
  close (): Promise<void>
}

export function alarmTarget ({ sender, url, secrets, publicUrl, now }: AlarmTargetOptions): AlarmTarget {
  const tell: AlarmTarget['tell'] = async ({ id, body }) => {
    const headers = {
      'content-type': 'application/json',
      ...webhookHeaders(secrets.current, { id, sentAt: now(), body })
    }
    return await sender.send({ url, headers, body })
  }
  return { tell, test: () => tell(testMessage(now(), publicUrl)), publicUrl, close: () => sender.close() }
}

/** Tells the operator what stands on the board: that an alarm is on, that it is worse, and that it is over. */
export interface AlarmCourier {
  /**
   * Writes what this replica sees into the book of all; and, on the one that leads, begins what there is to tell, and
   * waits for none of it. Throws `GW_STORE_DOWN`: what is on then is told when the store is back, but that it is away
   * is told at once, by the replica that has led last.
   */
  runOnce (): Promise<void>
  /** Ends what is under way: the next courier does it once more. */
  close (): Promise<void>
}

export interface AlarmCourierOptions extends Clock {
  readonly board: Pick<AlarmBoard, 'active'>
  readonly book: AlarmBook
  readonly target: AlarmTarget
  /** Throws `GW_STORE_DOWN`. */
  readonly leads: () => Promise<boolean>
  /** The least time between two messages about one alarm, ms. */
  readonly leastMs: number
  /** A message did not arrive; it is sent again. */
  readonly onMissed: (name: string, sent: Sent) => void
  /** What was told could not be noted: it may be told once more. */
  readonly onTrouble: (error: unknown) => void
}

/** While they are on, the book of all can not be read. */
const ofStore = ({ kind }: ActiveAlarm): boolean => kind === 'store-down' || kind === 'store-gone'

export function alarmCourier (options: AlarmCourierOptions): AlarmCourier {
  const { board, book, target, leads } = options
  let hasLed = false
  const own = bookKeeper(options, memoryBook(), () => board.active().filter(ofStore))
  const shared = bookKeeper(options, book, () => board.active().filter(alarm => !ofStore(alarm)))

  return {
    async runOnce () {
      await own.see()
      if (hasLed) await own.tell()
      await shared.see()
      hasLed = await leads()
      if (hasLed) await shared.tell()
    },
    async close () {
      await target.close()
      await Promise.all([own.ended(), shared.ended()])
    }
  }
}

/** Brings a book and a part of the board together, and tells what follows. */
function bookKeeper (
  { target, leastMs, now, elapsed, onMissed, onTrouble }: AlarmCourierOptions,
  book: AlarmBook,
  active: () => readonly ActiveAlarm[]
) {
  /** What this replica has written last: how it was, and when. */
  const written = new Map<string, { readonly alarm: ActiveAlarm, readonly at: number }>()
  const underWay = new Map<string, Promise<void>>()
  let isClosed = false

  const write = async (name: string, alarm: ActiveAlarm): Promise<void> => {
    const last = written.get(name)
    const isOld = last !== undefined && last.alarm.since === alarm.since && last.alarm.grade === alarm.grade
    if (isOld && elapsed() - last.at < sayEveryMs) return
    await book.see(name, seenFrom(alarm, now() + seenMs))
    written.set(name, { alarm, at: elapsed() })
  }
  const tellOne = async (entry: BookedAlarm): Promise<void> => {
    const news = newsOf(entry, now(), leastMs)
    if (news === null) {
      if (isForgettable(entry, now(), leastMs)) await book.forget(entry.name)
      return
    }
    const sent = await target.tell(messageOf(entry, news, now(), target.publicUrl))
    if (isClosed) return
    if (!hasArrived(sent)) onMissed(entry.name, sent)
    await book.tell(entry.name, toldAfter(entry, news, hasArrived(sent), now()))
  }

  return {
    async see (): Promise<void> {
      const on = new Map(active().map(alarm => [alarmName(alarm.kind, alarm.about), alarm]))
      for (const [name, alarm] of on) await write(name, alarm)
      for (const [name, { alarm }] of written) {
        if (on.has(name)) continue
        await book.see(name, seenFrom(alarm, now()))
        written.delete(name)
      }
    },
    async tell (): Promise<void> {
      for (const entry of await book.all()) {
        const { name } = entry
        if (isClosed || underWay.has(name)) continue
        underWay.set(name, tellOne(entry).catch(onTrouble).finally(() => underWay.delete(name)))
      }
    },
    async ended (): Promise<void> {
      isClosed = true
      await Promise.all(underWay.values())
    }
  }
}

/** For what can not wait for the store. */
function memoryBook (): AlarmBook {
  const entries = new Map<string, BookedAlarm>()
  return {
    all: async () => [...entries.values()],
    async see (name, seen) { entries.set(name, { told: null, ...entries.get(name), name, seen }) },
    async tell (name, told) { entries.set(name, { ...entries.get(name)!, told }) },
    async forget (name) { entries.delete(name) }
  }
}
