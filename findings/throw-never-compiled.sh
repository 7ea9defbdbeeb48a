#!/usr/bin/env bash
# V8 never compiles a function that always ends by a throw: it runs in the interpreter however often it is called.
#
# Seen with Node 24.21.0 (V8 13.6). Two functions of the same six steps, called three million times; the error is made once,
# so neither pays for a stack. The one that returns the error is compiled; the one that throws it is not, and takes more
# than ten times as long (some 1,000 to 2,000 ns a call against 40 to 80). What counts towards compilation is spent at
# returns and at the back edges of loops, and this function has neither. A validator that says "no" by a throw is
# therefore at its slowest when it is flooded with what it refuses.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
npm init -y >/dev/null
npm install --no-audit --no-fund --silent node@24.21.0
cat > main.mjs <<'JS'
const error = new Error('no')
let sink = 0
function throwing (n) {
  const text = String(n)
  let sum = 0
  if (text.length > 2) sum += text.charCodeAt(0) + text.charCodeAt(1)
  sink = sum
  throw error
}
function returning (n) {
  const text = String(n)
  let sum = 0
  if (text.length > 2) sum += text.charCodeAt(0) + text.charCodeAt(1)
  sink = sum
  return error
}
const callers = {
  throwing: n => { try { throwing(n) } catch { sink++ } },
  returning: n => { returning(n) }
}
const isCompiled = { throwing: () => %GetOptimizationStatus(throwing), returning: () => %GetOptimizationStatus(returning) }
const ns = call => {
  const start = performance.now()
  for (let n = 0; n < 1_000_000; n++) call(n)
  return performance.now() - start
}
const least = { throwing: Infinity, returning: Infinity }
for (let round = 0; round < 3; round++) {
  for (const name of Object.keys(least)) least[name] = Math.min(least[name], ns(callers[name]))
}
for (const name of Object.keys(least)) console.log(`${name}: compiled ${(isCompiled[name]() & 32) !== 0}`)
console.log(`throwing takes more than ten times as long: ${least.throwing > 10 * least.returning}`)
JS
seen=$(node_modules/.bin/node --allow-natives-syntax main.mjs)
echo "$seen"
[ "$seen" = "throwing: compiled false
returning: compiled true
throwing takes more than ten times as long: true" ] || { echo CHANGED; exit 1; }
echo 'as it was seen'
