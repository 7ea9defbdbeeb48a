import t from 'tap'
import { startGateway } from '../helpers/gateway.ts'
import { rawAnswer, rawSocket } from '../helpers/raw-http.ts'
import { until } from '../helpers/until.ts'

const megabyte = 1 << 20

function head (token: string, length: number): string {
  return `POST /api/v1/generateTask/nano-banana HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${token}\r\n` +
    `content-type: application/json\r\ncontent-length: ${length}\r\n\r\n`
}

t.test('bodies that are announced and do not come hold up nobody, and end in seconds with an answer', async t => {
  const { origin, mint, submit, sandbox } = await startGateway(t)
  const bodies = await Promise.all([1, 2, 3, 4, 5, 6, 7, 8].map(async index => {
    const socket = await rawSocket(t, origin)
    const seen = { text: '', closedMs: 0 }
    const start = performance.now()
    socket.on('data', chunk => { seen.text += chunk })
    const closed = new Promise<void>(resolve => socket.once('close', () => {
      seen.closedMs = performance.now() - start
      resolve()
    }))
    socket.write(head(await mint(`mallory-${index}`), 16 * megabyte))
    // Half of them send a byte now and then.
    const trickle = index % 2 === 0 ? setInterval(() => socket.write(' '), 100) : undefined
    socket.once('end', () => clearInterval(trickle))
    return { seen, closed }
  }))
  const token = await mint('alice')
  for (let round = 0; round < 5; round++) {
    const start = performance.now()
    t.equal((await submit(token)).status, 200)
    t.ok(performance.now() - start < 1000, 'a small submit does not wait')
  }
  const large = submit(token, 'x'.repeat(100_000))
  await Promise.all(bodies.map(async ({ closed }) => closed))
  // Those that waited for their turn are read when the first have been given up.
  for (const { seen } of bodies) {
    t.match(rawAnswer(seen.text), { status: 408, error: 'GW_BAD_REQUEST', count: 1 })
    t.match(seen.text, /^connection: close\r$/im)
    t.ok(seen.closedMs < 60_000, `${seen.closedMs} ms`)
  }
  t.equal((await large).status, 200, 'a large one comes to its turn')
  t.equal(sandbox.submits.length, 6)
})

t.test('a body that comes slowly, and comes, is read to its end', async t => {
  const { origin, mint } = await startGateway(t)
  const socket = await rawSocket(t, origin)
  let text = ''
  socket.on('data', chunk => { text += chunk })
  const body = Buffer.from(JSON.stringify({ input: { prompt: 'x'.repeat(70_000) } }))
  socket.write(head(await mint('alice'), body.length))
  let sent = 0
  const timer = setInterval(() => {
    socket.write(body.subarray(sent, sent += 1000))
    if (sent >= body.length) clearInterval(timer)
  }, 100)
  t.teardown(() => clearInterval(timer))
  await until('an answer', () => rawAnswer(text).count === 1, 30_000)
  t.equal(rawAnswer(text).status, 200)
})

t.test('bodies that are announced and drip hold up no large body of somebody else', async t => {
  const { origin, mint, call } = await startGateway(t, { env: { GATEWAY_TRUST_PROXY: 'loopback' } })
  const drips = await Promise.all(
    [1, 2, 3, 4, 5, 6, 7, 8].map(async index => {
      const socket = await rawSocket(t, origin)
      socket.write(
        head(await mint(`mallory-${index}`), 16 * megabyte).replace(
          'host: x',
          `host: x\r\nx-forwarded-for: 198.51.100.${index}`
        )
      )
      const timer = setInterval(() => socket.write(' '.repeat(300)), 100)
      t.teardown(() => clearInterval(timer))
      return socket
    })
  )
  const token = await mint('alice')
  const submit = async () =>
    await call('/api/v1/generateTask/nano-banana', {
      method: 'POST',
      token,
      headers: { 'x-forwarded-for': '203.0.113.1' },
      body: { input: { prompt: 'x'.repeat(megabyte) } },
      signal: AbortSignal.timeout(10_000)
    })
  for (let round = 0; round < 3; round++) {
    const start = performance.now()
    t.equal((await submit()).status, 200)
    t.ok(performance.now() - start < 1000, `${performance.now() - start} ms`)
  }
  t.notOk(drips.some(socket => socket.closed), 'they may go on')
})

t.test('bodies that come side by side, and are more than there is room for, all come to their end', async t => {
  const config = `plans: { default: { concurrentTasks: 1000, credits: unlimited, requestsPerMinute: 10000 } }\nlimits: { bodyBytes: ${2 * megabyte}, bodyBytesInFlight: ${2 * megabyte} }`
  const { origin, mint, sandbox } = await startGateway(t, { config, env: { GATEWAY_TRUST_PROXY: 'loopback' } })
  const body = Buffer.from(JSON.stringify({ input: { prompt: 'x'.repeat(megabyte) } }))
  const answers = await Promise.all(
    [1, 2, 3, 4, 5, 6].map(async index => {
      const socket = await rawSocket(t, origin)
      let text = ''
      socket.on('data', chunk => {
        text += chunk
      })
      socket.write(
        head(await mint(`caller-${index}`), body.length).replace(
          'host: x',
          `host: x\r\nx-forwarded-for: 198.51.100.${index}`
        )
      )
      let sent = 0
      const timer = setInterval(() => {
        socket.write(body.subarray(sent, (sent += 30_000)))
        if (sent >= body.length) clearInterval(timer)
      }, 20)
      t.teardown(() => clearInterval(timer))
      await until('an answer', () => rawAnswer(text).count === 1, 30_000)
      return rawAnswer(text).status
    })
  )
  t.same(answers, [200, 200, 200, 200, 200, 200])
  t.equal(sandbox.submits.length, 6)
})
