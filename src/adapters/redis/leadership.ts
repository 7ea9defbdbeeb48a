import { randomUUID } from 'node:crypto'
import type { Commands } from './commands.ts'
import type { KeyNames } from './key-names.ts'

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
    leads: async () => await on(leader, 'lead', replica, leaseMs) === 1,
    async resign () { await on(leader, 'disown', replica) }
  }
}
