import type { ServerResponse } from 'node:http'

/** An answer before it is written: what goes wrong on the way is `deliveries.ts`. */
export interface Answer {
  readonly status: number
  readonly headers: Readonly<Record<string, string>>
  readonly body: string
}

/**
 * APIXO's envelope, with the HTTP status equal to its code. Without `data` the field is left out, as in the
 * documented 401.
 *
 * @see https://apixo.ai/docs/api-reference/response-format
 */
export function envelope (code: number, message: string, data?: unknown): Answer {
  const body = JSON.stringify({ code, message, data })
  return { status: code, headers: { 'content-type': 'application/json' }, body }
}

/** A good answer. */
export function success (data: unknown): Answer {
  return envelope(200, 'success', data)
}

/** A 400 that names what is wrong, as in the documented "Missing required field: input.prompt". */
export function invalid (error: string): Answer {
  return envelope(400, 'Invalid request', { error })
}

/**
 * What APIXO says with each of its codes. The words of 400 and 401 are documented; those of 402, 403, 404, 429, 500 and
 * 503 are guesses: the documents only name the codes.
 *
 * @see https://apixo.ai/docs/api-reference/errors
 */
const refusals = {
  400: invalid('The prompt asked for this refusal'),
  401: envelope(401, 'Invalid or missing API key'),
  402: envelope(402, 'Payment Required', null),
  403: envelope(403, 'Forbidden', null),
  404: envelope(404, 'Not Found', null),
  429: envelope(429, 'Too Many Requests', null),
  500: envelope(500, 'Server Error', null),
  503: envelope(503, 'Service Unavailable', null)
}

export type RefusalCode = keyof typeof refusals

/** The answer APIXO gives with this code. */
export function refusal (code: RefusalCode): Answer {
  return refusals[code]
}

/** A page as a CDN in front of APIXO would send it. */
export function page (status: number, title: string): Answer {
  const body = `<!DOCTYPE html>\n<html><head><title>${title}</title></head><body><h1>${title}</h1></body></html>\n`
  return { status, headers: { 'content-type': 'text/html; charset=utf-8' }, body }
}

/** Writes an answer plainly and at once. */
export function send (response: ServerResponse, { status, headers, body }: Answer): void {
  response.writeHead(status, { ...headers, 'content-length': Buffer.byteLength(body) }).end(body)
}
