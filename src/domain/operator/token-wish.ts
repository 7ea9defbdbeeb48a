import { badRequest } from '../../errors.ts'
import { quoted } from '../bodies/json.ts'
import { type Scope, scopes as allScopes } from '../sessions/session.ts'
import type { Token } from '../sessions/tokens.ts'

/** A token as somebody outside asks for it. */
export interface TokenWish {
  /** The name of whoever is to have it, without `token:`. */
  readonly subject: string
  /** `default` when absent. */
  readonly plan?: string | undefined
  /** The longest that is permitted when absent. */
  readonly ttlSeconds?: number | undefined
  /** Globs; all of the plan's when absent. */
  readonly models?: readonly string[] | undefined
  /** All when absent. */
  readonly scopes?: readonly string[] | undefined
}

/** What the operator has set. */
export interface TokenRules {
  readonly plans: Readonly<Record<string, unknown>>
  readonly maxTtlSeconds: number
}

/** No control characters, and no half of a surrogate pair, which a store would not give back as it was. */
const name = /^[^\p{Cc}\p{Cs}]{1,128}$/u
const glob = /^[A-Za-z0-9._*-]{1,64}$/
const maxModels = 100

/** Reads what was asked for, and fills in the rest. Throws `GW_BAD_REQUEST`, which names the field. */
export function readTokenWish (
  { subject, plan = 'default', ttlSeconds, models = ['*'], scopes = allScopes }: TokenWish, { plans, maxTtlSeconds }: TokenRules
): Pick<Token, 'subject' | 'plan' | 'models' | 'scopes' | 'ttlMs'> {
  if (!name.test(subject)) throw badRequest('subject must be a name of 1 to 128 characters, none of them a control character.')
  if (subject.startsWith('token:')) throw badRequest(`subject must be the name alone: ${quoted(subject.slice('token:'.length))}.`)
  const known = Object.keys(plans)
  if (!known.includes(plan)) throw badRequest(`There is no plan ${quoted(plan)}: plans are ${known.map(quoted).join(', ')}.`)
  return {
    subject: `token:${subject}`,
    plan,
    ttlMs: ttlOf(ttlSeconds, maxTtlSeconds) * 1000,
    models: modelsOf(models),
    scopes: scopesOf(scopes)
  }
}

function ttlOf (ttlSeconds: number | undefined, maxTtlSeconds: number): number {
  if (ttlSeconds === undefined) return maxTtlSeconds
  if (Number.isInteger(ttlSeconds) && ttlSeconds >= 1 && ttlSeconds <= maxTtlSeconds) return ttlSeconds
  throw badRequest(`ttl must be from 1 second to ${shownDuration(maxTtlSeconds)}, the longest that sessions.maxTtlSeconds permits.`)
}

function shownDuration (seconds: number): string {
  return seconds % 86_400 === 0 ? `${seconds / 86_400} days` : `${seconds} seconds`
}

function modelsOf (models: readonly string[]): readonly string[] {
  if (models.length > maxModels) throw badRequest(`models must be at most ${maxModels}.`)
  const odd = models.find(model => !glob.test(model))
  if (odd !== undefined) throw badRequest(`models must be names or globs such as sora-2*: ${quoted(odd)} is none.`)
  return models
}

function scopesOf (scopes: readonly string[]): readonly Scope[] {
  const isScope = (scope: string): scope is Scope => allScopes.some(known => known === scope)
  if (!scopes.every(isScope)) throw badRequest(`scopes must be some of ${allScopes.join(', ')}.`)
  return [...new Set(scopes)]
}
