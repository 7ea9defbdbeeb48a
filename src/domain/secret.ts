import { createHash } from 'node:crypto'
import { inspect } from 'node:util'

/**
 * A value that must not be seen. It prints as `[secret]` wherever something prints it: template strings, JSON,
 * `console.log`, a logger, an assertion's diff. Only `reveal()` gives it out, so a search for that word finds every
 * use.
 */
export class Secret {
  readonly #value: string

  constructor (value: string) {
    this.#value = value
  }

  reveal (): string {
    return this.#value
  }

  equals (other: Secret): boolean {
    return this.#value === other.#value
  }

  /** Eight hexadecimal digits of the SHA-256: enough to tell two secrets apart in a log, useless to guess one from. */
  get fingerprint (): string {
    return createHash('sha256').update(this.#value).digest('hex').slice(0, 8)
  }

  toString (): string {
    return '[secret]'
  }

  toJSON (): string {
    return '[secret]'
  }

  [inspect.custom] (): string {
    return '[secret]'
  }
}

/** A value that may be another one the next time it is looked at. One that stays is live too: `{ current: value }`. */
export interface SecretRef<Value> {
  readonly current: Value
}

/** What is made of a live value: made once, and anew when that has become another one. */
export function memoized<From, To> (live: SecretRef<From>, make: (from: From) => To): SecretRef<To> {
  let from = live.current
  let made = make(from)
  return {
    get current () {
      if (live.current !== from) {
        from = live.current
        made = make(from)
      }
      return made
    }
  }
}
