import t from 'tap'
import { chromium, openPage } from '../helpers/chromium.ts'
import { clock } from '../helpers/clock.ts'
import { crankedGateway } from '../helpers/cranked-gateway.ts'
import { taskMs } from '../helpers/gateway.ts'
import { pageServer } from '../helpers/page-server.ts'

const html = '<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><title>A page of another site</title>'

/** The page's own code: with a token and no cookie it asks where the result is, and shows it in a plain `<img>`. */
async function showFromPage ({
  gateway,
  token,
  taskId
}: Record<'gateway' | 'token' | 'taskId', string>): Promise<number> {
  const headers = { authorization: `Bearer ${token}` }
  const { results: [link] } = await (await fetch(`${gateway}/gateway/tasks/${taskId}/results`, { headers })).json()
  return await (window as any).widthOf(gateway + link)
}

/** Pixels of a picture; 0: the browser does not show it. */
function addWidthOf (): void {
  Object.assign(window, {
    async widthOf (src: string) {
      const image = Object.assign(document.createElement('img'), { src })
      await image.decode().catch(() => {})
      return image.naturalWidth
    }
  })
}

t.test('a page on another listed site shows a result in a plain <img>, and one that isolates itself too', async t => {
  const isolated = { 'cross-origin-embedder-policy': 'require-corp', 'cross-origin-opener-policy': 'same-origin' }
  const page = await pageServer(t, ({ url }, response) => {
    response.writeHead(200, { 'content-type': 'text/html', ...(url === '/isolated' ? isolated : {}) }).end(html)
  }, 'localhost')
  const gateway = await crankedGateway(t, { time: clock(Date.now()), env: { GATEWAY_ALLOWED_ORIGINS: page } })
  const { origin, mint, made, status, time, call } = gateway
  const token = await mint('alice')
  const taskId = await made(token)
  time.advance(taskMs)
  await status(token, taskId)
  const links = (await call(`/gateway/tasks/${taskId}/results`, { token })).json.results
  t.match(links, [/^\/gateway\/results\//])

  const browser = await chromium(t)
  for (const path of ['/', '/isolated']) {
    const { page: tab } = await openPage(t, browser, page + path)
    await tab.evaluate(addWidthOf)
    t.equal(await tab.evaluate(showFromPage, { gateway: origin, token, taskId }), 512, path)
  }
  const byTicket = await call(links[0])
  t.equal(byTicket.headers.get('cross-origin-resource-policy'), 'cross-origin')
  const bySession = await call(`/gateway/tasks/${taskId}/results/0`, { token })
  t.equal(bySession.headers.get('cross-origin-resource-policy'), 'same-origin', 'by session it is for our own pages')
})

t.test('where no origin is listed no foreign page shows what a ticket opens', async t => {
  const page = await pageServer(t, html, 'localhost')
  const { origin, mint, made, status, time, call } = await crankedGateway(t, { time: clock(Date.now()) })
  const token = await mint('alice')
  const taskId = await made(token)
  time.advance(taskMs)
  await status(token, taskId)
  const [link] = (await call(`/gateway/tasks/${taskId}/results`, { token })).json.results
  t.equal((await call(link)).headers.get('cross-origin-resource-policy'), 'same-origin')
  const { page: tab } = await openPage(t, await chromium(t), page)
  await tab.evaluate(addWidthOf)
  t.equal(await tab.evaluate(src => (window as any).widthOf(src), origin + link), 0)
})
