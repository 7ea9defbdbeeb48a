import type { Dialect, UsageTold } from './llm-dialects.ts'
import type { Place, Turn } from './llm-streams.ts'
import {
  type Answer, cutBody, type Delivery, drop, endlessBody, envelope, gzipped, instead, page, plainly, redirect, refusal,
  type RefusalCode, slowBody, slowHeaders, withHeaders
} from './responses.ts'

/** What the words of a prompt change about an answer. */
export interface LlmPlan {
  readonly usage?: UsageTold
  /** Ninety tokens come from the cache, and five go there. */
  readonly isCached?: true
  /** It thinks first, for so many tokens. */
  readonly thoughts?: number
  /** Tokens of its text. */
  readonly pieces?: number
  /** The first of them has this many characters. */
  readonly pieceLength?: number
  readonly hasFailed?: true
  readonly isContinued?: true
  readonly echoesKey?: true
  readonly turn?: Turn
  readonly hasCrlf?: true
  readonly hasDataLines?: true
  /** always: compressed though nobody asked · offered: where the request accepts it. */
  readonly gzip?: 'always' | 'offered'
  readonly pauseMs?: number
  readonly slowStart?: true
  readonly headers?: Readonly<Record<string, string>>
}

/** An awkward case of an LLM call, asked for by the word `sandbox:<name>` in the last text of the user. */
export interface LlmCase {
  readonly name: string
  /** One line for a table in a document. */
  readonly meaning: string
  /** answer: as it was asked for · lost: the answer is made, and another one comes · nothing: no token is used. */
  readonly makes: 'answer' | 'lost' | 'nothing'
  /** What comes in place of an answer, streamed or not. */
  readonly instead?: (dialect: Dialect) => Delivery
  /** How a JSON answer leaves; plainly when absent. */
  readonly json?: Delivery
  readonly plan?: LlmPlan
}

const vendorCodes = [400, 401, 402, 403, 404, 429, 500, 502, 503, 504, 529] as const
const codes: readonly RefusalCode[] = [400, 401, 402, 403, 404, 429, 500, 503]

/** Seven seconds are here to see whether they are passed on. */
function pausing ({ status, headers, body }: Answer): Answer {
  return { status, headers: status === 429 ? { ...headers, 'retry-after': '7' } : headers, body }
}

/** The vendor's own refusal with this status. */
export function vendorRefusal (dialect: Dialect, status: number, message: string): Answer {
  const headers = { 'content-type': 'application/json', [dialect.requestIdHeader]: `req_sandbox_${status}` }
  return pausing({ status, headers, body: JSON.stringify(dialect.error(status, message)) })
}

type Row = Omit<LlmCase, 'name'>

function refused (deliver: Delivery, meaning: string, makes: LlmCase['makes'] = 'nothing'): Row {
  return { makes, instead: () => deliver, meaning }
}

const refusals: ReadonlyArray<readonly [string, Row]> = [
  ...vendorCodes.map((code): [string, Row] => [`vendor-${code}`, {
    makes: 'nothing',
    instead: dialect => instead(vendorRefusal(dialect, code, 'The prompt asked for this refusal')),
    meaning: `HTTP ${code} in the shape of the vendor`
  }]),
  ...codes.map((code): [string, Row] =>
    [`http-${code}`, refused(instead(pausing(refusal(code))), `HTTP ${code} with APIXO's envelope`)]),
  ...codes.map((code): [string, Row] =>
    [`code-${code}`, refused(instead({ ...refusal(code), status: 200 }), `HTTP 200 with code ${code} in an envelope`)]),
  ['html-502', refused(instead(page(502, '502 Bad Gateway')), 'the 502 page of a CDN')],
  ['html-200', refused(instead(page(200, 'One moment, please')), 'a page with HTTP 200, the answer made', 'lost')],
  ['json-504', refused(instead(envelope(504, 'Gateway Timeout', null)), 'HTTP 504, the answer made', 'lost')],
  ['redirect-307', refused(redirect(307), 'a 307 to another host')],
  ['drop-before', refused(drop, 'the connection ends before anything is made')],
  ['drop-after', refused(drop, 'all is made, then the connection ends', 'lost')]
]

const places: ReadonlyArray<readonly [Place, string]> = [
  ['head', 'after the headers'],
  ['opening', 'after the first event, which has no content'],
  ['middle', 'in the middle of the content'],
  ['last', 'after the content, before what makes it whole']
]

const turns: ReadonlyArray<readonly [Turn['then'], string, Delivery]> = [
  ['cut', 'the connection ends', cutBody],
  ['end', 'the stream ends as if it were whole', plainly],
  ['error', 'an event tells an error, then the end', plainly],
  ['hold', 'silence until it is released', slowBody]
]

const turned = turns.flatMap(([then, what, json]) => places.map(([at, where]): [string, Row] =>
  [`${then}-${at}`, { makes: 'answer', plan: { turn: { at, then } }, json, meaning: `${where}: ${what}` }]))

const strayHeaders = {
  'set-cookie': 'upstream=1; Path=/',
  'access-control-allow-origin': '*',
  server: 'sandbox',
  'www-authenticate': 'Bearer realm="upstream"',
  'x-accel-buffering': 'yes',
  'retry-after-ms': '0'
}

const plans: ReadonlyArray<readonly [name: string, plan: LlmPlan, meaning: string, json?: Delivery]> = [
  ['slow-start', { slowStart: true }, 'no byte of answer until it is released', slowHeaders],
  ['endless', { turn: { at: 'middle', then: 'endless' } }, 'the same event for ever; a JSON of spaces', endlessBody],
  ['usage-absent', { usage: 'absent' }, 'usage is told nowhere'],
  ['usage-null', { usage: 'null' }, 'good usage in each chunk, null at the end'],
  ['usage-zero', { usage: 'zero' }, 'good usage in each chunk, zeros at the end'],
  ['usage-each', { usage: 'each' }, 'usage so far in each chunk'],
  ['cached', { isCached: true }, 'ninety tokens come from the cache, five go there where that is told'],
  ['thinking', { thoughts: 12 }, 'twelve tokens of thoughts before the answer'],
  ['large', { pieces: 16, pieceLength: 65_536 }, 'an answer of a megabyte in sixteen pieces'],
  ['failed', { hasFailed: true }, 'responses: it ends as failed, all made'],
  ['continued', { isContinued: true }, 'Gemini: it asks to be continued by another call, once'],
  ['crlf', { hasCrlf: true }, 'lines end with CRLF'],
  ['data-lines', { hasDataLines: true }, 'JSON over several lines of data'],
  ['gzip', { gzip: 'always' }, 'compressed though nobody asked for it', gzipped],
  ['gzip-offered', { gzip: 'offered' }, 'compressed where the request accepts it'],
  ['echo-key', { echoesKey: true }, 'the text holds the key it was asked with'],
  ['bad-headers', { headers: strayHeaders }, 'a good answer with cookies, CORS and more headers of its own',
    withHeaders(strayHeaders)]
]

/** Every case there is, but for those with a number: `pieces-200` and `pause-40`. */
export const llmCases: readonly LlmCase[] = [
  ...[...refusals, ...turned].map(([name, row]) => ({ name, ...row })),
  ...plans.map(([name, plan, meaning, json = plainly]) => ({ name, meaning, makes: 'answer' as const, plan, json }))
]

const byName = new Map(llmCases.map(row => [row.name, row]))

/** `pieces-200`: so many tokens of text · `pause-40`: so many milliseconds before each event but the first. */
function numbered (name: string): LlmCase | undefined {
  const [, kind, digits] = /^(pieces|pause)-(\d{1,6})$/.exec(name) ?? []
  if (kind === undefined) return undefined
  const plan = kind === 'pieces' ? { pieces: Number(digits) } : { pauseMs: Number(digits) }
  return { name, meaning: 'a case with a number', makes: 'answer', plan }
}

/** The cases that a prompt asks for, in its order, and the words that are none. */
export function llmCasesIn (prompt: string): { readonly cases: readonly LlmCase[], readonly unknown: string[] } {
  const words = Array.from(prompt.matchAll(/\bsandbox:([\w-]*\w)/g), ([, name]) => name!)
  const rows = words.map(name => [name, byName.get(name) ?? numbered(name)] as const)
  return {
    cases: rows.flatMap(([, row]) => row ?? []),
    unknown: rows.filter(([, row]) => row === undefined).map(([name]) => name)
  }
}
