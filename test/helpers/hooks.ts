import Fastify, { type FastifyReply, type FastifyRequest, type onRequestHookHandler } from 'fastify'

const app = Fastify()

/** Runs a hook of a route by itself; rejects with what it throws, or hands on. */
export async function throughHook (
  hook: onRequestHookHandler, request: FastifyRequest, reply: FastifyReply
): Promise<void> {
  await new Promise<void>((resolve, reject) => hook.call(app, request, reply, error => {
    if (error === undefined) resolve()
    else reject(error)
  }))
}
