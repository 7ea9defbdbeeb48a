import { Readable } from 'node:stream'
import { type Dispatcher, Pool } from 'undici'
import {
  type AnswerReceiver, type FailureReason, type PassingCall, type PassingRequest, type PassingUpstream, UpstreamFailure
} from '../../domain/upstream.ts'
import { type ClientOptions, connectionOptions, credentials, holds, reasonOf } from './upstream.ts'

/** An upstream whose answers are handed on as they come: no byte of them is changed, and none waits for another. */
export function undiciPassing (options: ClientOptions): PassingUpstream {
  const { origin, pathname } = new URL(options.baseUrl)
  const prefix = pathname.replace(/\/+$/, '')
  // As many connections as there are calls: one that waits for another's would do so unseen.
  const pool = new Pool(origin, { ...connectionOptions(options), connections: null })
  const credentialOf = credentials(options.userAgent)
  // What is sent is made of this list, of the dialect's own and of the key; no header of a caller's can be among them.
  const common = ['accept-encoding', 'identity', 'content-type', 'application/json', 'user-agent', options.userAgent]

  return {
    send ({ path, headers, body, key, credential }: PassingRequest, receiver) {
      const { bytes, headers: { [credential]: withKey } } = credentialOf(key)
      const handler = new Handler(receiver, bytes)
      pool.dispatch({
        method: 'POST',
        path: prefix + path,
        headers: [...common, ...headers, ...withKey],
        body: body.length > largeBytes ? givenOnce(body) : body,
        idempotent: false
      }, handler)
      return handler
    },
    close: () => pool.destroy()
  }
}

/** A body above this is held no longer than it takes to write it, bytes. */
const largeBytes = 65_536

/** undici keeps what it is given as a body until the answer has ended; of a stream nothing is left once it is read. */
function givenOnce (bytes: Buffer): Readable {
  const stream = new Readable() // never asked for more, as it has ended before anybody reads it
  stream.push(bytes)
  stream.push(null)
  return stream
}

/** It is a class because undici calls the methods of one object for one request. */
class Handler implements Dispatcher.DispatchHandler, PassingCall {
  readonly #receiver: AnswerReceiver
  readonly #key: Buffer
  #controller: Dispatcher.DispatchController | null = null
  #failure: FailureReason | null = null
  /** The end of what has come, where a key may have begun that goes on in the next piece. */
  #held: Buffer | null = null

  constructor (receiver: AnswerReceiver, key: Buffer) {
    this.#receiver = receiver
    this.#key = key
  }

  pause (): void { this.#controller?.pause() }

  resume (): void { this.#controller?.resume() }

  cancel (): void { this.#fail('cancelled') }

  onRequestStart (controller: Dispatcher.DispatchController): void {
    this.#controller = controller
    if (this.#failure === null) return
    // Given up while it waited for a connection: nothing was sent, and nothing will be.
    this.#failure = 'unreachable'
    controller.abort(new UpstreamFailure('unreachable'))
  }

  onResponseStart (
    _: Dispatcher.DispatchController, status: number, headers: Record<string, string | string[] | undefined>
  ): void {
    const encoding = String(headers['content-encoding'] ?? '').trim()
    if (!/^(?:identity)?$/i.test(encoding)) return this.#fail('encoded')
    this.#receiver.begin({
      status, contentType: String(headers['content-type'] ?? ''), retryAfter: headers['retry-after']?.toString()
    })
  }

  onResponseData (_: Dispatcher.DispatchController, chunk: Buffer): void {
    const bytes = this.#held === null ? chunk : Buffer.concat([this.#held, chunk])
    if (holds(bytes, this.#key)) return this.#fail('leaks-key')
    const begun = begunIn(bytes, this.#key)
    this.#held = begun === 0 ? null : bytes.subarray(bytes.length - begun)
    if (begun < bytes.length) this.#receiver.take(begun === 0 ? bytes : bytes.subarray(0, bytes.length - begun))
  }

  onResponseEnd (): void {
    if (this.#held !== null) this.#receiver.take(this.#held)
    this.#receiver.end()
  }

  onResponseError (_: Dispatcher.DispatchController | null, error: Error): void {
    const reason = this.#controller === null ? 'unreachable' : this.#failure ?? reasonOf(error, true)
    this.#receiver.fail(new UpstreamFailure(reason, error))
  }

  #fail (reason: FailureReason): void {
    this.#failure = reason
    this.#controller?.abort(new UpstreamFailure(reason))
  }
}

/** How many bytes at the end may be the beginning of a key: none, where an event has ended. */
function begunIn (bytes: Buffer, key: Buffer): number {
  const most = Math.min(bytes.length, key.length - 1)
  for (let length = most; length > 0; length--) {
    const start = bytes.length - length
    if (bytes[start] === key[0] && bytes.subarray(start).equals(key.subarray(0, length))) return length
  }
  return 0
}
