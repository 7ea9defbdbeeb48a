import ipaddr from 'ipaddr.js'

/**
 * Whether a text is one exact web origin, as browsers write it (RFC 6454 section 6.2), that nobody on the way can pretend
 * to be: https, or http on this machine.
 */
export function isWebOrigin (text: string): boolean {
  const url = text.includes('*') ? null : URL.parse(text)
  return url !== null && url.origin === text && isTrustworthy(url)
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
