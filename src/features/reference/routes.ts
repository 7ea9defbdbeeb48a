import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'

/**
 * The reference of all routes, as it was written by `npm run reference` and lies in `src/pages/reference/`. It is made
 * before, from the routes themselves, so that a gateway that runs neither makes it nor knows what makes it.
 */
const folder = join(import.meta.dirname, '../../pages/reference')

/** A file of the reference, as it is sent. */
interface ReferenceFile {
  readonly content: Buffer
  readonly etag: string
}

/** What is served, and under which name of an operation. */
interface ServedName {
  readonly name: string
  readonly operation: string
  readonly contentType: string
}

const files: readonly ServedName[] = [
  { name: 'openapi.json', operation: 'openApi', contentType: 'application/json; charset=utf-8' },
  { name: 'llms.txt', operation: 'llmsText', contentType: 'text/plain; charset=utf-8' }
]

/**
 * The same for everybody, without a session: nothing of it is secret. It is read by whoever may call us at all: our own
 * pages, those of the listed origins, and programs. Not by any page there is, or one that somebody of an inner network
 * visits could find out that there is a gateway in it, and of which version.
 *
 * Each file is read when it is first asked for, and kept: an update of the gateway is a new start. The page of the
 * reference is served where the other pages are.
 */
export function referenceRoutes (app: FastifyInstance): void {
  for (const { name, operation, contentType } of files) {
    let file: ReferenceFile | null = null
    app.get(`/gateway/${name}`, { config: { operation } }, (request, reply) => {
      file ??= readReference(name)
      return sendFile(request, reply.type(contentType), file)
    })
  }
}

function readReference (name: string): ReferenceFile {
  const content = readFileSync(join(folder, name))
  return { content, etag: `"${createHash('sha256').update(content).digest('base64url').slice(0, 22)}"` }
}

/** A reader keeps it, and asks whether it is still the same (RFC 9110 section 13.1.2). */
function sendFile (
  { headers: { 'if-none-match': known = '' } }: FastifyRequest, reply: FastifyReply, { content, etag }: ReferenceFile
): FastifyReply {
  reply.headers({ etag, 'cache-control': 'no-cache' })
  const isKnown = known.split(',').some(tag => tag.trim().replace(/^W\//, '') === etag)
  return isKnown ? reply.code(304).send() : reply.send(content)
}
