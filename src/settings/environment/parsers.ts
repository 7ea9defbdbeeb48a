import { statSync } from 'node:fs'
import { isIP } from 'node:net'
import { resolve } from 'node:path'
import { Secret } from '../../domain/secret.ts'
import { Refusal, shown } from '../settings-error.ts'

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
    if (found === undefined) throw new Refusal(`${shown(text)} is not known`)
    return found
  }
}

export function boolean (text: string): boolean {
  if (text !== 'true' && text !== 'false') throw new Refusal(`${shown(text)} is neither true nor false`)
  return text === 'true'
}

export function port (text: string): number {
  const value = /^\d{1,5}$/.test(text) ? Number(text) : Infinity
  if (value > 65535) throw new Refusal(`${shown(text)} is not a port`)
  return value
}

export function host (text: string): string {
  if (isIP(text) === 0 && !/^[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?$/.test(text)) {
    throw new Refusal(`${shown(text)} is neither an address nor a host name`)
  }
  return text
}

/** A parser of a list separated by commas. One bad entry does not hide the next. */
export function list<Value> (parse: (text: string) => Value): Parser<readonly Value[]> {
  return (text) => {
    const refusals: Refusal[] = []
    const values = text.split(',').map(entry => entry.trim()).filter(entry => entry !== '').flatMap(entry => {
      try {
        return [parse(entry)]
      } catch (error) {
        refusals.push(error as Refusal)
        return []
      }
    })
    if (refusals.length > 0) {
      const expected = refusals.flatMap(refusal => refusal.expected ?? []).join(', ')
      throw new Refusal(refusals.map(({ message }) => message).join(', '), expected === '' ? undefined : expected)
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
  if (found?.isDirectory() !== true) throw new Refusal(`there is no directory ${shown(path)}`)
  return path
}

/** The text may hold a password, so no message repeats it. */
export function store (text: string, cwd: string): StoreSettings {
  if (text.startsWith('sqlite:')) return sqliteStore(text.slice('sqlite:'.length), cwd)
  const scheme = /^([a-z][a-z0-9+.-]{0,15}):/i.exec(text)?.[1]
  if (scheme === 'redis' || scheme === 'rediss') return redisStore(text)
  throw new Refusal(scheme === undefined ? 'has no scheme' : `the scheme ${shown(scheme)} is not known`)
}

function sqliteStore (path: string, cwd: string): StoreSettings {
  if (path === ':memory:') return { kind: 'sqlite', path }
  if (path === '') throw new Refusal('names no file')
  // `sqlite://data/x.db` would mean the folder /data; a query would become part of the file's name.
  if (/^\/\/[^/]/.test(path) || /[?#]/.test(path)) throw new Refusal(`${shown(`sqlite:${path}`)} is not a plain path`)
  return { kind: 'sqlite', path: resolve(cwd, path) }
}

function redisStore (text: string): StoreSettings {
  const url = URL.parse(text)
  if (url === null || url.hostname === '') throw new Refusal('is not a URL with a host')
  if (/[?#]/.test(text) || !/^(?:\/\d*)?$/.test(url.pathname)) {
    throw new Refusal('has more after the host than the number of a database')
  }
  return { kind: 'redis', url: new Secret(text), address: `${url.protocol}//${url.host}${url.pathname}` }
}
