import { METHODS } from 'node:http'
import t from 'tap'
import { batchesConfig as config } from '../helpers/batches.ts'
import { startGateway } from '../helpers/gateway.ts'
import { rawHttp, rawRequest } from '../helpers/raw-http.ts'

t.test('every other method on the batch routes is a 405 that names the right one, and nothing is sent', async t => {
  const { origin, mint, sandbox } = await startGateway(t, { config })
  const headers = [`authorization: Bearer ${await mint('alice')}`]
  for (const [path, allowed] of [
    ['/api/v1/generateTask/nano-banana/batches', 'POST'],
    ['/api/v1/generateTask/nano-banana/batches/batch_1', 'GET, HEAD']
  ] as const) {
    for (const method of METHODS.filter(method => !['CONNECT', 'OPTIONS', ...allowed.split(', ')].includes(method))) {
      const answer = await rawHttp(t, origin, rawRequest(`${method} ${path}`, headers, '{"items":[]}'))
      t.match(answer, { status: 405, error: 'GW_METHOD_NOT_ALLOWED' }, `${method} ${path}`)
      t.match(answer.text, new RegExp(`^allow: ${allowed}\\r$`, 'im'))
    }
  }
  t.equal(sandbox.calls.length, 0)
})

t.test('while batches are off, no method finds a route', async t => {
  const { origin, mint, sandbox } = await startGateway(t, {
    config: 'plans: { default: {} }\nlimits: { addressFailuresPerMinute: 10000 }'
  })
  const headers = [`authorization: Bearer ${await mint('alice')}`]
  for (const path of ['/api/v1/generateTask/nano-banana/batches', '/api/v1/generateTask/nano-banana/batches/batch_1']) {
    for (const method of ['GET', 'POST', 'PUT', 'DELETE', 'HEAD']) {
      t.match(
        await rawHttp(t, origin, rawRequest(`${method} ${path}`, headers)),
        { status: 404, error: 'GW_NOT_FOUND' },
        `${method} ${path}`
      )
    }
  }
  t.equal(sandbox.calls.length, 0)
})
