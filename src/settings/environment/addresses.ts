import { isIP } from 'node:net'
import ipaddr from 'ipaddr.js'
import { isAppOrigin } from '../../domain/sessions/web-origin.ts'
import { Refusal, shown } from '../settings-error.ts'

/** Who can be behind a host name: this machine, our own network, or the internet. */
export type Reach = 'loopback' | 'private' | 'public'

/** Where a host lies, judged by its text alone: nothing is resolved. `hostname` is that of a `URL`. */
export function reachOf (hostname: string): Reach {
  const host = hostname.replace(/^\[|\]$/g, '').replace(/\.$/, '').toLowerCase()
  if (isIP(host) > 0) return reachOfAddress(host)
  if (host === 'localhost' || host.endsWith('.localhost')) return 'loopback'
  const local = !host.includes('.') || host.endsWith('.internal') || host.endsWith('.local')
  return local ? 'private' : 'public'
}

/**
 * Everything but unicast is private: link-local with its metadata service, unique-local, carrier-grade NAT,
 * unspecified, and the ranges that hide an IPv4 address inside an IPv6 one (NAT64, 6to4, Teredo).
 */
function reachOfAddress (address: string): Reach {
  const range = ipaddr.process(address).range()
  if (range === 'loopback') return 'loopback'
  return range === 'unicast' ? 'public' : 'private'
}

/** An upstream as it is dialled. */
export interface BaseUrl {
  /** Origin and path prefix, without the version part and without a slash at its end. */
  readonly url: string
  /** What keeps it from being used without GATEWAY_INSECURE_UPSTREAM=true. */
  readonly insecurity: string | undefined
}

/** A parser of base URLs that drops any of `suffixes`, so that operators may paste either form. */
export function baseUrl (...suffixes: readonly string[]): (text: string) => BaseUrl {
  return (text) => {
    const url = httpUrl(text)
    if (url.username !== '' || url.password !== '') throw new Refusal('has credentials in it')
    if (/[?#]/.test(text)) throw new Refusal(`${shown(text)} has a query or a fragment`)
    const path = url.pathname.replace(/\/+$/, '')
    const suffix = suffixes.find(suffix => path.endsWith(suffix)) ?? ''
    return {
      url: url.origin + path.slice(0, path.length - suffix.length).replace(/\/+$/, ''),
      insecurity: insecurityOf(url)
    }
  }
}

function insecurityOf (url: URL): string | undefined {
  const reach = reachOf(url.hostname)
  if (reach === 'private') return `${url.host} is a private address`
  return reach === 'public' && url.protocol === 'http:' ? `${url.origin} is not encrypted` : undefined
}

function httpUrl (text: string): URL {
  const url = /[\s\\]/.test(text) ? null : URL.parse(text)
  if (url === null) throw new Refusal(`${shown(text)} is not a URL`)
  if (!['https:', 'http:'].includes(url.protocol)) throw new Refusal(`${shown(text)} is neither https: nor http:`)
  return url
}

const appSchemes = ['capacitor:', 'ionic:', 'tauri:', 'chrome-extension:', 'moz-extension:', 'safari-web-extension:']

/** One exact origin of a page: of the web, of an app, or of a browser's extension. */
export function pageOrigin (text: string): string {
  if (!appSchemes.some(scheme => text.startsWith(scheme)) || text.includes('*')) return origin(text)
  if (!isAppOrigin(text)) throw new Refusal(`${shown(text)} is not exactly an origin`, 'as its pages send it: capacitor://localhost')
  return text
}

/**
 * One exact web origin, as browsers send it (RFC 6454 section 6.2).
 * A wildcard would let any page use a caller's cookie, and `null` is what every sandboxed page sends.
 */
export function origin (text: string): string {
  if (text.includes('*')) throw new Refusal(`${shown(text)} has a wildcard`, 'each origin in full: https://app.example')
  if (text === 'null') throw new Refusal('null is any sandboxed page', 'an origin of your own: https://app.example')
  const url = httpUrl(text)
  if (url.origin !== text) throw new Refusal(`${shown(text)} is not exactly an origin`, url.origin)
  return text
}

const proxyNames = ['loopback', 'linklocal', 'uniquelocal']

/** One proxy: an IP address, a network in CIDR notation, or a name that proxy-addr knows. */
export function proxy (text: string): string {
  if (text === 'true' || text === '*' || text.endsWith('/0')) {
    throw new Refusal(`${shown(text)} trusts everybody, so any caller could forge its own address`)
  }
  const [address, prefix, ...rest] = text.split('/')
  const family = text.includes('%') ? 0 : isIP(address!)
  const fits = prefix === undefined || (/^\d{1,3}$/.test(prefix) && Number(prefix) <= (family === 4 ? 32 : 128))
  if (!proxyNames.includes(text) && (family === 0 || !fits || rest.length > 0)) {
    throw new Refusal(`${shown(text)} is neither an address, a network nor a known name`)
  }
  return text
}
