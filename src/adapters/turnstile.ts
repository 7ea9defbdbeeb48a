import { createHash } from 'node:crypto'
import type { Live } from '../domain/live.ts'
import type { Secret } from '../domain/secret.ts'
import type { GuestProofs } from '../domain/sessions/guests.ts'
import { gatewayError } from '../errors.ts'

export interface TurnstileProofsOptions {
  readonly secret: Live<Secret>
  /** Hosts whose pages may show the widget; none: those that Cloudflare was told of. */
  readonly hostnames: ReadonlySet<string>
  readonly now: () => number
  /** In place of Cloudflare's own, in tests. */
  readonly url?: string | undefined
  readonly timeoutMs?: number
}

const siteverify = 'https://challenges.cloudflare.com/turnstile/v0/siteverify'
const answerMs = 5000
const maxAnswerBytes = 65_536
const maxTokenLength = 2048
/** Questions at a time. What is more than that is a flood, and no guests. */
const maxQuestions = 100
/** Tokens are good for 300 s, by Cloudflare's clock. */
const validMs = 310_000
const retrySeconds = 5

/** What is wrong with a token. Any other code is about us, or about Cloudflare. */
const tokenErrors: ReadonlySet<string> = new Set(['missing-input-response', 'invalid-input-response', 'timeout-or-duplicate'])

interface Verdict {
  readonly success: boolean
  readonly hostname?: string
  readonly cdata?: string
  readonly 'error-codes'?: string | readonly string[]
}

/**
 * Cloudflare's Turnstile (https://developers.cloudflare.com/turnstile/get-started/server-side-validation/). The page gives
 * what the token is for to its widget as `cData`: a token that was solved for one guest, or for a new session, is no good
 * for another. Nobody gets in while Cloudflare does not answer.
 */
export function turnstileProofs ({ secret, hostnames, now, url = siteverify, timeoutMs = answerMs }: TurnstileProofsOptions): GuestProofs {
  let questions = 0

  const ask = async (response: string, remoteip: string): Promise<Verdict> => {
    // A caller who has hung up has no address any more.
    const body = new URLSearchParams({ secret: secret.current.reveal(), response, ...(remoteip && { remoteip }) })
    return await read(await fetch(url, { method: 'POST', body, redirect: 'error', signal: AbortSignal.timeout(timeoutMs) }))
  }

  return {
    async verify (token, purpose, ip) {
      if (token.length > maxTokenLength) return null
      if (questions === maxQuestions) throw busy()
      questions++
      const verdict = await ask(token, ip).catch(cause => { throw busy(cause) }).finally(() => { questions-- })
      if (!verdict.success) {
        const codes = [verdict['error-codes'] ?? []].flat()
        if (codes.length > 0 && codes.every(code => tokenErrors.has(code))) return null
        throw busy(new Error(`Turnstile does not say whether a token is good: ${codes.join(', ')}`))
      }
      if (verdict.cdata !== purpose || (hostnames.size > 0 && !hostnames.has(verdict.hostname!))) return null
      return { id: createHash('sha256').update(token).digest('base64url'), expiresAt: now() + validMs }
    }
  }
}

/** Counted as it comes, after decompression. */
async function read (answer: Response): Promise<Verdict> {
  const chunks: Uint8Array[] = []
  let length = 0
  for await (const chunk of answer.body!) {
    length += chunk.byteLength
    if (length > maxAnswerBytes) throw new Error(`the answer has more than ${maxAnswerBytes} bytes`)
    chunks.push(chunk)
  }
  const verdict = JSON.parse(Buffer.concat(chunks).toString()) as Verdict | null
  if (typeof verdict?.success !== 'boolean') throw new Error(`an answer with status ${answer.status} is no verdict`)
  return verdict
}

function busy (cause?: unknown) {
  return gatewayError('GW_OVERLOADED', { retryAfterSeconds: retrySeconds, cause })
}
