import t from 'tap'
import { startGateway, taskMs } from '../helpers/gateway.ts'

t.test('a session token becomes a call with the server\'s key, and the answer comes back as it is', async t => {
  const { submit, mint, sandbox, status, time, lines } = await startGateway(t)
  const token = await mint('alice')
  const submitted = await submit(token)
  t.equal(submitted.status, 200)
  t.same(submitted.json, { code: 200, message: 'success', data: { taskId: [...sandbox.tasks.keys()][0] } })
  t.equal(submitted.error, null)

  const { taskId } = submitted.json.data
  t.equal((await status(token, taskId)).json.data.state, 'pending')
  time.advance(taskMs)
  const done = await status(token, taskId)
  t.equal(done.json.data.state, 'success')
  t.type(done.json.data.resultJson, 'string')

  const calls = sandbox.calls.length
  t.equal((await status(token, taskId)).text, done.text, 'a finished task is answered from the ledger, byte for byte')
  t.equal(sandbox.calls.length, calls, 'and the upstream is not asked again')
  t.match(lines().find(line => line.operation === 'generateTask'), {
    stage: 'reply', granted: true, code: 'OK', subject: 'app:alice', model: 'nano-banana', taskId, status: 200
  })
})

t.test('a final state that is about another task, or comes with an error code, ends nothing', async t => {
  const { submit, mint, sandbox, status, time } = await startGateway(t)
  const token = await mint('alice')
  const { taskId } = (await submit(token)).json.data
  for (const body of [
    { code: 200, data: { taskId: 'another', state: 'success' } },
    { code: 500, data: { taskId, state: 'success' } }
  ]) {
    sandbox.next((_request, response) => {
      response.setHeader('content-type', 'application/json').end(JSON.stringify(body))
    })
    t.same((await status(token, taskId)).json, body, 'the answer passes as it is')
  }
  const asked = sandbox.calls.length
  t.equal((await status(token, taskId)).json.data.state, 'pending')
  t.equal(sandbox.calls.length, asked + 1, 'and the upstream is asked again')
  time.advance(5000)
  const short = { data: { state: 'success' } }
  sandbox.next((_request, response) => {
    response.setHeader('content-type', 'application/json').end(JSON.stringify(short))
  })
  t.same((await status(token, taskId)).json, short)
  t.same((await status(token, taskId)).json, short, 'an abbreviated answer to the question for this task ends it')
  t.equal(sandbox.calls.length, asked + 2)
})

t.test('an answer comes back byte for byte, short or long, in whatever encoding', async t => {
  const { submit, mint, sandbox, origin, time } = await startGateway(t)
  const token = await mint('alice')
  const { taskId } = (await submit(token)).json.data
  const bodies = [
    Buffer.from('{"code":200,"data":{"state":"pending","note":"ä €😀"}}'),
    Buffer.from(`{"code":200,"data":{"state":"pending","note":"${'ä€'.repeat(5000)}"}}`),
    Buffer.from('{"code":200,"data":{"state":"pending","note":"\xe4"}}', 'latin1')
  ]
  for (const body of bodies) {
    sandbox.next((_request, response) => {
      response.setHeader('content-type', 'application/json').end(body)
    })
    const response = await fetch(`${origin}/api/v1/statusTask/nano-banana?taskId=${taskId}`, {
      headers: { authorization: `Bearer ${token}` }
    })
    t.equal(response.headers.get('content-length'), String(body.length))
    t.same(Buffer.from(await response.arrayBuffer()), body)
    time.advance(5000)
  }
})
