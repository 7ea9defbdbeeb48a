import type { Cluster, Redis } from 'ioredis'
import type { LedgerTerms } from '../../domain/ledger/ledger.ts'
import type { Connection } from './connection.ts'
import { keepMs, slackMs } from './key-lifetimes.ts'
import type { KeyNames } from './key-names.ts'
import type { MemoryMark } from './memory-mark.ts'
import { type SharedScript, sharedLua } from './scripts/shared.ts'
import { subjectLua, type SubjectScript } from './scripts/subject.ts'

/** An answer of a script. Lua's `false` is `null`; it has no `true`. */
export type Reply = Buffer | number | null | readonly Reply[]
type Argument = string | number | Buffer

/** Asks Redis. All throw `GW_STORE_DOWN` when it can not serve. */
export interface Commands {
  /** Runs a script in the slot of a subject. */
  ofSubject (subject: string, script: SubjectScript, ...args: readonly Argument[]): Promise<Reply>
  /** Runs a script in the slot of a key. */
  on (key: string, script: SharedScript, ...args: readonly Argument[]): Promise<Reply>
  /** Gives a plain command. */
  ask<T> (give: (client: Redis | Cluster) => Promise<T>): Promise<T>
}

interface CommandsOptions {
  readonly connection: Connection
  readonly mark: MemoryMark
  readonly keys: KeyNames
  readonly terms: LedgerTerms
  readonly now: () => number
}

export function commands ({ connection: { client, failure }, mark, keys, terms, now }: CommandsOptions): Commands {
  const lua = Object.entries({ ...subjectLua, ...sharedLua })
  // Answers are bytes: some have the body of another answer in them.
  const scripts = Object.fromEntries(lua.map(([name, text]) => {
    client.defineCommand(name, { numberOfKeys: 1, lua: text })
    return [name, (client as unknown as Record<string, (...args: Argument[]) => Promise<Reply>>)[`${name}Buffer`]!]
  }))
  const supersededMs = terms.giveUpMs + terms.sentMs + terms.reservedMs + slackMs
  const lasting = [keepMs(terms), terms.retentionMs, supersededMs]

  const run = async (name: string, ...args: Argument[]): Promise<Reply> => {
    mark.hold()
    try {
      return await scripts[name]!.apply(client, args)
    } catch (error) {
      throw failure(error)
    }
  }
  return {
    ofSubject: (subject, script, ...args) => run(script, keys.account(subject), now(), ...lasting, ...args),
    on: (key, script, ...args) => run(script, key, ...args),
    async ask (give) {
      mark.hold()
      try {
        return await give(client)
      } catch (error) {
        throw failure(error)
      }
    }
  }
}
