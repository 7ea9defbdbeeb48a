import Fastify, { type FastifyRequest } from 'fastify'
import { SignJWT } from 'jose'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Test } from 'tap'
import { jwtSessions } from '../../src/adapters/jwt-sessions/jwt-sessions.ts'
import { signedSessions } from '../../src/adapters/signed-sessions.ts'
import { sqliteStore } from '../../src/adapters/sqlite/store.ts'
import type { Plan } from '../../src/domain/policy.ts'
import { Secret } from '../../src/domain/secret.ts'
import { issueTimes } from '../../src/domain/session.ts'
import { personalTokens } from '../../src/features/tokens/token-admin.ts'
import { teamTokens } from '../../src/features/tokens/tokens.ts'
import { authenticator } from '../../src/http/authenticate.ts'
import { RequestState } from '../../src/http/context.ts'
import { sessionCookie } from '../../src/http/session-cookie.ts'
import { clock } from '../helpers/clock.ts'
import { throughHook } from '../helpers/hooks.ts'
import { identityProvider } from '../helpers/identity-provider.ts'
import { median, medianRatio, table } from './numbers.ts'

/**
 * `node test/bench/verifiers.ts`: what *authenticate* costs for each kind of credential, in one process: the chain of
 * verifiers in the order of the gateway, the revocations in an SQLite file, and nothing else of a request. A hit is a
 * credential that has just been seen; a miss is one that has never been.
 */
const rounds = 7
const hits = 5000
const misses = 200
const secret = 'a-secret-of-the-benchmark-of-32-bytes-and-more'
const shop = 'https://shop.example'

/** What is measured: credentials, in a header or in a cookie. */
interface Row {
  readonly name: string
  readonly header: 'authorization' | 'cookie'
  /** A single one is sent over and over; of several each is sent once, in one of the rounds. */
  readonly credentials: readonly string[]
}

const endings: Array<() => unknown> = []
const time = clock(Date.now())
const { now } = time

async function gatewayParts () {
  const folder = mkdtempSync(join(tmpdir(), 'gateway-verifiers-'))
  endings.push(() => rmSync(folder, { recursive: true }))
  const terms = { reservedMs: 1, sentMs: 1, giveUpMs: 1, refundsPerPeriod: 1, retentionMs: 86_400_000 }
  const store = sqliteStore({ path: join(folder, 'gateway.db'), terms, synchronous: 'normal', now })
  endings.push(() => store.close())
  const owner = { teardown: (end: () => unknown) => { endings.push(end) } } as unknown as Test
  const providers = { RS256: await identityProvider(owner, 'RS256'), ES256: await identityProvider(owner, 'ES256') }
  const { tokenSessions, revocations } = teamTokens(store, time)
  const sessions = signedSessions({ secrets: { current: [new Secret(secret)] }, now })
  const issued = jwtSessions({
    issuers: [
      ...Object.entries(providers).map(([alg, { origin: issuer, jwksUrl }]) =>
        ({ issuer, jwksUrl, audience: 'app', algorithms: [alg], plan: 'default' })),
      { issuer: shop, audience: 'app', algorithms: ['HS256'], plan: 'default' }
    ],
    secrets: new Map([[shop, { current: [new Secret(secret)] }]]),
    ...time,
    onKeysFailed: (issuer, error) => { throw new Error(issuer, { cause: error }) }
  })
  const cookie = await sessionCookie(Fastify(), {
    issuer: sessions,
    cookieMaxAgeSeconds: 604_800,
    maxTtlSeconds: 7_776_000,
    ownOrigin: () => null,
    now
  })
  const hook = authenticator({
    verifiers: [tokenSessions, sessions, issued],
    revocations,
    plans: new Map([['default', {} as Plan]]),
    pools: new Set(),
    cookie,
    ownOrigin: () => 'https://gateway.example',
    timeoutMs: 5000
  })
  const desk = personalTokens({
    ...store,
    trail: store.audit,
    actor: 'cli',
    publicUrl: undefined,
    plans: { default: {} },
    pools: [],
    maxTtlSeconds: 7_776_000,
    now,
    times: issueTimes({ revocations, now })
  })
  const authenticate = (request: FastifyRequest) => throughHook(hook, request, undefined as never)
  return { authenticate, sessions, providers, desk }
}

type GatewayParts = Awaited<ReturnType<typeof gatewayParts>>

async function rowsOf ({ sessions, providers, desk }: GatewayParts): Promise<Row[]> {
  const many = async (print: (number: number) => Promise<string>, count = misses * rounds): Promise<string[]> =>
    await Promise.all(Array.from({ length: count }, (_, number) => print(number)))
  const minted = (number: number) =>
    sessions.mint({
      subject: `user-${number}`,
      plan: 'default',
      models: ['*'],
      scopes: ['tasks:read'],
      ttlSeconds: 86_400
    })
  const claims = (iss: string, number: number) => ({
    iss,
    sub: `user-${number}`,
    aud: 'app',
    iat: Math.floor(now() / 1000),
    exp: Math.floor(now() / 1000) + 86_400,
    scope: 'openid profile'
  })
  const printers: ReadonlyArray<
    readonly [name: string, header: Row['header'], print: (number: number) => Promise<string>]
  > = [
    ['own session', 'authorization', async number => (await minted(number)).token],
    [
      'own session in a cookie',
      'cookie',
      async number => (await sessions.printCookie((await minted(number)).session, now() + 604_800_000)).token
    ],
    ...(['RS256', 'ES256'] as const).map(
      alg =>
        [
          `issuer, ${alg}`,
          'authorization',
          (number: number) => providers[alg].sign(claims(providers[alg].origin, number))
        ] as const
    ),
    [
      'issuer, HS256',
      'authorization',
      number => new SignJWT(claims(shop, number)).setProtectedHeader({ alg: 'HS256' }).sign(Buffer.from(secret))
    ]
  ]
  const rows = await Promise.all(printers.map(async ([name, header, print]): Promise<Row[]> => [
    { name: `${name}, hit`, header, credentials: [await print(-1)] },
    { name: `${name}, miss`, header, credentials: await many(print) }
  ]))
  const { token } = await desk.create({ subject: 'alice' })
  const tokens = await many(async number => (await desk.create({ subject: `user-${number}` })).token)
  return [
    ...rows.flat(),
    { name: 'team token, known for less than a second', header: 'authorization', credentials: [token] },
    { name: 'team token, looked up', header: 'authorization', credentials: tokens },
  ]
}

/** Microseconds a call. */
async function measure (
  authenticate: GatewayParts['authenticate'], { header, credentials }: Row, round: number
): Promise<number> {
  const requests = credentials.length === 1
    ? Array.from({ length: hits }, () => requestWith(header, credentials[0]!))
    : credentials.slice(round * misses, (round + 1) * misses).map(credential => requestWith(header, credential))
  if (credentials.length === 1) await authenticate(requestWith(header, credentials[0]!))
  const began = performance.now()
  for (const request of requests) await authenticate(request)
  return (performance.now() - began) * 1000 / requests.length
}

/** As much of a request as *authenticate* looks at. */
function requestWith (header: Row['header'], credential: string): FastifyRequest {
  const value = header === 'cookie' ? `__Host-apixo_session=${credential}` : `Bearer ${credential}`
  const request = {
    call: new RequestState(() => {}),
    query: {},
    method: 'GET',
    ip: '192.0.2.1',
    headers: { host: 'gateway.example', 'sec-fetch-site': 'same-origin', [header]: value },
    raw: { rawHeaders: ['Host', 'gateway.example', 'Sec-Fetch-Site', 'same-origin', header, value] }
  }
  return request as unknown as FastifyRequest
}

try {
  const parts = await gatewayParts()
  const rows = await rowsOf(parts)
  const measured = rows.map((): number[] => [])
  for (const row of rows) if (row.credentials.length === 1) await measure(parts.authenticate, row, 0)
  for (let round = 0; round < rounds; round++) {
    for (const [index, row] of rows.entries()) measured[index]!.push(await measure(parts.authenticate, row, round))
  }
  const lines = rows.map(({ name }, index) =>
    [name, median(measured[index]!).toFixed(1), medianRatio(measured[index]!, measured[0]!).toFixed(1)])
  console.log(table(['authenticate', 'µs', '× own session, hit'], lines))
} finally {
  for (const end of endings.reverse()) await end()
}
