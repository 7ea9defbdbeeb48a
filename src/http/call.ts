import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Plan } from '../domain/policy/plan.ts'
import type { Session } from '../domain/sessions/session.ts'
import type { ErrorCode } from '../errors.ts'

/** The line. Each request stands at one of these words; where it ended is in its access line and metric. */
export type Stage = 'receive' | 'authenticate' | 'authorize' | 'admit' | 'forward' | 'settle' | 'reply'

/** What the gateway knows of one request while it runs. Nothing in it is a secret, a prompt or a URL of a result. */
export interface Call {
  /** `performance.now()` at arrival. */
  readonly startedAt: number
  /** Who is throttled: the address, or the /64 it is in. */
  address: string | undefined
  /** Seconds until that address may fail again; `null`: it has not failed too often. */
  shutOutSeconds: number | null
  stage: Stage
  /** When its caller was found good, before the body was read, Unix ms. */
  letInAt: number
  /** Passed authenticate, authorize and admit. */
  granted: boolean
  code: ErrorCode | 'OK'
  session: Session | null
  plan: Plan | null
  model: string | null
  taskId: string | null
  /** Of tasks that the upstream has made for this call. Whether they were claimed is the ledger's to say. */
  madeTaskIds: readonly string[]
  keyId: string | null
  /** Time spent waiting for the upstream, ms. */
  upstreamMs: number
  /** Bytes of request body this call may hold in memory. */
  heldBytes: number
  /** The line is at work. It may be so after the caller has gone: a submit runs to its end. */
  running: boolean
  /** The response has been sent, or the caller has gone. */
  closed: boolean
  /** Called when either of the two changes; the call ends with the later one. */
  readonly finish: () => void
}

/** The call of a request whose session has been verified. */
export interface SessionCall extends Call {
  session: Session
  plan: Plan
}

/** What a stage gets besides its value. */
export interface Context {
  readonly request: FastifyRequest
  readonly reply: FastifyReply
  readonly call: SessionCall
}

/** For routes behind `authenticate`. */
export function contextOf (request: FastifyRequest, reply: FastifyReply): Context {
  return { request, reply, call: request.call as SessionCall }
}

/** What opens a route in the place of a session. */
export type OtherSecret = 'issuer token' | 'admin token' | 'proof' | 'invitation' | 'callback' | 'ticket'

declare module 'fastify' {
  interface FastifyRequest { call: Call }
  interface FastifyContextConfig {
    /** As in logs and metrics. */
    operation?: string
    /** Not throttled, and its errors don't count against an address: health routes. */
    exempt?: boolean
    /** Its errors don't count against an address: callbacks. */
    uncounted?: boolean
    /**
     * The secret that opens it, where that is no session. Of an address that has failed too often the issuer token alone is
     * still looked at; all others are refused before they are compared, so that nobody goes on guessing.
     */
    opensWith?: OtherSecret
  }
}

export function newCall (finish: () => void): Call {
  return {
    startedAt: performance.now(),
    address: undefined,
    shutOutSeconds: null,
    stage: 'receive',
    letInAt: 0,
    granted: false,
    code: 'OK',
    session: null,
    plan: null,
    model: null,
    taskId: null,
    madeTaskIds: [],
    keyId: null,
    upstreamMs: 0,
    heldBytes: 0,
    running: false,
    closed: false,
    finish
  }
}
