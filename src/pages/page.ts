import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'

/** A page as it is served. */
export interface Page {
  readonly html: string
  /** Allows the page's own scripts and styles, by their SHA-256, and no others; it talks to our own origin alone. */
  readonly contentSecurityPolicy: string
}

/**
 * Reads a page of this folder, `playground/playground.html`. It is served in one piece: the files that it names as styles
 * and scripts take the places where it names them. `more`: what its policy allows as well, such as `img-src 'self'`.
 */
export function readPage (path: string, more: readonly string[] = []): Page {
  const file = join(import.meta.dirname, path)
  const contentOf = (name: string): string => readFileSync(join(dirname(file), name), 'utf8')
  const html = readFileSync(file, 'utf8')
    .replace(/<link rel="stylesheet" href="([\w./]+)">/g, (_, name: string) => `<style>\n${contentOf(name)}</style>`)
    .replace(/<script src="([\w./]+)"><\/script>/g, (_, name: string) => `<script>\n${contentOf(name)}</script>`)
  const rules = [
    "default-src 'none'", `script-src ${sourcesOf('script', html)}`, `style-src ${sourcesOf('style', html)}`, "connect-src 'self'", ...more,
    "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'", "require-trusted-types-for 'script'"
  ]
  return { html, contentSecurityPolicy: rules.join('; ') }
}

/** https://www.w3.org/TR/CSP3/#grammardef-hash-source */
function sourcesOf (element: string, html: string): string {
  const texts = [...html.matchAll(new RegExp(`<${element}>(.*?)</${element}>`, 'gs'))].map(([, text]) => text!)
  return texts.map(text => `'sha256-${createHash('sha256').update(text).digest('base64')}'`).join(' ')
}
