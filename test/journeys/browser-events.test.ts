import { PNG } from 'pngjs'
import t from 'tap'
import { chromium, openPage, pictureOf } from '../helpers/chromium.ts'
import { crankedGateway, intervalMs } from '../helpers/cranked-gateway.ts'
import { exampleHost, exampleNginx } from '../helpers/nginx.ts'
import { until } from '../helpers/until.ts'

const publicUrl = `https://${exampleHost}`
const env = { GATEWAY_PUBLIC_URL: publicUrl, GATEWAY_TRUST_PROXY: '127.0.0.1' }
const html = `<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><title>A page</title>
<style>body { margin: 24px; font: 16px sans-serif }</style>
<h1>A page of somebody's app</h1><p></p><img alt="">`

/** The page's own code, run in the browser: from here on it has the cookie alone. Resolves with the task's id. */
async function submitFromPage (token: string): Promise<string> {
  const swapped = await fetch('/gateway/sessions/cookie', {
    method: 'POST',
    headers: { authorization: `Bearer ${token}` }
  })
  if (swapped.status !== 201) throw new Error(await swapped.text())
  const submitted = await fetch('/api/v1/generateTask/nano-banana', {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ request_type: 'async', input: { mode: 'text-to-image', prompt: 'a lighthouse at dusk' } })
  })
  return (await submitted.json()).data.taskId
}

/** What the page's EventSource has told. */
interface Heard {
  readonly states: string[]
  /** Links to the results, once for each time that they came. */
  readonly results: string[][]
  /** What the EventSource was about to do after each end of a stream, as its `readyState`. */
  readonly ends: number[]
}

/** The page's own code. It never closes the EventSource. */
function listenFromPage (taskId: string): void {
  const heard: Heard = { states: [], results: [], ends: [] }
  const events = new EventSource(`/gateway/tasks/${taskId}/events`)
  events.addEventListener('state', ({ data }) => {
    heard.states.push(JSON.parse(data).data.state)
    document.querySelector('p')!.textContent = heard.states.join(', ')
  })
  events.addEventListener('results', ({ data }) => {
    const { results } = JSON.parse(data)
    heard.results.push(results)
    document.querySelector('img')!.src = results[0]
  })
  events.onerror = () => heard.ends.push(events.readyState)
  Object.assign(window, { heard })
}

/**
 * The page's own code: the middle row of its picture. A canvas with anything of another origin on it throws when it is
 * read.
 */
async function readFromPage () {
  const image = document.querySelector('img')!
  await image.decode()
  const { naturalWidth: width, naturalHeight: height } = image
  const drawing = Object.assign(document.createElement('canvas'), { width, height }).getContext('2d')!
  drawing.drawImage(image, 0, 0)
  return { width, height, row: [...drawing.getImageData(0, height / 2, width, 1).data] }
}

/** The same row, of the file itself. */
async function rowAt (url: string): Promise<number[]> {
  const { width, height, data } = PNG.sync.read(Buffer.from(await (await fetch(url)).arrayBuffer()))
  return [...data.subarray(((width * height) / 2) * 4, width * (height / 2 + 1) * 4)]
}

/** https://html.spec.whatwg.org/multipage/server-sent-events.html#dom-eventsource-readystate */
const [connecting, closed] = [0, 2]

t.test(
  'behind the nginx of the examples a page hears its task end, shows the picture, and comes back once and no more',
  async t => {
    const { origin, mint, pass, lines } = await crankedGateway(t, { env })
    const nginx = await exampleNginx(t, origin, { page: html })
    await nginx.start()
    // To the browser nginx has its own name and port.
    const browser = await chromium(t, { hosts: { [`${exampleHost}:443`]: `127.0.0.1:${nginx.port}` } })
    const { page, requests, complaints } = await openPage(t, browser, `${publicUrl}/page`, {
      viewport: { width: 640, height: 720 },
      ignoreHTTPSErrors: true
    })
    const taskId = await page.evaluate(submitFromPage, await mint('alice'))
    t.equal(await page.evaluate(() => document.cookie), '', 'no script sees what it works with')

    await page.evaluate(listenFromPage, taskId)
    const heard = () => page.evaluate('heard') as Promise<Heard>
    for (const state of ['pending', 'processing', 'success']) {
      await until(
        `the page hears ${state}, and nothing on the way holds it back`,
        async () => (await heard()).states.at(-1) === state
      )
      pass(intervalMs)
    }
    await until('the results', async () => (await heard()).results.length > 0)
    const link = (await heard()).results[0]![0]!
    t.ok(link.startsWith(`${publicUrl}/gateway/results/`), link)

    const { width, height, row } = await page.evaluate(readFromPage)
    t.same([width, height], [512, 512])
    t.ok(new Set(row).size > 10, 'there is something to see')
    t.same(row, await rowAt(link.replace(publicUrl, origin)), 'dot for dot')
    await pictureOf(page, 'browser-events')

    await until('the EventSource gives up', async () => (await heard()).ends.at(-1) === closed)
    t.same(await heard(), {
      states: ['pending', 'processing', 'success'],
      results: [[link]],
      ends: [connecting, closed]
    })
    const streams = () =>
      lines()
        .filter(({ operation }) => operation === 'taskEvents')
        .map(({ status }) => status)
    await until('both lines are written', () => streams().length > 1)
    t.same(streams(), [200, 204])
    const stream = `GET ${publicUrl}/gateway/tasks/${taskId}/events`
    t.same(
      requests,
      [
        `GET ${publicUrl}/page`,
        `POST ${publicUrl}/gateway/sessions/cookie`,
        `POST ${publicUrl}/api/v1/generateTask/nano-banana`,
        stream,
        `GET ${link}`,
        stream
      ],
      'it asked nobody else'
    )
    t.same(complaints, [])
  }
)
