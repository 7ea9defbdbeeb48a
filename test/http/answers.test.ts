import t from 'tap'
import { createGateway } from '../../src/gateway.ts'
import { settingsFor, startGateway } from '../helpers/gateway.ts'

t.test('answers that waited for nothing go together, each to its own caller', async t => {
  const { mint, submit, status, call, time } = await startGateway(t)
  const callers = await Promise.all(Array.from({ length: 20 }, (_, index) => mint(`caller-${index}`)))
  const tasks = await Promise.all(callers.map(async token => (await submit(token)).json.data.taskId as string))
  time.advance(60_000)
  await Promise.all(callers.map((token, index) => status(token, tasks[index]!)))
  const all = await Promise.all(callers.flatMap((token, index) => [
    status(token, tasks[index]!),
    status(token, tasks[(index + 1) % 20]!),
    call('/api/v1/generateTask/nano-banana', { body: {} })
  ]))
  t.same(all.map(({ status, json }) => [status, json.data?.taskId ?? null]), tasks.flatMap(taskId => [
    [200, taskId], [404, null], [401, null]
  ]))
})

t.test('an answer is sent once, and one that can not be sent is a 500 and keeps none of the others', async t => {
  const gateway = await createGateway(settingsFor(t, 'http://127.0.0.1:9', {}), { logTo: { write () {} } })
  t.teardown(() => gateway.close())
  gateway.app.get('/twice', (request, reply) => {
    for (const text of ['first', 'second']) request.call.answer(reply, () => { reply.send(text) })
  })
  gateway.app.get('/never', (request, reply) => {
    request.call.answer(reply, () => { throw new Error('a bug') })
  })
  gateway.app.get('/late', (request, reply) => {
    setTimeout(() => request.call.answer(reply, () => { reply.send('late') }), 1)
  })
  const origin = await gateway.listen()
  const answers = await Promise.all(['/never', '/twice', '/late', '/never', '/twice'].map(async path => {
    const response = await fetch(origin + path)
    return response.status === 200 ? await response.text() : response.status
  }))
  t.same(answers, [500, 'first', 'late', 500, 'first'])
})
