#!/usr/bin/env bash
# @fastify/cookie exports `serialize` and `parse`; they throw a TypeError until some Fastify instance has the plugin ready.
#
# Seen with @fastify/cookie 11.1.5 on fastify 5.12.8, Node 24. Its README shows both as utilities of the module. The library
# under them is imported when the plugin is registered, and held in a variable of the module:
# - before: TypeError "Cannot read properties of null"; `signerFactory` and `Signer` work all the same.
# - after `register` alone, without `ready`: still the TypeError.
# - once any instance is ready: they work in the whole process, also after that instance was closed.
# So a module that makes a cookie by itself works in an app's tests and not in a worker, a script or a test of its own, and
# whether it does hangs on what else ran before.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
npm init -y >/dev/null
npm install --no-audit --no-fund --silent fastify@5.12.8 @fastify/cookie@11.1.5
cat > see.mjs <<'JS'
import cookie from '@fastify/cookie'
import fastify from 'fastify'

const tried = call => { try { return call() } catch (error) { return error.name } }
const both = () => `${tried(() => cookie.serialize('a', 'b'))}, ${tried(() => cookie.parse('a=b').a)}`
const seen = { before: both(), signer: tried(() => typeof cookie.signerFactory('secret').sign('a')) }
const app = fastify()
app.register(cookie)
seen.registered = both()
await app.ready()
seen.ready = both()
await app.close()
seen.closed = both()
console.log(seen)

const broken = 'TypeError, TypeError'
const expected = { before: broken, signer: 'string', registered: broken, ready: 'a=b, b', closed: 'a=b, b' }
const same = JSON.stringify(seen) === JSON.stringify(expected)
console.log(same ? 'as it was seen' : 'CHANGED')
process.exit(same ? 0 : 1)
JS
node see.mjs
