import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Handler } from './handler.ts'

export { gateway, gateway as default, type GatewaySettings } from './guest.ts'
export { type CallOrigin, createHandler, type Handler, type HandlerSettings } from './handler.ts'
export { SettingsError, type SettingsProblem } from '../settings.ts'

/** Who is at the other end, by what the framework knows; `undefined` only for a handler with `addresses: false`. */
type AddressOf<Source> = (source: Source) => string | undefined

const methods = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'] as const

type NextRoutes = Readonly<Record<typeof methods[number], (request: Request) => Promise<Response>>>

/**
 * For a catch-all `route.ts` of Next.js: `export const { GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS } =
 * nextRoutes(handler, …)`. Next knows no address itself: `addressOf` reads what the proxy before it has written.
 */
export function nextRoutes (handler: Handler, addressOf: AddressOf<Request>): NextRoutes {
  const answer = (request: Request): Promise<Response> => handler(request, { address: addressOf(request) })
  return Object.fromEntries(methods.map(method => [method, answer])) as NextRoutes
}

/** As much of Hono's context as is looked at. */
interface HonoContext {
  readonly req: { readonly raw: Request, readonly path: string }
}

type HonoMiddleware<Context> = (context: Context, next: () => Promise<void>) => Promise<Response | void>

/** For `app.use(…)` of Hono on Node, with `context => getConnInfo(context).remote.address`. */
export function honoMiddleware<Context extends HonoContext> (
  handler: Handler, addressOf: AddressOf<Context>
): HonoMiddleware<Context> {
  return async (context, next) => {
    const { raw, path } = context.req
    if (!handler.isOwn(path)) return await next()
    return await handler(raw, { address: addressOf(context) })
  }
}

interface ExpressRequest extends IncomingMessage {
  /** Where a router is mounted; `''` for the application. */
  readonly baseUrl?: string
}

type ExpressMiddleware = (request: ExpressRequest, response: ServerResponse, next: (error?: unknown) => void) => void

/**
 * For `app.use(…)` of Express, Connect and others on Node's own requests, before anything that reads bodies or
 * compresses answers. The address is that of the connection, or by GATEWAY_TRUST_PROXY.
 */
export function expressMiddleware (handler: Handler): ExpressMiddleware {
  return (request, response, next) => {
    const [path] = request.url!.split('?', 1) as [string]
    if (!handler.isOwn(path)) return next()
    if (request.baseUrl) return next(new Error('apixo-gateway: use it on the application itself, without a path.'))
    if (request.readableDidRead) {
      return next(new Error('apixo-gateway: the body has been read. Use the gateway before express.json() and the like.'))
    }
    handler.serve(request, response).catch(next)
  }
}
