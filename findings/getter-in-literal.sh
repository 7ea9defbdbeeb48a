#!/usr/bin/env bash
# An object literal with a getter keeps what its getter reaches, when the object is long dead, until a full collection.
#
# Seen with Node 24.21.0 (V8 13.6). Ten thousand short-lived objects, each over an array of 500 numbers (4 kB), none kept.
# - a literal with a method, or a class with a getter: the young generation's collections leave nothing behind.
# - the same literal with a getter: 25.6 MB of arrays survive them all; one full collection frees everything.
# So a server that makes one such literal a request has everything which that request's closures reach promoted to the old
# generation: seen as scavenges of 15–70 ms where they took 2–4 ms after the getter had become a method. That a class does
# not do it points to the literal's own hidden class, which holds the closure of its getter.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
npm init -y >/dev/null
npm install --no-audit --no-fund --silent node@24.21.0
cat > main.mjs <<'JS'
class Sized {
  #value
  constructor (value) { this.#value = value }
  get size () { return this.#value.length }
}
const make = {
  method: value => ({ size () { return value.length } }),
  class: value => new Sized(value),
  getter: value => ({ get size () { return value.length } })
}[process.argv[2]]
const used = () => process.memoryUsage().heapUsed / 1e6
let last
const run = count => {
  for (let i = 0; i < count; i++) {
    last = make(new Array(500).fill(i))
    if (i % 500 === 499) gc({ type: 'minor' })
  }
  last = null
}
run(500)
gc()
gc()
const before = used()
run(10_000)
for (let i = 0; i < 4; i++) gc({ type: 'minor' })
const young = used() - before
gc()
gc()
const verdict = megabytes => megabytes < 2 ? 'nothing is left' : megabytes > 15 ? 'more than 15 MB are left' : `${megabytes}`
console.log(`${process.argv[2]}: young collections: ${verdict(young)}; a full one: ${verdict(used() - before)}`)
JS
seen=$(for how in method class getter; do node_modules/.bin/node --expose-gc main.mjs "$how"; done)
echo "$seen"
[ "$seen" = "method: young collections: nothing is left; a full one: nothing is left
class: young collections: nothing is left; a full one: nothing is left
getter: young collections: more than 15 MB are left; a full one: nothing is left" ] || { echo CHANGED; exit 1; }
echo 'as it was seen'
