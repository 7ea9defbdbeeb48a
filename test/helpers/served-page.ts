import { createHash } from 'node:crypto'
import type { Test } from 'tap'
import type { Reply } from './http-caller.ts'

/** Holds an answer to what every page promises. `more`: what the policy of this page allows as well. */
export function holdPage (t: Test, { headers, text }: Reply, more: readonly string[] = []): void {
  const sourcesOf = (element: string): string => {
    const contents = text.split(`<${element}>`).slice(1).map(rest => rest.split(`</${element}>`, 1)[0]!)
    return contents.map(content => `'sha256-${createHash('sha256').update(content).digest('base64')}'`).join(' ')
  }
  t.equal(
    headers.get('content-security-policy'),
    [
      "default-src 'none'",
      `script-src ${sourcesOf('script')}`,
      `style-src ${sourcesOf('style')}`,
      "connect-src 'self'",
      ...more,
      "base-uri 'none'",
      "form-action 'none'",
      "frame-ancestors 'none'",
      "require-trusted-types-for 'script'"
    ].join('; ')
  )
  t.match(Object.fromEntries(headers), {
    'content-type': 'text/html; charset=utf-8',
    'cache-control': 'no-store',
    'referrer-policy': 'no-referrer',
    'x-content-type-options': 'nosniff',
    'cross-origin-opener-policy': 'same-origin'
  })
  t.match(text, /<style>.+<script>/s)
  t.notMatch(text, /<(?:script|style)\s|<link\b(?! rel="icon" href="data:,")|\bsrc=/, 'all that it needs is in it')
}
