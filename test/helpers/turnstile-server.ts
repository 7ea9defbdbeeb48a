import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { Test } from 'tap'
import { httpPort } from './http-server.ts'

/** A stand-in for Cloudflare's siteverify. Tokens are good once. */
export interface TurnstileServer {
  readonly url: string
  /** Those that it takes: two for a while, when one of them is rotated. */
  readonly secrets: Set<string>
  /** What it was asked, the fields of each form. */
  readonly asked: ReadonlyArray<Readonly<Record<string, string>>>
  /** A token as a widget of the page gets it. */
  token (cdata: string, hostname?: string): string
  /** Answers in another way from now on; `null`: as it should. */
  answerWith (answer: ((response: ServerResponse) => void) | null): void
}

export const turnstileSecret = '0x4AAAAAAA-secret-of-a-widget'

export async function turnstileServer (t: Test): Promise<TurnstileServer> {
  const asked: Array<Readonly<Record<string, string>>> = []
  const secrets = new Set([turnstileSecret])
  const tokens = new Map<string, object>()
  let otherwise: ((response: ServerResponse) => void) | null = null
  let count = 0

  const verdict = ({ secret, response }: Readonly<Record<string, string>>): object => {
    if (!secrets.has(secret!)) return { success: false, 'error-codes': ['invalid-input-secret'] }
    const found = tokens.get(response!)
    tokens.delete(response!)
    return (
      found ?? {
        success: false,
        'error-codes': [/^token-\d+$/.test(response!) ? 'timeout-or-duplicate' : 'invalid-input-response']
      }
    )
  }
  const server = createServer(async (request, response) => {
    const form = await read(request)
    asked.push(form)
    if (otherwise !== null) return otherwise(response)
    response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(verdict(form)))
  })
  const port = await httpPort(t, server)

  return {
    url: `http://127.0.0.1:${port}/siteverify`,
    secrets,
    asked,
    token (cdata, hostname = 'app.example') {
      const token = `token-${++count}`
      tokens.set(token, {
        success: true,
        'error-codes': [],
        challenge_ts: '2026-01-15T12:00:00.000Z',
        hostname,
        action: '',
        cdata
      })
      return token
    },
    answerWith (answer) { otherwise = answer }
  }
}

async function read (request: IncomingMessage): Promise<Readonly<Record<string, string>>> {
  const chunks: Buffer[] = []
  for await (const chunk of request) chunks.push(chunk)
  return Object.fromEntries(new URLSearchParams(Buffer.concat(chunks).toString()))
}
