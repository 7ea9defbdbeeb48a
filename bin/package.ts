import { execFileSync } from 'node:child_process'
import { cpSync, globSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { buildClient } from './build.ts'

/**
 * `npm run package`: makes in `dist/package/`, or the folder named, what `npm pack` there makes a package of, for
 * programs that have the gateway in them. It is JavaScript with its declarations, file by file, as Node strips no types
 * below node_modules; and its package.json has what a user of the package needs, and nothing else of ours.
 */
const root = join(import.meta.dirname, '..')
const out = resolve(process.argv[2] ?? join(root, 'dist/package'))

interface Manifest {
  readonly dependencies: Readonly<Record<string, string>>
  readonly [field: string]: unknown
}

/** The packages that the compiled program loads, by their names in `import … from` and `import()`. */
function loadedPackages (): ReadonlySet<string> {
  const files = globSync('src/**/*.js', { cwd: out }).map(file => readFileSync(join(out, file), 'utf8'))
  const names = files.flatMap(text =>
    [...text.matchAll(/(?:from |import\(|^import )'((?:@[\w.-]+\/)?[\w.-]+)/gm)].map(([, name]) => name!))
  return new Set(names)
}

function manifestOf (source: Manifest): object {
  const { name, version, description, keywords, license, type, engines, imports, bin, dependencies } = source
  const loaded = loadedPackages()
  return {
    name,
    version,
    description,
    keywords,
    license,
    type,
    engines,
    imports,
    bin,
    exports: {
      '.': { types: './src/package/index.d.ts', default: './src/package/index.js' },
      './client': { types: './dist/client.d.ts', default: './dist/client.js' },
      './react': { types: './dist/react.d.ts', default: './dist/react.js' },
      './package.json': './package.json'
    },
    peerDependencies: { react: '>=18' },
    peerDependenciesMeta: { react: { optional: true } },
    dependencies: Object.fromEntries(Object.entries(dependencies).filter(([name]) => loaded.has(name)))
  }
}

rmSync(out, { recursive: true, force: true })
mkdirSync(out, { recursive: true })
execFileSync(process.execPath, [
  join(root, 'node_modules/typescript/bin/tsc'), '-p', root, '--outDir', join(out, 'src'), '--pretty', 'false'
], { stdio: 'inherit' })
for (const file of globSync('**/*.{html,css,js,json,lua,txt}', { cwd: join(root, 'src') })) {
  cpSync(join(root, 'src', file), join(out, 'src', file))
}
for (const file of ['config', 'LICENSE', 'README.md', 'CHANGELOG.md', 'SECURITY.md', 'bin/require-node.mjs']) {
  cpSync(join(root, file), join(out, file), { recursive: true })
}
const start = readFileSync(join(root, 'bin/apixo-gateway.mjs'), 'utf8')
writeFileSync(join(out, 'bin/apixo-gateway.mjs'), start.replace('../src/cli.ts', '../src/cli.js'), { mode: 0o755 })
await buildClient(join(out, 'dist'))
const manifest = manifestOf(JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')))
writeFileSync(join(out, 'package.json'), `${JSON.stringify(manifest, null, 2)}\n`)
