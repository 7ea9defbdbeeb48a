import type { Reply, TestGateway } from './gateway.ts'

/** Its name at that origin: each port of a host has its own. */
export function cookieNameAt (origin: string): string {
  const { port } = new URL(origin)
  return `__Host-apixo_session${port === '' ? '' : `_${port}`}`
}

/** What a browser would make of `set-cookie`. */
export interface SetCookie {
  readonly name: string
  readonly value: string
  /** As a browser sends it back. */
  readonly header: string
  readonly attributes: readonly string[]
  readonly maxAge: number
}

/** The session cookie that an answer sets; `null` when it sets none. Throws when it sets any other, or two. */
export function cookieIn ({ headers }: Pick<Reply, 'headers'>): SetCookie | null {
  const lines = headers.getSetCookie()
  if (lines.length === 0) return null
  const [pair = '', ...attributes] = lines[0]!.split('; ')
  const { name, value } = /^(?<name>__Host-apixo_session(?:_\d+)?)=(?<value>.*)$/s.exec(pair)?.groups ?? {}
  if (lines.length > 1 || name === undefined) throw new Error(`not the one cookie: ${lines.join(' | ')}`)
  const maxAge = Number(attributes.find(attribute => attribute.startsWith('Max-Age='))?.slice(8))
  return { name, value: value!, header: pair, attributes, maxAge }
}

/** Swaps a token for a cookie, as a page does that no browser shows. */
export async function swap (
  { call }: Pick<TestGateway, 'call'>,
  token: string,
  headers: Readonly<Record<string, string>> = {}
): Promise<SetCookie> {
  const reply = await call('/gateway/sessions/cookie', { method: 'POST', token, headers })
  const cookie = cookieIn(reply)
  if (reply.status !== 201 || cookie === null) throw new Error(`no cookie: ${reply.text}`)
  return cookie
}

/** What a browser sends along with a call of a page of the same origin. */
export function fromOwnPage (cookie: SetCookie, headers: Readonly<Record<string, string>> = {}) {
  return { headers: { cookie: cookie.header, 'sec-fetch-site': 'same-origin', ...headers } }
}
