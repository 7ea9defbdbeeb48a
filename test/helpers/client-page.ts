import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Test } from 'tap'
import { builtClient } from './built-client.ts'
import { crankedGateway } from './cranked-gateway.ts'
import { type Fault, type FaultyProxy, faultyProxy } from './faulty-proxy.ts'
import { root } from './program.ts'

const example = readFileSync(join(root, 'config/examples/page.md'), 'utf8')
/** The page, as the example has it. */
export const pageLines = /^```html\n(.*?)^```$/ms.exec(example)![1]!
export const pageHead = '<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><title>A page</title>'

/** The gateway serves the page; a proxy, which plays the app's backend as well, stands before it. */
export async function servedPage (t: Test, files: Readonly<Record<string, string>> = {}) {
  await builtClient()
  const folder = mkdtempSync(join(tmpdir(), 'client-page-'))
  t.teardown(() => rmSync(folder, { recursive: true }))
  for (const [name, text] of Object.entries({ 'index.html': pageHead + pageLines, ...files })) writeFileSync(join(folder, name), text)
  const store = join(mkdtempSync(join(tmpdir(), 'client-store-')), 'gateway.db')
  const gateway = await crankedGateway(t, { store, env: { GATEWAY_STATIC_DIR: folder }, sandbox: { taskMs: 30_000 } })
  const proxy = await faultyProxy(t, gateway.origin)
  const tokens = [await gateway.mint('alice', { ttlSeconds: 12 }), await gateway.mint('alice')]
  const asked = { tokens: 0 }
  const backend = (): Fault =>
    ({ kind: 'answer', status: 200, headers: {}, body: tokens[Math.min(asked.tokens++, tokens.length - 1)]! })
  const breakBy = (fault: FaultyProxy['fault']): void => {
    proxy.fault = (request, count) => request.url === '/session' ? backend() : fault(request, count)
  }
  breakBy(() => ({ kind: 'none' }))
  return { ...gateway, proxy, asked, breakBy }
}

export type ServedPage = Awaited<ReturnType<typeof servedPage>>

/** Makes a picture with the token that it is sent, and says what it was told. */
export const workerScript = `import { createClient } from '/gateway/client.js'
onmessage = async ({ data: token }) => {
  const { generate } = createClient({ token })
  const states = []
  const { results } = await generate('nano-banana', { mode: 'text-to-image', prompt: 'a lighthouse at dusk' }, {
    onState: ({ state }) => states.push(state)
  })
  postMessage({ states, link: results[0] })
}`
