import { type Static, Type } from 'typebox'
import { count, flag, name, oneOf, section, text } from '../../settings/schema-words.ts'

/** `guests` of the config file. */
export const guestSettings = section('Sessions for anybody.', {
  enabled: flag(false, 'Opens sessions for guests.'),
  plan: name('the name of a plan', 'guest', 'The plan of guests. Its credits can not be unlimited.'),
  sessionsPerAddressPerDay: count(5, 'Guest sessions a day, per address.'),
  proof: oneOf(['work', 'turnstile', 'none'], 'work', 'What a guest has to show first.'),
  turnstileSecretFile: Type.Optional(text('.', 'the path of a file',
    'A file with the secret key of Turnstile, for `proof: turnstile`. It is read again when it changes.'))
})

export type GuestSettings = Readonly<Static<typeof guestSettings>>
