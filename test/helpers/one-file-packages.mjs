// A package of 540 small files, made two for the tests: every process of the suite loads it, and Node
// needs 180 ms for the many, and 20 for the two. `pretest` runs this; without it a test runs the package as it
// is installed. Plain JavaScript, since loader.mjs reads it before types are stripped.
import { existsSync, renameSync, rmSync, statSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const root = new URL('../../', import.meta.url)
/** npm writes it anew whenever a package changes. */
const installed = statSync(new URL('node_modules/.package-lock.json', root)).mtimeMs
/** One for each state of node_modules. */
const folder = new URL(`.tap/packages/${installed}/`, root)
/** By the name of its file: what is imported. */
const entries = { typebox: 'typebox', 'typebox-schema': 'typebox/schema' }

/** What is imported, and the URL of the one file; none when they have not been made. */
export const oneFiles = new Map(existsSync(folder)
  ? Object.entries(entries).map(([name, specifier]) => [specifier, new URL(`${name}.mjs`, folder).href])
  : [])

async function make () {
  const { rolldown } = await import('rolldown')
  const bundle = await rolldown({ input: entries, platform: 'node', cwd: fileURLToPath(root) })
  const half = fileURLToPath(new URL(`.tap/packages/half-${process.pid}`, root))
  await bundle.write({ dir: half, format: 'esm', entryFileNames: '[name].mjs', chunkFileNames: '[name].mjs' })
  rmSync(folder, { recursive: true, force: true })
  renameSync(half, folder)
}

if (import.meta.main && oneFiles.size === 0) await make()
