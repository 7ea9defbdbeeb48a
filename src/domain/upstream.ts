import type { Secret } from './secret.ts'

/**
 * An idle connection is given up this long before the other side's own hint says that it will be, ms. By undici's default of
 * two seconds no connection to a server that says `Keep-Alive: timeout=2` was ever used again.
 */
export const keepAliveMarginMs = 500

/** A key of ours at the upstream. Its id is the fingerprint: safe to log and to store. */
export interface UpstreamKey {
  readonly id: string
  readonly secret: Secret
}

export interface UpstreamRequest {
  readonly method: 'GET' | 'POST'
  /** Path and query, made of checked parts. The host is a setting and nothing else. */
  readonly path: string
  readonly body?: Buffer
  /** Printable ASCII, sent as `Idempotency-Key`: the one header of a request that is not always the same. */
  readonly idempotencyKey?: string
  readonly key: UpstreamKey
}

/** A complete answer. Only these headers are read; no other reaches the caller. */
export interface UpstreamAnswer {
  readonly status: number
  readonly contentType: string
  readonly retryAfter: string | undefined
  /** `retry-after-ms`, which SDKs obey before the other. */
  readonly retryAfterMs?: string | undefined
  readonly body: Buffer
  /** The answer repeats the key it was asked with, plain or escaped: never to be passed on. */
  readonly leaksKey: boolean
}

/**
 * Why there is no complete answer.
 *
 * unreachable: nothing was written (DNS, connect, TLS) · timeout: no headers, or no more body, in time ·
 * broken: the connection ended, or what came was no HTTP · too-long: more than the limit · encoded: compressed in a
 * way that is not undone · cancelled: by us, because the caller had gone.
 */
export type FailureReason = 'unreachable' | 'timeout' | 'broken' | 'too-long' | 'encoded' | 'cancelled'

export class UpstreamFailure extends Error {
  readonly reason: FailureReason

  constructor (reason: FailureReason, cause?: unknown) {
    super(`upstream: ${reason}`, { cause })
    this.reason = reason
  }
}

/** A request on its way. `cancel` is for reads alone: a submit is never cancelled, its task may exist already. */
export interface Exchange {
  /** Rejects with `UpstreamFailure` and nothing else. */
  readonly answer: Promise<UpstreamAnswer>
  cancel (): void
}

/** Carries one request to the upstream, adding the key at the last moment. Follows no redirect, repeats nothing. */
export interface Upstream {
  send (request: UpstreamRequest): Exchange
  /** Waits for nothing: a request that still runs ends as `broken`, one that waits for its connection as `unreachable`. */
  close (): Promise<void>
}
