import ipaddr from 'ipaddr.js'

/** Which addresses the name of a host may lead to. `any`: the operator's own upstream, wherever it is. */
export type Reach = 'public' | 'loopback' | 'any'

/** A URL that may be fetched, in the parts it is fetched by. */
interface ResultTarget {
  readonly origin: string
  /** Path and query. */
  readonly path: string
  readonly reach: Reach
}

interface ResultHostsOptions {
  /** As in `results.hosts`: exact names, and `*.` for any name below a domain. */
  readonly hosts: readonly string[]
  /** The upstream's own origin: a host that we send the key to may also be asked for a file. */
  readonly ownOrigin: string
}

/** Far above any signed URL seen. */
const maxUrlLength = 8192

/**
 * Judges URLs of results: `null` is one that must not be fetched. The upstream writes them, and may be wrong, bought,
 * or talked into it by a prompt: none may lead into the operator's network.
 *
 * Only https, on any port, for the certificate proves the host; http only for loopback hosts on the list. Where a name
 * leads is judged when it is resolved for the connection (`isWithin`), not here, where it could change again.
 */
export function resultHosts ({ hosts, ownOrigin }: ResultHostsOptions): (url: string) => ResultTarget | null {
  const isListed = hostList(hosts)

  return text => {
    // What a lenient parser would mend (RFC 3986 knows no space and no backslash) is not what somebody else would read.
    const url = text.length > maxUrlLength || /[^\x21-\x7e]|\\/.test(text) ? null : URL.parse(text)
    if (url === null || url.username !== '' || url.password !== '') return null
    const { origin, protocol, hostname } = url
    const target = (reach: Reach) => ({ origin, path: url.pathname + url.search, reach })
    if (origin === ownOrigin) return target('any')
    if (!isListed(hostname)) return null
    if (isLoopbackName(hostname)) return protocol === 'https:' || protocol === 'http:' ? target('loopback') : null
    // An address in the URL is never resolved, so nobody would judge it later.
    return protocol === 'https:' && isPublicName(hostname) ? target('public') : null
  }
}

/** Whether a host is one of these: exact names, and `*.` for any name below a domain. */
export function hostList (hosts: readonly string[]): (host: string) => boolean {
  const names = new Set(hosts.filter(host => !host.startsWith('*.')))
  const domains = hosts.filter(host => host.startsWith('*.')).map(host => host.slice(1))
  return host => names.has(host) || domains.some(domain => host.endsWith(domain))
}

/** Whether a connection to this address stays within that reach. */
export function isWithin (reach: Reach, address: string): boolean {
  if (reach === 'any') return true
  const parsed = ipaddr.process(address) // of an IPv4 address inside an IPv6 one, the IPv4 address
  const range = parsed.range()
  if (reach === 'loopback') return range === 'loopback'
  // Of IPv6, 2000::/3 is all that is global unicast; the rest may be anything one day (RFC 4291 section 2.4).
  return range === 'unicast' && (parsed.kind() === 'ipv4' || ((parsed as ipaddr.IPv6).parts[0]! >> 13) === 1)
}

/** Where a URL of the operator's may lead that is safe by itself: one of a loopback host to nowhere else. */
export function urlReach (url: string): Reach {
  return isLoopbackName(new URL(url).hostname) ? 'loopback' : 'public'
}

function isLoopbackName (hostname: string): boolean {
  const address = addressIn(hostname)
  return address === null ? hostname === 'localhost' : isWithin('loopback', address)
}

/** Whether a host name of a `URL` is no address of a network of our own. Where a name leads is for others to judge. */
export function isPublicName (hostname: string): boolean {
  const address = addressIn(hostname)
  return address === null || isWithin('public', address)
}

/** The address that a host name of a `URL` is; `null` when it is a name. */
function addressIn (hostname: string): string | null {
  const bare = hostname.replace(/^\[|\]$/g, '')
  return ipaddr.isValid(bare) ? bare : null
}

/**
 * The body of another server's answer as text, counted as it comes, after decompression. Throws when it is longer;
 * `what` begins that sentence.
 */
export async function boundedText (body: AsyncIterable<Uint8Array>, maxBytes: number, what: string): Promise<string> {
  const chunks: Uint8Array[] = []
  let length = 0
  for await (const chunk of body) {
    length += chunk.byteLength
    if (length > maxBytes) throw new Error(`${what} has more than ${maxBytes} bytes`)
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString()
}

/** An address that a name leads to. */
export interface ResolvedAddress { readonly address: string, readonly family: number }

/** Resolves a host name to all its addresses, as `dns.lookup` does. */
export type Resolve = (
  hostname: string,
  options: { readonly all: true },
  done: (error: Error | null, addresses: ResolvedAddress[]) => void
) => void

/** As a socket asks for the address it is to connect to. */
export type Lookup = (
  hostname: string,
  options: { readonly all?: boolean | undefined },
  done: (error: Error | null, address: string | ResolvedAddress[], family?: number) => void
) => void

/** The code of the error with which a connection is refused. */
export const refusedAddress = 'ERR_REFUSED_ADDRESS'

/**
 * Holds each new connection against the addresses its name leads to at that moment: a name that was judged earlier may
 * lead elsewhere by now (DNS rebinding). A name is refused when any of its addresses is out of bounds: an honest host
 * has no reason for a mixture.
 */
export function guardedLookup (resolve: Resolve, isAllowed: (address: string) => boolean): Lookup {
  return (hostname, { all }, done) =>
    resolve(hostname, { all: true }, (error, addresses) => {
      if (error !== null) return done(error, [])
      const [first] = addresses
      if (first === undefined || !addresses.every(({ address }) => isAllowed(address))) {
        return done(
          Object.assign(new Error(`${hostname} leads to an address that is not to be called`), {
            code: refusedAddress
          }),
          []
        )
      }
      return all === true ? done(null, addresses) : done(null, first.address, first.family)
    })
}
