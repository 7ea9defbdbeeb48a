import { connect, type Socket } from 'node:net'
import { setTimeout as wait } from 'node:timers/promises'
import { request, type Shot, wire } from './load.ts'

/** What an attacker has to work with: the address of the gateway and sessions of its own. */
export interface Battlefield {
  readonly port: number
  readonly adminToken: string
  /** Aborted when the time is over. */
  readonly signal: AbortSignal
  /** Mints a session. */
  token (subject: string): Promise<string>
}

export interface Attack {
  readonly name: string
  readonly what: string
  /** Runs until the signal comes; resolves with what it did, for the report. */
  run (field: Battlefield): Promise<string>
}

const generate = '/api/v1/generateTask/nano-banana'
const json = { 'content-type': 'application/json' }
const bearer = (token: string) => ({ authorization: `Bearer ${token}` })
const megabyte = 1 << 20

/** Strangers come from addresses of their own; all of 127.0.0.0/8 is this machine. */
const stranger = (index: number) => `127.0.1.${1 + index % 200}`

/** Keeps `count` attackers busy until the signal comes. Each turn may fail: a closed connection is what they get. */
async function swarm (count: number, { signal }: Battlefield, turn: (index: number) => Promise<void>): Promise<void> {
  await Promise.all(Array.from({ length: count }, async (_, index) => {
    while (!signal.aborted) {
      await turn(index).catch(() => {})
      await wait(5)
    }
  }))
}

interface Opened { readonly socket: Socket, readonly closed: Promise<void> }

/** A bare connection that ends with the signal. What is written to it after its end goes nowhere. */
function open ({ port, signal }: Battlefield, localAddress: string): Opened {
  const socket = connect({ port, host: '127.0.0.1', localAddress })
  socket.on('error', () => {})
  const stop = () => { socket.destroy() }
  signal.addEventListener('abort', stop)
  const closed = new Promise<void>(resolve => socket.once('close', () => {
    signal.removeEventListener('abort', stop)
    resolve()
  }))
  return { socket, closed }
}

/** Sends one request and reads to the end of the connection, as fast as answers come. */
async function shoot (field: Battlefield, address: string, shot: Shot): Promise<void> {
  const { socket, closed } = open(field, address)
  socket.resume()
  socket.write(wire({ ...shot, headers: { connection: 'close', ...shot.headers } }, field.port))
  await closed
}

/** As JSON with one name of this many bytes, each of them a combining mark. */
const markedName = (bytes: number) => `{"input":{"${'\u0344\u0345'.repeat(bytes / 4)}":1}}`

/** How many entries the audit trail has, by what was done. */
async function auditTrail ({ port, adminToken }: Battlefield): Promise<Record<string, number>> {
  const counts: Record<string, number> = {}
  let cursor: string | null = ''
  while (cursor !== null) {
    const path = `/gateway/admin/audit?limit=500${cursor === '' ? '' : `&cursor=${encodeURIComponent(cursor)}`}`
    const { json: page } = await request(port, { method: 'GET', path, headers: bearer(adminToken) })
    for (const { kind } of page.items) counts[kind] = (counts[kind] ?? 0) + 1
    cursor = page.next
  }
  return counts
}

export const attacks: readonly Attack[] = [
  {
    name: 'A1',
    what: 'one JSON name of 640 kB of combining marks, with a session; 60 kB without one',
    async run (field) {
      const token = await field.token('long-names')
      let sent = 0
      await swarm(4, field, async index => {
        const shot = index % 2 === 0
          ? { method: 'POST', path: generate, headers: { ...json, ...bearer(token) }, body: markedName(640_000) }
          : { method: 'POST', path: '/gateway/invitations/accept', headers: json, body: markedName(60_000) }
        sent++
        await shoot(field, stranger(index), shot)
      })
      return `${sent} requests`
    }
  },
  {
    name: 'A2',
    what: 'bodies of 15 MB from a subject at its rate limit',
    async run (field) {
      const token = await field.token('over-limit')
      const body = JSON.stringify({ input: { prompt: 'x'.repeat(15 * megabyte) } })
      let sent = 0
      await swarm(8, field, async index => {
        sent++
        await shoot(field, stranger(index), {
          method: 'POST',
          path: generate,
          headers: { ...json, ...bearer(token) },
          body
        })
      })
      return `${sent} bodies begun`
    }
  },
  {
    name: 'A3',
    what: 'GET /gateway/ pipelined on 40 connections of each of 5 addresses, no answer read',
    async run (field) {
      const batch = `GET /gateway/ HTTP/1.1\r\nhost: 127.0.0.1:${field.port}\r\n\r\n`.repeat(200)
      let bytes = 0
      await swarm(200, field, async index => {
        const { socket, closed } = open(field, stranger(index % 5))
        socket.pause()
        const pump = setInterval(() => {
          if (socket.writableLength > megabyte) return
          socket.write(batch)
          bytes += batch.length
        }, 50)
        await closed
        clearInterval(pump)
      })
      return `${Math.round(bytes / 1e6)} MB of requests`
    }
  },
  {
    name: 'A4',
    what: '8 sessions announce 16 MB and send a byte at a time',
    async run (field) {
      const tokens = await Promise.all(Array.from({ length: 8 }, (_, index) => field.token(`slow-${index}`)))
      let opened = 0
      await swarm(8, field, async index => {
        const { socket, closed } = open(field, stranger(index))
        socket.resume()
        opened++
        const head = { ...json, ...bearer(tokens[index]!), 'content-length': String(16 * megabyte) }
        socket.write(wire({ method: 'POST', path: generate, headers: head }, field.port) + '{')
        const drip = setInterval(() => { socket.write(' ') }, 1000)
        await closed
        clearInterval(drip)
      })
      return `${opened} uploads begun`
    }
  },
  {
    name: 'A5',
    what: 'endless bodies behind a bad token on 20 connections, with and without expect: 100-continue',
    async run (field) {
      const block = Buffer.alloc(65_536, 120)
      let bytes = 0
      await swarm(20, field, async index => {
        const { socket, closed } = open(field, stranger(index))
        socket.resume()
        const head = { ...json, ...bearer('no-such-token'), 'content-length': String(100 * megabyte) }
        const expecting = index % 2 === 0 ? { ...head, expect: '100-continue' } : head
        socket.write(wire({ method: 'POST', path: generate, headers: expecting }, field.port))
        const pump = setInterval(() => {
          if (socket.writableLength > megabyte) return
          for (let blocks = 0; blocks < 8; blocks++) socket.write(block)
        }, 20)
        await closed
        clearInterval(pump)
        bytes += socket.bytesWritten
      })
      return `${Math.round(bytes / 1e6)} MB taken`
    }
  },
  {
    name: 'A6',
    what: '/readyz asked without a pause on 20 connections',
    async run (field) {
      let asked = 0
      await swarm(20, field, async index => {
        asked++
        await shoot(field, stranger(index), { method: 'GET', path: '/readyz', headers: {} })
      })
      return `${asked} probes`
    }
  },
  {
    name: 'A7',
    what: "swaps for cookies and refusals, dozens a second; then the operator's grant is looked for in the audit trail",
    async run (field) {
      const admin = { ...json, ...bearer(field.adminToken) }
      const grant = {
        method: 'POST',
        path: '/gateway/admin/credits',
        headers: admin,
        body: '{"subject":"app:good","credits":1}'
      }
      const granted = await request(field.port, grant)
      let swaps = 0
      await swarm(8, field, async index => {
        const token = await field.token(`swap-${swaps++ % 50}`)
        const shot = {
          method: 'POST',
          path: '/gateway/sessions/cookie',
          headers: { ...json, ...bearer(token), origin: `http://127.0.0.1:${field.port}` }
        }
        await shoot(field, stranger(index), { ...shot, body: '{}' })
        await shoot(field, stranger(index), { method: 'GET', path: '/gateway/session', headers: bearer('bad') })
        await wait(100) // the backend that mints has a budget of its own
      })
      const trail = await auditTrail(field)
      const kept = trail.grant === undefined ? 'GONE' : 'there'
      return `${swaps} swaps; the grant (${granted.status}) is ${kept}; trail: ${JSON.stringify(trail)}`
    }
  },
  {
    name: 'A8',
    what: 'wrong requests without a pause from the good caller\'s own address',
    async run (field) {
      let sent = 0
      await swarm(4, field, async index => {
        sent++
        const headers: Record<string, string> = index % 2 === 0 ? bearer('wrong') : { origin: 'https://evil.example' }
        await shoot(field, '127.0.0.1', { method: 'GET', path: '/gateway/session', headers })
        await wait(20)
      })
      return `${sent} wrong requests`
    }
  }
]
