import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'

/** A page as it is served. */
export interface Page {
  readonly html: string
  /** Lets run and look what is in the page, by its SHA-256, and nothing else; it talks to our own origin alone. */
  readonly contentSecurityPolicy: string
}

const read = (file: string): string => readFileSync(join(import.meta.dirname, file), 'utf8')

/**
 * Reads a page of this folder, which has its one style and its one script within it; what the pages share is put in place
 * of its `@import`. `more`: what this page's policy allows beside that, such as `img-src 'self'`.
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
