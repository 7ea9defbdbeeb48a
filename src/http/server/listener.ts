import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { receive, type ReceiveOptions } from '../receive.ts'
import { beginCalls } from './beginning.ts'
import { type Drain, lifecycle } from './lifecycle.ts'
import { server, type ServerOptions } from './server.ts'

export interface ListenerOptions extends Omit<ServerOptions, 'begin'>, Omit<ReceiveOptions, 'begin' | 'isStopping'> {
  /** Run once for each call, when its response is out, or its caller gone, and its work is done. */
  readonly endings: ReadonlyArray<(request: FastifyRequest, reply: FastifyReply) => void>
}

/** A port of ours: a server whose every request goes through *receive*, and that stops with grace. */
export interface Listener {
  readonly app: FastifyInstance
  /** Refuses new calls and resolves when the running ones are answered: by themselves, or when their time is over. */
  drain (drain: Drain): Promise<void>
}

export async function listener ({ endings, ...options }: ListenerOptions): Promise<Listener> {
  const life = lifecycle()
  const begin = beginCalls({ begun: life.begun, endings: [...endings, life.ended] })
  const app = server({ ...options, begin })
  await receive(app, { ...options, begin, isStopping: life.isStopping })
  return { app, drain: drain => life.drain(app, drain) }
}
