import { setTimeout as wait } from 'node:timers/promises'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { gatewayError } from '../../errors.ts'
import type { Call, Stage } from '../call.ts'

/** How a listener stops. */
export interface Drain {
  /** Running calls may take this long to end by themselves. */
  readonly drainMs: number
  /** Resolves when somebody is in a hurry: what runs is cut off as if its time were over. */
  readonly hurried: Promise<void>
  /**
   * Ends what keeps calls at work: the calls to the upstream, the waits for the store. From its synchronous part on
   * nothing is sent any more.
   */
  cutOff (): void
}

/** Knows the calls at work, so that a stop can wait for them: also for submits whose caller has gone. */
export interface Lifecycle {
  readonly begun: (request: FastifyRequest, reply: FastifyReply) => void
  readonly ended: (request: FastifyRequest) => void
  readonly isStopping: () => boolean
  /**
   * Refuses new calls and resolves when the running ones are done. No caller is left without an answer: whoever reads
   * none may send its submit again, and a browser does that by itself, without telling its page.
   */
  drain (app: FastifyInstance, drain: Drain): Promise<void>
}

/** After the cut every call has its outcome; the ledger takes this long at most to note it, ms. */
const settleMs = 1000
/** From an answer that is written to the end of its connection, ms: who is still sending reads it first. */
const farewellMs = 250

export function lifecycle (): Lifecycle {
  const idle = Promise.withResolvers<void>()
  const running = new Map<FastifyRequest, FastifyReply>()
  let stopping = false

  /** Answers all that are at work in a way that `errorFor` names; `null`: not yet. */
  const answer = (errorFor: (request: FastifyRequest) => Error | null): void => {
    for (const [request, reply] of running) {
      /* c8 ignore next: answered or gone in the moment of the cut, which no test can time */
      if (reply.sent || request.call.closed) continue
      const error = errorFor(request)
      if (error !== null) reply.send(error)
    }
  }
  const closeConnections = async ({ server }: FastifyInstance, mayRead: boolean): Promise<void> => {
    if (mayRead) await wait(farewellMs)
    server.closeAllConnections()
  }

  return {
    begun: (request, reply) => { running.set(request, reply) },
    ended: request => {
      running.delete(request)
      if (stopping && running.size === 0) idle.resolve()
    },
    isStopping: () => stopping,
    async drain (app, { drainMs, hurried, cutOff }) {
      stopping = true
      for (const { raw } of running.values()) raw.shouldKeepAlive = false
      if (running.size === 0) idle.resolve()
      const closed = app.close()
      // Not for `closed`: to Node a socket that has never sent a request (a browser opens such) is not idle, and one of
      // them would hold up every stop.
      await within(drainMs, [idle.promise, hurried])
      const isCut = running.size > 0
      if (isCut) {
        answer(({ call }) => isBeforeForward(call) ? busy() : null)
        cutOff()
        await within(settleMs, [idle.promise])
        /* c8 ignore next: a store that outlasts the cut, and a read beside it: no test can time both */
        answer(({ call, method }) => method === 'POST' && !isBeforeForward(call) ? unknownOutcome() : busy())
      }
      await closeConnections(app, isCut)
      await closed
    }
  }
}

const before: ReadonlySet<Stage> = new Set(['receive', 'authenticate', 'authorize', 'admit'])

/** Nothing of it has been sent, and nothing will be. */
function isBeforeForward ({ stage }: Call): boolean {
  return before.has(stage)
}

function busy (): Error {
  return gatewayError('GW_OVERLOADED', { retryAfterSeconds: 1 })
}

/** Where the store does not say within time what has become of a submit. */
function unknownOutcome (): Error {
  return gatewayError('GW_OUTCOME_UNKNOWN', { shouldRetry: false })
}

async function within (ms: number, ends: ReadonlyArray<Promise<void>>): Promise<void> {
  const timer = new AbortController()
  await Promise.race([...ends, wait(ms, undefined, { signal: timer.signal }).catch(() => {})])
  timer.abort()
}
