// Loaded before anything else by each test file and by each Node that one starts (`test-env` in package.json). Plain
// JavaScript: Node needs 60 ms to load what strips types, and this is here so that it need not.
//
// The suite starts some hundreds of processes, which load some 130 of the same files each. What Node makes of one is
// kept in .tap, by its text: a file that has changed is stripped anew. Node's own cache (NODE_COMPILE_CACHE) would keep
// compiled code as well, and coverage is by function then, without branches.
import { createHash } from 'node:crypto'
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import module from 'node:module'
import { fileURLToPath } from 'node:url'
import { oneFiles } from './one-file-packages.mjs'

const root = new URL('../..', import.meta.url)
const kept = new URL(`.tap/stripped/${process.version}/`, root)
const ours = [new URL('src/', root).href, new URL('test/', root).href]

// A process that this one starts may be in another folder.
process.env.NODE_OPTIONS = process.env.NODE_OPTIONS.replace('./test/helpers/loader.mjs', import.meta.url)
// tap notes every file that is loaded, and reads its source map. Of packages it needs neither, and they are most of them;
// but for its own first one, since coverage begins with the first that it notes, and has to before its other parts do.
process.env._TAPJS_PROCESSINFO_EXCLUDE_ =
  String(/(^(node|tapmock):|[\\/](\.tap|tap-snapshots|node_modules(?![\\/]@tapjs[\\/]typescript))[\\/])/)

// A Node that is too old, which a test may start as well, has none of this.
module.registerHooks?.({
  resolve (specifier, context, nextResolve) {
    const url = oneFiles.get(specifier)
    return url === undefined ? nextResolve(specifier, context) : { url, format: 'module', shortCircuit: true }
  },
  load (url, context, nextLoad) {
    if (!url.endsWith('.ts') || !ours.some(folder => url.startsWith(folder))) return nextLoad(url, context)
    return { format: 'module', source: stripped(url), shortCircuit: true }
  }
})

/** The file as Node would run it. */
function stripped (url) {
  const text = readFileSync(fileURLToPath(url), 'utf8')
  const file = new URL(createHash('sha1').update(url + text).digest('hex'), kept)
  try {
    return readFileSync(file, 'utf8')
  } catch {
    const code = withoutWarnings(() => module.stripTypeScriptTypes(text, { sourceUrl: url }))
    mkdirSync(kept, { recursive: true })
    const half = new URL(`${file}.${process.pid}`)
    writeFileSync(half, code)
    renameSync(half, file) // another process may read it at any time
    return code
  }
}

/** That stripping types is an experiment would be said in the output of a program that a test looks at. */
function withoutWarnings (work) {
  const { emitWarning } = process
  process.emitWarning = () => {}
  try {
    return work()
  } finally {
    process.emitWarning = emitWarning
  }
}
