import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { createHash } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { namesTag } from '../../domain/results.ts'

/** A file that programs fetch, and the name that its route has in logs and metrics. */
interface NamedFile {
  readonly name: string
  readonly operation: string
  readonly contentType: string
}

/** The client. `npm run build` writes it; the image and the package have it in the same place beside `src`. */
const built = join(import.meta.dirname, '../../../dist')
const builtFiles: readonly NamedFile[] = [
  { name: 'client.js', operation: 'showClient', contentType: 'text/javascript; charset=utf-8' },
  { name: 'client.js.map', operation: 'showClient', contentType: 'application/json; charset=utf-8' },
  // `.d.ts` has no type of its own, and is no MPEG transport stream.
  { name: 'client.d.ts', operation: 'showClient', contentType: 'text/plain; charset=utf-8' }
]

/**
 * The reference of all routes, as `npm run reference` has written it. It is made before, from the routes themselves, so
 * that a gateway that runs neither makes it nor knows what makes it. Its page is served where the other pages are.
 */
const reference = join(import.meta.dirname, '../../pages/reference')
const referenceFiles: readonly NamedFile[] = [
  { name: 'openapi.json', operation: 'openApi', contentType: 'application/json; charset=utf-8' },
  { name: 'llms.txt', operation: 'llmsText', contentType: 'text/plain; charset=utf-8' }
]

/** What a start and `check` say of a checkout in which nothing was built; `null`: all is there. */
export function missingParts (folder = built): string | null {
  return builtFiles.every(({ name }) => existsSync(join(folder, name)))
    ? null
    : '/gateway/client.js is not there, as it has not been built: npm run build makes it'
}

/**
 * The client, where it has been built, and the reference. They are the same for everybody, without a session: nothing
 * in them is secret. They are read by whoever may call us at all: our own pages, those of the listed origins (a browser
 * asks for a module with CORS), and programs. Not by any page there is, or one that somebody of an inner network visits
 * could find out that there is a gateway in it, and of which version.
 */
export function fileRoutes (app: FastifyInstance, folder = built): void {
  const missing = missingParts(folder)
  if (missing === null) for (const file of builtFiles) addFile(app, folder, file)
  else app.log.warn(missing)
  for (const file of referenceFiles) addFile(app, reference, file)
}

/** What was read, and its tag. */
interface KeptFile { readonly content: Buffer, readonly etag: string }

/** Read when it is first asked for, and kept: another version of the gateway is a new start. */
function addFile (app: FastifyInstance, folder: string, { name, operation, contentType }: NamedFile): void {
  let file: KeptFile | null = null
  app.get(`/gateway/${name}`, { config: { operation } }, (request, reply) => {
    file ??= readFile(join(folder, name))
    return sendFile(request, reply.type(contentType), file)
  })
}

function readFile (path: string): KeptFile {
  const content = readFileSync(path)
  return { content, etag: `"${createHash('sha256').update(content).digest('base64url').slice(0, 22)}"` }
}

/** A reader keeps it, and asks each time whether it is still the same: a page may load the client before each start. */
function sendFile (
  { headers: { 'if-none-match': known } }: FastifyRequest, reply: FastifyReply, { content, etag }: KeptFile
): FastifyReply {
  reply.headers({ etag, 'cache-control': 'no-cache' })
  return known !== undefined && namesTag(known, etag) ? reply.code(304).send() : reply.send(content)
}
