import { badRequest } from '../errors.ts'
import { byModel, globs, type Microcredits, microcredits } from './policy.ts'
import type { PriceRules, TokenRule } from './prices.ts'

/** The kinds of tokens that a call is charged for. Each token is counted in one of them. */
export const tokenKinds = [
  'input', 'cacheRead', 'cacheWrite', 'cacheWriteHour', 'imageInput', 'audioInput',
  'output', 'reasoning', 'imageOutput', 'audioOutput'
] as const
export type TokenKind = typeof tokenKinds[number]

/** Tokens of one call. */
export type Tokens = Readonly<Record<TokenKind, number>>

export const noTokens: Tokens = {
  input: 0,
  cacheRead: 0,
  cacheWrite: 0,
  cacheWriteHour: 0,
  imageInput: 0,
  audioInput: 0,
  output: 0,
  reasoning: 0,
  imageOutput: 0,
  audioOutput: 0
}

/** How many there are of what has more tokens than bytes, or may have. */
export interface Media {
  readonly pictures: number
  /** Of these the caller asked that they be looked at as large as they are. */
  readonly largePictures: number
  /** Documents, films and sounds. */
  readonly files: number
}

/** What the tokens of a model cost. */
export interface TokenPrice {
  /** Rounded up to a whole microcredit; no more than can be counted. */
  costOf (tokens: Tokens): Microcredits
  /**
   * The most that a call with so many tokens each way can cost, whatever kinds they are of. Throws `GW_BAD_REQUEST`
   * when that is beyond all credits.
   */
  boundOf (input: number, output: number): Microcredits
  /** The most tokens that go in, of a text and of what stands beside it. */
  inputBound (text: number, media: Media): number
  /** Whether the operator has named a price of its own for a kind. */
  names (kind: TokenKind): boolean
  /** Whether an answer may have cost more than can be seen of it, since the model thinks and does not show it. */
  readonly hidesReasoning: boolean
  /** A tool that the upstream runs; `null`: the operator has named no price for it. */
  tool (name: string): ToolPrice | null
  /** Tier of service → what its tokens cost as a multiple. */
  readonly tiers: ReadonlyMap<string, number>
}

/** What a tool costs that the upstream runs. */
export interface ToolPrice {
  readonly perCall: Microcredits
  readonly tokensPerCall: number
  /** `null`: as many as the caller says. */
  readonly maxCalls: number | null
}

const directions: Readonly<Record<TokenKind, 'input' | 'output'>> = {
  input: 'input',
  cacheRead: 'input',
  cacheWrite: 'input',
  cacheWriteHour: 'input',
  imageInput: 'input',
  audioInput: 'input',
  output: 'output',
  reasoning: 'output',
  imageOutput: 'output',
  audioOutput: 'output'
}

/**
 * The price per token of a model: of those rules the first whose glob matches, whatever the case of its name. `null`:
 * the operator has named none, and then nothing may be sent.
 */
export function tokenPrices (rules: PriceRules): (model: string) => TokenPrice | null {
  const rows = Object.entries(rules).flatMap(([models, rule]) =>
    isTokenRule(rule) ? [{ matches: tokenGlob(models), rule }] : [])
  const priceOf = byModel(model => {
    const row = rows.find(({ matches }) => matches(model))
    return { price: row === undefined ? null : compile(row.rule, model) }
  })
  return model => priceOf(model).price
}

/**
 * Whether a price per token is that of a model. What stands behind a colon (`:online`, `:thinking`) makes another model
 * of it, and perhaps a dearer one: a glob without a colon is none of such.
 */
export function tokenGlob (pattern: string): (model: string) => boolean {
  const matches = globs([pattern], { ignoreCase: true })
  return pattern.includes(':') ? matches : model => !model.includes(':') && matches(model)
}

/** Whether any model has a price per token. */
export function hasTokenPrices (rules: PriceRules): boolean {
  return Object.values(rules).some(isTokenRule)
}

/** Whether a price is one per token. */
export function isTokenRule (rule: PriceRules[string]): rule is TokenRule {
  return typeof rule === 'object' && 'inputPerMillion' in rule
}

/**
 * The most tokens of a picture by what vendors say, and more where one of them says more:
 * https://platform.claude.com/docs/en/build-with-claude/vision (4784),
 * https://ai.google.dev/gemini-api/docs/media-resolution (2240; of older models 258 a tile),
 * https://platform.openai.com/docs/guides/images-vision (1536 patches at up to 2.46; of gpt-4o-mini eight tiles, 48,169;
 * 10,000 patches in its original size).
 */
function pictureTokens (model: string): number {
  if (/4o-mini/i.test(model)) return 49_152
  return /^(?:claude|gemini)-/i.test(model) ? 8192 : 16_384
}
const largePictureTokens = 32_768
/** A document or a film may fill all that the models take today. */
const fileTokens = 1_048_576

function compile (rule: TokenRule, model: string): TokenPrice {
  const { tokensPerImage, tokensPerFile = fileTokens, contextTokens = Infinity } = rule
  const { serverTools = {}, serviceTiers = {} } = rule
  const tools = new Map(Object.entries(serverTools).map(([name, { perCall, tokensPerCall, maxCalls = null }]) =>
    [name, { perCall: microcredits(perCall), tokensPerCall, maxCalls }]))
  const [perPicture, perLargePicture] = tokensPerImage === undefined
    ? [pictureTokens(model), Math.max(pictureTokens(model), largePictureTokens)]
    : [tokensPerImage, tokensPerImage]
  // Credits for a million tokens are microcredits for one.
  // A kind without a price of its own costs as much as plain tokens in its direction, and what is kept for an hour as
  // much as what is kept for less.
  const rateOf = (kind: TokenKind): number => rule[`${kind}PerMillion`] ??
    (kind === 'cacheWriteHour' ? rateOf('cacheWrite') : rule[`${directions[kind]}PerMillion`])
  const rates = tokenKinds.map(kind => [kind, rateOf(kind)] as const)
  const dearest = (direction: 'input' | 'output'): number =>
    Math.max(...rates.filter(([kind]) => directions[kind] === direction).map(([, rate]) => rate))
  const [inputRate, outputRate] = [dearest('input'), dearest('output')]
  return {
    costOf: tokens =>
      Math.min(roundedUp(rates.reduce((sum, [kind, rate]) => sum + tokens[kind] * rate, 0)), Number.MAX_SAFE_INTEGER),
    boundOf (input, output) {
      const bound = roundedUp(input * inputRate + output * outputRate)
      if (!Number.isSafeInteger(bound)) throw badRequest('The limit of output tokens makes a price beyond all credits.')
      return bound
    },
    inputBound: (text, { pictures, largePictures, files }) => Math.min(contextTokens,
      text + pictures * perPicture + largePictures * perLargePicture + files * tokensPerFile),
    names: kind => rule[`${kind}PerMillion`] !== undefined,
    hidesReasoning: rule.hidesReasoning ?? true,
    tool: name => tools.get(name) ?? null,
    tiers: new Map(Object.entries(serviceTiers))
  }
}

/** Floats have noise, for which no price is rounded up; but nothing that costs anything is free. */
function roundedUp (price: number): Microcredits {
  const rounded = Math.ceil(Number(price.toFixed(3)))
  return price > 0 ? Math.max(1, rounded) : 0
}
