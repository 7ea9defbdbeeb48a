import { createServer, type RequestListener } from 'node:http'
import type { Test } from 'tap'
import { httpPort } from './http-server.ts'

/**
 * A server that is not the gateway: another origin to a browser. `page` is HTML, or answers each request itself; with
 * the `host` `localhost` it is another site, too. It ends with its test. Resolves with its origin.
 */
export async function pageServer (
  t: Test,
  page: string | RequestListener,
  host: 'localhost' | '127.0.0.1' = '127.0.0.1'
): Promise<string> {
  const server = createServer((request, response) => {
    if (typeof page === 'function') return page(request, response)
    response.writeHead(200, { 'content-type': 'text/html; charset=utf-8' }).end(page)
  })
  return `http://${host}:${await httpPort(t, server)}`
}
