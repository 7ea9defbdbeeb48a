import type { FastifyInstance, FastifyRequest } from 'fastify'
import type { IncomingMessage } from 'node:http'
import { callbackPath, type CallbackTarget } from '../../domain/callbacks.ts'
import { instant } from '../../domain/time.ts'
import { type Delivery, hasArrived, messageId } from '../../domain/webhooks.ts'
import { gatewayError } from '../../errors.ts'
import { readRoute, type ReadServices } from '../read-route.ts'
import type { InboundCallbacks, Services } from '../services.ts'

/** Far more than an envelope has. What is longer is not read as one. */
const maxBodyBytes = 1024 * 1024

/**
 * The upstream announces the end of a task. Its callbacks are not signed (APIXO docs, "Webhooks"), so nothing of one is
 * believed: the secret in the path says which task to ask about. An unknown one is an address that does not exist, said
 * before the body is read; a known one gets its 200 whatever the body says, or it would be sent again and again.
 */
export function callbackRoutes (app: FastifyInstance, { find, handle }: InboundCallbacks): void {
  const found = new WeakMap<FastifyRequest, CallbackTarget>()
  app.removeAllContentTypeParsers()
  app.addContentTypeParser(
    '*',
    (request: FastifyRequest, payload: IncomingMessage, done: (error: Error | null, body?: Buffer | null) => void) => {
      // Compressed it is not read either: a bomb needs a decoder.
      const isPlain = (request.headers['content-encoding'] ?? 'identity') === 'identity'
      const chunks: Buffer[] = []
      let length = 0
      const read = (chunk: Buffer): void => {
        length += chunk.length
        if (length > maxBodyBytes) finish() // what else comes makes no difference
        else if (isPlain) chunks.push(chunk)
      }
      const finish = (): void => {
        payload.off('data', read).off('end', finish).off('error', done)
        done(null, isPlain && length <= maxBodyBytes ? Buffer.concat(chunks) : null)
      }
      payload.on('data', read).once('end', finish).once('error', done)
    }
  )

  // An address that many callbacks come from is not one that guesses: its 404s are not counted against it.
  app.post<{ Params: { secret: string } }>(
    `${callbackPath}:secret`,
    {
      config: { operation: 'callback', uncounted: true, opensWith: 'callback' },
      async onRequest (request) {
        request.call.enter('authorize')
        const target = await find((request.params as { secret: string }).secret)
        if (target === null) throw gatewayError('GW_NOT_FOUND')
        request.raw.headers['content-type'] = 'application/octet-stream' // whatever it says, or the framework would answer 415
        found.set(request, target)
      }
    },
    async (request, reply) => {
      const target = found.get(request)!
      handle(target, (request.body as Buffer | null) ?? null)
      const { call } = request
      call.grant()
      call.model = target.model
      call.taskId = target.task?.taskId ?? null
      return reply.type('application/json; charset=utf-8').send('{}')
    }
  )
}

/**
 * How the delivery of a task's end went, for the task's owner. The URL is not repeated: it may hold a secret of the
 * receiver's.
 */
export function deliveryRoutes (app: FastifyInstance, services: ReadServices & Pick<Services, 'deliveries'>): void {
  readRoute(
    app,
    services,
    {
      url: '/gateway/tasks/:taskId/deliveries',
      operation: 'listDeliveries',
      scope: 'tasks:read',
      query: [],
      task: 'own'
    },
    async ({ task: { taskId } }) => shownDelivery(taskId, await services.deliveries.of(taskId))
  )
}

function shownDelivery (taskId: string, delivery: Delivery | null) {
  const { attempts = [], nextAt = null } = delivery ?? {}
  return {
    webhookId: delivery && messageId(taskId),
    state: delivery === null ? 'none' : stateOf(delivery),
    attempts: attempts.map(({ at, status, error }) => ({ at: instant(at), status, error })),
    nextAttemptAt: nextAt === null ? null : instant(nextAt)
  }
}

/** waiting: for the end of the task · due: sent soon, or once more at its time · delivered · given-up */
function stateOf ({ attempts, nextAt }: Delivery): string {
  if (nextAt !== null) return 'due'
  if (attempts.length === 0) return 'waiting'
  return attempts.some(hasArrived) ? 'delivered' : 'given-up'
}
