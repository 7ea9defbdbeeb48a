import { inspect } from 'node:util'
import t from 'tap'
import { readEnvelope, type SubmitOutcome } from '../../../src/domain/answers.ts'
import { keyRing } from '../../../src/domain/key-ring.ts'
import { Secret } from '../../../src/domain/secret.ts'
import type { UpstreamKey } from '../../../src/domain/upstream.ts'
import { isGatewayError } from '../../../src/errors.ts'
import { type ReservedSubmit, keyFor } from '../../../src/http/admit.ts'
import type { RequestContext } from '../../../src/http/context.ts'
import { withKeys } from '../../../src/http/forward.ts'
import { clock } from '../../helpers/clock.ts'
import { random } from '../../helpers/random.ts'

const { seed, int, pick } = random()
const models = ['nano-banana', 'sora-2', 'suno']
const statuses = [400, 401, 402, 403, 429, 500]
const retryAfters = [undefined, '0', '1', '30', '600']

/** What is so upstream, whatever callers are told. */
interface World {
  readonly revoked: ReadonlySet<number>
  readonly empty: ReadonlySet<number>
  /** `key model` */
  readonly forbidden: ReadonlySet<string>
}

/** Time passes, and then somebody submits: honestly, or something that is answered with `status` whatever the key. */
interface Event {
  readonly afterMs: number
  readonly model: string
  readonly status: number | null
  readonly retryAfter: string | undefined
}

const anyEvents = (count: number): Event[] =>
  Array.from({ length: count }, () => ({
    afterMs: pick([0, 0, 500, 5000, 20_000, 61_000]),
    model: pick(models),
    status: int(3) === 0 ? null : pick(statuses),
    retryAfter: pick(retryAfters)
  }))

/** What became of each submit with that many keys: accepted, refused (or our key was), or turned away by us. */
async function played (count: number, { revoked, empty, forbidden }: World, events: readonly Event[]) {
  const time = clock()
  const keys: UpstreamKey[] = Array.from({ length: count }, (_, index) => ({
    id: String(index),
    secret: new Secret(`secret-${index}`)
  }))
  const ring = keyRing({
    keys,
    ...time,
    drainMs: 1,
    probe: async ({ id }) => ({
      verdict: revoked.has(Number(id)) ? 'refused' : empty.has(Number(id)) ? 'empty' : 'fine',
      balance: null
    }),
    onChange () {}
  })
  const refusal = (status: number, retryAfter?: string): SubmitOutcome => {
    const body = Buffer.from(JSON.stringify({ code: status, message: 'no', data: null }))
    const answer = { status, contentType: 'application/json', retryAfter, body, leaksKey: false }
    return { kind: 'refused', status, envelope: readEnvelope(body)!, answer }
  }
  const said: Array<'accepted' | 'refused' | 'turned away'> = []
  for (const { afterMs, model, status, retryAfter } of events) {
    time.advance(afterMs)
    const forward = withKeys(ring, async (_order: ReservedSubmit, { id }): Promise<SubmitOutcome> => {
      if (revoked.has(Number(id)) || forbidden.has(`${id} ${model}`)) return refusal(401)
      if (empty.has(Number(id))) return refusal(402)
      if (status !== null) return refusal(status, retryAfter)
      return {
        kind: 'accepted',
        taskId: 'x',
        answer: { status: 200, contentType: '', retryAfter: undefined, body: Buffer.alloc(0), leaksKey: false }
      }
    })
    try {
      const key = keyFor({ keyId: undefined, model }, ring)
      const { kind } = await forward({ model, key } as ReservedSubmit, { call: {} } as RequestContext)
      said.push(kind === 'accepted' ? 'accepted' : 'refused')
    } catch (error) {
      if (!isGatewayError(error) || error.code !== 'GW_NO_KEY') throw error
      said.push('turned away')
    }
  }
  return said
}

const failure = (message: string, details: object) =>
  new Error(`${message}: ${inspect(details, { depth: 4, maxArrayLength: null })}`)

const nothing: World = { revoked: new Set(), empty: new Set(), forbidden: new Set() }
const someOf = (count: number) => new Set(Array.from({ length: count }, (_, index) => index).filter(() => int(3) === 0))

t.test(
  `with keys that are all good, every honest submit is served, whatever others are answered (TEST_SEED=${seed})`,
  async () => {
    for (let run = 0; run < 200; run++) {
      const events = anyEvents(40)
      for (const count of [1, 2, 3, 4]) {
        const said = await played(count, nothing, events)
        const failed = events.findIndex(({ status }, index) => status === null && said[index] !== 'accepted')
        if (failed !== -1 || said.includes('turned away')) throw failure(`${count} keys`, { failed, events, said })
      }
    }
  }
)

t.test(
  `a ring with one key more serves whenever the ring without it does, be that key good or bad (TEST_SEED=${seed})`,
  async () => {
    for (let run = 0; run < 200; run++) {
      const count = 1 + int(3)
      const isBad = int(2) === 0
      // At most one bad key: with one try beside the first, nobody can promise more of keys that have never served.
      const world = isBad ? { ...nothing, [pick(['revoked', 'empty'])]: new Set([count]) } : nothing
      const forbidden = new Set(isBad ? [] : models.filter(() => int(2) === 0).map(model => `${count} ${model}`))
      const events = anyEvents(40)
      const [fewer, more] = [
        await played(count, { ...world, forbidden }, events),
        await played(count + 1, { ...world, forbidden }, events)
      ]
      const worse = fewer.findIndex(
        (was, index) =>
          (was === 'accepted' && more[index] !== 'accepted') || (was !== 'turned away' && more[index] === 'turned away')
      )
      if (worse !== -1) throw failure(`${count + 1} keys are worse than ${count}`, { worse, events, fewer, more })
    }
  }
)

t.test(
  `as long as one key is good nobody is turned away, and a model that was served once is served always (TEST_SEED=${seed})`,
  async () => {
    for (let run = 0; run < 300; run++) {
      const count = 2 + int(4)
      const good = int(count)
      const without = (bad: Set<number>) => new Set([...bad].filter(index => index !== good))
      const world = {
        revoked: without(someOf(count)),
        empty: without(someOf(count)),
        forbidden: new Set(models.flatMap(model => [...someOf(count)].map(index => `${index} ${model}`)))
      }
      const events = anyEvents(60)
      const said = await played(count, world, events)
      if (said.includes('turned away')) throw failure('turned away', { world, events, said })
      const served = new Set<string>()
      for (const [index, { model, status }] of events.entries()) {
        if (said[index] === 'accepted') served.add(model)
        else if (status === null && served.has(model)) { throw failure(`${model} is served no more`, { index, world, events, said }) }
      }
    }
  }
)
