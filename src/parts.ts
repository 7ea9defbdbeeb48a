import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import type { Logger } from 'pino'
import { localEvents } from './adapters/local-events.ts'
import { localTurns } from './adapters/local-turns.ts'
import { undiciUpstream } from './adapters/undici-upstream.ts'
import type { UndiciWebhooksOptions } from './adapters/undici-webhooks.ts'
import type { KeyRing } from './domain/keys/keys.ts'
import { keepingLedger } from './domain/ledger/keeping-ledger.ts'
import { type CreditMeter, meteredLedger } from './domain/ledger/metered-ledger.ts'
import { type PatientLedger, patientLedger } from './domain/ledger/patient-ledger.ts'
import { intervalBy } from './domain/policy/models.ts'
import { resultTickets, type ResultTickets } from './domain/results/tickets.ts'
import { type IssueTimes, issueTimes } from './domain/sessions/issue-times.ts'
import type { SessionVerifier } from './domain/sessions/session.ts'
import { teamTokens } from './domain/sessions/token-sessions.ts'
import type { TaskEvents } from './domain/status/events.ts'
import { goneKeys } from './domain/status/gone-keys.ts'
import { type StatusDesk, statusDesk } from './domain/status/status-desk.ts'
import { type SlotSearch, slotSearch, taskEnding } from './domain/status/task-ending.ts'
import { type Watching, watching } from './domain/status/watching.ts'
import { sharedProbe, type Store } from './domain/store.ts'
import type { Clock } from './domain/time.ts'
import type { Timers } from './domain/timers.ts'
import type { Upstream } from './domain/upstream.ts'
import { type CallbackParts, openCallbacks } from './parts/callbacks.ts'
import { type GuestParts, openGuests } from './parts/guests.ts'
import { openKeys } from './parts/keys.ts'
import { openResults, type ResultParts } from './parts/results.ts'
import { openStore, patienceMs } from './parts/store.ts'
import { type LiveSecrets, liveSecrets, type Settings } from './settings.ts'

const { version } = JSON.parse(readFileSync(join(import.meta.dirname, '../package.json'), 'utf8')) as { readonly version: string }
/** How the servers of callers are reached, where a test has them. */
export type WebhookTest = Pick<UndiciWebhooksOptions, 'ca' | 'resolve' | 'isAllowed' | 'timeoutMs'>

/** What a test puts in the place of the real thing. */
interface PartsTest extends Clock {
  readonly timers: Timers
  readonly store: Store | undefined
  readonly webhooks: WebhookTest | undefined
  readonly siteverifyUrl: string | undefined
}

/** What stands behind the seams. */
export interface Parts extends Clock, CallbackParts, ResultParts, GuestParts {
  readonly secrets: LiveSecrets
  readonly store: Store
  readonly times: IssueTimes
  readonly tokenSessions: SessionVerifier
  readonly upstream: Upstream
  readonly keys: KeyRing
  readonly patient: PatientLedger
  readonly tickets: ResultTickets
  readonly events: TaskEvents
  readonly desk: StatusDesk
  readonly slots: SlotSearch
  readonly watching: Watching
  readonly timers: Timers
}

/** `meter`: told what becomes of credits. */
export async function openParts (
  settings: Settings,
  log: Logger,
  { now, elapsed, timers, store: given, webhooks, siteverifyUrl }: PartsTest,
  meter: CreditMeter
): Promise<Parts> {
  const { upstream: waits } = settings.file
  const client = { ...waits, baseUrl: settings.tasksBaseUrl, userAgent: `apixo-gateway/${version}` }
  const opened = given ?? await openStore(settings, { now, elapsed }, 'server', {
    onLost: err => log.warn({ err }, 'the connection to the store was lost; it is made again'),
    onGone: problem => log.error({ alarm: 'store-gone', problem }, 'the store is not the one it was; nothing is served from it')
  })
  const { keep, ...results } = openResults(settings, { ...client, taskOf: opened.ledger.taskOf, log, now, elapsed })
  const { tokenSessions, revocations } = teamTokens(opened, { now, elapsed })
  const times = issueTimes({ revocations, now })
  const store = { ...opened, ping: sharedProbe(opened.ping, elapsed), revocations, ledger: meteredLedger(keepingLedger(opened.ledger, keep), meter) }
  meter.unknown(store.lost)
  if (store.lost > 0) log.error({ alarm: 'unknown-outcome', count: store.lost }, 'submits that a crash cut off may have been accepted')
  const upstream = undiciUpstream(client)
  const patient = patientLedger({
    ledger: store.ledger,
    elapsed,
    wait,
    patienceMs,
    onOwed: (reservation, { to, taskId }: { readonly to: string, readonly taskId?: string }) =>
      log.error({ alarm: 'store-down', reservation, to, taskId }, 'the store did not take this step; it is kept and tried again')
  })
  const secrets = liveSecrets(settings)
  const tickets = resultTickets({ ...settings.file.results, secrets: secrets.sessionSecrets, taskOf: store.ledger.taskOf, now })
  const keys = openKeys(settings, upstream, log, { now, elapsed })
  const inquiries = openInquiries(settings, { ...store, upstream, keys, timers, now, elapsed, log })
  const callbacks = openCallbacks(settings, {
    store, patient, upstream, keys, timers, now, elapsed, log, ...inquiries, sessionSecrets: secrets.sessionSecrets, webhooks: { ...client, ...webhooks }
  })
  const guestParts = openGuests(settings, { store, now, secrets, siteverifyUrl })
  return { secrets, store, times, tokenSessions, upstream, patient, tickets, timers, now, elapsed, keys, ...inquiries, ...callbacks, ...guestParts, ...results }
}

/** Who asks how tasks are, and who is told. */
function openInquiries (
  { file, models }: Settings, base: Pick<Parts, 'upstream' | 'keys' | 'timers' | keyof Clock> &
  Pick<Store, 'ledger' | 'records' | 'events' | 'turns' | 'heldKeys'> & { readonly log: Logger }
) {
  const { upstream: { connectMs, headersMs, bodyIdleMs }, polling } = file
  const answerMs = connectMs + headersMs
  const { events = localEvents(), turns = localTurns({ elapsed: base.elapsed, leaseMs: answerMs + bodyIdleMs }) } = base
  const intervalOf = intervalBy(polling, models)
  const { upstream, keys, heldKeys: held = null, log } = base
  const gone = goneKeys({
    upstream,
    keys,
    held,
    ledger: base.ledger,
    intervalOf,
    elapsed: base.elapsed,
    onGivenUp: ({ taskId, keyId }) =>
      log.error({ alarm: 'unknown-outcome', taskId, keyId }, 'the key of this task is gone, and no other knows the task: it is given up, and stays charged')
  })
  const desk = statusDesk({ ...base, gone, turns, events, intervalOf, answerMs })
  const { ledger, records, timers, elapsed } = base
  const slots = slotSearch({ records, ledger, end: taskEnding({ ledger, desk }), intervalOf, timers, elapsed })
  return { events, desk, slots, watching: watching({ ...base, desk, events, intervalOf }) }
}
