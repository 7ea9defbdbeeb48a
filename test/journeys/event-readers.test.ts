import { setTimeout as wait } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { chromium } from '../helpers/chromium.ts'
import { clock } from '../helpers/clock.ts'
import { crankedGateway, intervalMs } from '../helpers/cranked-gateway.ts'
import {
  compressingProxy,
  type EventReader,
  programReaders,
  type ReadEvent,
  readingPage
} from '../helpers/event-readers.ts'
import { openEvents } from '../helpers/event-source.ts'
import { exampleHost, exampleNginx } from '../helpers/nginx.ts'
import { pageServer } from '../helpers/page-server.ts'
import { until } from '../helpers/until.ts'

type Gateway = Awaited<ReturnType<typeof crankedGateway>>
/** What stands between the readers and a gateway: where programs find it, and where a browser does. */
interface Front {
  readonly programs: string
  readonly browser: string
  readonly ca: string | undefined
  readonly hosts: Readonly<Record<string, string>>
}
interface Between {
  readonly env?: Record<string, string>
  open (t: Test, gateway: Gateway): Promise<Front>
}

const fronts: Readonly<Record<string, Between>> = {
  'with nothing between': {
    open: async (_t, { origin }) => ({ programs: origin, browser: origin, ca: undefined, hosts: {} })
  },
  'through nginx as it ships': {
    env: { GATEWAY_PUBLIC_URL: `https://${exampleHost}`, GATEWAY_TRUST_PROXY: '127.0.0.1' },
    async open (t, { origin }) {
      const nginx = await exampleNginx(t, origin)
      await nginx.start()
      const hosts = { [`${exampleHost}:443`]: `127.0.0.1:${nginx.port}` }
      return { programs: `https://127.0.0.1:${nginx.port}`, browser: `https://${exampleHost}`, ca: nginx.cert, hosts }
    }
  },
  'through a dev proxy that compresses': {
    async open (t, { origin }) {
      const proxy = await compressingProxy(t, origin)
      return { programs: proxy, browser: proxy, ca: undefined, hosts: {} }
    }
  }
}

/** All libraries that read event streams, each with a task of its own. */
async function openReaders (t: Test, { mint, made }: Gateway, { programs, browser, ca, hosts }: Front) {
  const token = await mint('alice')
  const pathOf = (taskId: string): string => `/gateway/tasks/${taskId}/events`
  const readers: Array<{ readonly name: string, readonly taskId: string, readonly reader: EventReader }> = []
  for (const [name, open] of Object.entries(programReaders)) {
    const taskId = await made(token)
    readers.push({ name, taskId, reader: open(t, { url: programs + pathOf(taskId), token, ca }) })
  }
  const context = await (await chromium(t, { hosts })).newContext({ ignoreHTTPSErrors: true })
  t.teardown(() => context.close())
  const page = await context.newPage()
  const listen = await readingPage(page, browser)
  const swapped = await page.evaluate(async token => {
    const headers = { authorization: `Bearer ${token}` }
    return (await fetch('/gateway/sessions/cookie', { method: 'POST', headers })).status
  }, await mint('alice'))
  t.equal(swapped, 201)
  for (const kind of ['EventSource', 'fetch-event-source'] as const) {
    const taskId = await made(token)
    readers.push({ name: kind, taskId, reader: await listen(kind, pathOf(taskId)) })
  }
  return readers
}

function allHave (readers: readonly EventReader[], state: string): Promise<void> {
  return until(`all hear ${state}`, async () => {
    const heard = await Promise.all(readers.map(reader => reader.heard()))
    const isTold = ({ type, data }: ReadEvent): boolean => type === 'state' && JSON.parse(data).data.state === state
    return heard.every(events => events.some(isTold))
  }, 30_000)
}

for (const [name, { env = {}, open }] of Object.entries(fronts)) {
  t.test(`every library reads a stream ${name}, comes back after a cut, and stops at the end`, async t => {
    const gateway = await crankedGateway(t, { time: clock(Date.now()), env })
    const readers = await openReaders(t, gateway, await open(t, gateway))
    const allHear = (state: string): Promise<void> => allHave(readers.map(({ reader }) => reader), state)
    const streamsOf = (taskId: string): number[] => gateway.lines()
      .filter(line => line.operation === 'taskEvents' && line.taskId === taskId).map(({ status }) => status)

    await allHear('pending')
    gateway.pass(intervalMs)
    await allHear('processing')
    gateway.gateway.app.server.closeAllConnections()
    await until('all are cut', () => readers.every(({ taskId }) => streamsOf(taskId).length === 1), 30_000)
    await wait(6000) // the longest pause that they are told, and some more
    gateway.pass(intervalMs)
    await allHear('success')
    const areOver = async () => await Promise.all(readers.map(({ reader }) => reader.isOver()))
    await until('all have stopped', async () => (await areOver()).every(Boolean), 30_000)

    for (const { name, taskId, reader } of readers) {
      const heard = await reader.heard()
      const told = heard.map(({ type, data }) => type === 'state' ? JSON.parse(data).data.state : type)
      t.same(told, ['pending', 'processing', 'success', 'results'], name)
      t.match(JSON.parse(heard.at(-1)!.data), { taskId, results: [/gateway\/results\//] }, name)
      // fetch-event-source takes a clean end for the end.
      t.same(streamsOf(taskId), name === 'fetch-event-source' ? [499, 200] : [499, 200, 204], name)
    }
  })
}

t.test('the proxy of that test holds back a stream that does not ask it not to', async t => {
  const proxy = await compressingProxy(t, await pageServer(t, (_request, response) => {
    const headers = { 'content-type': 'text/event-stream', 'x-accel-buffering': 'no', 'content-encoding': 'identity' }
    response.writeHead(200, headers).write('data: x\n\n')
    setTimeout(() => response.end('data: y\n\n'), 500)
  }))
  const stream = await openEvents(t, proxy, { headers: { 'accept-encoding': 'gzip' } })
  await wait(250)
  t.ok(stream.text.length <= 10, 'the head of a gzip stream, and nothing in it')
  await stream.over()
})

t.test('an EventSource behind the nginx of the examples outlives a gateway that is away', async t => {
  const env = { GATEWAY_PUBLIC_URL: `https://${exampleHost}`, GATEWAY_TRUST_PROXY: '127.0.0.1' }
  const gateway = await crankedGateway(t, { time: clock(Date.now()), env })
  const front = await fronts['through nginx as it ships']!.open(t, gateway)
  const token = await gateway.mint('alice')
  const taskId = await gateway.made(token)
  const url = `${front.programs}/gateway/tasks/${taskId}/events`
  const readers = Object.values(programReaders).map(open => open(t, { url, token, ca: front.ca }))
  await allHave(readers, 'pending')
  const { port } = new URL(gateway.origin)
  const { server } = gateway.gateway.app
  server.closeAllConnections()
  await new Promise<unknown>(resolve => { server.close(resolve) })
  await wait(8000)
  for (const reader of readers) t.equal(await reader.isOver(), false, 'they go on trying')
  await new Promise<void>(resolve => { server.listen(Number(port), '127.0.0.1', resolve) })
  gateway.pass(intervalMs)
  await allHave(readers, 'processing')
})
