import ipaddr from 'ipaddr.js'
import { statSync } from 'node:fs'
import { isIP } from 'node:net'
import { resolve } from 'node:path'
import { Secret } from '../domain/secret.ts'
import { isAppOrigin } from '../domain/session.ts'
import { InvalidSetting, shown } from './problems.ts'

/** Turns the text of a setting into its value; throws a `Refusal` that says what is wrong with it. */
export type Parser<Value> = (text: string, cwd: string) => Value

/** Where the gateway remembers things. */
export type StoreSettings =
  | { readonly kind: 'sqlite', /** Absolute, or `:memory:`. */ readonly path: string }
  | {
    readonly kind: 'redis'
    readonly url: Secret
    /** The same without credentials, for people to read. */
    readonly address: string
  }

export function choice<const Option extends string> (...options: readonly Option[]): Parser<Option> {
  return (text) => {
    const found = options.find(option => option === text)
    if (found === undefined) throw new InvalidSetting(`${shown(text)} is not known`)
    return found
  }
}

export function boolean (text: string): boolean {
  if (text !== 'true' && text !== 'false') throw new InvalidSetting(`${shown(text)} is neither true nor false`)
  return text === 'true'
}

export function port (text: string): number {
  const value = /^\d{1,5}$/.test(text) ? Number(text) : Infinity
  if (value > 65535) throw new InvalidSetting(`${shown(text)} is not a port`)
  return value
}

export function host (text: string): string {
  if (isIP(text) === 0 && !/^[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?$/.test(text)) {
    throw new InvalidSetting(`${shown(text)} is neither an address nor a host name`)
  }
  return text
}

/** A parser of a list separated by commas. One bad entry does not hide the next. */
export function list<Value> (parse: (text: string) => Value): Parser<readonly Value[]> {
  return (text) => {
    const refusals: InvalidSetting[] = []
    const values = text.split(',').map(entry => entry.trim()).filter(entry => entry !== '').flatMap(entry => {
      try {
        return [parse(entry)]
      } catch (error) {
        refusals.push(error as InvalidSetting)
        return []
      }
    })
    if (refusals.length > 0) {
      const expected = refusals.flatMap(refusal => refusal.expected ?? []).join(', ')
      throw new InvalidSetting(
        refusals.map(({ message }) => message).join(', '),
        expected === '' ? undefined : expected
      )
    }
    return values
  }
}

export function file (text: string, cwd: string): string {
  return resolve(cwd, text)
}

export function existingDirectory (text: string, cwd: string): string {
  const path = resolve(cwd, text)
  const found = statSync(path, { throwIfNoEntry: false })
  if (found?.isDirectory() !== true) throw new InvalidSetting(`there is no directory ${shown(path)}`)
  return path
}

/** The text may hold a password, so no message repeats it. */
export function store (text: string, cwd: string): StoreSettings {
  if (text.startsWith('sqlite:')) return sqliteStore(text.slice('sqlite:'.length), cwd)
  const scheme = /^([a-z][a-z0-9+.-]{0,15}):/i.exec(text)?.[1]
  if (scheme === 'redis' || scheme === 'rediss') return redisStore(text)
  throw new InvalidSetting(scheme === undefined ? 'has no scheme' : `the scheme ${shown(scheme)} is not known`)
}

/** A store as people may see it, without a password. */
export function shownStore (store: StoreSettings): string {
  return store.kind === 'sqlite' ? `sqlite:${store.path}` : store.address
}

/** A list as people may see it. */
export function shownList (values: readonly unknown[]): string {
  return values.join(', ') || 'none'
}

function sqliteStore (path: string, cwd: string): StoreSettings {
  if (path === ':memory:') return { kind: 'sqlite', path }
  if (path === '') throw new InvalidSetting('names no file')
  // `sqlite://data/x.db` would mean the folder /data; a query would become part of the file's name.
  if (/^\/\/[^/]/.test(path) || /[?#]/.test(path)) {
    throw new InvalidSetting(`${shown(`sqlite:${path}`)} is not a plain path`)
  }
  return { kind: 'sqlite', path: resolve(cwd, path) }
}

function redisStore (text: string): StoreSettings {
  const url = URL.parse(text)
  if (url === null || url.hostname === '') throw new InvalidSetting('is not a URL with a host')
  if (/[?#]/.test(text) || !/^(?:\/\d*)?$/.test(url.pathname)) {
    throw new InvalidSetting('has more after the host than the number of a database')
  }
  return { kind: 'redis', url: new Secret(text), address: `${url.protocol}//${url.host}${url.pathname}` }
}

/** What can be behind a host name: this machine, our own network, or the internet. */
type Reach = 'loopback' | 'private' | 'public'

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

/**
 * A parser of base URLs, which gives origin and path without a slash at its end. It drops any of `suffixes`, so that
 * operators may paste either form.
 */
export function baseUrl (...suffixes: readonly string[]): Parser<string> {
  return (text) => {
    const url = httpUrl(text)
    if (url.username !== '' || url.password !== '') throw new InvalidSetting('has credentials in it')
    if (/[?#]/.test(text)) throw new InvalidSetting(`${shown(text)} has a query or a fragment`)
    const path = url.pathname.replace(/\/+$/, '')
    const suffix = suffixes.find(suffix => path.endsWith(suffix)) ?? ''
    return url.origin + path.slice(0, path.length - suffix.length).replace(/\/+$/, '')
  }
}

/** What keeps a base URL from being used without GATEWAY_INSECURE_UPSTREAM=true. */
export function insecurityOf (baseUrl: string): string | undefined {
  const url = new URL(baseUrl)
  const reach = reachOf(url.hostname)
  if (reach === 'private') return `${url.host} is a private address`
  return reach === 'public' && url.protocol === 'http:' ? `${url.origin} is not encrypted` : undefined
}

function httpUrl (text: string): URL {
  const url = /[\s\\]/.test(text) ? null : URL.parse(text)
  if (url === null) throw new InvalidSetting(`${shown(text)} is not a URL`)
  if (!['https:', 'http:'].includes(url.protocol)) {
    throw new InvalidSetting(`${shown(text)} is neither https: nor http:`)
  }
  return url
}

const appSchemes = ['capacitor:', 'ionic:', 'tauri:', 'chrome-extension:', 'moz-extension:', 'safari-web-extension:']

/** One exact origin of a page: of the web, of an app, or of a browser's extension. */
export function pageOrigin (text: string): string {
  if (!appSchemes.some(scheme => text.startsWith(scheme)) || text.includes('*')) return origin(text)
  if (!isAppOrigin(text)) {
    throw new InvalidSetting(`${shown(text)} is not exactly an origin`, 'as its pages send it: capacitor://localhost')
  }
  return text
}

/**
 * One exact web origin, as browsers send it (RFC 6454 section 6.2). A wildcard would let any page use a caller's
 * cookie, and `null` is what every sandboxed page sends.
 */
export function origin (text: string): string {
  if (text.includes('*')) {
    throw new InvalidSetting(`${shown(text)} has a wildcard`, 'each origin in full: https://app.example')
  }
  if (text === 'null') {
    throw new InvalidSetting('null is any sandboxed page', 'an origin of your own: https://app.example')
  }
  const url = httpUrl(text)
  if (url.origin !== text) throw new InvalidSetting(`${shown(text)} is not exactly an origin`, url.origin)
  return text
}

const proxyNames = ['loopback', 'linklocal', 'uniquelocal']

/** One proxy: an IP address, a network in CIDR notation, or a name that proxy-addr knows. */
export function proxy (text: string): string {
  if (text === 'true' || text === '*' || text.endsWith('/0')) {
    throw new InvalidSetting(`${shown(text)} trusts everybody, so any caller could forge its own address`)
  }
  const [address, prefix, ...rest] = text.split('/')
  const family = text.includes('%') ? 0 : isIP(address!)
  const fits = prefix === undefined || (/^\d{1,3}$/.test(prefix) && Number(prefix) <= (family === 4 ? 32 : 128))
  if (!proxyNames.includes(text) && (family === 0 || !fits || rest.length > 0)) {
    throw new InvalidSetting(`${shown(text)} is neither an address, a network nor a known name`)
  }
  return text
}

/** What makes a secret good enough. */
export interface SecretRule {
  readonly minBytes: number
  readonly minDistinctCharacters: number
  readonly visibleAsciiOnly: boolean
  readonly samples: readonly RegExp[]
}

/** Text that stands in documentation, sample files and defaults of other programs, and that scanners try first. */
const stockText = [
  /^<.*>$/,
  /change[-_ ]?me/,
  /placeholder/,
  /replace[-_ ]?(me|this|with)/,
  /your[-_ ]?.*key/,
  /(^|[-_])x{3,}([-_]|$)/,
  /\.{3}|\*{3}/,
  // Nothing but stock words: `admin`, `password`, `secret-key`, `sk-123456`, `123456789012`.
  /^(?:(?:sk|api|apixo|key|secret|password|admin|root|example|sample|token|123456\d*|none|null|undefined)[-_]?)+$/
]

const sampleWords = [...stockText, /replace|your[-_ ]?secret|example|sample/]

/** Apart from samples the format is APIXO's own business: keys of several shapes have been seen. */
export const apiKeyRule: SecretRule = {
  minBytes: 1, minDistinctCharacters: 1, visibleAsciiOnly: true, samples: stockText
}

/** HMAC-SHA-256 wants a key at least as long as its output (RFC 7518 section 3.2). */
export const signingSecretRule: SecretRule = {
  minBytes: 32, minDistinctCharacters: 8, visibleAsciiOnly: false, samples: sampleWords
}

/** Sent as a bearer token, so nothing that a header can not carry. */
export const tokenRule: SecretRule = {
  minBytes: 12, minDistinctCharacters: 5, visibleAsciiOnly: true, samples: sampleWords
}

/** A parser of one secret. */
export function secret (rule: SecretRule): (text: string) => Secret {
  return (text) => {
    const value = text.trim()
    const reason = weaknessOf(value, rule)
    if (reason !== undefined) throw new InvalidSetting(reason)
    return new Secret(value)
  }
}

/** A parser of one or several secrets, separated by commas or lines. */
export function secrets (rule: SecretRule, separator = /[,\r\n]/): (text: string) => readonly Secret[] {
  return (text) => {
    const values = [...new Set(text.split(separator).map(value => value.trim()).filter(value => value !== ''))]
    const reasons = values.flatMap((value, index) => {
      const reason = weaknessOf(value, rule)
      if (reason === undefined) return []
      return values.length === 1 ? reason : `value ${index + 1} of ${values.length} ${reason}`
    })
    if (values.length === 0) reasons.push('holds no value')
    if (reasons.length > 0) throw new InvalidSetting(reasons.join(', '))
    return values.map(value => new Secret(value))
  }
}

/**
 * A parser of keys that webhooks are signed with: 24 to 64 bytes in base64, with or without the prefix of Standard
 * Webhooks, as their libraries take them.
 */
export function webhookSecrets (text: string): readonly Secret[] {
  return secrets(signingSecretRule)(text).map(secret => {
    const base64 = secret.reveal().replace(/^whsec_/, '')
    const bytes = Buffer.from(base64, 'base64')
    const isBase64 = bytes.toString('base64').replace(/=+$/, '') === base64.replace(/=+$/, '')
    if (!isBase64) throw new InvalidSetting('is not in base64')
    if (bytes.length < 24 || bytes.length > 64) throw new InvalidSetting(`has a key of ${bytes.length} bytes, not of 24 to 64`)
    return new Secret(`whsec_${base64}`)
  })
}

/** As people may see it: it tells two secrets apart and gives neither away. */
export function shownSecret ({ fingerprint }: Secret): string {
  return `sha256:${fingerprint}`
}

export function shownSecrets (secrets: readonly Secret[]): string {
  return secrets.map(shownSecret).join(', ')
}

function weaknessOf (value: string, rule: SecretRule): string | undefined {
  const bytes = Buffer.byteLength(value)
  if (rule.samples.some(sample => sample.test(value.toLowerCase()))) return 'is a sample or a known default'
  if (/^#\s/.test(value)) return 'looks like a comment'
  if (bytes < rule.minBytes) return `has ${bytes} bytes, fewer than ${rule.minBytes}`
  if (rule.visibleAsciiOnly && !/^[\x21-\x7e]*$/.test(value)) return 'has characters other than visible ASCII'
  if (new Set(value).size < rule.minDistinctCharacters) {
    return `repeats itself: it has fewer than ${rule.minDistinctCharacters} different characters`
  }
  return undefined
}
