import { chmodSync, cpSync, globSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { basename, dirname, join, relative, resolve } from 'node:path'
import { type OutputChunk, type Plugin, rolldown } from 'rolldown'
import { isolatedDeclarationSync } from 'rolldown/experimental'

/**
 * What is built. `npm run build`: into `dist/` what pages load, for the gateway that runs from its source; and into
 * `dist/server/` what the container image runs. `node bin/build.ts FOLDER` builds the latter, there.
 */
const root = join(import.meta.dirname, '..')
const src = join(root, 'src')

/** Files of the client whose declarations are all that its users see of it. */
const publicParts = ['api', 'errors', 'client']

/**
 * What a page's author imports: `client.js`, an ES module that is complete in itself, `react.js`, which needs React
 * alone, their maps and their types. Each file is replaced in one step, as a gateway may start at any time.
 */
export async function buildClient (out: string): Promise<void> {
  const [client, react] = ['client', 'react'].map(name => join(src, `client/${name}.ts`)) as [string, string]
  const build = await rolldown({ input: { client, react }, external: ['react'] })
  const { output } = await build.generate({ format: 'es', minify: true, sourcemap: true, entryFileNames: '[name].js' })
  mkdirSync(out, { recursive: true })
  for (const file of output) put(join(out, file.fileName), file.type === 'chunk' ? file.code : file.source)
  const declarations = publicParts.map(name => declarationsOf(join(src, 'client', `${name}.ts`)))
  put(join(out, 'client.d.ts'), declarations.join('\n').replaceAll(/^(?:import|export) .+ from "\.\/.+";\n/gm, ''))
  put(join(out, 'react.d.ts'), declarationsOf(react).replace('./client.ts', './client.js'))
}

function declarationsOf (file: string): string {
  const { code, errors } = isolatedDeclarationSync(file, readFileSync(file, 'utf8'))
  /* c8 ignore next: the build fails when a type has to be written out */
  if (errors.length > 0) throw new Error(`${file}: ${JSON.stringify(errors)}`)
  return code
}

function put (file: string, content: string | Uint8Array): void {
  const half = `${file}.${process.pid}`
  writeFileSync(half, content)
  renameSync(half, file)
}

/**
 * Files that are read at run time lie beside the bundle as they lie beside the source, and all chunks lie in `src/`:
 * a file that asks for its own folder gets the one it would have there.
 */
const ownFolders: Plugin = {
  name: 'own-folders',
  transform: {
    filter: { id: new RegExp(`^${RegExp.escape(src)}/`), code: 'import.meta.dirname' },
    handler: (code, id) => ({
      code: code.replaceAll('import.meta.dirname', `\`\${__dirname}/${relative(src, dirname(id))}\``),
      map: null // no line is moved
    })
  }
}

async function bundle (out: string): Promise<readonly OutputChunk[]> {
  const build = await rolldown({
    input: {
      main: join(src, 'main.ts'),
      cli: join(src, 'cli.ts'),
      sandbox: join(src, 'sandbox/main.ts'),
      'stack-traces': join(root, 'bin/stack-traces.ts')
    },
    platform: 'node',
    plugins: [ownFolders]
  })
  const { output } = await build.write({
    dir: join(out, 'src'),
    // A CommonJS file is held in memory once, a module twice; and `import … from 'node:http'` loads Node's own undici.
    format: 'cjs',
    // Any other letter doubles what a file takes in memory: two bytes for each.
    charset: 'ascii',
    // Not minified: a megabyte less would make stacks that nobody can read.
    comments: false,
    // Left to itself, the bundler forgets the `use strict` of every module.
    strict: true,
    postBanner: ({ name }) => name === 'cli' ? '#!/usr/bin/env node' : '',
    intro: ({ name, isEntry }) => isEntry && name !== 'stack-traces' ? "require('./stack-traces.cjs')" : '',
    entryFileNames: '[name].cjs',
    // The two `store.ts` are `sqlite-store` and `redis-store`: the image asks for them by name.
    chunkFileNames: ({ facadeModuleId: id, name }) => name === 'store' ? `${basename(dirname(id!))}-store.cjs` : '[name].cjs',
    sourcemap: 'hidden',
    sourcemapExcludeSources: true,
    sourcemapPathTransform: (source, map) => relative(src, join(dirname(map), source)),
    // Packages apart from ours, so that ours alone need a map; those of one store or of the sandbox by themselves.
    codeSplitting: { groups: [{ name: 'packages', test: /[\\/]node_modules[\\/]/, entriesAware: true }] }
  })
  return output.filter(item => item.type === 'chunk')
}

/** The licences of all that is in the bundle: most ask to go along with every copy. */
function licences (chunks: readonly OutputChunk[]): string {
  const files = chunks.flatMap(({ moduleIds }) => moduleIds)
  const folders = new Set(files.flatMap(file => file.match(/^.*[\\/]node_modules[\\/](?:@[^\\/]+[\\/])?[^\\/]+/) ?? []))
  return [...folders].sort().map(folder => {
    const { name, version, license } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'))
    const [file] = globSync('{LICENSE,LICENCE,license,licence,License,COPYING}*', { cwd: folder })
    /* c8 ignore next: the build fails when it happens */
    if (file === undefined && license === undefined) throw new Error(`${name} has no licence`)
    const text = file === undefined ? '' : `\n${readFileSync(join(folder, file), 'utf8').trim()}\n`
    return `${name} ${version} (${license})\n${text}`
  }).join(`\n${'-'.repeat(80)}\n\n`)
}

/**
 * What the container image runs, made of `src/` and the packages that it needs: a folder that is complete in itself,
 * without node_modules. It starts in half the time and with a third less memory, as Node keeps for each of 1,500 small
 * files more than what stands in it. Everything else runs the source.
 */
export async function buildServer (out: string): Promise<void> {
  rmSync(out, { recursive: true, force: true })
  const chunks = await bundle(out)
  const read = globSync('**/*.{html,css,js,json,lua,txt}', { cwd: src })
  for (const file of read) cpSync(join(src, file), join(out, 'src', file))
  for (const path of ['config', 'LICENSE']) cpSync(join(root, path), join(out, path), { recursive: true })
  const { name, version, type, license } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))
  writeFileSync(join(out, 'package.json'), `${JSON.stringify({ name, version, type, license }, null, 2)}\n`)
  chmodSync(join(out, 'src/cli.cjs'), 0o755)
  writeFileSync(join(out, 'THIRD-PARTY-LICENSES'), licences(chunks))
  // A map of packages would be six times as long, and half a second's work at the first stack.
  for (const { fileName } of chunks) if (/^packages/.test(fileName)) rmSync(join(out, 'src', `${fileName}.map`))
  // Where a gateway that runs from there looks for it.
  await buildClient(join(out, 'dist'))
}

if (import.meta.main) await buildServer(resolve(process.argv[2]!))
