import { createServer, type IncomingMessage, request as forward, type ServerResponse } from 'node:http'
import type { Test } from 'tap'
import { httpPort } from './http-server.ts'

/** What becomes of one request. */
export type Fault =
  /** It is passed on, and so is its answer. */
  | { readonly kind: 'none' }
  /** The page of a proxy that does not reach the gateway. */
  | { readonly kind: 'page', readonly status: number }
  /** The connection ends before the request gets anywhere. */
  | { readonly kind: 'cut' }
  /** Nothing comes back, for as long as anybody waits. */
  | { readonly kind: 'held' }
  /** The gateway gets the request, and its answer is lost. */
  | { readonly kind: 'lost' }
  /** The answer ends after so many server-sent events. */
  | { readonly kind: 'cut-stream', readonly events: number }
  /** An answer is given in place of the gateway's. */
  | Answer

interface Answer {
  readonly kind: 'answer'
  readonly status: number
  readonly headers: Readonly<Record<string, string>>
  readonly body: string
}

export interface FaultyProxy {
  readonly origin: string
  /** Method and path of every request so far. */
  readonly requests: readonly string[]
  /** Where the gateway is; it may change. */
  to: string
  /** What becomes of a request; `count`: its number among those of its method and path, from 1. */
  fault: (request: IncomingMessage, count: number) => Fault
}

/** Stands between a client and a gateway, and breaks what it is told. It ends with its test. */
export async function faultyProxy (t: Test, to: string): Promise<FaultyProxy> {
  const requests: string[] = []
  const server = createServer((request, response) => {
    const name = `${request.method} ${request.url}`
    requests.push(name)
    const fault = proxy.fault(request, requests.filter(other => other === name).length)
    if (fault.kind === 'cut') {
      request.socket.destroy()
    } else if (fault.kind === 'page') {
      response.writeHead(fault.status, { 'content-type': 'text/html' }).end('<h1>Bad gateway</h1>')
    } else if (fault.kind === 'answer') {
      response.writeHead(fault.status, fault.headers).end(fault.body)
    } else if (fault.kind !== 'held') {
      pass(request, response, proxy.to, fault)
    }
  })
  const proxy: FaultyProxy = {
    origin: `http://127.0.0.1:${await httpPort(t, server)}`, requests, to, fault: () => ({ kind: 'none' })
  }
  return proxy
}

function pass (request: IncomingMessage, response: ServerResponse, to: string, fault: Fault): void {
  const { method, url, headers } = request
  const host = new URL(to).host
  const outer = forward(to + url, { method, headers: { ...headers, host } }, answer => {
    if (fault.kind === 'lost') {
      answer.resume().on('end', () => request.socket.destroy())
      return
    }
    response.writeHead(answer.statusCode!, answer.headers)
    response.flushHeaders()
    let events = 0
    answer.on('data', (piece: Buffer) => {
      events += piece.toString('latin1').split('\n\n').length - 1
      const isCut = fault.kind === 'cut-stream' && events >= fault.events
      response.write(piece, () => { if (isCut) request.socket.destroy() })
    })
    answer.on('end', () => response.end()).on('error', () => request.socket.destroy())
  })
  outer.on('error', () => request.socket.destroy())
  response.on('close', () => outer.destroy())
  request.pipe(outer)
}
