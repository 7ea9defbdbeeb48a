import t from 'tap'
import { startGateway } from '../helpers/gateway.ts'

const keys = ['apixo-key-number-one', 'apixo-key-number-two']
const config = 'plans: { default: { credits: unlimited, concurrentTasks: 1000, requestsPerMinute: 10000 } }'
const benched = (log: ReadonlyArray<Record<string, any>>) => log.filter(line => line.alarm === 'key-benched')
const probes = (calls: ReadonlyArray<{ url: string }>) =>
  calls.filter(({ url }) => url.endsWith('/current-balance')).length

t.test('prompts that the upstream refuses with 403 bench no key, and the caller hears why', async t => {
  for (const name of ['http-403', 'code-403', 'balance-400']) {
    await t.test(name, async t => {
      const { submit, mint, sandbox, log } = await startGateway(t, { config, keys })
      const [mallory, alice] = [await mint('mallory'), await mint('alice')]
      for (let round = 0; round < 20; round++) {
        const reply = await submit(mallory, `sandbox:${name}`)
        t.match(
          reply,
          { error: null, json: { code: name === 'balance-400' ? 400 : 403 } },
          "the answer is the upstream's own"
        )
      }
      t.equal(sandbox.submits.length, 20, 'a refused prompt is not tried with another key')
      t.ok(probes(sandbox.calls) <= 2, 'each key is asked once for its balance, not twenty times')
      t.same(benched(log), [])
      for (let round = 0; round < 4; round++) t.equal((await submit(alice)).status, 200)
    })
  }
})

t.test('a key that may not use a model rests for that model and stays in use for others', async t => {
  const { submit, mint, sandbox, log } = await startGateway(t, { config, keys })
  const token = await mint('alice')
  sandbox.forbid(keys[0]!, 'sora-2')
  for (let round = 0; round < 6; round++) {
    t.equal((await submit(token, 'a cube', 'sora-2')).status, 200, 'the other key serves')
  }
  for (let round = 0; round < 4; round++) t.equal((await submit(token)).status, 200)
  t.same(benched(log), [])
  t.equal(new Set([...sandbox.tasks.values()].slice(-4).map(task => task.key)).size, 2, 'both keys take turns again')
})

t.test('an upstream 401 never reaches a caller as one: its SDK would log out', async t => {
  for (const name of ['http-401', 'http-402', 'code-401', 'code-402']) {
    await t.test(name, async t => {
      const { submit, mint, sandbox, log, time } = await startGateway(t, { config })
      const token = await mint('mallory')
      t.match(await submit(token, `sandbox:${name}`), { status: 502, error: 'GW_UPSTREAM_REFUSED_KEY' })
      t.same(benched(log), [], 'the key has been asked, and is fine')
      t.equal((await submit(token, 'a song', 'suno')).status, 200, 'it serves other models')
      time.advance(60_000)
      t.equal((await submit(token)).status, 200, 'and this one after a minute')
      t.equal(sandbox.submits.length, 3)
    })
  }
})

t.test('failing status calls bench no key either', async t => {
  for (const name of ['status-http-401', 'status-http-403', 'status-code-401']) {
    await t.test(name, async t => {
      const { submit, status, mint, log, time } = await startGateway(t, { config, keys })
      const token = await mint('mallory')
      const { taskId } = (await submit(token, `sandbox:${name}`)).json.data
      for (let round = 0; round < 10; round++) {
        t.not((await status(token, taskId)).status, 401)
        time.advance(20_000) // past the least time between two status calls upstream
      }
      t.same(benched(log), [])
      t.equal((await submit(await mint('alice'), 'a song', 'suno')).status, 200)
    })
  }
})

t.test('a probe without a usable answer benches nobody', async t => {
  const { submit, mint, sandbox, log } = await startGateway(t, { config })
  const token = await mint('mallory')
  sandbox.next((_request, response) => {
    response.writeHead(403, { 'content-type': 'application/json' }).end('{"code":403,"message":"no"}')
  })
  sandbox.next((_request, response) => {
    response.destroy()
  })
  t.match(await submit(token), { status: 403, error: null })
  t.equal(probes(sandbox.calls), 1)
  t.same(benched(log), [])
  t.equal((await submit(token)).status, 200)
})
