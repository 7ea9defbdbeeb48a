import type { Logger } from 'pino'
import { undiciWebhooks, type UndiciWebhooksOptions } from '../adapters/undici-webhooks.ts'
import { callbackHosts, type CallbackHosts } from '../domain/callbacks/callback-hosts.ts'
import { type CallbackAddress, callbackAddresses } from '../domain/callbacks/callback-secrets.ts'
import { type Callbacks, callbacks } from '../domain/callbacks/callbacks.ts'
import { type Deliverer, deliverer } from '../domain/callbacks/deliverer.ts'
import type { KeyRing } from '../domain/keys/keys.ts'
import type { PatientLedger } from '../domain/ledger/patient-ledger.ts'
import type { Live } from '../domain/live.ts'
import { intervalBy } from '../domain/policy/models.ts'
import type { Secret } from '../domain/secret.ts'
import type { TaskEvents } from '../domain/status/events.ts'
import type { StatusDesk } from '../domain/status/status-desk.ts'
import type { Store } from '../domain/store.ts'
import type { Clock } from '../domain/time.ts'
import type { Timers } from '../domain/timers.ts'
import type { Upstream } from '../domain/upstream.ts'
import type { Settings } from '../settings.ts'

/** What the upstream tells us, and what we tell the servers of callers. */
export interface CallbackParts {
  readonly callbacks: Callbacks
  /** Makes the address that the upstream is to call with the end of a task; it is not asked to without it. */
  readonly callbackAddress: (() => CallbackAddress) | undefined
  readonly callbackHosts: CallbackHosts
  readonly deliverer: Deliverer
}

export interface CallbackPartsOptions extends Clock {
  readonly store: Store
  readonly patient: PatientLedger
  readonly upstream: Upstream
  readonly keys: KeyRing
  readonly desk: StatusDesk
  readonly events: TaskEvents
  readonly timers: Timers
  readonly log: Logger
  readonly sessionSecrets: Live<readonly Secret[]>
  readonly webhooks: UndiciWebhooksOptions
}

export function openCallbacks ({ file, models, publicUrl }: Settings, options: CallbackPartsOptions): CallbackParts {
  const { store, log, sessionSecrets, now } = options
  const hosts = callbackHosts(file.callbacks.allowedHosts)
  return {
    callbackHosts: hosts,
    callbackAddress: file.callbacks.inbound ? callbackAddresses(publicUrl!) : undefined,
    callbacks: callbacks({
      ...options,
      secrets: store.callbackSecrets,
      ledger: store.ledger,
      intervalOf: intervalBy(file.polling, models),
      onOdd: ({ reservation }, oddity) => log.warn({ reservation, oddity }, 'a callback said what can not be so; it is ignored'),
      onFound: ({ reservation }, taskId) => log.info({ reservation, taskId }, 'a callback named the task of a submit whose answer had not come'),
      onTrouble: ({ reservation }, err) => log.warn({ reservation, err }, 'a callback could not be looked into; the task is asked about later')
    }),
    deliverer: deliverer({
      deliveries: store.deliveries,
      courier: undiciWebhooks(options.webhooks),
      hosts,
      secrets: sessionSecrets,
      now,
      onGivenUp: (taskId, { status, error }) => log.warn({ taskId, status, error }, 'the end of a task could not be delivered; it is given up'),
      onTrouble: err => log.warn({ err }, 'a delivery could not be kept; it is made again')
    })
  }
}
