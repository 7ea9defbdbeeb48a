import type { FastifyReply, FastifyRequest } from 'fastify'
import { type DestinationStream, type Logger, pino } from 'pino'

export interface LoggerOptions {
  readonly level: string
  /** A file descriptor, standard output by default; or what a test listens with. */
  readonly destination?: number | DestinationStream
  /** Lines are written in blocks of 4 kB or every 200 ms: one write call a line costs as much as the whole access check. */
  readonly buffered: boolean
}

/** The program's log, as JSON lines. Errors go in with their codes and stacks, never with a request or an answer. */
export function logger ({ level, destination = 1, buffered }: LoggerOptions): Logger {
  return pino(
    { level, base: null, timestamp: pino.stdTimeFunctions.isoTime, serializers: { err: errorFields } },
    typeof destination === 'number'
      ? pino.destination({ dest: destination, sync: true, ...(buffered ? { minLength: 4096, periodicFlush: 200 } : {}) })
      : destination
  )
}

/**
 * The outline of an error and of its causes. Other fields are left out: an error of a library may carry what it was
 * given, headers and tokens included.
 */
function errorFields (error: Error & { code?: unknown }, depth = 0): object {
  const { cause } = error
  return {
    type: error.name,
    code: error.code,
    message: error.message,
    stack: error.stack,
    ...(cause instanceof Error && depth < 4 ? { cause: errorFields(cause, depth + 1) } : {})
  }
}

/** nginx's word for a caller who did not wait for the answer. */
const hungUp = 499

/** The access line: one a request, written when its response is out and its work is done. */
export function accessLine (log: Logger) {
  return ({ call, id, method, routeOptions }: FastifyRequest, reply: FastifyReply): void => {
    const passed = call.code === 'OK'
    log.info({
      requestId: id,
      operation: routeOptions.config?.operation ?? 'none',
      // The pattern, never the URL: that may carry a task id, a ticket, or a token sent to the wrong place.
      method,
      route: routeOptions.url ?? 'none',
      stage: passed ? 'reply' : call.stage,
      granted: passed || call.granted,
      code: call.code,
      subject: call.session?.subject ?? null,
      model: call.model,
      taskId: call.taskId,
      keyId: call.keyId,
      status: reply.raw.writableFinished ? reply.statusCode : hungUp,
      upstreamMs: Math.round(call.upstreamMs),
      ms: Math.round(performance.now() - call.startedAt)
    }, 'request')
  }
}
