import { flag, hosts, section } from '../../settings/schema-words.ts'

/** `callbacks` of the config file. */
export const callbackSettings = section('Callbacks.', {
  inbound: flag(false, 'Lets APIXO announce the end of a task. Needs GATEWAY_PUBLIC_URL, https: and not private.'),
  allowedHosts: hosts([], 'Hosts that callers may name for callbacks of their own.')
})
