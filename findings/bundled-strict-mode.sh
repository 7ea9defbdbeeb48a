#!/usr/bin/env bash
# rolldown takes "use strict" out of what it bundles as CommonJS: what threw before is then done, or ignored, in silence.
#
# Seen with rolldown 1.3.3, `format: 'cjs'`, its default options, on Node 24. Two modules with one mistake each, a write to
# a frozen object: an ES module (strict by its nature) and a CommonJS module that begins with "use strict".
# - run as they stand: both throw TypeError.
# - bundled: neither throws; there is no "use strict" anywhere in the output, not even inside of the CommonJS module's
#   wrapper, where its author had put one.
# - bundled with `output.strict: true`: both throw again.
# esbuild 0.27.1 keeps the CommonJS module's directive, and loses the ES module's strictness as well.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
npm init -y >/dev/null
npm install --no-audit --no-fund --silent rolldown@1.3.3 esbuild@0.27.1
cat > common.cjs <<'JS'
'use strict'
const fixed = Object.freeze({ limit: 1 })
module.exports = () => { try { fixed.limit = 2; return 'silent' } catch (error) { return error.name } }
JS
cat > main.mjs <<'JS'
import common from './common.cjs'
const fixed = Object.freeze({ limit: 1 })
const own = () => { try { fixed.limit = 2; return 'silent' } catch (error) { return error.name } }
console.log(`ES module: ${own()}, CommonJS module: ${common()}`)
JS
cat > build.mjs <<'JS'
import { build as esbuild } from 'esbuild'
import { rolldown } from 'rolldown'
const bundle = await rolldown({ input: 'main.mjs', platform: 'node' })
await bundle.write({ file: 'auto.cjs', format: 'cjs' })
await bundle.write({ file: 'strict.cjs', format: 'cjs', strict: true })
await esbuild({ entryPoints: ['main.mjs'], bundle: true, platform: 'node', format: 'cjs', outfile: 'esbuild.cjs' })
JS
node build.mjs
seen=$(
  echo "as they stand: $(node main.mjs)"
  echo "rolldown: $(node auto.cjs); 'use strict' in the output: $(grep -c 'use strict' auto.cjs || true)"
  echo "rolldown, strict: $(node strict.cjs)"
  echo "esbuild: $(node esbuild.cjs)"
)
echo "$seen"
[ "$seen" = "as they stand: ES module: TypeError, CommonJS module: TypeError
rolldown: ES module: silent, CommonJS module: silent; 'use strict' in the output: 0
rolldown, strict: ES module: TypeError, CommonJS module: TypeError
esbuild: ES module: silent, CommonJS module: TypeError" ] || { echo CHANGED; exit 1; }
echo 'as it was seen'
