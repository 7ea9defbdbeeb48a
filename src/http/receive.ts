import cors from '@fastify/cors'
import rateLimit from '@fastify/rate-limit'
import type { FastifyContextConfig, FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import ipaddr from 'ipaddr.js'
import type { IncomingHttpHeaders } from 'node:http'
import type { Socket } from 'node:net'
import { quoted } from '../domain/json.ts'
import { recent } from '../domain/recent.ts'
import { withoutPort } from '../domain/session.ts'
import type { Clock } from '../domain/time.ts'
import { badRequest, type GatewayError, gatewayError } from '../errors.ts'
import type { OwnOrigin } from './authenticate.ts'
import { asHook, exposedHeaders, type OtherSecret, type StartRequest } from './context.ts'
import { localRates, rateStore } from './rates.ts'
import { sessionCookieName } from './session-cookie.ts'

export interface ReceiveOptions extends Pick<Clock, 'elapsed'> {
  readonly allowedOrigins: readonly string[]
  /** Where another one would be listed; `null`: here none is. */
  readonly originsSetting: string | null
  /** Per address and minute. */
  readonly addressRequestsPerMinute: number
  /** 401 and 404 answers, per address and minute. */
  readonly addressFailuresPerMinute: number
  readonly begin: StartRequest
  readonly ownOrigin: OwnOrigin
  /** New requests are refused from the moment this says so. */
  readonly isStopping: () => boolean
}

declare module 'fastify' {
  interface FastifyRequest { readonly corsPreflightEnabled: boolean }
  interface FastifyInstance {
    /** Counts a failure against the request's address, unless a foreign page has made a browser ask for it. */
    countFailure (request: FastifyRequest): void
    /** What the framework refuses before any hook counts as a request and as a failure. Throws `GW_THROTTLED`. */
    receiveUnrouted (request: FastifyRequest): Promise<void>
    /** The same for bytes that become no request: what could be read of its headers. */
    receiveBroken (socket: Socket, headers: IncomingHttpHeaders): void
    /** Sets which requests go on from an address that has failed too often; until then none does. */
    letPass (gate: PassGate): void
  }
}

/** Whether a request goes on from an address that has failed too often. */
export type PassGate = (request: FastifyRequest) => Promise<boolean>

const minuteMs = 60_000
/** Addresses whose counts are kept; the one seen longest ago is forgotten first. */
const maxAddresses = 50_000
/** How long a browser may remember a preflight, seconds: an origin taken off the list is out after that. */
const preflightSeconds = 600

/** *receive*: for every request, routed or not, an id, CORS headers and a throttle per address. */
export async function receive (app: FastifyInstance, options: ReceiveOptions): Promise<void> {
  const warnOfProxy = proxyWarning(app)
  app.decorateRequest('call', null as never)
  app.addHook('onRequest', (request, reply, next) => {
    options.begin(request, reply)
    warnOfProxy(request)
    next()
  })
  const allowed = new Set(options.allowedOrigins)
  await answerPreflights(app, allowed)

  await app.register(rateLimit, {
    global: false,
    keyGenerator: addressOf,
    store: rateStore({ elapsed: options.elapsed, maxKeys: maxAddresses }),
    timeWindow: minuteMs,
    addHeaders: {
      'x-ratelimit-limit': false,
      'x-ratelimit-remaining': false,
      'x-ratelimit-reset': false,
      'retry-after': false
    },
    addHeadersOnExceeding: { 'x-ratelimit-limit': false, 'x-ratelimit-remaining': false, 'x-ratelimit-reset': false }
  })
  throttle(app, options, allowed)
}

/** Of CORS, preflights are the plugin's. What other answers tell a page is the same for all, and in `firstHeaders`. */
async function answerPreflights (app: FastifyInstance, allowed: ReadonlySet<string>): Promise<void> {
  await app.register(cors, {
    origin: (origin: string | undefined, decide: (error: null, allowed: string | false) => void) =>
      decide(null, origin !== undefined && allowed.has(origin) ? origin : false),
    methods: ['GET', 'POST', 'DELETE'],
    exposedHeaders: [...exposedHeaders],
    maxAge: preflightSeconds,
    // A preflight is answered below, after the throttle: it costs nobody's budget, and is no way round it either.
    preflightContinue: true,
    strictPreflight: false
  })
  app.addHook('onRoute', route => {
    if (![route.method].flat().includes('OPTIONS')) route.config = { ...route.config, cors: false }
  })
}

/** A budget of each address. */
interface AddressBudget {
  /** Seconds until the address may go on, when its budget is used up; `null`: it is not. Nothing is counted. */
  shutOutSeconds (request: FastifyRequest): number | null
  /** Counts one; rejects with `GW_THROTTLED` when that is one too many. */
  count (request: FastifyRequest): Promise<void>
}

/** The plugin counts. What it has counted is looked up here, at once: a flood is to be what is cheapest to answer. */
function addressBudget (app: FastifyInstance, elapsed: Clock['elapsed'], max: number): AddressBudget {
  const counter = localRates({ elapsed, maxKeys: maxAddresses })
  const limit = app.createRateLimit({ counter, max })
  return {
    shutOutSeconds (request) {
      const { count, endsInMs } = counter.look(addressOf(request), minuteMs)
      return count >= max ? Math.ceil(endsInMs / 1000) : null
    },
    count: request => limit(request).then(budget => {
      if (!budget.isAllowed && budget.isExceeded) throw shutOut(budget.ttlInSeconds)
    })
  }
}

/** Throws `GW_THROTTLED`; not for `null`. */
function hold (seconds: number | null): void {
  if (seconds !== null) throw shutOut(seconds)
}

const isUncounted = ({ exempt, uncounted }: FastifyContextConfig): boolean => exempt === true || uncounted === true

/**
 * Two budgets for each address: of requests, and of failures. Past the first nobody goes on for the rest of the minute.
 * Past the second only sessions do, and the issuer token, for the others at an address must not pay for what one of
 * them does.
 */
function throttle (app: FastifyInstance, options: ReceiveOptions, allowed: ReadonlySet<string>): void {
  const requests = addressBudget(app, options.elapsed, options.addressRequestsPerMinute)
  const failures = addressBudget(app, options.elapsed, options.addressFailuresPerMinute)
  let gate: PassGate = async () => false

  const countRequest = (request: FastifyRequest): Promise<void> => {
    hold(requests.shutOutSeconds(request))
    return requests.count(request)
  }
  /** Of a request, or of what would have become one. */
  const countFailure = (request: FastifyRequest, failed: FailedRequest, own: () => string | null): void => {
    if (isBlameless(failed, origin => allowed.has(origin) || origin === own())) return
    failures.count(request).catch(() => { /* one too many: its address hears of it with the next request */ })
  }
  app.decorate('letPass', next => { gate = next })
  app.decorate('countFailure', request => {
    const { method, headers, call: { config } } = request
    if (isUncounted(config)) return
    countFailure(request, { method, headers, opensWith: config.opensWith }, () => options.ownOrigin(request))
  })
  app.decorate('receiveBroken', ({ remoteAddress = '' }, headers) => {
    // As much of a request as the plugin looks at.
    const request = { call: { address: rateLimit.normalizeIP(remoteAddress) }, routeOptions: {} } as FastifyRequest
    requests.count(request).catch(() => { /* it is refused in any case */ })
    countFailure(request, { method: undefined, headers, opensWith: undefined }, () => null)
  })
  app.decorate('receiveUnrouted', async request => {
    await countRequest(request)
    const seconds = failures.shutOutSeconds(request)
    app.countFailure(request)
    hold(seconds)
  })

  app.addHook('onRequest', asHook(request => {
    if (options.isStopping()) throw gatewayError('GW_OVERLOADED', { retryAfterSeconds: 1 })
    return request.call.config.exempt === true ? undefined : countRequest(request)
  }))
  const holdPreflight = preflights(app, options.originsSetting)
  app.addHook('onRequest', asHook((request, reply) => {
    const { call, call: { config, config: { opensWith } } } = request
    holdTarget(request)
    if (holdPreflight(request, reply)) return
    call.shutOutSeconds = config.exempt === true ? null : failures.shutOutSeconds(request)
    // What is served to anybody, and counts no failures, such as a front end, is no door to guess at.
    const isOpen = opensWith === 'issuer token' || (opensWith === undefined && isUncounted(config))
    if (call.shutOutSeconds === null || isOpen) return holdUnknown(request)
    if (opensWith !== undefined) throw shutOut(call.shutOutSeconds)
    return gate(request).then(passes => {
      if (!passes) holdAddress(request)
      holdUnknown(request)
    })
  }))
}

/** Said here and not in the handler, which would read the body first. */
function holdUnknown ({ is404 }: FastifyRequest): void {
  if (is404) throw gatewayError('GW_NOT_FOUND')
}

/** Answers a preflight, and says so, or throws for one of an origin that is not listed. */
function preflights (app: FastifyInstance, originsSetting: string | null) {
  const unlisted = unlistedOrigins(app, originsSetting)
  return (request: FastifyRequest, reply: FastifyReply): boolean => {
    if (isPreflight(request) && !request.corsPreflightEnabled) throw unlisted(request.headers.origin!)
    if (request.corsPreflightEnabled) reply.code(204).send()
    return request.corsPreflightEnabled
  }
}

/** `corsPreflightEnabled` is said of any OPTIONS of a listed origin, and of no other. */
function isPreflight ({ method, headers }: FastifyRequest): boolean {
  return method === 'OPTIONS' && headers.origin !== undefined && headers['access-control-request-method'] !== undefined
}

/** Origins that are warned of: strangers must not fill the log. */
const maxWarnings = 100
const maxShownOrigin = 256

/**
 * The refusal of a preflight, which a browser shows in its console without the reason: the log has it the first time,
 * for the operator has most likely forgotten to list an origin of their own.
 */
function unlistedOrigins (app: FastifyInstance, setting: string | null): (origin: string) => GatewayError {
  const warned = new Set<string>()
  return text => {
    const origin = text.slice(0, maxShownOrigin)
    const about = setting === null
      ? `This port is for no pages of other origins: ${quoted(origin)}.`
      : `The origin ${quoted(origin)} is not listed in ${setting}.`
    if (warned.size < maxWarnings && !warned.has(origin)) {
      warned.add(origin)
      app.log.warn(
        { origin, setting },
        'a page of an origin that is not listed has asked whether it may call; it may not'
      )
    }
    return gatewayError('GW_ORIGIN_DENIED', { about })
  }
}

/** Throws `GW_THROTTLED` for an address that has failed too often. */
export function holdAddress ({ call: { shutOutSeconds } }: FastifyRequest): void {
  if (shutOutSeconds !== null) throw shutOut(shutOutSeconds)
}

export function shutOut (seconds: number): GatewayError {
  return gatewayError('GW_THROTTLED', { retryAfterSeconds: seconds })
}

/**
 * Without `GATEWAY_TRUST_PROXY` all callers behind a proxy share its address, and so one limit. A forwarding header
 * from a private address comes most likely from that proxy: say so, once.
 */
function proxyWarning (app: FastifyInstance): (request: FastifyRequest) => void {
  let warned = false
  return ({ headers, ip, socket: { remoteAddress } }) => {
    if (warned || headers['x-forwarded-for'] === undefined || !ip || ip !== remoteAddress) return
    if (ipaddr.process(remoteAddress).range() === 'unicast') return
    warned = true
    app.log.warn(
      { proxy: remoteAddress },
      'x-forwarded-for comes from a private address that is not in GATEWAY_TRUST_PROXY: all its callers count as one'
    )
  }
}

/**
 * The caller's address, without the port that some proxies write beside it. `''` when it is gone: a request may still
 * be in the pipeline when its socket closes, and then there is no `ip`, whatever its type says.
 */
export function ipOf ({ ip }: FastifyRequest): string {
  return withoutPort(ip ?? '')
}

/** As budgets count them, by how they came: reading one costs a regex of IPv6. */
const addresses = recent<string>(maxAddresses, { memoMethod: ip => rateLimit.normalizeIP(ip) })

/** One budget per address, and per /64 in IPv6, where a household has that many addresses to itself. */
export function addressOf (request: FastifyRequest): string {
  request.call.address ??= addresses.memo(ipOf(request))
  return request.call.address
}

/** Throws for what the router would read as another request than the one that was sent. */
function holdTarget ({ method, raw: { url, rawHeaders } }: FastifyRequest): void {
  // A fragment is not part of a request target (RFC 9112 section 3.2); a router that cuts it off would read another
  // route than the one that was asked for.
  if (url!.includes('#')) throw badRequest('Encode # in the path as %23.')
  // RFC 9112 section 3.2.4; the router would take it for `/`.
  if (url === '*' && method !== 'OPTIONS') throw badRequest('The path * is for OPTIONS alone.')
  if (hasTwoHosts(rawHeaders)) throw badRequest('Send one Host header.')
}

/** RFC 9112 section 3.2. Node takes the first one, a proxy before us may have gone by the second. */
function hasTwoHosts (rawHeaders: readonly string[]): boolean {
  let hosts = 0
  for (let index = 0; index < rawHeaders.length; index += 2) {
    if (rawHeaders[index]!.length === 4 && rawHeaders[index]!.toLowerCase() === 'host') hosts++
  }
  return hosts > 1
}

export const proofHeader = 'x-apixo-proof'

/** Not in a header: a request for such a route presents its secret by its path or body. */
const inPathOrBody: ReadonlySet<OtherSecret | undefined> = new Set<OtherSecret>(['invitation', 'callback', 'ticket'])
const inHeader = ['authorization', 'x-api-key', 'x-goog-api-key', proofHeader] as const

/** Of a request that has failed. */
export interface FailedRequest {
  readonly method: string | undefined
  readonly headers: IncomingHttpHeaders
  readonly opensWith: OtherSecret | undefined
}

/**
 * Whether a failure says nothing about the address that it came from: any page can make the browsers of its visitors
 * ask for what is not there, and a preflight has not asked for anything yet. A request that presents a secret is a
 * guess, wherever it says that it comes from, for other programs than browsers write what they like.
 */
export function isBlameless (
  { method, headers, opensWith }: FailedRequest, isOurs: (origin: string) => boolean
): boolean {
  if (inPathOrBody.has(opensWith) || inHeader.some(name => headers[name] !== undefined)) return false
  if (headers.cookie?.includes(sessionCookieName)) return false
  if (method === 'OPTIONS' && headers['access-control-request-method'] !== undefined) return true
  const { origin, 'sec-fetch-site': site } = headers
  return site === 'cross-site' || site === 'same-site' || (origin !== undefined && !isOurs(origin))
}
