import { createElement } from 'react'
import { act, create, type ReactTestRenderer } from 'react-test-renderer'
import t, { type Test } from 'tap'
import type { Client } from '../../src/client/client.ts'
import { type Generation, useGeneration } from '../../src/client/react.ts'
import { clientSetup, isSubmit } from '../helpers/client.ts'
import { until } from '../helpers/until.ts'

// React's own word for a test that waits for what it shows: https://react.dev/reference/react/act
Object.assign(globalThis, { IS_REACT_ACT_ENVIRONMENT: true })

const input = { mode: 'text-to-image', prompt: 'a lighthouse at dusk' }

interface Shown {
  readonly renderer: ReactTestRenderer
  /** What the component was given, each time that it was drawn. */
  readonly drawn: readonly Generation[]
  readonly now: () => Generation
}

/** `act`, with what comes of it. */
async function acting <T> (work: () => Promise<T>): Promise<T> {
  const { promise, resolve, reject } = Promise.withResolvers<T>()
  await act(async () => { await work().then(resolve, reject) })
  return await promise
}

async function draw (t: Test, client: Client): Promise<Shown> {
  const drawn: Generation[] = []
  const Picture = (): null => {
    drawn.push(useGeneration(client))
    return null
  }
  const renderer = await acting(async () => create(createElement(Picture)))
  t.teardown(() => act(() => renderer.unmount()))
  return { renderer, drawn, now: () => drawn.at(-1)! }
}

t.test('a component shows its task from the press of a button to the picture', async t => {
  const { as, turning } = await clientSetup(t, { sandbox: { taskMs: 60_000 } })
  const { drawn, now } = await draw(t, await as('alice'))
  t.match(now(), { state: 'idle', taskId: null, results: [], error: null, isRunning: false })
  const task = await acting(() => turning(now().generate('nano-banana', input)))
  t.match(now(), { state: 'success', taskId: task!.taskId, results: task!.results, error: null, isRunning: false })
  const states = drawn.map(({ state, isRunning }) => `${state}${isRunning ? '…' : ''}`)
  t.same([...new Set(states)], ['idle', 'submitting…', 'pending…', 'processing…', 'success…', 'success'])
  t.equal(drawn.every(({ generate, cancel }) => generate === now().generate && cancel === now().cancel), true)
})

t.test('a failure is shown and not thrown, and the next task begins anew', async t => {
  const { as, turning } = await clientSetup(t)
  const { now } = await draw(t, await as('alice'))
  t.equal(await acting(() => turning(now().generate('nano-banana', { ...input, prompt: 'sandbox:failed' }))), null)
  t.match(now(), { state: 'failed', results: [], error: { code: 'TASK_FAILED', reason: /./ }, isRunning: false })
  t.match(now().taskId, /./)
  await acting(() => turning(now().generate('nano-banana', input)))
  t.match(now(), { state: 'success', error: null })
})

t.test('a second press while it runs is the same task, and another task takes its place', async t => {
  const { as, turning, sandbox } = await clientSetup(t)
  const { now } = await draw(t, await as('alice'))
  const both = await acting(() => turning(Promise.all([
    now().generate('nano-banana', input), now().generate('nano-banana', input)
  ])))
  t.equal(both[0], null)
  t.equal(now().taskId, both[1]!.taskId)
  t.equal(sandbox.submits.length, 1)
})

t.test('a wait ends when it is cancelled, and with its component', async t => {
  const { as, proxy } = await clientSetup(t)
  const { now, renderer, drawn } = await draw(t, await as('alice'))
  proxy.fault = request => isSubmit(request) ? { kind: 'held' } : { kind: 'none' }
  const press = async (prompt: string, end: () => void) => {
    const before = proxy.requests.length
    let made: Promise<unknown>
    await act(async () => { made = now().generate('nano-banana', { ...input, prompt }) })
    await until('it is on its way', () => proxy.requests.length > before)
    t.match(now(), { state: 'submitting', isRunning: true })
    await act(async () => end())
    t.equal(await made!, null)
  }
  await press('one', () => now().cancel())
  t.match(now(), { state: 'idle', isRunning: false })
  await act(async () => now().cancel())
  await press('two', () => renderer.unmount())
  const count = drawn.length
  t.match(drawn[count - 1], { state: 'submitting' }, 'nothing is drawn any more')
})
