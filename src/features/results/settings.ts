import { bytes, hosts, oneOf, seconds, section } from '../../settings/schema-words.ts'

/** `results` of the config file. */
export const resultSettings = section('Files that tasks have made.', {
  hosts: hosts(['*.apixo.ai'], 'Hosts that results are fetched from.'),
  maxBytes: bytes(536870912, 'The longest result.'),
  keep: oneOf(['none', 'directory'], 'none', 'Where the gateway keeps results itself, beyond their day at APIXO.'),
  ticketSeconds: seconds(900, 'How long a ticket opens a result.')
})
