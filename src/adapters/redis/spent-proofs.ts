import type { SpentProofs } from '../../domain/sessions/guests.ts'
import type { Commands } from './commands.ts'
import { slackMs } from './key-lifetimes.ts'
import type { KeyNames } from './key-names.ts'

export function redisSpentProofs ({ ask }: Commands, keys: KeyNames, now: () => number): SpentProofs {
  return {
    async spend (id, expiresAt) {
      const lastsMs = expiresAt - now()
      if (lastsMs <= 0) return false // it may have been spent, and be forgotten
      return await ask(client => client.set(keys.spentProof(id), 1, 'PX', lastsMs + slackMs, 'NX')) === 'OK'
    }
  }
}
