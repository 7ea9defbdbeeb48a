import { createHash } from 'node:crypto'
import type { Test } from 'tap'
import type { Reply } from './http-caller.ts'

/** Holds an answer to what every page promises. `more`: what the policy of this page allows as well. */
export function holdPage (t: Test, { headers, text }: Reply, more: readonly string[] = []): void {
  const sourceOf = (element: string): string => {
    const [, content] = new RegExp(`<${element}>(.*)</${element}>`, 's').exec(text)!
    return `'sha256-${createHash('sha256').update(content!).digest('base64')}'`
  }
  t.equal(headers.get('content-security-policy'), [
    "default-src 'none'", `script-src ${sourceOf('script')}`, `style-src ${sourceOf('style')}`, "connect-src 'self'", ...more,
    "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'", "require-trusted-types-for 'script'"
  ].join('; '))
  t.match(Object.fromEntries(headers), {
    'content-type': 'text/html; charset=utf-8',
    'cache-control': 'no-store',
    'referrer-policy': 'no-referrer',
    'x-content-type-options': 'nosniff',
    'cross-origin-opener-policy': 'same-origin'
  })
  t.equal([...text.matchAll(/<(?:script|style)\b/g)].length, 2)
}
