import t from 'tap'
import { collectWhenIdle, processUsage } from '../src/idle-collection.ts'
import { clock } from './helpers/clock.ts'
import { gatewayEnvironment, startProcess } from './helpers/gateway-process.ts'
import { crankedTimers } from './helpers/timers.ts'

const megabyte = 1_048_576

/** A process that is what the test says it is. Each collection lasts `pauseMs`, and leaves 20 MB. */
function pretended (pauseMs = 30) {
  const time = clock()
  const timers = crankedTimers(time)
  const heap = { bytes: 40 * megabyte, cpuMs: 0, collections: 0 }
  collectWhenIdle({
    collect () {
      heap.collections++
      heap.bytes = 20 * megabyte
      heap.cpuMs += pauseMs
      time.advance(pauseMs)
    },
    usage: () => ({ heapBytes: heap.bytes, cpuMs: heap.cpuMs }),
    elapsed: time.elapsed,
    timers
  })
  const second = (cpuMs = 0): number => {
    heap.cpuMs += cpuMs
    time.advance(1000)
    timers.run()
    return heap.collections
  }
  const seconds = (count: number): number => Array.from({ length: count }, () => second()).at(-1)!
  return { heap, second, seconds }
}

t.test('what a load has left is collected in the first second with nothing to do, and what the start has is not', t => {
  const { heap, second } = pretended()
  t.equal(second(), 0)
  heap.bytes = 200 * megabyte
  t.equal(second(50), 0, 'there is something to do')
  t.equal(second(49), 1)
  t.equal(second(), 1, 'and not again')
  t.end()
})

t.test('a heap that has hardly grown is left alone, also when it had become smaller by itself', async t => {
  const { heap, second, seconds } = pretended()
  heap.bytes = 47 * megabyte
  t.equal(seconds(60), 0)
  heap.bytes = 12 * megabyte
  second()
  heap.bytes = 21 * megabyte
  t.equal(second(), 1)
})

t.test('a long collection is followed by a long time without one', async t => {
  const { heap, seconds } = pretended(200)
  heap.bytes = 100 * megabyte
  seconds(1)
  heap.bytes = 100 * megabyte
  t.equal(seconds(199), 1)
  t.equal(seconds(3), 2)
})

t.test('a process started with --expose-gc collects after a load', async t => {
  const { heapBytes, cpuMs } = processUsage()
  t.ok(heapBytes > megabyte && cpuMs > 1)
  const cwd = t.testdir({
    'gateway.yaml': 'plans: { default: { credits: 100 } }',
    'heard.mjs': `
      const { gc } = globalThis
      globalThis.gc = () => { gc(); console.log('collected') }
      process.on('SIGUSR2', () => { globalThis.load = Array.from({ length: 1e6 }, (_, i) => ({ i })) })`
  })
  const options = `--expose-gc --import ${cwd}/heard.mjs`
  const gateway = await startProcess(t, {
    cwd, env: { ...gatewayEnvironment('http://127.0.0.1:1'), NODE_OPTIONS: options }
  })
  gateway.child.kill('SIGUSR2')
  await gateway.says(/^collected$/m)
  gateway.child.kill('SIGTERM')
  t.equal(await gateway.ended, 0)
})
