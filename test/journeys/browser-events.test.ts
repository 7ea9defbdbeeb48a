import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { chromium } from 'playwright-core'
import { PNG } from 'pngjs'
import t, { type Test } from 'tap'
import { certificate } from '../helpers/certificate.ts'
import { crankedGateway, intervalMs } from '../helpers/cranked-gateway.ts'
import { root, startProgram } from '../helpers/program.ts'
import { closedPort } from '../helpers/raw-server.ts'
import { chromiumPath, nginxPath } from '../helpers/system-packages.ts'
import { until } from '../helpers/until.ts'

/** As the example says. */
const host = 'gateway.example'
const publicUrl = `https://${host}`
const env = { GATEWAY_PUBLIC_URL: publicUrl, GATEWAY_TRUST_PROXY: '127.0.0.1' }
const example = readFileSync(join(root, 'config/examples/nginx.conf'), 'utf8')
const flags = [
  '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync', '--no-proxy-server'
]
const html = `<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><title>A page</title>
<style>body { margin: 24px; font: 16px sans-serif }</style>
<h1>A page of somebody's app</h1><p></p><img alt="">`

interface Ports { readonly gateway: string, readonly tls: number, readonly plain: number }
type Certificate = ReturnType<typeof certificate>

/** The example as it ships, but for its ports, the certificate, and a front end of one page beside the gateway. */
function siteOf (ports: Ports, { cert, key }: Certificate, file: (name: string, text: string) => string): string {
  return example
    .replace('127.0.0.1:8080', `127.0.0.1:${ports.gateway}`)
    .replace('listen 80;', `listen 127.0.0.1:${ports.plain};`)
    .replace('listen 443 ssl;', `listen 127.0.0.1:${ports.tls} ssl;`)
    .replace('/etc/nginx/tls/gateway.example.pem', file('cert.pem', cert))
    .replace('/etc/nginx/tls/gateway.example.key', file('key.pem', key))
    .replace('  location / {', `  location = /page { default_type text/html; alias ${file('page.html', html)}; }\n\n  location / {`)
}

/** Resolves with the port where nginx speaks TLS. */
async function nginx (t: Test, gateway: string): Promise<number> {
  const folder = mkdtempSync(join(tmpdir(), 'gateway-browser-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  const [tls, plain] = [await closedPort(), await closedPort()]
  const file = (name: string, text: string): string => {
    writeFileSync(join(folder, name), text)
    return join(folder, name)
  }
  const site = file('site.conf', siteOf({ gateway, tls, plain }, certificate(t, host), file))
  const config = file('nginx.conf', `
    daemon off; master_process off; pid ${folder}/nginx.pid; error_log ${folder}/error.log;
    events {}
    http {
      access_log off;
      client_body_temp_path ${folder}/body; proxy_temp_path ${folder}/proxy; fastcgi_temp_path ${folder}/fastcgi;
      uwsgi_temp_path ${folder}/uwsgi; scgi_temp_path ${folder}/scgi;
      include ${site};
    }`)
  startProgram(t, [nginxPath(), '-p', folder, '-c', config], { cwd: folder })
  await until('nginx to listen', () => new Promise<boolean>(resolve => {
    const socket = connect(tls, '127.0.0.1', () => {
      socket.destroy()
      resolve(true)
    }).on('error', () => resolve(false))
  }))
  return tls
}

/** A page behind nginx, with all that it has asked for and complained about. To the browser nginx has its own name and port. */
async function open (t: Test, port: number) {
  const browser = await chromium.launch({
    executablePath: chromiumPath(), args: [...flags, `--host-resolver-rules=MAP ${host}:443 127.0.0.1:${port}`]
  })
  t.teardown(() => browser.close())
  const page = await browser.newPage({ viewport: { width: 640, height: 720 }, ignoreHTTPSErrors: true })
  const [requests, complaints]: [string[], string[]] = [[], []]
  page.on('request', request => requests.push(`${request.method()} ${request.url()}`))
  page.on('console', message => complaints.push(message.text()))
  page.on('pageerror', error => complaints.push(String(error)))
  await page.goto(`${publicUrl}/page`)
  return { page, requests, complaints }
}

/** The page's own code, run in the browser: from here on it has the cookie alone. Resolves with the task's id. */
async function submitFromPage (token: string): Promise<string> {
  const swapped = await fetch('/gateway/sessions/cookie', { method: 'POST', headers: { authorization: `Bearer ${token}` } })
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

/** The page's own code: the middle row of its picture. A canvas with anything of another origin on it throws when it is read. */
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
  return [...data.subarray(width * height / 2 * 4, width * (height / 2 + 1) * 4)]
}

/** https://html.spec.whatwg.org/multipage/server-sent-events.html#dom-eventsource-readystate */
const [connecting, closed] = [0, 2]

t.test('behind the nginx of the examples a page hears its task end, shows the picture, and comes back once and no more', async t => {
  const { origin, mint, pass, lines } = await crankedGateway(t, { env })
  const { page, requests, complaints } = await open(t, await nginx(t, new URL(origin).port))
  const taskId = await page.evaluate(submitFromPage, await mint('alice'))
  t.equal(await page.evaluate(() => document.cookie), '', 'no script sees what it works with')

  await page.evaluate(listenFromPage, taskId)
  const heard = () => page.evaluate('heard') as Promise<Heard>
  for (const state of ['pending', 'processing', 'success']) {
    await until(`the page hears ${state}, and nothing on the way holds it back`, async () => (await heard()).states.at(-1) === state)
    pass(intervalMs)
  }
  await until('the results', async () => (await heard()).results.length > 0)
  const link = (await heard()).results[0]![0]!
  t.ok(link.startsWith(`${publicUrl}/gateway/results/`), link)

  const { width, height, row } = await page.evaluate(readFromPage)
  t.same([width, height], [512, 512])
  t.ok(new Set(row).size > 10, 'there is something to see')
  t.same(row, await rowAt(link.replace(publicUrl, origin)), 'dot for dot')
  const screenshot = await page.screenshot()
  const folder = process.env.TEST_SCREENSHOTS
  if (folder) writeFileSync(join(folder, 'browser-events.png'), screenshot)

  await until('the EventSource gives up', async () => (await heard()).ends.at(-1) === closed)
  t.same(await heard(), { states: ['pending', 'processing', 'success'], results: [[link]], ends: [connecting, closed] })
  const streams = () => lines().filter(({ operation }) => operation === 'taskEvents').map(({ status }) => status)
  await until('both lines are written', () => streams().length > 1)
  t.same(streams(), [200, 204])
  const stream = `GET ${publicUrl}/gateway/tasks/${taskId}/events`
  t.same(requests, [
    `GET ${publicUrl}/page`, `POST ${publicUrl}/gateway/sessions/cookie`, `POST ${publicUrl}/api/v1/generateTask/nano-banana`,
    stream, `GET ${link}`, stream
  ], 'it asked nobody else')
  t.same(complaints, [])
})
