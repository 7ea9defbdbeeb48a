import { Secret } from '../domain/secret.ts'
import { InvalidSetting } from './problems.ts'

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
