#!/usr/bin/env bash
# TypeScript's own "Move to file" does not move text: it prints the syntax tree anew, and numbers lose their separators.
#
# Seen with typescript 6.0.3's language service, refactoring "Move to file", on valid sources that compile before and after.
# - `const day = 86_400_000` arrives as `86400000`: separators of digits are gone. (`0x1F` and `1e3` stay as they stand.)
# - comments and blank lines inside of what is moved stay.
# A house that moves code by editors' refactorings sees changed lines in what was called a pure move, and `git blame -M -C`
# no longer follows them.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
npm init -y >/dev/null
npm install --no-audit --no-fund --silent typescript@6.0.3
cat > from.ts <<'TS'
export const day = 86_400_000
export const mask = 0x1F
export const kilo = 1e3
export interface Row {
  id: string // kept

  name: string
}
export const stays = day
TS
echo 'export const there = true' > to.ts
cat > see.mjs <<'JS'
import { readFileSync } from 'node:fs'
import ts from 'typescript'

const names = ['from.ts', 'to.ts'].map(name => `${process.cwd()}/${name}`)
const texts = new Map(names.map(name => [name, readFileSync(name, 'utf8')]))
const host = {
  getCompilationSettings: () => ({ module: ts.ModuleKind.ESNext, target: ts.ScriptTarget.ESNext, allowImportingTsExtensions: true, noEmit: true, types: [] }),
  getScriptFileNames: () => names,
  getScriptVersion: () => '1',
  getScriptSnapshot: name => {
    const text = texts.get(name) ?? ts.sys.readFile(name)
    return text === undefined ? undefined : ts.ScriptSnapshot.fromString(text)
  },
  getCurrentDirectory: () => process.cwd(),
  getDefaultLibFileName: ts.getDefaultLibFilePath,
  fileExists: ts.sys.fileExists,
  readFile: ts.sys.readFile
}
const service = ts.createLanguageService(host)
const text = texts.get(names[0])
const format = { ...ts.getDefaultFormatCodeSettings('\n'), indentSize: 2, semicolons: ts.SemicolonPreference.Remove }
const { edits } = service.getEditsForRefactor(
  names[0], format, { pos: 0, end: text.indexOf('export const stays') - 1 }, 'Move to file', 'Move to file',
  {}, { targetFile: names[1] }
)
const moved = edits.find(edit => edit.fileName === names[1]).textChanges.map(change => change.newText).join('')
console.log(moved)
const seen = {
  separators: moved.includes('86_400_000'), plain: moved.includes('86400000'), hex: moved.includes('0x1F'), exponent: moved.includes('1e3'),
  comment: moved.includes('// kept'), blankLine: /kept\n\n/.test(moved)
}
console.log(seen)
const expected = { separators: false, plain: true, hex: true, exponent: true, comment: true, blankLine: true }
const same = JSON.stringify(seen) === JSON.stringify(expected)
console.log(same ? 'as it was seen' : 'CHANGED')
process.exit(same ? 0 : 1)
JS
node see.mjs
