import t from 'tap'
import { startGateway } from '../helpers/gateway.ts'
import { rawHttp, rawRequest } from '../helpers/raw-http.ts'

const config =
  'plans: { default: { credits: unlimited, concurrentTasks: 1000, requestsPerMinute: 10000 } }\nlimits: { addressFailuresPerMinute: 10000 }'
const body = JSON.stringify({ input: { prompt: 'x' } })

/** In the place of `:model`. */
const models = [
  '..',
  '../apikeys/current-balance',
  '..%2fapikeys%2fcurrent-balance',
  '%2e%2e/apikeys/current-balance',
  '%2e%2e%2fapikeys%2fcurrent-balance',
  '%2E%2E%2Fapikeys',
  '%252e%252e%252fapikeys',
  '..%5capikeys',
  '..\\apikeys',
  '.',
  '%2e',
  '...',
  '.nano-banana',
  '-nano-banana',
  '_x',
  'nano-banana/..',
  'nano-banana/../../apikeys/current-balance',
  'nano-banana%2f..',
  'nano-banana%2fbatches',
  'nano-banana/batches',
  'nano-banana;x=1',
  'nano-banana%3bx',
  'nano-banana%00',
  'nano-banana%0a',
  'nano-banana%0d%0ahost:evil.test',
  'nano-banana%20',
  '%20nano-banana',
  'nano-banana%23',
  'nano-banana%3ftaskId=1',
  'nano-banana?x=1',
  'nano-banana#x',
  'nano-banana%',
  'nano-banana%zz',
  'nano-banana%c0%af',
  '%ef%bc%8e%ef%bc%8e',
  'nano-banana@evil.test',
  'http:%2f%2fevil.test',
  '*',
  ':model',
  '%3amodel',
  '',
  '%',
  '%ef%bd%8eano',
  'a'.repeat(65),
  'a'.repeat(5000),
  'nano-banana:generate',
  'nano-banana,suno'
]

/** Whole targets of a request. */
const targets = [
  '/api/v1/apikeys/current-balance/',
  '//api/v1/apikeys/current-balance',
  '/api/v1//apikeys/current-balance',
  '/api/v1/generateTask/../apikeys/current-balance',
  '/api/v1/./apikeys/current-balance',
  '/api/v1/generateTask/nano-banana/../../apikeys/current-balance',
  '/api/mcp/device-authorization/start',
  '/api/mcp/admin/users',
  '/api/v1/google/models/gemini-3-pro:generateContent',
  '/api/v1/generateTask',
  '/api/v1/generateTask/',
  '/api/v1/generatetask/nano-banana',
  '/API/v1/generateTask/nano-banana',
  '/api/v2/generateTask/nano-banana',
  '/api%2fv1%2fgenerateTask%2fnano-banana',
  '/%61pi/v1/apikeys/current-balance/x',
  '/api/v1/generateTask/nano-banana/',
  '/api/v1/generateTask//nano-banana',
  '\\api\\v1\\generateTask\\nano-banana',
  '/..%2f..%2fapi/v1/generateTask/x',
  '/api/v1/generateTask/nano-banana%2f',
  '/temp/x.png',
  'http://evil.test/api/v1/apikeys',
  'https://api.apixo.ai/api/mcp/admin/users',
  'evil.test:443',
  '*',
  '/api/v1/../../etc/passwd'
]

t.test('no spelling of a model reaches another upstream path: refused before anything is sent', async t => {
  const { origin, mint, sandbox } = await startGateway(t, { config })
  const headers = [`authorization: Bearer ${await mint('alice')}`]
  for (const model of models) {
    for (const [line, sent] of [
      [`POST /api/v1/generateTask/${model}`, body],
      [`GET /api/v1/statusTask/${model}${model.includes('?') ? '&' : '?'}taskId=1`, '']
    ] as const) {
      const { status, text } = await rawHttp(t, origin, rawRequest(line, headers, sent))
      t.ok(status === 400 || status === 404 || status === 405, `${line.slice(0, 100)}: ${status}`)
      t.notMatch(text, /"data":\d/)
    }
  }
  t.equal(sandbox.calls.length, 0)
})

t.test('no spelling of a path reaches a route that is not mirrored', async t => {
  const { origin, mint, sandbox } = await startGateway(t, { config })
  const headers = [`authorization: Bearer ${await mint('alice')}`]
  for (const target of targets) {
    for (const method of ['GET', 'POST']) {
      const { status } = await rawHttp(
        t,
        origin,
        rawRequest(`${method} ${target}`, headers, method === 'POST' ? body : '')
      )
      t.ok(status === 400 || status === 404 || status === 405, `${method} ${target}: ${status}`)
    }
  }
  t.equal(sandbox.calls.length, 0)
})

t.test('a whole URL as a target is read as its path (RFC 9112 section 3.2.2), and its host goes nowhere', async t => {
  const { origin, mint, sandbox } = await startGateway(t, { config })
  const target = 'http://evil.test/api/v1/apikeys/current-balance'
  const { status, text } = await rawHttp(
    t,
    origin,
    rawRequest(`GET ${target}`, [`authorization: Bearer ${await mint('alice')}`])
  )
  t.equal(status, 200)
  t.match(text, '"data":null')
  t.equal(sandbox.calls.length, 0)
})

t.test('names that exist upstream pass, and go out as they came', async t => {
  const { submit, mint, sandbox } = await startGateway(t, {
    config,
    sandbox: { models: ['gpt-5.4', 'a_b', 'a'.repeat(64)] }
  })
  const token = await mint('alice')
  const names = ['happyHorse', 'gpt-5.4', 'a_b', 'a'.repeat(64)]
  for (const model of names) t.equal((await submit(token, 'x', model)).status, 200, model)
  t.same(sandbox.submits.map(({ url }) => url), names.map(model => `/api/v1/generateTask/${model}`))
})

t.test('an id with an escape in it goes out as one value', async t => {
  const { submit, status, mint, sandbox } = await startGateway(t, { config })
  const token = await mint('alice')
  const taskId = 'a&taskId=b#/../%2e%2e?x=é'
  sandbox.next((_request, response) => {
    response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify({ code: 200, data: { taskId } }))
  })
  t.equal((await submit(token)).status, 200)
  await status(token, taskId)
  const { url } = sandbox.calls.at(-1)!
  t.equal(url, `/api/v1/statusTask/nano-banana?taskId=${encodeURIComponent(taskId)}`)
})
