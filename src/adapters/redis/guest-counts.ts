import type { GuestCounts } from '../../domain/sessions/guests.ts'
import type { Commands } from './commands.ts'
import type { KeyNames } from './key-names.ts'

export function redisGuestCounts ({ on }: Commands, keys: KeyNames): GuestCounts {
  return {
    take: async (name, limit, windowMs) => await on(keys.guestCount(name), 'take', limit, windowMs) as number,
    async putBack (name) {
      await on(keys.guestCount(name), 'putBack')
    }
  }
}
