import { badBody, gatewayError } from '../../errors.ts'
import { quoted } from '../bodies/json.ts'
import { hostList, isPublicName } from '../results/result-hosts.ts'

/** Where callers may have the end of a task delivered to: `callbacks.allowedHosts`. */
export interface CallbackHosts {
  /** Nothing is delivered to anybody. */
  readonly isEmpty: boolean
  /** The URL, if it may be called. Throws `GW_BAD_REQUEST` for what is no such URL, `GW_CALLBACK_DENIED` for other hosts. */
  check (url: unknown): string
  /** Whether a URL that was checked before may still be called. */
  permits (url: string): boolean
}

const maxUrlLength = 2048

/**
 * Only https, on any port, for the certificate proves the host. Which addresses its name leads to is judged at each
 * connection (`guardedLookup`), and not here, where it could change again.
 */
export function callbackHosts (hosts: readonly string[]): CallbackHosts {
  const isListed = hostList(hosts)
  // An address in the URL is never resolved, so nobody would judge it later.
  const mayCall = (hostname: string): boolean => isListed(hostname) && isPublicName(hostname)

  return {
    isEmpty: hosts.length === 0,
    check (url) {
      const parsed = parse(url)
      if (!mayCall(parsed.hostname)) throw gatewayError('GW_CALLBACK_DENIED', { about: `callback_url with the host ${quoted(parsed.hostname)}` })
      return parsed.href
    },
    permits (url) {
      const parsed = URL.parse(url)
      return parsed !== null && mayCall(parsed.hostname)
    }
  }
}

function parse (url: unknown): URL {
  // What a lenient parser would mend (RFC 3986 knows no space and no backslash) is not what somebody else would read.
  if (typeof url !== 'string' || url.length > maxUrlLength || /[^\x21-\x7e]|\\/.test(url)) throw bad('an https: URL')
  const parsed = /^https:\/\/[^/]/i.test(url) ? URL.parse(url) : null
  if (parsed === null) throw bad('an https: URL')
  if (parsed.username !== '' || parsed.password !== '') throw bad('a URL without credentials')
  if (url.includes('#')) throw bad('a URL without a fragment')
  return parsed
}

function bad (expected: string) {
  return badBody(`callback_url must be ${expected}`)
}
