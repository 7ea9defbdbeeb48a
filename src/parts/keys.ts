import type { Logger } from 'pino'
import { type WatchedFiles, watchedFiles } from '../adapters/watched-files.ts'
import { balancePath } from '../domain/bodies/catalog.ts'
import { type KeyRing, keyRing, readProbe } from '../domain/keys/keys.ts'
import type { Secret } from '../domain/secret.ts'
import type { Timers } from '../domain/timers.ts'
import type { Upstream, UpstreamKey } from '../domain/upstream.ts'
import type { LiveSecrets, SecretNews, Settings } from '../settings.ts'

export function openKeys ({ apiKeys, file: { tasks } }: Settings, upstream: Upstream, log: Logger, now: () => number): KeyRing {
  return keyRing({
    keys: apiKeys.map(upstreamKey),
    probe: key => upstream.send({ method: 'GET', path: balancePath, key }).answer.then(readProbe, () => ({ verdict: 'unclear', balance: null })),
    drainMs: tasks.giveUpMs,
    now,
    onChange: (keyId, state) => state === 'ready'
      ? log.info({ keyId }, 'the key is back in use')
      : log.error({ alarm: 'key-benched', keyId, state }, 'the upstream does not serve this key; it is benched')
  })
}

function upstreamKey (secret: Secret): UpstreamKey {
  return { id: secret.fingerprint, secret }
}

interface SecretHolders {
  readonly secrets: LiveSecrets
  readonly keys: KeyRing
  readonly timers: Timers
}

/** Secrets that came from files follow their files. `sessionsEnded`: with a session secret, all sessions that it has signed. */
export function followSecrets (
  { secretFiles }: Settings, { secrets, keys, timers }: SecretHolders, log: Logger, sessionsEnded: () => void
): WatchedFiles {
  const take = (news: SecretNews): void => {
    if ('problem' in news) {
      log.error({ alarm: 'secret-file', ...news }, 'a file with a secret can not be used; what was read before stays in use')
      return
    }
    log.info(news, 'a file with a secret was read again')
    if (news.setting === 'APIXO_API_KEY') keys.replace(secrets.apiKeys.current.map(upstreamKey))
    if (news.setting === 'GATEWAY_SESSION_SECRET' && news.gone.length > 0) sessionsEnded()
  }
  return watchedFiles({ paths: [...secretFiles.values()], onChange: () => secrets.refresh().forEach(take), timers })
}
