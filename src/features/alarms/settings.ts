import Type, { type Static } from 'typebox'
import { flag, seconds, section, text } from '../../settings/schema-words.ts'

/** `alarms` of the config file. */
export const alarmSettings = section('What the operator is told beside the log.', {
  url: Type.Optional(text('^[Hh][Tt][Tt][Pp][Ss]?://', 'a URL such as https://ops.example/alarms',
    'A server of yours that each alarm is sent to, signed with GATEWAY_ALARM_SECRET. https: and a public host, or loopback.')),
  insecureUrl: flag(false, 'Allows a `url` that is `http:` or private and not loopback; warns at every start.'),
  leastSeconds: seconds(300, 'The least time between two messages about the same thing.'),
  upstreamBalanceBelow: Type.Optional(Type.Number({
    minimum: 0,
    title: 'a number, 0 or more',
    description: 'An alarm when a key has fewer USD at APIXO; each is asked every 15 minutes.'
  }))
})

export type AlarmSettings = Readonly<Static<typeof alarmSettings>>
