import t from 'tap'
import { crankedGateway, intervalMs } from '../helpers/cranked-gateway.ts'
import { until } from '../helpers/until.ts'

t.test('a reader who does not read is dropped, and takes nobody along', async t => {
  const { mint, made, listenTo, pass, sandbox, polls } = await crankedGateway(t)
  const token = await mint('alice')
  const taskId = await made(token, 'sandbox:forever')
  const [slow, quick] = [await listenTo(taskId, { token }), await listenTo(taskId, { token })]
  await quick.heard(1)
  slow.pause()
  let told = 1
  const say = async (): Promise<void> => {
    const state = `state-${told}`
    sandbox.next((_request, response) => {
      response
        .setHeader('content-type', 'application/json')
        .end(JSON.stringify({ code: 200, data: { taskId, state, note: 'x'.repeat(900_000) } }))
    })
    const before = polls()
    pass(intervalMs)
    await until('it was asked', () => polls() > before)
    await quick.heard(++told)
  }
  // What two sockets hold back is the operating system's; it comes to an end.
  for (let count = 0; count < 30; count++) await say()
  slow.resume()
  await slow.over()
  t.ok(slow.isCut)
  t.ok(slow.events.length < told)
  t.notOk(quick.isOver)
  t.equal((await listenTo(taskId, { token, lastEventId: slow.events.at(-1)!.id })).status, 200, 'it may come back')
})
