import type { AskedTool, PricedParts } from '../../domain/call-price.ts'
import { fold, insertMembers, isObject, type Member, quoted, readJson } from '../../domain/json.ts'
import { badBody, badRequest } from '../../errors.ts'
import type { Dialect, DialectName } from './dialects.ts'

/** A call as the gateway understood it, and the bytes that say the same. */
export interface LlmBody extends PricedParts {
  /** Empty as soon as it is not sent any more. */
  bytes: Buffer
  /** Of the body; `null` where the path names it. */
  readonly model: string | null
  /** Whether it asks for a stream; of Gemini the path says so. */
  readonly isStream: boolean
  /** Answers that are asked for at once. */
  readonly answers: number
  /** Whether the model may think, as far as the request says, without showing it. */
  readonly mayThink: boolean
  /** Usage was asked for in the caller's place: what tells it is not the caller's. */
  readonly hidesUsage: boolean
  /** What it names that is kept at the upstream: it has to be the caller's own. */
  readonly references: readonly StateReference[]
  /** What is kept of its answer may be named later. */
  readonly keepsState: boolean
  /** What the answer may hold beside text. */
  readonly outputs: ReadonlySet<'imageOutput' | 'audioOutput'>
}

/** A field that names what is kept at the upstream. */
export interface StateReference {
  readonly field: string
  readonly id: string
}

export interface LlmBodyRules {
  /** Fields that may name what is kept at the upstream. */
  readonly statefulFields: readonly string[]
  readonly defaultMaxOutputTokens: number
  readonly askForUsage: boolean
}

type JsonObject = Readonly<Record<string, unknown>>

/** What differs between the bodies of the dialects. */
interface Shape {
  /** The object that has the limits: a name, or `null` for the body itself. */
  readonly config: 'generationConfig' | null
  /** Names of the limit of output tokens; the first is written where there is none. */
  readonly limits: readonly [string, ...string[]]
  /** The number of answers at once; `null`: always one. */
  readonly answers: string | null
  /** Top-level fields that are refused, with the reason. */
  readonly refused: Readonly<Record<string, string>>
  /** A tool that the upstream itself would run, for money or on its state; `null`: it is the caller's. */
  serverTool (tool: JsonObject, body: JsonObject): AskedTool | null
  /** Whether a tool may say `type: null`, which is the caller's then. */
  readonly bearsNullType: boolean
  /** Whether it may think without showing it. */
  mayThink (body: JsonObject): boolean
}

const elsewhere = 'another model or provider may serve it then'
const costly = 'it costs what tokens do not say'
const kept = 'it lets the upstream keep things that belong to nobody there'

const common = {
  models: elsewhere, fallback: elsewhere, fallbacks: elsewhere, provider: elsewhere, route: elsewhere, plugins: costly
}

const openaiTools = new Set(['function', 'custom', 'local_shell', 'apply_patch'])

function chatTool ({ type }: JsonObject): AskedTool | null {
  return typeof type === 'string' && !openaiTools.has(type) ? unpriced(type) : null
}

/** Nothing bounds it, or no answer tells how often it has run: it has no price. */
function unpriced (type: string): AskedTool {
  return { type, name: null, most: null, limit: null }
}

function responsesTool (tool: JsonObject, body: JsonObject): AskedTool | null {
  const asked = chatTool(tool)
  if (asked === null || !/^web_search(?:_preview)?(?:_\d{4}_\d{2}_\d{2})?$/.test(asked.type)) return asked
  return { ...asked, name: 'web_search', most: countIn(body, 'max_tool_calls', maxToolCalls), limit: 'max_tool_calls' }
}

function messagesTool (tool: JsonObject): AskedTool | null {
  const { type } = tool
  if (typeof type !== 'string' || anthropicTools.test(type)) return null
  const [, name] = /^(web_search|web_fetch)_\d{8}$/.exec(type) ?? []
  if (name === undefined) return unpriced(type)
  return { type, name, most: countIn(tool, 'max_uses', maxToolCalls), limit: 'max_uses of the tool' }
}

function geminiTool (tool: JsonObject): AskedTool | null {
  const name = Object.keys(tool).find(name => name !== 'functionDeclarations')
  return name === undefined ? null : unpriced(name)
}

const maxToolCalls = 1000

/** Those that run at the caller's have a date behind their name. */
const anthropicTools = /^(?:custom|bash_|text_editor_|computer_|memory_)/

const shapes: Readonly<Record<DialectName, Shape>> = {
  chat: {
    config: null,
    limits: ['max_completion_tokens', 'max_tokens'],
    answers: 'n',
    refused: {
      ...common,
      web_search_options: costly,
      search_parameters: costly,
      enable_search: costly,
      best_of: costly
    },
    serverTool: chatTool,
    bearsNullType: false,
    // By other names, providers have models think that were told not to.
    mayThink: ({ reasoning_effort: effort, ...others }) =>
      effort !== 'none' || Object.keys(others).some(name => /reason|think|template|extra_body/i.test(name))
  },
  responses: {
    config: null,
    limits: ['max_output_tokens'],
    answers: null,
    refused: { ...common, prompt: kept },
    serverTool: responsesTool,
    bearsNullType: false,
    mayThink: ({ reasoning }) => !isObject(reasoning) || reasoning.effort !== 'none'
  },
  messages: {
    config: null,
    limits: ['max_tokens'],
    answers: null,
    refused: {
      ...common,
      mcp_servers: costly,
      speed: costly,
      inference_geo: costly,
      compaction: costly,
      anthropic_beta: 'it is a header'
    },
    serverTool: messagesTool,
    bearsNullType: true,
    mayThink: ({ thinking, model }) =>
      (isObject(thinking) && thinking.type !== 'disabled') || String(model).toLowerCase().includes('thinking')
  },
  gemini: {
    config: 'generationConfig',
    limits: ['maxOutputTokens'],
    answers: 'candidateCount',
    refused: { ...common, model: 'the path names it' },
    serverTool: geminiTool,
    bearsNullType: false,
    mayThink: ({ generationConfig }) => {
      const config = isObject(generationConfig) ? generationConfig.thinkingConfig : undefined
      return !isObject(config) || config.thinkingBudget !== 0 || config.thinkingLevel !== undefined
    }
  }
}

/** Fields that mean something here, in the one way to write them: another is an upstream's to misread. */
const ownNames: Readonly<Record<DialectName, ReadonlyMap<string, string>>> = {
  chat: namesOf('model', 'stream', 'stream_options', 'n', 'max_tokens', 'max_completion_tokens', 'tools', 'modalities',
    'service_tier', 'background', 'reasoning_effort'),
  responses: namesOf('model', 'stream', 'max_output_tokens', 'max_tool_calls', 'tools', 'service_tier', 'background',
    'reasoning'),
  messages: namesOf('model', 'stream', 'max_tokens', 'tools', 'service_tier', 'background', 'thinking'),
  gemini: namesOf('generationConfig', 'tools', 'serviceTier', 'background', 'maxOutputTokens', 'candidateCount',
    'responseModalities', 'thinkingConfig')
}

function namesOf (...names: readonly string[]): ReadonlyMap<string, string> {
  return new Map(names.map(name => [bare(name), name]))
}

/** A name without case, underscores and what else readers overlook. */
function bare (name: string): string {
  return fold(name).replace(/[^a-z0-9]/g, '')
}

/** Most answers at once. */
const maxAnswers = 128

/**
 * Reads the body of an LLM call. Its bytes are kept but for what is written into them, a limit where it has none, and
 * that usage is to be told. Throws `GW_BAD_REQUEST`, which names what is not accepted: what names something that is
 * kept at the upstream, and what costs more than tokens.
 */
export function readLlmBody (original: Buffer, dialect: Dialect, rules: LlmBodyRules): LlmBody {
  const { value, texts } = readJson(original)
  const shape = shapes[dialect.name]
  const config = configOf(value, shape)
  checkNames(Object.keys(value), dialect.name)
  if (config !== value) checkNames(Object.keys(config), dialect.name)
  checkRefused(value, shape)
  if (flagIn(value, 'background')) throw badBody(`background is not accepted here: ${kept}`)
  const allowed = new Set(rules.statefulFields.filter(field => statefulFields[dialect.name].includes(field)))
  const content = inspect(value, allowed)
  const limit = limitIn(config, shape.limits)
  const answers = shape.answers === null ? 1 : countIn(config, shape.answers, maxAnswers) ?? 1
  const isStream = flagIn(value, 'stream')
  const asksUsage = dialect.name === 'chat' && isStream && rules.askForUsage && leavesUsageOpen(value)

  const members: Member[] = []
  if (limit === null) members.push(defaultLimit(value, shape, rules.defaultMaxOutputTokens))
  if (asksUsage) members.push(usageMember(value))
  const open = [...texts.keys()].filter(name => value[name] === null && members.some(({ names }) => names[0] === name))
  const text = without(original.toString(), texts, open)
  const bytes = members.length === 0 ? original : Buffer.from(insertMembers(text, members))
  return {
    bytes,
    model: shape.config === null ? modelIn(value) : null,
    isStream,
    answers,
    textBound: Math.max(0, bytes.length - content.mediaBytes) + overheadTokens,
    media: content,
    outputBound: ((limit ?? rules.defaultMaxOutputTokens) + predictedIn(value)) * answers,
    mayThink: shape.mayThink(value),
    hidesUsage: asksUsage,
    serverTools: serverToolsIn(value, shape),
    tier: tierIn(value),
    references: content.references,
    keepsState: allowed.size > 0 && value.store !== false,
    outputs: outputsOf(value, config)
  }
}

function configOf (value: JsonObject, { config }: Shape): JsonObject {
  if (config === null) return value
  const found = value[config] ?? {}
  if (!isObject(found)) throw badBody(`${config} must be an object`)
  return found
}

function checkNames (names: readonly string[], dialect: DialectName): void {
  for (const name of names) {
    const meant = ownNames[dialect].get(bare(name))
    if (meant !== undefined && meant !== name) throw badBody(`write ${meant} instead of ${quoted(name)}`)
  }
}

/** In any way to write them, as some readers overlook the case. */
function checkRefused (value: JsonObject, { refused }: Shape): void {
  const reasons = new Map(Object.entries(refused).map(([name, reason]) =>
    [bare(name), `${name} is not accepted here: ${reason}`]))
  for (const [name, given] of Object.entries(value)) {
    const refusal = reasons.get(bare(name))
    if (refusal !== undefined && given !== null) throw badBody(refusal)
  }
}

function serverToolsIn (value: JsonObject, { serverTool, bearsNullType }: Shape): readonly AskedTool[] {
  const tools = value.tools ?? []
  if (!Array.isArray(tools)) throw badBody('tools must be a list')
  return tools.flatMap(tool => {
    if (!isObject(tool)) throw badBody('tools must be a list of objects')
    if (!saysItsTypeAsText(tool, bearsNullType)) throw badBody('the type of a tool must be a text, under the name type')
    return serverTool(tool, value) ?? []
  })
}

/** Gemini writes it its own way. */
function tierIn ({ service_tier: tier, serviceTier = tier }: JsonObject): string | null {
  const found = serviceTier ?? tier ?? null
  if (found !== null && typeof found !== 'string') throw badBody('the tier of service must be a text')
  return found === null ? null : found.toLowerCase()
}

/** To a reader that overlooks the case, another spelling of the name is the type as well. */
function saysItsTypeAsText (tool: JsonObject, bearsNullType: boolean): boolean {
  const isGood = (type: unknown): boolean => typeof type === 'string' || (bearsNullType && type === null)
  return Object.keys(tool).every(name => bare(name) !== 'type' || (name === 'type' && isGood(tool[name])))
}

function modelIn ({ model }: JsonObject): string {
  if (typeof model !== 'string' || model === '') throw badBody('model must name a model')
  return model
}

function flagIn (value: JsonObject, name: string): boolean {
  const found = value[name] ?? false
  if (typeof found !== 'boolean') throw badBody(`${name} must be true or false`)
  return found
}

/** A whole number above 0; `null`: it is left open. */
function countIn (value: JsonObject, name: string, most = Number.MAX_SAFE_INTEGER): number | null {
  const count = value[name] ?? null
  if (count === null) return null
  if (typeof count !== 'number' || !Number.isInteger(count) || count < 1 || count > most) {
    throw badBody(`${name} must be a whole number from 1 to ${most}`)
  }
  return count
}

/** What a caller says that it expects is charged as output where it is not what comes: never more tokens than bytes. */
function predictedIn ({ prediction = null }: JsonObject): number {
  return prediction === null ? 0 : Buffer.byteLength(JSON.stringify(prediction))
}

/** The greatest of the limits: which of two an upstream goes by is not known. */
function limitIn (config: JsonObject, names: readonly string[]): number | null {
  const limits = names.map(name => countIn(config, name)).filter(limit => limit !== null)
  return limits.length === 0 ? null : Math.max(...limits)
}

function defaultLimit (value: JsonObject, { config, limits: [name] }: Shape, limit: number): Member {
  if (config === null) return { names: [name], value: limit }
  if (!isObject(value[config])) return { names: [config], value: { [name]: limit } }
  if (value[config][name] === null) throw badBody(`${name} must be a whole number, or left out`)
  return { names: [config, name], value: limit }
}

/** Whoever says no, means it. */
function leavesUsageOpen ({ stream_options: options = null }: JsonObject): boolean {
  return options === null || (isObject(options) && options.include_usage === undefined)
}

function usageMember ({ stream_options: options }: JsonObject): Member {
  return isObject(options)
    ? { names: ['stream_options', 'include_usage'], value: true }
    : { names: ['stream_options'], value: { include_usage: true } }
}

/** The text of the body without some of its members, and otherwise as it is. */
function without (original: string, texts: ReadonlyMap<string, string>, names: readonly string[]): string {
  if (names.length === 0) return original
  const others = [...texts].filter(([name]) => !names.includes(name))
  return `{${others.map(([name, text]) => `${JSON.stringify(name)}:${text}`).join(',')}}`
}

/** A text alone is as good as a list of it. */
function textsIn (member: JsonObject): readonly string[] {
  return Object.entries(member).flatMap(([name, value]) => [value ?? []].flat().map(text => {
    if (typeof text !== 'string') throw badBody(`${name} must be a list of texts`)
    return text
  }))
}

function outputsOf (
  { modalities }: JsonObject, { responseModalities }: JsonObject
): ReadonlySet<'imageOutput' | 'audioOutput'> {
  const asked = [...textsIn({ modalities }), ...textsIn({ responseModalities })].map(name => name.toLowerCase())
  const found = new Set<'imageOutput' | 'audioOutput'>()
  if (asked.includes('audio')) found.add('audioOutput')
  if (asked.includes('image')) found.add('imageOutput')
  return found
}

/** The words that a vendor puts before tools stand beside the body. */
const overheadTokens = 1024

/** Names under which something is meant that is kept at the upstream, without case and underscores. */
const statefulNames = namesOf(
  'previous_response_id', 'conversation', 'conversation_id', 'file_id', 'file_ids', 'container', 'container_id',
  'cached_content', 'vector_store_id', 'vector_store_ids'
)

/** Those that an operator may allow: of the others no answer here tells an id. */
const statefulFields: Readonly<Record<DialectName, readonly string[]>> = {
  chat: [],
  responses: ['previous_response_id', 'conversation', 'item_reference'],
  messages: ['container'],
  gemini: []
}

/** What stands under these names is a caller's own: a schema, or what a tool is called with and answers. */
const opaqueNames: ReadonlySet<string> = new Set([
  'parameters', 'parametersJsonSchema', 'input_schema', 'schema', 'responseSchema', 'responseJsonSchema', 'args',
  'response', 'metadata', 'labels'
])

/** A picture is far more bytes than tokens; anything else that is inline counts with its bytes as well. */
interface Content {
  mediaBytes: number
  pictures: number
  largePictures: number
  files: number
  readonly references: StateReference[]
}

/** Most things that one body may name. */
const maxReferences = 1000

/**
 * Looks through all of a body. Throws for what is kept at the upstream, at any depth and in any case, but for what is
 * allowed.
 */
function inspect (body: JsonObject, allowed: ReadonlySet<string>): Content {
  const content: Content = { mediaBytes: 0, pictures: 0, largePictures: 0, files: 0, references: [] }
  /** `within`: the type of the object around it, and the name that it has there. */
  const visit = (value: unknown, within: string): void => {
    if (Array.isArray(value)) {
      for (const inner of value) visit(inner, within)
      return
    }
    if (!isObject(value)) return
    content.references.push(...stateIn(value, allowed, value === body))
    if (content.references.length > maxReferences) throw badBody(`it names more than ${maxReferences} items`)
    const type = typeof value.type === 'string' ? value.type : ''
    const isToolUse = type === 'tool_use'
    for (const [name, inner] of Object.entries(value)) {
      if (typeof inner === 'string') countMedia(content, value, name, inner, within)
      else if (!opaqueNames.has(name) && !(isToolUse && name === 'input')) visit(inner, `${type}.${name}`)
    }
  }
  visit(body, '')
  return content
}

/** What an object names. Throws where that is not allowed. */
function stateIn (value: JsonObject, allowed: ReadonlySet<string>, isTop: boolean): readonly StateReference[] {
  const found: StateReference[] = []
  for (const name of Object.keys(value)) {
    if (!statefulNames.has(bare(name)) || value[name] === null) continue
    const id = isTop && allowed.has(name) ? idIn(value[name]) : null
    if (id === null) throw stateful(name)
    found.push({ field: name, id })
  }
  const refusal = itemRefusal(value)
  if (refusal !== null) {
    if (!allowed.has('item_reference') || typeof value.id !== 'string') throw badRequest(refusal)
    found.push({ field: 'item_reference', id: value.id })
  }
  const uri = value.fileUri ?? value.file_uri
  if (typeof uri === 'string' && !(/^https:\/\//i.test(uri) && !/^https:\/\/[^/]*googleapis\.com/i.test(uri))) {
    throw stateful('fileUri')
  }
  return found
}

/** Alone, or in an object with nothing else. */
function idIn (value: unknown): string | null {
  const id = isObject(value) && Object.keys(value).length === 1 ? value.id : value
  return typeof id === 'string' && id !== '' ? id : null
}

/** Why an item is not accepted that stands at the upstream. */
function itemRefusal (value: JsonObject): string | null {
  const { type, id, encrypted_content: encrypted } = value
  if (typeof type === 'string' && bare(type) === 'itemreference') {
    return 'In the body: item_reference is not accepted here: send the item itself, and store: false.'
  }
  if (type === 'reasoning' && typeof id === 'string' && typeof encrypted !== 'string') {
    return 'In the body: reasoning is accepted with its encrypted_content alone: ask for it with include.'
  }
  if (isReference(value)) {
    return 'In the body: an item is not accepted by its id alone: send the item itself, and store: false.'
  }
  return null
}

/** An item of which nothing is said but its id stands at the upstream; so does a picture without its bytes. */
function isReference ({ type, id, status, object, result, ...rest }: JsonObject): boolean {
  if (typeof id !== 'string') return false
  if (type === 'image_generation_call') return typeof result !== 'string'
  return Object.values({ result, ...rest }).every(value => value === undefined || value === null)
}

function stateful (name: string) {
  return badBody(`${quoted(name)} is not accepted here: what is kept at the upstream belongs to nobody there`)
}

/** In which a picture is made small first; `original` leaves it as large as it is. */
const smallDetails: ReadonlySet<unknown> = new Set(['auto', 'low', 'high'])

const urlNames: ReadonlySet<string> = new Set(['url', 'image_url', 'file_url', 'fileUri', 'file_uri'])
/** Under these names a text is what a medium is made of. What is a text for the model counts with all of its bytes. */
const inlineNames: ReadonlySet<string> = new Set(['url', 'image_url', 'file_url', 'file_data', 'data'])
const pictureNames: ReadonlySet<string> = new Set(['url', 'image_url', 'data'])
/** What is there by its URL, and is no picture. */
const otherMedia = /^document\.source$|\.(?:video|audio|file|document)_url$/

function countMedia (content: Content, holder: JsonObject, name: string, text: string, within: string): void {
  const [, inUrl] = (inlineNames.has(name) && /^data:([^;,]{0,100})/.exec(text)) || []
  const kinds = [holder.media_type, holder.mimeType, holder.mime_type, inUrl].filter(kind => typeof kind === 'string')
  const isPicture = kinds.length > 0 && kinds.every(kind => kind.toLowerCase().startsWith('image/'))
  if (urlNames.has(name) && inUrl === undefined) {
    const isFile = name.startsWith('file') || otherMedia.test(within)
    countMedium(content, holder, isPicture || !isFile)
  } else if (inUrl !== undefined || (name === 'data' && kinds.length > 0)) {
    const isEncoded = holder.type !== 'text' && pictureNames.has(name)
    if (isPicture && isEncoded) content.mediaBytes += text.length
    // What is a text for the model has no more tokens than it has bytes, which are counted.
    if (!kinds.every(kind => /^text\//i.test(kind))) countMedium(content, holder, isPicture)
  }
}

function countMedium (content: Content, { detail }: JsonObject, isPicture: boolean): void {
  if (!isPicture) content.files++
  else if (detail === undefined || detail === null || smallDetails.has(detail)) content.pictures++
  else content.largePictures++
}
