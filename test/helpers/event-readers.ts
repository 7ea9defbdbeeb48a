import { readFileSync } from 'node:fs'
import { createServer, request as httpRequest } from 'node:http'
import { createRequire } from 'node:module'
import type { Page } from 'playwright-core'
import type { Test } from 'tap'
import { Agent, EventSource as UndiciEventSource, fetch as undiciFetch } from 'undici'
import { httpPort } from './http-server.ts'

/** Neither express nor compression comes with types. */
const require = createRequire(import.meta.url)

/** What a library's reader hands to its page or program. */
export interface ReadEvent { readonly type: string, readonly data: string }

export interface EventReader {
  heard (): Promise<readonly ReadEvent[]>
  /** It has stopped for good. */
  isOver (): Promise<boolean>
}

export interface ReaderPlace {
  readonly url: string
  readonly token: string
  /** In PEM, of the proxy in front. */
  readonly ca: string | undefined
}

type AnyEventSource = new (url: string, options: object) => {
  readonly readyState: number
  addEventListener (type: string, listener: (event: { readonly data: string }) => void): void
  close (): void
}

function sourceReader (t: Test, EventSource: AnyEventSource, url: string, options: object): EventReader {
  const heard: ReadEvent[] = []
  const source = new EventSource(url, options)
  t.teardown(() => source.close())
  for (const type of ['message', 'state', 'results', 'resync']) {
    source.addEventListener(type, ({ data }) => heard.push({ type, data }))
  }
  return { heard: async () => heard, isOver: async () => source.readyState === 2 }
}

/**
 * Readers of programs. Browsers send no header of the page's with an EventSource; these get the token into each
 * request.
 */
export const programReaders: Readonly<Record<string, (t: Test, place: ReaderPlace) => EventReader>> = {
  eventsource (t, { url, token, ca }) {
    const { EventSource } = require('eventsource')
    const dispatcher = agent(t, ca)
    const fetch = (input: string, init: any) =>
      undiciFetch(input, { ...init, dispatcher, headers: { ...init.headers, authorization: `Bearer ${token}` } })
    return sourceReader(t, EventSource, url, { fetch })
  },
  undici (t, { url, token, ca }) {
    const dispatcher = agent(t, ca).compose(dispatch => (options, handler) =>
      dispatch({ ...options, headers: { ...options.headers, authorization: `Bearer ${token}` } }, handler))
    return sourceReader(t, UndiciEventSource as unknown as AnyEventSource, url, { node: { dispatcher } })
  }
}

function agent (t: Test, ca: string | undefined): Agent {
  const agent = new Agent({ connect: { ...(ca === undefined ? {} : { ca, servername: 'gateway.example' }) } })
  t.teardown(() => agent.destroy())
  return agent
}

const html = '<!doctype html><link rel="icon" href="data:,"><title>Readers</title>'

export type PageReaders = 'EventSource' | 'fetch-event-source'

/**
 * A page of that origin, with the browser's own EventSource and @microsoft/fetch-event-source as its package has it.
 */
export async function readingPage (page: Page, origin: string) {
  const folder = require.resolve('@microsoft/fetch-event-source').replace(/lib\/.*$/, 'lib/esm/')
  await page.route(`${origin}/readers/**`, route => {
    const name = new URL(route.request().url()).pathname.replace('/readers/', '')
    if (name === '') return route.fulfill({ contentType: 'text/html', body: html })
    const body = readFileSync(`${folder}${name.replace(/\.js$/, '')}.js`, 'utf8')
    return route.fulfill({ contentType: 'text/javascript', body })
  })
  await page.goto(`${origin}/readers/`)
  return async (kind: PageReaders, path: string): Promise<EventReader> => {
    const index = await page.evaluate(listenInPage, { kind, path })
    return {
      heard: () => page.evaluate(index => (window as any).readers[index].heard, index),
      isOver: () => page.evaluate(index => (window as any).readers[index].isOver(), index)
    }
  }
}

/** The page's own code. */
async function listenInPage ({ kind, path }: { readonly kind: PageReaders, readonly path: string }): Promise<number> {
  const heard: ReadEvent[] = []
  const readers = (window as any).readers ??= []
  if (kind === 'EventSource') {
    const source = new EventSource(path)
    for (const type of ['message', 'state', 'results', 'resync']) {
      source.addEventListener(type, ({ data }) => heard.push({ type, data }))
    }
    return readers.push({ heard, isOver: () => source.readyState === EventSource.CLOSED }) - 1
  }
  // Out of sight of the type checker, which would look for it in this folder.
  const { fetchEventSource } = await import(`${location.origin}/readers/index`)
  let isOver = false
  fetchEventSource(path, { onmessage: ({ event, data }: any) => heard.push({ type: event, data }) })
    .then(() => { isOver = true })
  return readers.push({ heard, isOver: () => isOver }) - 1
}

/** A dev server as front ends have one: express with compression, and all else passed on. Resolves with its origin. */
export async function compressingProxy (t: Test, to: string): Promise<string> {
  const [express, compression] = [require('express'), require('compression')]
  const app = express()
  app.use(compression())
  app.use((request: any, response: any) => {
    const { method, headers, url } = request
    const outgoing = httpRequest(to + url, { method, headers }, answer => {
      response.writeHead(answer.statusCode!, answer.headers)
      response.flushHeaders()
      answer.on('close', () => { if (!answer.complete) response.destroy() }).on('error', () => {}).pipe(response)
    })
    outgoing.on('error', () => response.destroy())
    response.on('close', () => outgoing.destroy())
    request.pipe(outgoing)
  })
  return `http://127.0.0.1:${await httpPort(t, createServer(app))}`
}
