import type { FastifyInstance } from 'fastify'
import { createHash } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'

/** A file that a page's author imports, or that a browser's tools look for beside it. */
interface BuiltPart {
  readonly name: string
  readonly contentType: string
}

/** `npm run build` writes it; the image and the package have it in the same place beside `src`. */
const built = join(import.meta.dirname, '../../../dist')

const parts: readonly BuiltPart[] = [
  { name: 'client.js', contentType: 'text/javascript; charset=utf-8' },
  { name: 'client.js.map', contentType: 'application/json; charset=utf-8' },
  // `.d.ts` has no type of its own, and is no MPEG transport stream.
  { name: 'client.d.ts', contentType: 'text/plain; charset=utf-8' }
]

/** What a start and `check` say of a checkout in which nothing was built; `null`: all is there. */
export function missingParts (folder = built): string | null {
  return parts.every(({ name }) => existsSync(join(folder, name)))
    ? null
    : '/gateway/client.js is not there, as it has not been built: npm run build makes it'
}

/**
 * The client for pages, where it has been built. It is the same for everybody, holds no secret, and may be imported by
 * pages of the origins that may call us: the browser asks for a module with CORS.
 */
export function builtPartRoutes (app: FastifyInstance, folder = built): void {
  const missing = missingParts(folder)
  if (missing !== null) {
    app.log.warn(missing)
    return
  }
  for (const { name, contentType } of parts) {
    const content = readFileSync(join(folder, name))
    const etag = `"${createHash('sha256').update(content).digest('base64url').slice(0, 22)}"`
    app.get(`/gateway/${name}`, { config: { operation: 'showClient' } }, (request, reply) => {
      // A browser keeps it, and asks each time whether it is still the same: a page may load it before each start.
      reply.headers({ etag, 'cache-control': 'no-cache' })
      if (request.headers['if-none-match']?.split(/ *, */).some(tag => tag.replace(/^W\//, '') === etag)) {
        return reply.code(304).send()
      }
      return reply.type(contentType).send(content)
    })
  }
}
