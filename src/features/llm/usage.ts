import type { ToldExtras } from '../../domain/call-price.ts'
import { isObject, jsonValue } from '../../domain/json.ts'
import { type Tokens } from '../../domain/token-prices.ts'
import { maxStateIdLength } from '../../domain/upstream-states.ts'
import type { DialectName } from './dialects.ts'

type JsonObject = Readonly<Record<string, unknown>>

/** What an answer tells of itself, whichever the dialect. Where a dialect has no such thing, nothing is given. */
interface Reading {
  /** Objects that hold usage. */
  usageIn (value: JsonObject): readonly unknown[]
  /** Fields of usage, as paths of names. */
  readonly fields: readonly string[]
  /** What is made for the caller: a text, or anything with texts in it. */
  contentIn (value: JsonObject): unknown
  /** The places of the answers that are whole with this, as their clients see it: one may ask for several at once. */
  endedIn (value: JsonObject): readonly unknown[]
  /** Whether nothing comes after it; `[DONE]` is no object. */
  isLast (value: JsonObject): boolean
  /** `null` where a direction is not told. `isEmpty`: nothing was made for the caller. */
  tokensOf (told: Told, isEmpty: boolean): Partial<Tokens> | null
}

/** The numbers of usage by their paths. */
type Told = (path: string) => number | undefined

function listOf (value: unknown): readonly JsonObject[] {
  return Array.isArray(value) ? value.filter(isObject) : []
}

function member (value: unknown, name: string): unknown {
  return isObject(value) ? value[name] : undefined
}

const none: readonly unknown[] = []
const only: readonly unknown[] = [0]

function placesOf (answers: unknown, reason: string): readonly unknown[] {
  return listOf(answers).filter(answer => typeof answer[reason] === 'string').map(({ index = 0 }) => index)
}

/** https://platform.openai.com/docs/api-reference/chat/object: totals include the details. */
const chat: Reading = {
  usageIn: ({ usage }) => [usage],
  fields: [
    'prompt_tokens', 'prompt_tokens_details.cached_tokens', 'prompt_tokens_details.cache_write_tokens',
    'prompt_tokens_details.image_tokens', 'prompt_tokens_details.audio_tokens',
    'completion_tokens', 'completion_tokens_details.reasoning_tokens', 'completion_tokens_details.audio_tokens'
  ],
  contentIn: ({ choices }) => listOf(choices).map(({ delta, message, text }) => [delta, message, text]),
  endedIn: ({ choices }) => placesOf(choices, 'finish_reason'),
  isLast: () => false,
  tokensOf (told) {
    const [input, output] = [told('prompt_tokens'), told('completion_tokens')]
    if (input === undefined || output === undefined) return null
    return {
      ...parts(input, 'input', {
        cacheRead: told('prompt_tokens_details.cached_tokens'),
        cacheWrite: told('prompt_tokens_details.cache_write_tokens'),
        imageInput: told('prompt_tokens_details.image_tokens'),
        audioInput: told('prompt_tokens_details.audio_tokens')
      }),
      ...parts(output, 'output', {
        reasoning: told('completion_tokens_details.reasoning_tokens'),
        audioOutput: told('completion_tokens_details.audio_tokens')
      })
    }
  }
}

const lastResponses: ReadonlySet<unknown> = new Set(['response.completed', 'response.incomplete', 'response.failed'])
const lastStatuses: ReadonlySet<unknown> = new Set(['completed', 'incomplete', 'failed'])

/** https://platform.openai.com/docs/api-reference/responses-streaming */
const responses: Reading = {
  usageIn: ({ usage, response }) => [usage, member(response, 'usage')],
  fields: [
    'input_tokens', 'input_tokens_details.cached_tokens', 'input_tokens_details.cache_write_tokens',
    'output_tokens', 'output_tokens_details.reasoning_tokens'
  ],
  contentIn: ({ type, delta, output }) => typeof type === 'string' && type.endsWith('.delta') ? delta : output,
  endedIn: ({ type, object, status }) =>
    lastResponses.has(type) || (object === 'response' && lastStatuses.has(status)) ? only : none,
  isLast: ({ type }) => lastResponses.has(type),
  tokensOf (told) {
    const [input, output] = [told('input_tokens'), told('output_tokens')]
    if (input === undefined || output === undefined) return null
    return {
      ...parts(input, 'input', {
        cacheRead: told('input_tokens_details.cached_tokens'),
        cacheWrite: told('input_tokens_details.cache_write_tokens')
      }),
      ...parts(output, 'output', { reasoning: told('output_tokens_details.reasoning_tokens') })
    }
  }
}

/** https://docs.claude.com/en/api/messages-streaming: input is without what the cache reads and writes. */
const messages: Reading = {
  usageIn: ({ usage, message }) => [usage, member(message, 'usage')],
  fields: [
    'input_tokens', 'cache_read_input_tokens', 'cache_creation_input_tokens',
    'cache_creation.ephemeral_1h_input_tokens', 'server_tool_use.web_search_requests',
    'server_tool_use.web_fetch_requests', 'output_tokens', 'output_tokens_details.thinking_tokens'
  ],
  contentIn: ({ type, delta, content_block: block, content }) =>
    type === 'content_block_delta' ? delta : type === 'content_block_start' ? block : content,
  endedIn: ({ type, stop_reason: reason }) =>
    type === 'message_stop' || (type === 'message' && typeof reason === 'string') ? only : none,
  isLast: ({ type }) => type === 'message_stop',
  tokensOf (told) {
    const [input, output] = [told('input_tokens'), told('output_tokens')]
    if (input === undefined || output === undefined) return null
    return {
      input,
      cacheRead: told('cache_read_input_tokens') ?? 0,
      ...parts(told('cache_creation_input_tokens') ?? 0, 'cacheWrite', {
        cacheWriteHour: told('cache_creation.ephemeral_1h_input_tokens')
      }),
      ...parts(output, 'output', { reasoning: told('output_tokens_details.thinking_tokens') })
    }
  }
}

/**
 * https://ai.google.dev/api/generate-content#UsageMetadata: thoughts and results of tools stand beside the others, a
 * count of none is left out, and what a cache has read is in the details as well.
 */
const gemini: Reading = {
  usageIn: ({ usageMetadata }) => [usageMetadata],
  fields: [
    'promptTokenCount', 'cachedContentTokenCount', 'toolUsePromptTokenCount',
    'candidatesTokenCount', 'thoughtsTokenCount', 'totalTokenCount',
    'promptTokensDetails.IMAGE', 'promptTokensDetails.AUDIO',
    'candidatesTokensDetails.IMAGE', 'candidatesTokensDetails.AUDIO',
    'cacheTokensDetails.IMAGE', 'cacheTokensDetails.AUDIO'
  ],
  contentIn: ({ candidates }) => listOf(candidates).map(({ content }) => content),
  endedIn: ({ candidates }) => placesOf(candidates, 'finishReason'),
  // The prompt is refused: there will be no candidates.
  isLast: ({ promptFeedback, candidates }) =>
    typeof member(promptFeedback, 'blockReason') === 'string' && listOf(candidates).length === 0,
  tokensOf (told, isEmpty) {
    const [input, output, reasoning] =
      [told('promptTokenCount'), told('candidatesTokenCount'), told('thoughtsTokenCount')]
    if (input === undefined) return null
    const allInput = input + (told('toolUsePromptTokenCount') ?? 0)
    const isNone = isEmpty && told('totalTokenCount') === allInput
    if (output === undefined && reasoning === undefined && !isNone) return null
    const uncached = (modality: 'IMAGE' | 'AUDIO'): number =>
      Math.max(0, (told(`promptTokensDetails.${modality}`) ?? 0) - (told(`cacheTokensDetails.${modality}`) ?? 0))
    return {
      ...parts(allInput, 'input', {
        cacheRead: told('cachedContentTokenCount'),
        imageInput: uncached('IMAGE'),
        audioInput: uncached('AUDIO')
      }),
      ...parts(output ?? 0, 'output', {
        imageOutput: told('candidatesTokensDetails.IMAGE'), audioOutput: told('candidatesTokensDetails.AUDIO')
      }),
      reasoning: reasoning ?? 0
    }
  }
}

const readings: Readonly<Record<DialectName, Reading>> = { chat, responses, messages, gemini }

/** A total, and the parts of it that cost something else. Parts that come to more than the whole are believed. */
function parts (
  total: number, rest: 'input' | 'output' | 'cacheWrite', named: Partial<Record<keyof Tokens, number | undefined>>
): Partial<Tokens> {
  const told = Object.entries(named).map(([kind, count = 0]) => [kind, count] as const)
  const sum = told.reduce((all, [, count]) => all + count, 0)
  return { ...Object.fromEntries(told), [rest]: Math.max(0, total - sum) }
}

/**
 * Reads an answer as it passes: its usage, how much of it has come, and whether it is whole. It is told values, and
 * changes nothing.
 *
 * Of each field of usage the last number counts that was told: none is added up, a `null` is no number, and a zero
 * after a number is none either, for some upstreams end with such.
 */
export class AnswerReader {
  readonly #reading: Reading
  readonly #answers: number
  readonly #told = new Map<string, number>()
  readonly #ended = new Set<unknown>()
  readonly #searches = new Set<unknown>()
  #tier: string | null = null
  #isDone = false
  #hasFailed = false
  #hasThought = false
  /** Bytes of text that were made for the caller: never fewer than their tokens. */
  contentBytes = 0

  /** Ids of what the upstream keeps of it. */
  readonly states = new Set<string>()
  readonly #onStates: ((ids: readonly string[]) => unknown) | null

  /** `answers`: as many were asked for at once. `onStates`: told the ids of what the upstream keeps, each once. */
  constructor (dialect: DialectName, answers: number, onStates: ((ids: readonly string[]) => unknown) | null = null) {
    this.#onStates = onStates
    this.#reading = readings[dialect]
    this.#answers = answers
  }

  /** All that makes it what was asked for has come. */
  get isWhole (): boolean { return this.#isDone || this.#ended.size >= this.#answers }

  /** What it has done that is charged beside its tokens. */
  get extras (): ToldExtras {
    const calls = new Map([
      ['web_search', Math.max(this.#searches.size, this.#told.get('server_tool_use.web_search_requests') ?? 0)],
      ['web_fetch', this.#told.get('server_tool_use.web_fetch_requests') ?? 0]
    ])
    return { calls, tier: this.#tier }
  }

  /** It has thought, though perhaps nobody asked for it. */
  get hasThought (): boolean { return this.#hasThought }

  /** The upstream itself has told an error in it. */
  get hasFailed (): boolean { return this.#hasFailed }

  /** Takes one event, or one answer in JSON; a list is as many. `true`: nothing comes after it. */
  take (value: unknown): boolean {
    if (Array.isArray(value)) return value.map(one => this.take(one)).includes(true)
    if (!isObject(value)) return false
    for (const usage of this.#reading.usageIn(value)) if (isObject(usage)) this.#takeUsage(usage)
    this.contentBytes += textBytes(this.#reading.contentIn(value))
    this.#takeExtras(value)
    if (this.#onStates !== null) this.#takeStates(value, this.#onStates)
    const ended = this.#reading.endedIn(value)
    for (const place of ended) this.#ended.add(place)
    this.#hasThought ||= isThought(value.content_block)
    this.#hasFailed ||= value.type === 'error' || (isObject(value.error) && ended.length === 0)
    return this.#reading.isLast(value)
  }

  /** Nothing comes after this: `[DONE]`. */
  done (): void { this.#isDone = !this.#hasFailed }

  /** `null`: usage was not told, or not both ways. All zeros are no usage. */
  get tokens (): Partial<Tokens> | null {
    const tokens = this.#reading.tokensOf(path => this.#told.get(path), this.contentBytes === 0)
    return tokens !== null && Object.values(tokens).some(count => count > 0) ? tokens : null
  }

  /** Of responses, an item for each search; the tier stands beside the usage, or in it. */
  #takeExtras (value: JsonObject): void {
    const { response, item, output, message, usage, usageMetadata } = value
    for (const call of [...listOf([item]), ...listOf(output), ...listOf(member(response, 'output'))]) {
      if (call.type === 'web_search_call') this.#searches.add(call.id)
    }
    const tiers = [
      value.service_tier, member(response, 'service_tier'), member(usage, 'service_tier'),
      member(member(message, 'usage'), 'service_tier'), member(usageMetadata, 'serviceTier')
    ]
    for (const tier of tiers) if (typeof tier === 'string') this.#tier = tier.toLowerCase()
  }

  #takeStates (value: JsonObject, tell: (ids: readonly string[]) => unknown): void {
    const { object, response, item, output, conversation, container, message, delta } = value
    const holders = [
      object === 'response' ? value : null, response, item, ...listOf(output), ...listOf(member(response, 'output')),
      conversation, member(response, 'conversation'),
      container, member(message, 'container'), member(delta, 'container')
    ]
    const ids = holders.map(holder => member(holder, 'id')).filter(id => typeof id === 'string')
      .filter(id => id.length <= maxStateIdLength && !this.states.has(id))
    if (ids.length === 0 || this.states.size + ids.length > maxStates) return
    for (const id of ids) this.states.add(id)
    tell(ids)
  }

  #takeUsage (usage: JsonObject): void {
    for (const path of this.#reading.fields) {
      const count = countAt(usage, path)
      if (count !== null && (count > 0 || !this.#told.has(path))) this.#told.set(path, count)
    }
  }
}

/** What messages begin a thought with, shown or not. */
function isThought (block: unknown): boolean {
  const type = member(block, 'type')
  return type === 'thinking' || type === 'redacted_thinking'
}

/** Most ids that are known of one answer. */
const maxStates = 1000

/** More tokens than any call has; what is above it is no count. */
const maxTokens = 1e10

/** `details.NAME` is also the `tokenCount` of the modality in a list. */
function countAt (usage: JsonObject, path: string): number | null {
  const [name, inner] = path.split('.')
  const outer = usage[name!]
  const found = inner === undefined
    ? outer
    : Array.isArray(outer)
      ? member(listOf(outer).find(({ modality }) => modality === inner), 'tokenCount')
      : member(outer, inner)
  return typeof found === 'number' && found >= 0 && found <= maxTokens ? Math.ceil(found) : null
}

/** Bytes of all texts in a value, names left out, and what says no more than whose turn it is or what kind it is of. */
function textBytes (value: unknown): number {
  if (typeof value === 'string') return Buffer.byteLength(value)
  if (typeof value !== 'object' || value === null) return 0
  let bytes = 0
  for (const [name, inner] of Object.entries(value)) if (name !== 'role' && name !== 'type') bytes += textBytes(inner)
  return bytes
}

/** Whether what a stream begins with is the upstream's error. Of bytes that hold no whole event it is not known. */
export function beginsWithError (bytes: Buffer): boolean {
  const [first] = new EventFinder().take(bytes)
  return isObject(first?.value) && (first.value.type === 'error' || isObject(first.value.error))
}

/** How an event begins that tells an error, without its white space. */
const errorStarts = ['event:error', 'data:{"error":', 'data:{"type":"error"']
/** No error is as long. */
const maxErrorBytes = 16_384

/** Whether the first event of a stream has not ended yet, and may be the upstream's error. */
export function mayBecomeError (bytes: Buffer): boolean {
  if (bytes.length > maxErrorBytes || new EventFinder().take(bytes).length > 0) return false
  const seen = bytes.toString('latin1').replace(/\s/g, '')
  return errorStarts.some(start => seen.startsWith(start) || start.startsWith(seen))
}

/** An event of a stream, and where it stands in the bytes that ended it. */
export interface FoundEvent {
  /** `undefined`: its data is no JSON; a text: `[DONE]`. */
  readonly value: unknown
  /** In the piece that was taken; negative: it had begun in an earlier one, so many bytes before this. */
  readonly start: number
  readonly end: number
}

const lf = 0x0a
const cr = 0x0d
/** No event of any dialect is as long: pictures come in some megabytes. */
const maxEventBytes = 64 * 1024 * 1024

/**
 * Finds the events in the bytes of a stream, as they come and wherever they are cut
 * (https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream). Of a line only its data is
 * kept. Throws at an event that is too long.
 */
export class EventFinder {
  /** The line that has not ended, as far as it came in earlier pieces. */
  #line: Buffer[] = []
  #data: string[] = []
  /** Bytes of the event that has not ended, in earlier pieces. */
  #before = 0
  #afterCr = false

  /** Events that end in these bytes, in their order. */
  take (bytes: Buffer): FoundEvent[] {
    const found: FoundEvent[] = []
    let start = -this.#before
    let from = 0
    if (this.#afterCr && bytes[0] === lf) {
      from = 1
      // The second half of the end of an event belongs to that event.
      if (this.#before === 0) start = 1
    }
    if (bytes.length > 0) this.#afterCr = false
    let nextCr = bytes.indexOf(cr, from)
    for (;;) {
      const nextLf = bytes.indexOf(lf, from)
      if (nextCr !== -1 && nextCr < from) nextCr = bytes.indexOf(cr, from)
      const isCr = nextCr !== -1 && (nextLf === -1 || nextCr < nextLf)
      const at = isCr ? nextCr : nextLf
      if (at === -1) break
      const isBlank = at === from && this.#line.length === 0
      let end = at + 1
      if (isCr && bytes[end] === lf) end++
      else if (isCr && end === bytes.length) this.#afterCr = true
      if (isBlank) {
        if (this.#data.length > 0) found.push({ value: valueOf(this.#data.join('\n')), start, end })
        this.#data = []
        start = end
      } else {
        this.#endLine(bytes.subarray(from, at))
      }
      from = end
    }
    if (from < bytes.length) this.#line.push(bytes.subarray(from))
    this.#before = bytes.length - start
    if (this.#before > maxEventBytes) throw new Error('an event is too long')
    return found
  }

  /** Bytes of the event that has not ended. */
  get unfinished (): number { return this.#before }

  #endLine (last: Buffer): void {
    const line = this.#line.length === 0 ? last.toString() : Buffer.concat([...this.#line, last]).toString()
    this.#line = []
    if (line.startsWith('data:')) this.#data.push(line.slice(line.startsWith('data: ') ? 6 : 5))
  }
}

/** What `[DONE]` is read as. */
export const doneMark = '[DONE]'

function valueOf (data: string): unknown {
  return data === doneMark ? doneMark : jsonValue(data)
}
