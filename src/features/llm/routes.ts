import type { FastifyInstance, FastifyReply, FastifyRequest, RouteOptions } from 'fastify'
import { callPrice } from '../../domain/call-price.ts'
import { quoted } from '../../domain/json.ts'
import { fingerprintOf, type ReservationId } from '../../domain/ledger.ts'
import { budgetOf } from '../../domain/session.ts'
import type { TokenPrice } from '../../domain/token-prices.ts'
import { localUnknownCalls, type UnknownCalls } from '../../domain/unknown-calls.ts'
import { maxStateIdLength, type UpstreamStates } from '../../domain/upstream-states.ts'
import type { PassingUpstream, UpstreamKey } from '../../domain/upstream.ts'
import { badRequest, gatewayError } from '../../errors.ts'
import { checkScope } from '../../http/authorize.ts'
import { contextOf, type RequestContext, type SessionRequestState } from '../../http/context.ts'
import { reauthenticateAfterSlowBody } from '../../http/pipeline.ts'
import { largeBodies } from '../../http/rates.ts'
import type { Services } from '../../http/services.ts'
import { keyFor, lacking, reserve, reserveRequest } from '../../http/stages.ts'
import { readLlmBody, type StateReference } from './body.ts'
import { type AuthorizedCall, type CallServices, LlmCall, unknownCall } from './call.ts'
import { type Dialect, dialectOf, dialects, errorBodyFor, modelShapes, thereIs } from './dialects.ts'

/** What the LLM routes alone work with. */
export interface LlmServices {
  readonly upstream: PassingUpstream
  /** `null`: the model has no price per token, and nothing is sent. */
  readonly priceOf: (model: string) => TokenPrice | null
  /** Models that the operator has written down; those of them that have a price are listed. */
  readonly names: readonly string[]
  readonly defaultMaxOutputTokens: number
  readonly askForUsage: boolean
  readonly totalMs: number
  /** A stream that is silent for so long gets a heartbeat; 0: none. */
  readonly heartbeatMs: number
  /** Calls at once. */
  readonly maxCalls: number
  /** What all replicas know; `null` where there is only one. */
  readonly unknownCalls: UnknownCalls | null
  /** Fields that may name what is kept at the upstream. */
  readonly statefulFields: readonly string[]
  /** Whose that is. */
  readonly states: UpstreamStates
}

type CoreServices = Pick<
  Services,
  'authenticate' | 'bodyBudget' | 'rates' | 'accounts' | 'ceilings' | 'ledger' | 'keys' | 'slots' | 'clock' | 'timers' |
  'log' | 'alarms'
>

/** One route for each dialect, and for Gemini two; and the lists of models. Their bodies are bytes. */
export function llmRoutes (app: FastifyInstance, services: CoreServices, llm: LlmServices): void {
  const unknown = unknownOutcomes(services.clock.elapsed, llm.unknownCalls)
  const places = callPlaces(llm.maxCalls)
  for (const dialect of dialects) {
    for (const url of dialect.urls) app.route(llmRoute(url, dialect, services, llm, unknown, places))
  }
  modelLists(app, services, { names: llm.names, isPriced: model => llm.priceOf(model) !== null })
}

/**
 * Each call has a connection to the upstream. One more than there may be is refused: if it waited, so would what is set
 * aside for it, and nobody would know why.
 */
function callPlaces (most: number) {
  let taken = 0
  return {
    take (): void {
      if (taken === most) {
        throw gatewayError('GW_OVERLOADED', { about: 'All places for LLM calls are taken.', retryAfterSeconds: 5 })
      }
      taken++
    },
    free (): void { taken-- }
  }
}

type CallPlaces = ReturnType<typeof callPlaces>

const versions = ['/v1', '/v1beta'] as const

/**
 * What SDKs call when their base URL has the version twice, or not at all, or a query: a 404 as for any other address,
 * which says what to change. Only POST is answered: a front end may have pages of these names.
 */
export function wrongPaths (app: FastifyInstance): void {
  const told = new Map<string, readonly [about: string, dialect: Dialect]>()
  for (const dialect of dialects) {
    for (const url of dialect.urls) {
      const slash = url.indexOf('/', 1)
      const [version, rest] = [url.slice(0, slash), url.slice(slash)]
      told.set(rest, [`There is no such route. Add ${version} to the base URL.`, dialect])
      for (const first of versions) {
        for (const second of versions) {
          told.set(first + second + rest, [`There is no such route. Leave ${first} off the base URL, as the SDK adds ${second}.`, dialect])
        }
      }
    }
  }
  for (const version of versions) {
    told.set(version, ['There is no such route. Give the SDK a base URL without a query.', dialects[0]!])
  }
  for (const [url, [about, { errorBody }]] of told) {
    const refuse = async (): Promise<never> => { throw gatewayError('GW_NOT_FOUND', { about }) }
    app.route({ method: 'POST', url, config: { errorBody }, onRequest: refuse, handler: refuse })
  }
  unlistedAddresses(app)
}

/** What the lists of models are made of. */
interface ListedModels {
  /** Those the operator has written down: a pattern of names can not be listed. */
  readonly names: readonly string[]
  /** Whether the model has a price per token. */
  readonly isPriced: (model: string) => boolean
}

/**
 * The models that a session may call, as the SDKs list them: several ask for this before anything else. It costs a poll
 * and no credits. OpenAI's address is Anthropic's and Gemini's, too: who asks is seen by the headers.
 */
function modelLists (
  app: FastifyInstance, { authenticate, rates }: Pick<Services, 'authenticate' | 'rates'>, listed: ListedModels
): void {
  const names = [...new Set(listed.names)].filter(name => isModelName(name) && listed.isPriced(name))
  const mayUse = (name: string, { session, plan }: SessionRequestState): boolean =>
    session.permits(name) && plan.permits(name)
  const add = (
    operation: string, url: string, answer: (request: FastifyRequest, call: SessionRequestState) => object
  ): void => {
    app.get(url, {
      config: { operation, errorBody: errorBodyFor }, onRequest: [refuseCalls, authenticate]
    }, async (request, reply) => {
      const context = contextOf(request, reply)
      const { call } = context
      call.enter('authorize')
      checkScope('llm', call.session)
      call.enter('admit')
      await rates.polls(context)
      call.grant()
      reply.header('request-id', request.id)
      return answer(request, call)
    })
  }
  for (const [version, operation] of [['/v1', 'listLlmModels'], ['/v1beta', 'listGeminiModels']] as const) {
    add(operation, `${version}/models`, (request, call) =>
      modelShapes[dialectOf(request).name].list(names.filter(name => mayUse(name, call))))
    add(operation, `${version}/models/*`, (request, call) => {
      const { '*': name } = request.params as { readonly '*': string }
      if (!isModelName(name) || !mayUse(name, call) || !listed.isPriced(name)) {
        throw gatewayError('GW_NOT_FOUND', { about: 'There is no such model for this session.' })
      }
      return modelShapes[dialectOf(request).name].one(name)
    })
  }
}

/** A call of a model has its operation in the path, and is no GET. */
async function refuseCalls ({ url }: FastifyRequest): Promise<void> {
  if (callNames.test(url)) throw gatewayError('GW_METHOD_NOT_ALLOWED', { allow: 'POST' })
}

const callNames = /:(?:generateContent|streamGenerateContent)(?:\?|$)/

/** What SDKs call beside that: a 404 of their own class, which says what there is. */
function unlistedAddresses (app: FastifyInstance): void {
  const refuse = async (request: FastifyRequest): Promise<never> => {
    throw gatewayError('GW_NOT_FOUND', { about: `There is no such route. ${thereIs[dialectOf(request).name]}` })
  }
  const method = app.supportedMethods.filter(name => name !== 'OPTIONS')
  for (const url of ['/v1/*', '/v1beta/*']) {
    app.route({ method, url, config: { errorBody: errorBodyFor }, onRequest: refuse, handler: refuse })
  }
}

/** What this replica has told itself, and what others have. While the store is away it is as if there were none. */
function unknownOutcomes (elapsed: () => number, shared: UnknownCalls | null) {
  const own = localUnknownCalls(elapsed)
  return {
    isOwn: own.has,
    isOthers: async (subject: string, fingerprint: string): Promise<boolean> =>
      shared !== null && await shared.has(subject, fingerprint).catch(() => false),
    remember (subject: string, fingerprint: string): void {
      own.remember(fingerprint)
      shared?.remember(subject, fingerprint).catch(() => { /* this replica knows it */ })
    }
  }
}

type UnknownOutcomes = ReturnType<typeof unknownOutcomes>

/** The same seven stages as a submit; the call ends with its caller's, and what it cost is known at its end. */
function llmRoute (
  url: string,
  dialect: Dialect,
  services: CoreServices,
  llm: LlmServices,
  unknown: UnknownOutcomes,
  places: CallPlaces
): RouteOptions {
  const { authenticate, bodyBudget, rates, accounts, ceilings, ledger, keys, timers, log, alarms, clock } = services
  const { onRequest, preHandler } = reauthenticateAfterSlowBody(authenticate, clock.elapsed)
  const beforeBody = largeBodies({ rates, accounts, ceilings, clock, submitRules: { isFree: () => false } })
  const callServices: CallServices = {
    bodyBudget,
    ledger,
    keys,
    timers,
    log,
    alarms,
    llm: llm.upstream,
    totalMs: llm.totalMs,
    heartbeatMs: llm.heartbeatMs,
    rememberUnknown: unknown.remember,
    states: llm.states
  }
  const admitAndForward = async (authorized: AuthorizedCall, context: RequestContext): Promise<void> => {
    const { call } = context
    // Asked together with the rate: over a store it is one way there and back for both.
    const isOthers = unknown.isOthers(call.session.subject, authorized.fingerprint)
    await rates.submits(context)
    if (await isOthers) throw unknownCall()
    const firstKey = keyFor(authorized, keys)
    call.keyId = firstKey.id
    const id = await setAside(authorized, firstKey, context, services)

    call.enter('forward')
    await new LlmCall(authorized, id, context, callServices).run(firstKey)
  }
  return {
    method: 'POST',
    url,
    config: { operation: dialect.operation, errorBody: dialect.errorBody },
    onRequest,
    preParsing: [beforeBody, bodyBudget.beforeBody],
    preHandler,
    handler: async (request: FastifyRequest, reply: FastifyReply) => {
      const context = contextOf(request, reply)
      const { call } = context
      call.handlerStarted()
      try {
        call.enter('authorize')
        const authorized = await authorizeCall(context, dialect, llm)

        call.enter('admit')
        if (unknown.isOwn(authorized.fingerprint)) throw unknownCall()
        places.take()
        try {
          await admitAndForward(authorized, context)
        } finally {
          places.free()
        }
      } finally {
        call.handlerDone()
      }
    }
  }
}

/** *authorize*: scope, model and body; that the model has a price; and nothing in the body costs more than tokens. */
async function authorizeCall (
  { request, call: { session, plan }, call }: RequestContext, dialect: Dialect, llm: LlmServices
): Promise<AuthorizedCall> {
  checkScope('llm', session)
  const bytes = request.body
  if (!Buffer.isBuffer(bytes)) throw badRequest('Send a JSON body.')
  const inPath = dialect.name === 'gemini' ? geminiTarget(request) : null
  const read = readLlmBody(bytes, dialect, llm)
  const body = inPath === null ? read : { ...read, isStream: inPath.isStream }
  const model = inPath?.model ?? modelName(read.model!)
  if (!session.permits(model) || !plan.permits(model)) throw gatewayError('GW_MODEL_DENIED', { about: model })
  call.model = model
  const price = llm.priceOf(model)
  if (price === null) throw badRequest(`The model ${quoted(model)} has no price per token here: it can not be used on this route.`)
  for (const output of body.outputs) {
    if (!price.names(output)) throw badRequest(`The model ${quoted(model)} has no price for ${output} here.`)
  }
  const state = await stateOf(body.references, session.subject, llm.states)
  const cost = callPrice(body, price, state.tokens)
  const path = inPath?.path ?? dialect.urls[0]!
  return {
    dialect,
    model,
    keyId: state.keyId,
    body,
    price,
    path,
    headers: [...dialect.headersOf(request), 'accept', body.isStream ? 'text/event-stream' : 'application/json'],
    bound: cost.bound,
    cost,
    fingerprint: fingerprintOf(session.subject, budgetOf(session)?.id ?? '', dialect.operation, path, bytes)
  }
}

/**
 * What a call goes on with, and the key that made it. What is somebody else's is not known here, and neither is what
 * another key has made than the rest. Throws `GW_NOT_FOUND`.
 */
async function stateOf (
  references: readonly StateReference[], subject: string, states: UpstreamStates
): Promise<{ readonly keyId: string | undefined, readonly tokens: number }> {
  if (references.length === 0) return { keyId: undefined, tokens: 0 }
  // No id is as long: it is looked up as none.
  const ids = references.map(({ id }) => id.slice(0, maxStateIdLength + 1))
  const found = await states.of(subject, ids)
  const keyId = found[0]?.keyId
  const unknown = references.find((_, index) => found[index] === null || found[index]!.keyId !== keyId)
  if (unknown !== undefined) {
    throw gatewayError('GW_NOT_FOUND', { about: `There is no ${unknown.field} ${quoted(unknown.id)}.` })
  }
  return { keyId, tokens: found.reduce((sum, state) => sum + state!.tokens, 0) }
}

const modelForm = /^[A-Za-z0-9][A-Za-z0-9._:@-]*(?:\/[A-Za-z0-9][A-Za-z0-9._:@-]*){0,4}$/
const maxModelLength = 128

function isModelName (name: string): boolean {
  return name.length <= maxModelLength && modelForm.test(name)
}

function modelName (name: string): string {
  if (!isModelName(name)) {
    throw badRequest(`A model is named with letters, digits and . _ - : @ /, ${maxModelLength} characters at most.`)
  }
  return name
}

const geminiOperations = ['generateContent', 'streamGenerateContent'] as const

/** Of `models/{model}:{operation}`; a model may have slashes and colons in its name. `alt` is the one query. */
function geminiTarget ({ params, query }: FastifyRequest): { model: string, isStream: boolean, path: string } {
  const { '*': target } = params as { readonly '*': string }
  const colon = target.lastIndexOf(':')
  const operation = geminiOperations.find(name => name === target.slice(colon + 1))
  if (colon === -1 || operation === undefined) {
    throw gatewayError('GW_NOT_FOUND', { about: 'Of models there are :generateContent and :streamGenerateContent.' })
  }
  const model = modelName(target.slice(0, colon))
  const { alt } = query as Readonly<Record<string, unknown>>
  if (alt !== undefined && alt !== 'sse' && alt !== 'json') throw badRequest('alt must be sse or json.')
  const encoded = model.split('/').map(encodeURIComponent).join('/')
  return {
    model,
    isStream: operation === 'streamGenerateContent',
    path: `/v1beta/models/${encoded}:${operation}${alt === undefined ? '' : `?alt=${alt}`}`
  }
}

/** *admit*: the most that the call may cost is set aside. */
async function setAside (
  { model, bound, dialect }: AuthorizedCall,
  key: UpstreamKey,
  { call }: RequestContext,
  { ledger, slots, ceilings, clock }: CoreServices
): Promise<ReservationId> {
  const price = { microcredits: bound, refundable: false }
  const wanted = { operation: dialect.operation, model, price, idempotency: undefined, repeat: undefined }
  const request = reserveRequest(wanted, call, key, { ceilings, clock })
  const reserved = await reserve(ledger, slots, request)
  if (reserved.granted) return reserved.id
  /* c8 ignore next: without an idempotency key and a repeat there is none */
  if (reserved.reason === 'duplicate') throw gatewayError('GW_INTERNAL')
  throw lacking(reserved, slots.nextInMs(request.subject))
}
