import t from 'tap'
import { apartMs, goneKeys } from '../../src/domain/gone-keys.ts'
import type { KeyState } from '../../src/domain/key-ring.ts'
import { askUpstream } from '../../src/domain/task-status.ts'
import { operationOf, type UpstreamAnswer, UpstreamFailure } from '../../src/domain/upstream.ts'
import { clock } from '../helpers/clock.ts'
import { until } from '../helpers/until.ts'
import { wholeAnswer, wholeKey, wholeKeys, wholeKeyStatus, wholeTask, wholeUpstream } from '../helpers/whole.ts'

const task = wholeTask({ taskId: 'task-1', model: 'suno', keyId: 'gone' })
const noKey = { source: 'none', code: 'GW_NO_KEY' } as const
const waiting = (): AbortSignal => new AbortController().signal

/** Keys in these states, at an upstream that answers with `answer`; without one it does not answer. */
function asking (states: Readonly<Record<string, KeyState>>, answer: UpstreamAnswer | null = null) {
  const time = clock()
  const asked: string[] = []
  const givenUp: string[] = []
  const upstream = wholeUpstream(({ key }) => {
    asked.push(key.id)
    const { promise, resolve, reject } = Promise.withResolvers<UpstreamAnswer>()
    if (answer !== null) resolve(answer)
    return { answer: promise, cancel: () => reject(new UpstreamFailure('cancelled')) }
  })
  const keys = {
    states: () => Object.entries(states).map(([keyId, state]) => wholeKeyStatus({ keyId, state })),
    byId: wholeKey
  }
  const ledger = { isClaimed: true, async giveUp () { return this.isClaimed } }
  const gone = goneKeys({
    upstream,
    keys,
    held: null,
    ledger,
    intervalOf: () => 5000,
    elapsed: time.elapsed,
    onGivenUp: ({ taskId }) => givenUp.push(taskId)
  })
  return { asked, givenUp, ledger, upstream, time, gone }
}

t.test('a poll that nobody waits for any more is cancelled, and no further key is asked', async t => {
  const { asked, gone } = asking({ one: 'resting', two: 'ready' })
  const caller = new AbortController()
  const outcome = gone.ask(task, noKey, caller.signal)
  await until('the first is asked', () => asked.length === 1)
  caller.abort()
  t.match(await outcome, { source: 'none', code: 'GW_UPSTREAM_INVALID' })
  t.same(asked, ['one'])
})

t.test('keys that do not serve are not asked, nor is any while its own is in the ring', async t => {
  for (const states of [
    { one: 'refused', two: 'empty', three: 'draining' },
    { gone: 'refused', two: 'ready' }
  ] as const) {
    const { asked, gone } = asking(states)
    t.equal(await gone.ask(task, noKey, waiting()), noKey)
    t.same(asked, [])
  }
})

t.test('a task that is not claimed any more when no key knows it is not given up', async t => {
  const { givenUp, ledger, time, gone } = asking({ one: 'ready' }, wholeAnswer('{"code":404}'))
  t.equal(await gone.ask(task, noKey, waiting()), noKey, 'the first time')
  time.advance(apartMs)
  ledger.isClaimed = false
  t.equal(await gone.ask(task, noKey, waiting()), noKey, 'it was settled meanwhile')
  t.same(givenUp, [])
  time.advance(5000)
  ledger.isClaimed = true
  t.match(await gone.ask(task, noKey, waiting()), { source: 'none', code: 'GW_OUTCOME_UNKNOWN' })
  t.same(givenUp, ['task-1'])
})

t.test('no key is asked by a status call for a task whose key is gone', async t => {
  const { upstream, asked } = asking({})
  t.match(await askUpstream({ upstream, keys: wholeKeys([]) }, operationOf('statusTask'), task), noKey)
  t.same(asked, [])
})
