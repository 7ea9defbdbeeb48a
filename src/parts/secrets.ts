import type { Logger } from 'pino'
import { type WatchedFiles, watchedFiles } from '../adapters/watched-files.ts'
import type { KeyRing } from '../domain/keys/keys.ts'
import type { SecretRotation } from '../domain/operator/rotations.ts'
import type { Timers } from '../domain/timers.ts'
import type { LiveSecrets, SecretNews, Settings } from '../settings.ts'
import { upstreamKey } from './keys.ts'

interface SecretHolders {
  readonly secrets: LiveSecrets
  readonly keys: KeyRing
  readonly timers: Timers
}

interface SecretFollowers {
  /** A secret under which sessions were signed is gone, and they with it. */
  readonly onSessionsEnded: () => void
  /** Writes it into the audit trail, or keeps it until it can; a rejection is logged. */
  readonly writeRotation: (rotation: SecretRotation) => Promise<void>
}

/** Secrets that came from files follow their files. */
export function followSecrets (
  { secretFiles }: Settings, { secrets, keys, timers }: SecretHolders, log: Logger, { onSessionsEnded, writeRotation }: SecretFollowers
): WatchedFiles {
  const take = (news: SecretNews): void => {
    if ('problem' in news) {
      log.error({ alarm: 'secret-file', ...news }, 'a file with a secret can not be used; what was read before stays in use')
      return
    }
    log.info(news, 'a file with a secret was read again')
    if (!news.rotated) return
    if (news.setting === 'APIXO_API_KEY') keys.replace(secrets.apiKeys.current.map(upstreamKey))
    if (signsSessions(news.setting) && news.gone.length > 0) onSessionsEnded()
    const { setting } = news
    writeRotation(news).catch(err => log.error({ err, setting }, 'the audit trail does not have this rotation yet; it is tried again'))
  }
  return watchedFiles({ paths: [...secretFiles.values()], onChange: () => secrets.refresh().forEach(take), timers })
}

function signsSessions (setting: string): boolean {
  return setting === 'GATEWAY_SESSION_SECRET' || setting.startsWith('issuers[')
}
