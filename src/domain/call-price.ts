import { quoted } from './json.ts'
import type { Microcredits } from './policy.ts'
import { type Media, noTokens, type Tokens, type TokenPrice } from './token-prices.ts'
import { badBody, badRequest } from '../errors.ts'

/** A tool that the upstream would run, as a body asks for it. */
export interface AskedTool {
  /** As the body names it. */
  readonly type: string
  /** As a price names it; `null`: no answer tells how often it has run. */
  readonly name: string | null
  /** How often it may run; `null`: the body does not say. */
  readonly most: number | null
  /** The field that would say it. */
  readonly limit: string | null
}

/** What of a body makes its price. */
export interface PricedParts {
  /** The most tokens that go in beside those of media: a token is at least a byte of the body. */
  readonly textBound: number
  readonly media: Media
  /** The most tokens that may come out, of all answers. */
  readonly outputBound: number
  /** Those that the upstream would run, and are paid for apart: it is for the price to say whether. */
  readonly serverTools: readonly AskedTool[]
  /** The tier of service that it asks for; `null`: none. */
  readonly tier: string | null
}

/** What an answer tells of what is charged beside its tokens. */
export interface ToldExtras {
  /** How often each tool has run. */
  readonly calls: ReadonlyMap<string, number>
  /** The tier that has served it; `null`: it does not say. */
  readonly tier: string | null
}

/** What a call costs, with all that its model's price names. */
export interface CallPrice {
  /** The most tokens that go in. */
  readonly inputBound: number
  /** The most that it can cost. */
  readonly bound: Microcredits
  /** What the tokens of an answer cost, and what it has done beside them. */
  costOf (tokens: Partial<Tokens>, told: ToldExtras): Microcredits
  /** The upstream may run tools of its own, and of an answer that breaks off nobody knows how often. */
  readonly runsTools: boolean
}

const costly = 'it costs what tokens do not say'

/** The upstream's usual tiers, by whichever name: those that cost what the price says. */
const usualTiers: ReadonlySet<string> = new Set(['default', 'standard', 'standard_only'])

/**
 * The price of one call. `stateTokens`: the most that is read of what the upstream keeps. Throws `GW_BAD_REQUEST` for
 * a tool or a tier that its model's price does not name, for a tool that nothing bounds, and when the most that it may
 * cost is beyond all credits.
 */
export function callPrice (body: PricedParts, price: TokenPrice, stateTokens = 0): CallPrice {
  const tools = body.serverTools.map(tool => ({ ...tool, ...pricedTool(tool, price) }))
  const factor = mostOfTier(body.tier, price)
  const turns = 1 + tools.reduce((sum, { calls }) => sum + calls, 0)
  const results = tools.reduce((sum, { calls, tokensPerCall }) => sum + calls * tokensPerCall, 0)
  const inputBound = price.inputBound(body.textBound + stateTokens + results, body.media) * turns
  const callsCost = tools.reduce((sum, { calls, perCall }) => sum + calls * perCall, 0)
  return {
    inputBound,
    bound: summed(price.boundOf(inputBound, body.outputBound) * factor + callsCost),
    costOf: (tokens, { calls, tier }) => Math.min(Number.MAX_SAFE_INTEGER, Math.ceil(
      price.costOf({ ...noTokens, ...tokens }) * factorOf(tier, body.tier, price) + costOfTools(calls, price)
    )),
    runsTools: tools.length > 0
  }
}

function summed (bound: number): Microcredits {
  if (!Number.isSafeInteger(Math.ceil(bound))) throw badRequest('The limits of this call make a price beyond all credits.')
  return Math.ceil(bound)
}

function pricedTool ({ type, name, most, limit }: AskedTool, price: TokenPrice) {
  const priced = name === null ? null : price.tool(name)
  if (name === null || priced === null) {
    throw badBody(`the tool ${quoted(type)} is not accepted here: the upstream would run it, and ${costly}`)
  }
  const atMost = priced.maxCalls === null ? '' : ` to ${priced.maxCalls} or less`
  if (most === null || most > (priced.maxCalls ?? Infinity)) {
    throw badBody(`set ${limit}${atMost}: the tool ${quoted(type)} is paid for by its calls`)
  }
  return { calls: most, perCall: priced.perCall, tokensPerCall: priced.tokensPerCall }
}

function costOfTools (calls: ReadonlyMap<string, number>, price: TokenPrice): Microcredits {
  return [...calls].reduce((sum, [name, count]) => sum + count * (price.tool(name)?.perCall ?? 0), 0)
}

/** What is left open may be served by any tier: which one, its project says. */
function mostOfTier (tier: string | null, price: TokenPrice): number {
  if (tier === null || tier === 'auto') return Math.max(1, ...price.tiers.values())
  if (usualTiers.has(tier)) return 1
  const factor = price.tiers.get(tier)
  if (factor === undefined) throw badBody(`service_tier ${quoted(tier)} is not accepted here: ${costly}`)
  return Math.max(1, factor)
}

/** That of the tier that has served the call; else of the one that was asked for. */
function factorOf (told: string | null, asked: string | null, { tiers }: TokenPrice): number {
  const tier = told ?? asked ?? 'default'
  return tiers.get(tier) ?? (usualTiers.has(tier) ? 1 : tiers.get(asked ?? '') ?? 1)
}
