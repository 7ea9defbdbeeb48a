import ipaddr from 'ipaddr.js'

/**
 * Whether a text is one exact web origin, as browsers write it (RFC 6454 section 6.2), that nobody on the way can pretend
 * to be: https, or http on this machine.
 */
export function isWebOrigin (text: string): boolean {
  const url = text.includes('*') ? null : URL.parse(text)
  return url !== null && url.origin === text && isTrustworthy(url)
}

/**
 * Pages inside of an app, and of a browser's extension, have origins too, which no page of the web can have: an app's scheme
 * and host, or the id of the extension. What `Origin` says is the text itself.
 */
const appOrigins = [
  /^(?:capacitor|ionic|tauri):\/\/[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?$/,
  /^chrome-extension:\/\/[a-p]{32}$/,
  /^(?:moz|safari-web)-extension:\/\/[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$/
]

/** Whether a text is the one exact origin of an app or an extension. */
export function isAppOrigin (text: string): boolean {
  return appOrigins.some(form => form.test(text))
}

/** As browsers judge it before they take a `Secure` cookie: https://w3c.github.io/webappsec-secure-contexts/#is-origin-trustworthy */
export function isTrustworthy ({ protocol, hostname }: Pick<URL, 'protocol' | 'hostname'>): boolean {
  return protocol === 'https:' || (protocol === 'http:' && isThisMachine(hostname))
}

function isThisMachine (hostname: string): boolean {
  const host = hostname.replace(/^\[|\]$/g, '')
  if (ipaddr.isValid(host)) return ipaddr.process(host).range() === 'loopback'
  return host === 'localhost' || host.endsWith('.localhost')
}
