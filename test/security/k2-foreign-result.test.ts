import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { resultTickets } from '../../src/features/results/routes.ts'
import { fileServer, taskWith, whole } from '../helpers/file-server.ts'
import { type Reply, startGateway } from '../helpers/gateway.ts'
import { until } from '../helpers/until.ts'

const plan =
  'plans: { default: { credits: unlimited, concurrentTasks: 100, pollsPerMinute: 10000 } }\nlimits: { addressFailuresPerMinute: 10000 }'

/** All that a caller sees, but for what differs between any two answers. */
function seen ({ status, headers, json }: Reply) {
  const { date, 'x-request-id': _id, ...rest } = Object.fromEntries(headers)
  const { requestId, ...error } = json.error
  return { status, headers: rest, body: { ...json, error } }
}

const folders = t.testdir({ none: {}, directory: {} })

for (const keep of ['none', 'directory']) {
  t.test(`a stranger's result looks exactly like one that does not exist, fetched or kept (${keep})`, async t => {
    const folder = join(folders, keep)
    const store = join(folder, 'gateway.db')
    const gateway = await startGateway(t, {
      config: `${plan}\nresults: { hosts: ["127.0.0.1"], keep: ${keep} }`,
      store
    })
    const { call, mint } = gateway
    const files = await fileServer(t, whole('a secret of alice'))
    const [alice, mallory] = [await mint('alice'), await mint('mallory')]
    const taskId = await taskWith(gateway, alice, { resultUrls: [files.origin] })
    const unknown = seen(await call('/gateway/tasks/0123456789abcdef0123456789abcdef/results/0', { token: mallory }))
    t.match(unknown, { status: 404, body: { code: 404, data: null, error: { code: 'GW_TASK_NOT_FOUND' } } })

    t.equal((await call(`/gateway/tasks/${taskId}/results/0`, { token: alice })).text, 'a secret of alice')
    if (keep === 'directory') {
      await until('the copy is made', () =>
        readdirSync(folder, { recursive: true }).some(name => /[0-9a-f]{64}$/.test(String(name)))
      )
    }
    const before = files.requests.length
    for (const [path, headers] of [
      [`${taskId}/results/0`, {}],
      [`${taskId}/results/0?download=1`, {}],
      [`${taskId}/results/7`, {}],
      [`${taskId}/results/x`, {}],
      [`${taskId}/results/0`, { range: 'bytes=0-1' }],
      [`${taskId}/results/0`, { 'if-none-match': '"one"' }],
      [`${taskId}/results/0`, { 'if-none-match': '*' }]
    ] as const) { t.same(seen(await call(`/gateway/tasks/${path}`, { token: mallory, headers })), unknown, path) }
    t.equal(files.requests.length, before, 'and nobody is asked for it')
  })
}

t.test('a ticket opens its one result: no other result, no other task, and nothing else of its subject', async t => {
  const gateway = await startGateway(t, { config: `${plan}\nresults: { hosts: ["127.0.0.1"] }` })
  const { call, mint, settings, time } = gateway
  const files = await fileServer(t, ({ url }, response) => whole(url!)({} as never, response))
  const alice = await mint('alice')
  const [one, two] = [
    await taskWith(gateway, alice, { resultUrls: [`${files.origin}/one`, `${files.origin}/two`] }),
    await taskWith(gateway, alice, { resultUrls: [`${files.origin}/other`] })
  ]
  const { ticketFor } = resultTickets({
    ...settings.file.results,
    secrets: { current: settings.sessionSecrets },
    now: time.now,
    taskOf: async () => null
  })
  const ticket = ticketFor({ taskId: one, subject: 'app:alice' }, 1)
  t.equal((await call(`/gateway/results/${ticket}`)).text, '/two')

  for (const forged of [
    ticket.replace('.1.', '.0.'),
    ticket.replace(one, two).replace('.1.', '.0.'),
    ticket.replace(one, two),
    ticketFor({ taskId: one, subject: 'app:mallory' }, 0),
    ticketFor({ taskId: 'x', subject: 'app:alice' }, 0),
    `${ticket}/`,
    `${ticket}%00`,
    `%20${ticket}`,
    ticket.toUpperCase()
  ]) {
    const { status, error } = await call(`/gateway/results/${forged}`)
    t.match({ status, error }, { status: 404, error: 'GW_NOT_FOUND' }, forged)
  }
  t.equal(
    (await call(`/gateway/results/${ticketFor({ taskId: one, subject: 'app:alice' }, 2)}`)).error,
    'GW_TASK_NOT_FOUND',
    'signed, for a result that is not there'
  )
  for (const path of [
    '/gateway/session',
    `/gateway/tasks/${one}/results/1`,
    `/api/v1/statusTask/nano-banana?taskId=${one}`
  ]) {
    t.equal((await call(path, { token: ticket })).status, 401, 'it is no session')
  }
})

t.test('no line of the log has a ticket, or the URL of a result', async t => {
  const gateway = await startGateway(t, { config: `${plan}\nresults: { hosts: ["127.0.0.1"] }` })
  const { call, mint, settings, time, log } = gateway
  const files = await fileServer(t, ({ url }, response) => {
    response.writeHead(url!.includes('broken') ? 500 : 302, { location: '/secret-place' }).end()
  })
  const alice = await mint('alice')
  const taskId = await taskWith(gateway, alice, {
    resultUrls: [`${files.origin}/secret-name`, `${files.origin}/broken-secret-name`, 'https://evil.test/secret-name']
  })
  const { ticketFor } = resultTickets({
    ...settings.file.results,
    secrets: { current: settings.sessionSecrets },
    now: time.now,
    taskOf: async () => null
  })
  const tickets = [0, 1, 2, 3].map(index => ticketFor({ taskId, subject: 'app:alice' }, index))
  for (const ticket of tickets) await call(`/gateway/results/${ticket}`)
  time.advance(1000 * settings.file.results.ticketSeconds)
  for (const ticket of tickets) await call(`/gateway/results/${ticket}`)
  const text = JSON.stringify(log)
  for (const ticket of tickets) for (const part of ticket.split('.').slice(2)) t.notOk(text.includes(part))
  t.notMatch(text, /secret-/)
})
