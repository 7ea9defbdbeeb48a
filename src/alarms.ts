import type { Logger } from 'pino'
import { undiciWebhooks } from './adapters/undici/webhooks.ts'
import type { AlarmBoard } from './domain/alarms.ts'
import { isWithin, urlReach } from './domain/egress.ts'
import type { Store } from './domain/store.ts'
import type { Clock } from './domain/time.ts'
import type { AlarmTarget } from './features/alarms/courier.ts'
import type { Services } from './http/services.ts'
import { type Elsewhere, upstreamClient } from './services.ts'
import type { LiveSecrets, Settings } from './settings.ts'

/** The operator's own server, to which alarms are sent, as `alarms.url` says; `null`: there is none. */
export async function openAlarmTarget (
  settings: Settings,
  secrets: Pick<LiveSecrets, 'alarmSecrets'>,
  now: Clock['now'],
  elsewhere: Elsewhere['webhooks'] = {}
): Promise<AlarmTarget | null> {
  const { file: { alarms: { url, insecureUrl } }, publicUrl = null } = settings
  if (url === undefined) return null
  const { alarmTarget } = await import('./features/alarms/courier.ts')
  const { userAgent, connectMs } = upstreamClient(settings)
  const reach = insecureUrl ? 'any' : urlReach(url)
  const isAllowed = (address: string): boolean => isWithin(reach, address)
  const sender = undiciWebhooks({ userAgent, connectMs, isAllowed, ...elsewhere })
  return alarmTarget({ sender, url, secrets: secrets.alarmSecrets, publicUrl, now })
}

interface AlarmGround {
  readonly alarms: AlarmBoard
  readonly store: Pick<Store, 'alarmBook' | 'leads'>
  readonly services: Pick<Services, 'keys' | 'metrics' | 'ceilings'>
  readonly secrets: LiveSecrets
  readonly clock: Clock
  readonly log: Logger
  /** What is opened here is closed with it. */
  readonly closing: AsyncDisposableStack
  readonly test: Elsewhere
}

/**
 * What has to be done now and then so that the operator hears of alarms, and what is watched for that alone. Nothing,
 * and nothing of it is loaded, where nobody has asked for it.
 */
export async function openAlarms (
  settings: Settings,
  { alarms, store, services, secrets, clock: { now, elapsed }, log, closing, test }: AlarmGround
): Promise<ReadonlyArray<() => Promise<void>>> {
  const { keys, metrics, ceilings } = services
  const { url, leastSeconds, upstreamBalanceBelow: below } = settings.file.alarms
  const jobs: Array<() => Promise<void>> = []
  if (url === undefined && below === undefined && ceilings === null) return jobs
  const { balanceWatch, ceilingWatch, refusalWatch } = await import('./features/alarms/watches.ts')
  if (below !== undefined) jobs.push(balanceWatch({ keys, alarms, below, leads: store.leads, elapsed }))
  if (ceilings !== null) jobs.push(ceilingWatch({ ceilings, alarms, leads: store.leads, now, elapsed }))
  jobs.push(refusalWatch({ alarms, refusals: metrics.refusals, elapsed }))
  const target = await openAlarmTarget(settings, secrets, now, test.webhooks)
  if (target === null) return jobs
  const { alarmCourier } = await import('./features/alarms/courier.ts')
  const courier = closing.adopt(alarmCourier({
    board: alarms,
    book: store.alarmBook,
    target,
    leads: store.leads,
    leastMs: leastSeconds * 1000,
    now,
    elapsed,
    onMissed: (name, { status, error }) =>
      log.warn({ untold: name, status, error }, 'an alarm could not be told to its URL; it is sent again'),
    onTrouble: err => log.warn({ err }, 'it could not be noted that an alarm was told; it may be told again')
  }), it => it.close())
  return [...jobs, courier.runOnce]
}
