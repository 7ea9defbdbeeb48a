import type { FastifyReply, FastifyRequest } from 'fastify'
import t from 'tap'
import { plans } from '../../src/domain/policy.ts'
import { type Revocations, type Session, type SessionVerifier, unscoped } from '../../src/domain/session.ts'
import { gatewayError } from '../../src/errors.ts'
import { authenticator } from '../../src/http/authenticate.ts'
import { RequestState } from '../../src/http/context.ts'
import type { SessionCookie } from '../../src/http/session-cookie.ts'
import { throughHook } from '../helpers/hooks.ts'
import { wholeRevocations } from '../helpers/whole.ts'

const session: Session = unscoped({
  id: 'id',
  subject: 'app:alice',
  plan: 'default',
  models: ['*'],
  permits: () => true,
  scopes: ['tasks:read'],
  issuedAt: 0,
  expiresAt: 1
})
const allPlans = plans({
  default: { models: ['*'], requestsPerMinute: 1, pollsPerMinute: 1, concurrentTasks: 1, credits: 1, period: 'day' }
})
/** Nobody has one here. */
const cookie: SessionCookie = {
  read: () => null,
  async print () { throw new Error('nobody asks for one') },
  write () {},
  async slide () {},
  clear () {}
}

/** What comes of a request with some token when the verifiers behave so. */
async function outcome (
  verify: Array<(credential: string) => unknown>, revocations = wholeRevocations()
): Promise<string> {
  const verifiers = verify.map(each => ({ verify: each }) as SessionVerifier)
  const call = new RequestState(() => {})
  const request = {
    call,
    query: {},
    raw: { rawHeaders: ['authorization', 'Bearer token'] }
  } as unknown as FastifyRequest
  try {
    const authenticate =
      authenticator({
        verifiers, revocations, plans: allPlans, pools: new Set(), cookie, ownOrigin: () => null, timeoutMs: 50
      })
    await throughHook(authenticate, request, {} as FastifyReply)
    return call.session!.subject
  } catch (error) {
    if (call.session !== null || call.plan !== null) throw new Error('a refused call kept its session')
    return (error as { code: string }).code
  }
}

const odd: Readonly<Record<string, () => unknown>> = {
  'returns undefined': () => undefined,
  'resolves to undefined': async () => undefined,
  'resolves to an empty object': async () => ({}),
  'resolves to true': async () => true,
  'resolves to a text': async () => 'app:root',
  'resolves to a list': async () => [session],
  'resolves to a subject alone': async () => ({ subject: 'app:root' }),
  'resolves to an id alone': async () => ({ id: 'x' }),
  'resolves to a session without a plan': async () => ({ ...session, plan: undefined }),
  'resolves to a plan that does not exist': async () => ({ ...session, plan: 'pro' }),
  'resolves to a plan of JavaScript\'s own': async () => ({ ...session, plan: 'constructor' }),
  'resolves to a number as subject': async () => ({ ...session, subject: 7 }),
  'returns a session that is no promise of one, and no session': () => 0,
  throws: () => { throw new Error('boom') },
  'says at once that it is bad': () => { throw gatewayError('GW_BAD_SESSION') },
  rejects: async () => { throw new Error('boom') },
  'rejects with nothing': async () => { throw undefined }, // eslint-disable-line no-throw-literal
  'rejects with a text': () => Promise.reject('boom'), // eslint-disable-line prefer-promise-reject-errors
  'never settles': () => new Promise(() => {}),
  'says it is bad': async () => { throw gatewayError('GW_BAD_SESSION') }
}

t.test('a verifier that vouches, lets in', async t => {
  t.equal(await outcome([async () => session]), 'app:alice')
  t.equal(await outcome([async () => null, async () => session]), 'app:alice')
})

t.test('one that knows the session, or that it is not its own, need not be waited for', async t => {
  const revoked = (answer: boolean): Revocations => wholeRevocations({ isRevoked: () => answer })
  t.equal(await outcome([() => null, () => session], revoked(false)), 'app:alice')
  t.equal(await outcome([() => null, async () => session], revoked(false)), 'app:alice')
  t.equal(await outcome([() => session], revoked(true)), 'GW_BAD_SESSION')
  t.equal(await outcome([() => null, () => null], revoked(false)), 'GW_BAD_SESSION')
})

t.test('nobody vouches: refused', async t => {
  t.equal(await outcome([]), 'GW_BAD_SESSION')
  t.equal(await outcome([async () => null, async () => null]), 'GW_BAD_SESSION')
})

for (const [what, verify] of Object.entries(odd)) {
  t.test(`a verifier that ${what} vouches for nobody, and no other is asked after it`, async t => {
    let asked = false
    const next = async () => {
      asked = true
      return session
    }
    t.equal(await outcome([verify, next]), 'GW_BAD_SESSION')
    t.notOk(asked)
    t.equal(await outcome([async () => null, verify]), 'GW_BAD_SESSION')
  })
}

t.test('a store of revocations that fails, or stalls on its way, lets nobody in', async t => {
  const failing = (isRevoked: () => Promise<boolean>): Revocations => wholeRevocations({ isRevoked })
  t.equal(
    await outcome(
      [async () => session],
      failing(async () => true)
    ),
    'GW_BAD_SESSION'
  )
  t.equal(
    await outcome(
      [async () => session],
      failing(async () => {
        throw gatewayError('GW_STORE_DOWN')
      })
    ),
    'GW_STORE_DOWN'
  )
  t.not(
    await outcome(
      [async () => session],
      failing(async () => {
        throw new Error('boom')
      })
    ),
    'app:alice'
  )
})
