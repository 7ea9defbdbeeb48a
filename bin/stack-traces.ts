import { existsSync, readFileSync } from 'node:fs'
import { SourceMap } from 'node:module'
import { join } from 'node:path'

/**
 * Part of a bundle, before all else: lets stack traces name the files and lines of `src/`, as those of a run from the
 * source do. A map is read when a stack first needs it; `node --enable-source-maps` would read them all at the start,
 * and take 70 MB.
 */
const maps = new Map<string, SourceMap | null>()

Error.prepareStackTrace = (error, sites) => {
  try {
    return [String(error), ...sites.map(site => `    at ${traced(site)}`)].join('\n')
  } catch {
    return String(error) // what an error says must never be in the way of saying it
  }
}

/** As Node writes it, `call (file:line:column)`, with the place in the source where there is one. */
function traced (site: NodeJS.CallSite): string {
  const [text, file, line, column] = [String(site), site.getFileName(), site.getLineNumber(), site.getColumnNumber()]
  if (typeof file !== 'string' || !file.startsWith(import.meta.dirname) || line === null || column === null) return text
  const origin = mapOf(file)?.findOrigin(line, column)
  if (origin === undefined || !('fileName' in origin)) return text
  const source = join(import.meta.dirname, origin.fileName)
  return text.replace(`${file}:${line}:${column}`, `${source}:${origin.lineNumber}:${origin.columnNumber}`)
}

/** `null`: a chunk of libraries, which are bundled line by line as they are, and have none. */
function mapOf (file: string): SourceMap | null {
  let map = maps.get(file)
  if (map === undefined) {
    const path = `${file}.map`
    map = existsSync(path) ? new SourceMap(JSON.parse(readFileSync(path, 'utf8'))) : null
    maps.set(file, map)
  }
  return map
}
