import t from 'tap'
import { goneKeys } from '../../src/domain/gone-keys.ts'
import type { KeyStatus } from '../../src/domain/key-ring.ts'
import type { Task } from '../../src/domain/ledger.ts'
import { askUpstream } from '../../src/domain/task-status.ts'
import {
  operationOf, type Upstream, type UpstreamAnswer, UpstreamFailure, type UpstreamKey
} from '../../src/domain/upstream.ts'
import { clock } from '../helpers/clock.ts'
import { until } from '../helpers/until.ts'

const task = { taskId: 'task-1', model: 'suno', keyId: 'gone', stage: 'claimed' } as Task
const noKey = { source: 'none', code: 'GW_NO_KEY' } as const

function asking (states: ReadonlyArray<Pick<KeyStatus, 'keyId' | 'state'>>) {
  const time = clock()
  const asked: string[] = []
  const upstream = {
    send ({ key }: { readonly key: UpstreamKey }) {
      asked.push(key.id)
      const { promise, reject } = Promise.withResolvers<UpstreamAnswer>()
      return { answer: promise, cancel: () => reject(new UpstreamFailure('cancelled')) }
    }
  } as unknown as Upstream
  const keys = { states: () => states as readonly KeyStatus[], byId: (id: string) => ({ id }) as UpstreamKey }
  const ledger = {
    giveUp: async () => {
      throw new Error('never')
    }
  }
  return {
    asked,
    upstream,
    gone: goneKeys({
      upstream,
      keys,
      held: null,
      ledger,
      intervalOf: () => 5000,
      elapsed: time.elapsed,
      onGivenUp () {}
    })
  }
}

t.test('a question that nobody waits for any more is cancelled, and no further key is asked', async t => {
  const { asked, gone } = asking([{ keyId: 'one', state: 'resting' }, { keyId: 'two', state: 'ready' }])
  const caller = new AbortController()
  const outcome = gone.ask(task, noKey, caller.signal)
  await until('the first is asked', () => asked.length === 1)
  caller.abort()
  t.match(await outcome, { source: 'none', code: 'GW_UPSTREAM_INVALID' })
  t.same(asked, ['one'])
})

t.test('keys that do not serve are not asked, nor is any while its own is in the ring', async t => {
  for (const states of [
    [{ keyId: 'one', state: 'refused' }, { keyId: 'two', state: 'empty' }, { keyId: 'three', state: 'draining' }],
    [{ keyId: 'gone', state: 'refused' }, { keyId: 'two', state: 'ready' }]
  ] as const) {
    const { asked, gone } = asking(states)
    t.equal(await gone.ask(task, noKey, new AbortController().signal), noKey)
    t.same(asked, [])
  }
})

t.test('no key is asked by a status call for a task whose key is gone', async t => {
  const { upstream, asked } = asking([])
  const keys = {
    byId: () => undefined,
    verify: async () => 'unclear',
    choose () {},
    learn () {},
    readyInMs: () => 0
  } as never
  t.match(await askUpstream({ upstream, keys }, operationOf('statusTask'), task), noKey)
  t.same(asked, [])
})
