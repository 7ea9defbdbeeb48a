import { LRUCache } from 'lru-cache'
import { forgetSlackMs, type Revocations } from '../../domain/sessions/session.ts'
import type { Commands } from './commands.ts'
import { keptFor } from './key-lifetimes.ts'
import type { KeyNames } from './key-names.ts'

const rememberedSessions = 10_000

/**
 * Revocations in Redis: a key for each session, and one for all of a subject's. Asking costs a round trip per request, of
 * two commands, for a revocation has to hold on all replicas at once. An id that was revoked stays so, and is not asked about
 * again. An id whose session ended with all others of its subject may have a later session: a token's, once it is rotated.
 */
export function redisRevocations ({ ask, on }: Commands, keys: KeyNames, now: () => number): Revocations {
  const revoked = new LRUCache<string, true>({ max: rememberedSessions })
  return {
    async revoke (sessionId, expiresAt) {
      const lastsMs = expiresAt + forgetSlackMs - now()
      if (lastsMs <= 0) return false
      const set = await ask(client => client.set(keys.revocation(sessionId), expiresAt, 'PX', keptFor(lastsMs), 'NX'))
      revoked.set(sessionId, true)
      return set === 'OK'
    },
    async revokeSubject (subject, before, expiresAt) {
      await on(keys.revocationOf(subject), 'raise', before, keptFor(expiresAt + forgetSlackMs - now()))
    },
    async endedBefore (subject) {
      return Number(await ask(client => client.get(keys.revocationOf(subject))) ?? -Infinity)
    },
    async isRevoked ({ id, subject, issuedAt }) {
      if (revoked.has(id)) return true
      const [byId, before] = await ask(client => Promise.all([
        client.exists(keys.revocation(id)), client.get(keys.revocationOf(subject))
      ]))
      if (byId === 1) revoked.set(id, true)
      return byId === 1 || (before !== null && issuedAt <= Number(before))
    }
  }
}
