import t from 'tap'
import { pageHead, pageLines, servedPage, workerScript } from '../helpers/client-page.ts'
import { isStream, isSubmit, seen } from '../helpers/client.ts'
import { until } from '../helpers/until.ts'
import { webkit } from '../helpers/webkit.ts'

const page = await webkit(t)
const width = "return document.querySelector('img').naturalWidth"

t.test('in WebKit the page of eight lines bears a lost answer, a 502, a cut stream and a session that ends', async t => {
  const { proxy, pass, breakBy, sandbox, asked } = await servedPage(t)
  breakBy((request, count) => {
    if (isSubmit(request) && count === 1) return { kind: 'lost' }
    if (!isStream(request) || count > 2) return { kind: 'none' }
    return count === 1 ? { kind: 'page', status: 502 } : { kind: 'cut-stream', events: 1 }
  })
  await page.open(proxy.origin)
  await page.run("document.querySelector('button').click()")
  await until('the picture is there', async () => {
    pass(1000)
    return await page.run(width) === 512
  }, 30_000)
  t.equal(sandbox.submits.length, 1)
  t.ok(asked.tokens >= 2)
  t.ok(seen(proxy, isStream) >= 2)
})

t.test("in WebKit a task that fails says the upstream's reason", async t => {
  const files = { 'index.html': pageHead + pageLines.replace('a lighthouse at dusk', 'sandbox:failed') }
  const { proxy, pass } = await servedPage(t, files)
  await page.open(proxy.origin)
  await page.run("document.querySelector('button').click()")
  await until('the reason is there', async () => {
    pass(1000)
    return /^TASK_FAILED: \w/.test(await page.run("return document.querySelector('p').textContent"))
  }, 30_000)
})

t.test('in a worker of WebKit it does the same', async t => {
  const { proxy, pass, mint, sandbox } = await servedPage(t, { 'worker.js': workerScript })
  await page.open(proxy.origin)
  await page.run(`const worker = new Worker('/worker.js', { type: 'module' })
    worker.onmessage = ({ data }) => { window.said = data }
    worker.postMessage(arguments[0])`, await mint('alice'))
  await until('it is over', async () => {
    pass(500)
    return await page.run('return window.said !== undefined')
  }, 30_000)
  const { states, link } = await page.run('return window.said')
  t.equal(states.at(-1), 'success')
  t.equal((await fetch(link)).status, 200)
  t.equal(sandbox.submits.length, 1)
})
