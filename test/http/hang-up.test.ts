import { once } from 'node:events'
import { connect } from 'node:net'
import { setTimeout as wait } from 'node:timers/promises'
import t from 'tap'
import { startGateway, type TestGateway } from '../helpers/gateway.ts'
import { until } from '../helpers/until.ts'

function accessLine ({ lines }: TestGateway, operation: string) {
  return lines().find(line => line.operation === operation)
}

t.test('a submit runs to its end and is claimed although its caller has hung up', async t => {
  const gateway = await startGateway(t)
  const { mint, submit, sandbox, status } = gateway
  const token = await mint('alice')
  const caller = new AbortController()
  const answer = submit(token, 'sandbox:slow-headers', 'nano-banana', { signal: caller.signal })
  await until('the upstream has it', () => sandbox.waiting === 1)
  caller.abort()
  await t.rejects(answer)
  await wait(50)
  t.equal(accessLine(gateway, 'generateTask'), undefined, 'its line is not written while it works')
  sandbox.release()
  await until('its line is written', () => accessLine(gateway, 'generateTask') !== undefined)
  const [taskId] = [...sandbox.tasks.keys()]
  t.match(accessLine(gateway, 'generateTask'), {
    taskId,
    status: 499,
    stage: 'reply',
    granted: true,
    subject: 'app:alice'
  })
  t.equal((await status(token, taskId!)).status, 200)
})

t.test('a status call is cancelled with its caller', async t => {
  const gateway = await startGateway(t)
  const { mint, submit, sandbox, status } = gateway
  const token = await mint('alice')
  const { taskId } = (await submit(token, 'sandbox:status-slow-headers')).json.data
  const caller = new AbortController()
  const answer = status(token, taskId, 'nano-banana', { signal: caller.signal })
  await until('the upstream has it', () => sandbox.waiting === 1)
  caller.abort()
  await t.rejects(answer)
  await until('its line is written', () => accessLine(gateway, 'statusTask') !== undefined)
  t.match(accessLine(gateway, 'statusTask'), { status: 499, taskId })
})

t.test('a caller who is gone before the work begins spends nothing', async t => {
  const { origin, mint, sandbox, lines } = await startGateway(t, {
    config: 'plans: { default: {} }\nlimits: { bodyBytes: 1000, bodyBytesInFlight: 1000 }'
  })
  const token = await mint('alice')
  const body = JSON.stringify({ input: { prompt: 'x'.repeat(200) } })
  const request = (length: number) =>
    `POST /api/v1/generateTask/nano-banana HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${token}\r\n` +
    `content-type: application/json\r\ncontent-length: ${length}\r\n\r\n`
  const { port } = new URL(origin)
  const [holder, waiting] = [connect(Number(port), '127.0.0.1'), connect(Number(port), '127.0.0.1')]
  t.teardown(() => { holder.destroy(); waiting.destroy() })
  holder.write(request(1000)) // takes all the room there is, and sends nothing
  await wait(50)
  waiting.write(request(Buffer.byteLength(body)) + body)
  await wait(50)
  waiting.destroy()
  await until('its line is written', () => lines().some(line => line.operation === 'generateTask'))
  holder.destroy()
  await until('its line is written', () => lines().filter(line => line.operation === 'generateTask').length === 2)
  t.equal(sandbox.calls.length, 0)
})

t.test('a body that stops half-way ends in nothing', async t => {
  const { origin, mint, sandbox } = await startGateway(t)
  const socket = connect(Number(new URL(origin).port), '127.0.0.1')
  socket.write(
    `POST /api/v1/generateTask/nano-banana HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${await mint('alice')}\r\n` +
      'content-type: application/json\r\ncontent-length: 100\r\n\r\n{"input":'
  )
  await wait(50)
  socket.end()
  await once(socket.resume(), 'close')
  t.equal(sandbox.calls.length, 0)
})
