import cors from '@fastify/cors'
import rateLimit from '@fastify/rate-limit'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import ipaddr from 'ipaddr.js'
import { withoutPort } from '../domain/sessions/address-range.ts'
import type { Clock } from '../domain/time.ts'
import { badRequest, gatewayError } from '../errors.ts'
import { rateWindows } from './rates.ts'
import type { BeginCall } from './server/beginning.ts'
import { exposedHeaders } from './server/security.ts'

export interface ReceiveOptions extends Pick<Clock, 'elapsed'> {
  readonly allowedOrigins: readonly string[]
  /** Per address and minute. */
  readonly addressRequestsPerMinute: number
  /** 401 and 404 answers, per address and minute. */
  readonly addressFailuresPerMinute: number
  readonly begin: BeginCall
  /** New requests are refused from the moment this says so. */
  readonly isStopping: () => boolean
}

declare module 'fastify' {
  interface FastifyRequest { readonly corsPreflightEnabled: boolean }
  interface FastifyInstance {
    /** Counts a 401 or 404 against the request's address. */
    countFailure (request: FastifyRequest): Promise<void>
  }
}

const minuteMs = 60_000
/** Addresses whose counts are kept; the one seen longest ago is forgotten first. */
const maxAddresses = 50_000
/** How long a browser may remember a preflight, seconds: an origin taken off the list is out after that. */
const preflightSeconds = 600

/** *receive*: for every request, routed or not, an id, CORS headers and a throttle per address. */
export async function receive (app: FastifyInstance, options: ReceiveOptions): Promise<void> {
  app.decorateRequest('call', null as never)
  app.addHook('onRequest', arrive(options, proxyWarning(app)))

  const allowed = new Set(options.allowedOrigins)
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

  await app.register(rateLimit, {
    global: false,
    keyGenerator: addressOf,
    store: rateWindows({ elapsed: options.elapsed, maxKeys: maxAddresses }),
    timeWindow: minuteMs,
    addHeaders: { 'x-ratelimit-limit': false, 'x-ratelimit-remaining': false, 'x-ratelimit-reset': false, 'retry-after': false },
    addHeadersOnExceeding: { 'x-ratelimit-limit': false, 'x-ratelimit-remaining': false, 'x-ratelimit-reset': false },
    errorResponseBuilder: (_request, { ttl }) => gatewayError('GW_THROTTLED', { retryAfterSeconds: Math.ceil(ttl / 1000) })
  })
  const isExempt = (request: FastifyRequest) => request.routeOptions.config?.exempt === true
  app.addHook('onRequest', app.rateLimit({ max: options.addressRequestsPerMinute, allowList: isExempt }))

  const isUncounted = (request: FastifyRequest) => isExempt(request) || request.routeOptions.config?.uncounted === true
  const failures = app.createRateLimit({ max: options.addressFailuresPerMinute, allowList: isUncounted })
  let lastFailureAt = -Infinity
  app.decorate('countFailure', async request => {
    lastFailureAt = options.elapsed()
    await failures(request)
  })
  app.addHook('onRequest', async (request, reply) => {
    // While nobody has failed for a whole window there is nothing to look up.
    if (options.elapsed() - lastFailureAt <= minuteMs) {
      const seen = await failures(request, { increment: false })
      if (!seen.isAllowed && seen.remaining === 0) throw gatewayError('GW_THROTTLED', { retryAfterSeconds: seen.ttlInSeconds })
    }
    if (request.corsPreflightEnabled) return reply.code(204).send()
    // Said here and not in the handler, which would read the body first.
    if (request.is404) throw gatewayError('GW_NOT_FOUND')
  })
}

/**
 * Without `GATEWAY_TRUST_PROXY` all callers behind a proxy share its address, and so one budget. Who sets a forwarding
 * header from a private address is most likely that proxy: say so, once.
 */
function proxyWarning (app: FastifyInstance): (request: FastifyRequest) => void {
  let warned = false
  return ({ headers, ip, socket: { remoteAddress } }) => {
    if (warned || headers['x-forwarded-for'] === undefined || !ip || ip !== remoteAddress) return
    if (ipaddr.process(remoteAddress).range() === 'unicast') return
    warned = true
    app.log.warn({ proxy: remoteAddress }, 'x-forwarded-for comes from a private address that is not in GATEWAY_TRUST_PROXY: all its callers count as one')
  }
}

/**
 * The caller's address, without the port that some proxies write beside it. `''` when it is gone: a request may still be in
 * the pipeline when its socket closes, and then there is no `ip`, whatever its type says.
 */
export function ipOf ({ ip }: FastifyRequest): string {
  return withoutPort(ip ?? '')
}

/** One budget per address, and per /64 in IPv6, where a household has that many addresses to itself. */
export function addressOf (request: FastifyRequest): string {
  request.call.address ??= rateLimit.normalizeIP(ipOf(request))
  return request.call.address
}

function arrive ({ begin, isStopping }: ReceiveOptions, warnOfProxy: (request: FastifyRequest) => void) {
  return (request: FastifyRequest, reply: FastifyReply, next: (error?: Error) => void): void => {
    begin(request, reply)
    warnOfProxy(request)
    if (isStopping()) return next(gatewayError('GW_OVERLOADED', { retryAfterSeconds: 1 }))
    // A fragment is not part of a request target (RFC 9112 section 3.2); a router that cuts it off would read another
    // route than the one that was asked for.
    const target = request.raw.url!
    if (target.includes('#')) return next(badRequest('Encode # in the path as %23.'))
    // RFC 9112 section 3.2.4; the router would take it for `/`.
    if (target === '*' && request.method !== 'OPTIONS') {
      return next(badRequest('The path * is for OPTIONS alone.'))
    }
    next()
  }
}
