import type { Logger } from 'pino'
import { type KeyRing, keyRing, readProbe } from '../domain/keys/keys.ts'
import { balancePath } from '../domain/policy/catalog.ts'
import type { Secret } from '../domain/secret.ts'
import type { Clock } from '../domain/time.ts'
import type { Upstream, UpstreamKey } from '../domain/upstream.ts'
import type { Settings } from '../settings.ts'

export function openKeys ({ apiKeys, file: { tasks } }: Settings, upstream: Upstream, log: Logger, { now, elapsed }: Clock): KeyRing {
  return keyRing({
    keys: apiKeys.map(upstreamKey),
    probe: key => upstream.send({ method: 'GET', path: balancePath, key }).answer.then(readProbe, () => ({ verdict: 'unclear', balance: null })),
    drainMs: tasks.giveUpMs,
    now,
    elapsed,
    onChange: (keyId, state) => state === 'ready'
      ? log.info({ keyId }, 'the key is back in use')
      : log.error({ alarm: 'key-benched', keyId, state }, 'the upstream does not serve this key; it is benched')
  })
}

export function upstreamKey (secret: Secret): UpstreamKey {
  return { id: secret.fingerprint, secret }
}
