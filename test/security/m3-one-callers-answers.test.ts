import t from 'tap'
import { anyItems, submitBatch } from '../helpers/batches.ts'
import { startGateway } from '../helpers/gateway.ts'

const config = `
plans: { default: { credits: unlimited, concurrentTasks: 10000, requestsPerMinute: 100000 } }
batches: { enabled: true }`
const allKeys = ['apixo-key-number-one', 'apixo-key-number-two', 'apixo-key-number-three']
const answers = ['http-401', 'code-401', 'http-402', 'http-403', 'http-429', 'code-429', 'balance-400']

for (const count of [1, 2, 3]) {
  const keys = allKeys.slice(0, count)

  t.test(
    `${count} keys: what one caller's prompts are answered with shuts out nobody else, from that model or any other`,
    async t => {
      const { submit, mint, sandbox, time, log } = await startGateway(t, { config, keys })
      const [mallory, alice] = [await mint('mallory'), await mint('alice')]
      for (const name of [...answers, 'all in turn']) {
        for (let round = 0; round < 4; round++) {
          for (let tries = 0; tries < 4; tries++) {
            const meant = name === 'all in turn' ? answers[(round + tries) % answers.length]! : name
            t.not((await submit(mallory, `sandbox:${meant}`)).status, 503, 'nor is its sender')
          }
          t.equal((await submit(alice)).status, 200, `${name}: the same model`)
          t.equal((await submit(alice, 'a song', 'suno')).status, 200, `${name}: another one`)
          time.advance(1700)
        }
      }
      t.equal(sandbox.tasks.size, (answers.length + 1) * 4 * 2)
      t.same(
        log.filter(line => line.alarm === 'key-benched'),
        []
      )
    }
  )
}

t.test('a batch is served like a single submit', async t => {
  const gateway = await startGateway(t, { config, keys: allKeys.slice(0, 2) })
  const [mallory, alice] = [await gateway.mint('mallory'), await gateway.mint('alice')]
  for (let round = 0; round < 6; round++) {
    for (const name of ['http-429', 'http-401']) await gateway.submit(mallory, `sandbox:${name}`)
    t.equal((await submitBatch(gateway, alice, anyItems(2))).status, 200)
  }
})

t.test(
  'a key that may not use a model costs its callers one more call at the most, whatever others do to the key that may',
  async t => {
    const keys = allKeys.slice(0, 2)
    const { submit, mint, sandbox, time } = await startGateway(t, { config, keys })
    const [mallory, alice] = [await mint('mallory'), await mint('alice')]
    sandbox.forbid(keys[0]!, 'sora-2')
    for (let round = 0; round < 20; round++) {
      await submit(mallory, `sandbox:${round % 2 === 0 ? 'http-401' : 'http-429'}`, 'sora-2')
      t.equal((await submit(alice, 'a cube', 'sora-2')).status, 200)
      time.advance(7000)
    }
  }
)

t.test('two of three keys may not use a model: once the third has served it, it always does', async t => {
  const { submit, mint, sandbox, time } = await startGateway(t, { config, keys: allKeys })
  const [mallory, alice] = [await mint('mallory'), await mint('alice')]
  for (const key of allKeys.slice(0, 2)) sandbox.forbid(key, 'sora-2')
  t.match(
    await submit(alice, 'a cube', 'sora-2'),
    { status: 502, error: 'GW_UPSTREAM_REFUSED_KEY' },
    'nobody knows it yet'
  )
  for (let round = 0; round < 20; round++) {
    t.equal((await submit(alice, 'a cube', 'sora-2')).status, 200)
    await submit(mallory, 'sandbox:http-401', 'sora-2')
    time.advance((round % 3) * 30_000)
  }
})

t.test('a key that has had enough of one model serves the others in its turn', async t => {
  const keys = allKeys.slice(0, 2)
  const { submit, mint, sandbox } = await startGateway(t, { config, keys })
  const token = await mint('alice')
  t.equal((await submit(token, 'sandbox:http-429', 'sora-2')).status, 429)
  for (let round = 0; round < 4; round++) t.equal((await submit(token, 'a cube', 'sora-2')).status, 200)
  t.same(new Set([...sandbox.tasks.values()].map(({ key }) => key)), new Set([keys[1]]))
  for (let round = 0; round < 4; round++) t.equal((await submit(token, 'a song', 'suno')).status, 200)
  t.same(new Set([...sandbox.tasks.values()].slice(-4).map(({ key }) => key)), new Set(keys))
})
