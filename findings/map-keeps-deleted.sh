#!/usr/bin/env bash
# A Map whose entries come and go keeps some of what was deleted from it until a full collection.
#
# Seen with Node 24.21.0 (V8 13.6). A hundred thousand values of 450 bytes pass through a Map that never holds more than
# 33: each is deleted 32 later. After collections of the young generation alone some 7.6 MB of deleted values are still
# there. A Set does the same; an array of 32 places, each used again, leaves nothing. A full collection frees all. A Map
# moves to a new table when its old one is full of deletions, and the outgrown table stays linked to its successor: once
# one of them is old, what the later ones hold is kept with it.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
npm init -y >/dev/null
npm install --no-audit --no-fund --silent node@24.21.0
cat > main.mjs <<'JS'
const how = process.argv[2]
const used = () => process.memoryUsage().heapUsed / 1e6
const [map, set, flight, list] = [new Map(), new Set(), [], new Array(32).fill(null)]
gc()
gc()
const before = used()
for (let i = 0; i < 100_000; i++) {
  const value = { i, body: new Array(50).fill(i) }
  if (how === 'array') list[i % 32] = value
  else if (how === 'Map') {
    map.set(i, value)
    map.delete(i - 32)
  } else {
    set.add(value)
    if (flight[i % 32] !== undefined) set.delete(flight[i % 32])
    flight[i % 32] = value
  }
  if (i % 2000 === 1999) gc({ type: 'minor' })
}
for (let i = 0; i < 4; i++) gc({ type: 'minor' })
const young = used() - before
gc()
gc()
const verdict = megabytes => megabytes < 1 ? 'nothing is left' : megabytes > 3 ? 'more than 3 MB are left' : `${megabytes}`
console.log(`${how}: young collections: ${verdict(young)}; a full one: ${verdict(used() - before)}`)
JS
seen=$(for how in array Map Set; do node_modules/.bin/node --expose-gc main.mjs "$how"; done)
echo "$seen"
[ "$seen" = "array: young collections: nothing is left; a full one: nothing is left
Map: young collections: more than 3 MB are left; a full one: nothing is left
Set: young collections: more than 3 MB are left; a full one: nothing is left" ] || { echo CHANGED; exit 1; }
echo 'as it was seen'
