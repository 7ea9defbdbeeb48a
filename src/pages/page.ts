import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'

/** A page as it is served. */
export interface Page {
  readonly html: string
  /** Allows the page's own script and style, by their SHA-256, and no others; it talks to our own origin alone. */
  readonly contentSecurityPolicy: string
}

const read = (file: string): string => readFileSync(join(import.meta.dirname, file), 'utf8')

/**
 * Reads a page of this folder, with its one style and its one script within it; the style that pages share takes the place
 * of its `@import`. `more`: what the policy of this page allows as well, such as `img-src 'self'`.
 */
export function readPage (name: string, more: readonly string[] = []): Page {
  const html = read(`${name}.html`).replace(/@import "(\w+\.css)";\n/, (_, file: string) => read(file))
  // https://www.w3.org/TR/CSP3/#grammardef-hash-source
  const sourceOf = (element: string): string => {
    const [, text] = new RegExp(`<${element}>(.*?)</${element}>`, 's').exec(html)!
    return `'sha256-${createHash('sha256').update(text!).digest('base64')}'`
  }
  const rules = [
    "default-src 'none'", `script-src ${sourceOf('script')}`, `style-src ${sourceOf('style')}`, "connect-src 'self'", ...more,
    "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'", "require-trusted-types-for 'script'"
  ]
  return { html, contentSecurityPolicy: rules.join('; ') }
}
