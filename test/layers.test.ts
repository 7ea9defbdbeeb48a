import { globSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join, posix } from 'node:path'
import t from 'tap'
import ts from 'typescript'

const src = join(import.meta.dirname, '../src')
const files = globSync('**/*.ts', { cwd: src, exclude: name => name.endsWith('.d.ts') }).sort()

/** Each layer, its files, and what it may import beside itself. Inner ones first. */
const layers = [
  // Runs in browsers: it has nothing from anywhere else.
  { name: 'client', files: /^client\//, imports: [] },
  { name: 'errors', files: /^errors\.ts$/, imports: [] },
  { name: 'domain', files: /^domain\//, imports: ['errors'] },
  { name: 'adapters', files: /^adapters\//, imports: ['errors', 'domain'] },
  { name: 'http', files: /^http\//, imports: ['errors', 'domain'] },
  { name: 'words', files: /^settings\/schema-words\.ts$/, imports: [] },
  { name: 'sections', files: /^features\/[^/]+\/settings\.ts$/, imports: ['words'] },
  { name: 'features', files: /^features\//, imports: ['errors', 'domain', 'http', 'sections'] },
  { name: 'sandbox', files: /^sandbox\//, imports: ['errors', 'domain'] },
  { name: 'settings', files: /^settings(?:\/.+)?\.ts$/, imports: ['errors', 'domain', 'words', 'sections'] },
  { name: 'stores', files: /^stores\.ts$/, imports: ['errors', 'domain', 'adapters', 'settings'] },
  {
    name: 'gateway',
    files: /^(?:alarms|features|gateway|routes|services)\.ts$/,
    imports: ['errors', 'domain', 'adapters', 'http', 'features', 'settings', 'stores']
  },
  { name: 'demo', files: /^demo\.ts$/, imports: ['gateway', 'sandbox', 'settings'] },
  { name: 'package', files: /^package\//, imports: ['http', 'gateway', 'settings'] },
  { name: 'main', files: /^main\.ts$/, imports: ['gateway', 'settings'] },
  { name: 'cli', files: /^cli(?:\/.+)?\.ts$/, imports: ['main', 'gateway', 'demo', 'stores', 'domain', 'features', 'settings'] }
] as const

/** Packages that have one place each: the rest of the program does not know them. */
const homes = [
  { names: /^undici$/, home: /^adapters\/undici\// },
  { names: /^node:sqlite$/, home: /^adapters\/sqlite\// },
  { names: /^ioredis$/, home: /^adapters\/redis\// },
  { names: /^altcha-lib(?:\/.+)?$/, home: /^features\/guests\/proofs\.ts$/ },
  { names: /^jose$/, home: /^adapters\/[^/]+-sessions(?:\/[^/]+)?\.ts$/ },
  { names: /^(?:fastify|@fastify\/(?!error$).+)$/, home: /^(?:http\/|features\/|package\/|(?:gateway|routes|services)\.ts$)/ },
  { names: /^@fastify\/error$/, home: /^errors\.ts$/ },
  { names: /^temporal-polyfill$/, home: /^domain\/windows\.ts$/ }
]

/** Files, sockets, databases and timers: what rules must not touch. */
const outside =
  /^(?:fastify|undici|pino|node:(?:fs|sqlite|net|tls|http|https|dns|child_process|timers|process)(?:\/.+)?)$/

/** They act when they are loaded; processes of their own run them in other tests. */
const actors = new Set(['main.ts', 'cli.ts', 'sandbox/main.ts'])

interface Import {
  readonly file: string
  readonly name: string
  readonly target: string | null
}

/** Every import, dynamic ones, re-exports and types included. `target`: the file it leads to, `null` for packages. */
async function importsOf (file: string): Promise<Import[]> {
  const { importedFiles } = ts.preProcessFile(await readFile(join(src, file), 'utf8'), true, true)
  return importedFiles.map(({ fileName: name }) => ({
    file,
    name,
    target: name.startsWith('.') ? posix.join(posix.dirname(file), name) : null
  }))
}

/** What a file loads when it is loaded: no types, and nothing that it loads later. */
async function runtimeImports (): Promise<Array<{ readonly file: string, readonly target: string }>> {
  const all = await Promise.all(
    files.map(async file => {
      const { statements } = ts.createSourceFile(file, await readFile(join(src, file), 'utf8'), ts.ScriptTarget.Latest)
      return statements.flatMap(statement => {
        const isType = ts.isImportDeclaration(statement)
          ? isTypeOnly(statement)
          : ts.isExportDeclaration(statement)
            ? statement.isTypeOnly
            : true
        const specifier = isType
          ? undefined
          : ((statement as ts.ImportDeclaration).moduleSpecifier as ts.StringLiteral | undefined)
        return specifier?.text.startsWith('.')
          ? [{ file, target: posix.join(posix.dirname(file), specifier.text) }]
          : []
      })
    })
  )
  return all.flat()
}

function isTypeOnly ({ importClause }: ts.ImportDeclaration): boolean {
  if (importClause === undefined) return false
  const { namedBindings, name } = importClause
  const named = namedBindings !== undefined && ts.isNamedImports(namedBindings) ? namedBindings.elements : undefined
  return (
    importClause.phaseModifier === ts.SyntaxKind.TypeKeyword ||
    (name === undefined && named !== undefined && named.every(({ isTypeOnly }) => isTypeOnly))
  )
}

function layerOf (file: string) {
  return layers.find(layer => layer.files.test(file))
}

/** `sqlite` of `adapters/sqlite/store.ts`: a folder of adapters is one adapter, and so is a file by itself. */
function partOf (file: string): string {
  return file.split('/')[1]!
}

const imports = (await Promise.all(files.map(importsOf))).flat()

function wrong (list: readonly Import[]): string[] {
  return list.map(({ file, name }) => `${file} imports ${name}`)
}

t.test('every file belongs to a layer, and the search for imports finds them', async t => {
  t.strictSame(
    files.filter(file => layerOf(file) === undefined),
    []
  )
  t.ok(
    imports.some(({ file, target }) => file === 'cli/server.ts' && target === 'main.ts'),
    'also dynamic ones'
  )
  t.ok(
    imports.some(({ file, target }) => file === 'settings.ts' && target === 'settings/dot-env.ts'),
    'also re-exports'
  )
})

t.test('imports point inward', async t => {
  const outward = imports.filter(({ file, target }) => {
    if (target === null) return false
    const [from, to] = [layerOf(file), layerOf(target)]
    return from !== to && !from!.imports.some(name => name === to?.name)
  })
  t.strictSame(wrong(outward), [])
})

t.test('adapters do not know each other, and no optional product knows another', async t => {
  const among = (folder: string) => imports.filter(
    ({ file, target }) =>
      target !== null && file.startsWith(folder) && target.startsWith(folder) && partOf(file) !== partOf(target)
  )
  t.strictSame(wrong(among('adapters/')), [])
  t.strictSame(wrong(among('features/')), [])
})

t.test('an optional product is one to six files beside its section of settings', async t => {
  const own = files.filter(file => file.startsWith('features/') && layerOf(file)!.name !== 'sections')
  const perProduct = Map.groupBy(own, partOf)
  t.ok(perProduct.size >= 9)
  t.strictSame([...perProduct].filter(([, its]) => its.length > 6).map(([name]) => name), [])
})

t.test('the rules of the domain know no framework, no file and no socket', async t => {
  t.strictSame(wrong(imports.filter(({ file, name }) => layerOf(file)!.name === 'domain' && outside.test(name))), [])
})

t.test('the client runs in any browser: its hook needs React, the rest no package, and nothing of Node', async t => {
  const outside = imports.filter(({ file, target }) => layerOf(file)!.name === 'client' && target === null)
  t.strictSame(wrong(outside), ['client/react.ts imports react'])
})

t.test('each technology has one place', async t => {
  for (const { names, home } of homes) {
    t.strictSame(wrong(imports.filter(({ file, name }) => names.test(name) && !home.test(file))), [], String(names))
    t.ok(
      imports.some(({ file, name }) => names.test(name) && home.test(file)),
      `${names} is there`
    )
  }
})

// A section of settings is read without the rest of its product.
t.test('a file is a subject: 60 to 500 lines, and one that is shorter has two importers', async t => {
  for (const file of files) {
    const lines = (await readFile(join(src, file), 'utf8')).split('\n').length - 1
    const importers = new Set(imports.filter(({ target }) => target === file).map(({ file }) => file)).size
    t.ok(
      lines <= 500 && (lines >= 60 || importers >= 2 || actors.has(file) || layerOf(file)!.name === 'sections'),
      `${file}: ${lines} lines, ${importers} importers`
    )
  }
})

t.test('no file needs itself, by whichever way, before it has run', async t => {
  const needs = new Map<string, string[]>()
  for (const { file, target } of await runtimeImports()) needs.set(file, [...(needs.get(file) ?? []), target])
  const reaches = (from: string, to: string, seen = new Set<string>()): boolean =>
    (needs.get(from) ?? []).some(next => next === to || (!seen.has(next) && reaches(next, to, seen.add(next))))
  t.strictSame(
    files.filter(file => reaches(file, file)),
    []
  )
  t.ok(reaches('gateway.ts', 'errors.ts'), 'the search follows imports')
})

// Coverage knows the files that were loaded: one that no test imports would be missing from it, and the sum say 100 %.
t.test('every file can be loaded by itself', async t => {
  for (const file of files.filter(file => !actors.has(file))) {
    await t.resolves(import(join(src, file)), file)
  }
})
