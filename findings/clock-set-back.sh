#!/usr/bin/env bash
# A wall clock that is set back an hour (NTP after a bad start, a restored machine) holds up some limiters and breakers for
# that hour, and others not at all.
#
# Seen with p-queue 10.0.0, bottleneck 2.19.5, cockatiel 4.0.0, opossum 10.0.0, lru-cache 11.5.3 on Node 24:
# - p-queue's interval (300 ms, 2 calls, plain and `strict`): the third call does not run; nothing is thrown.
# - bottleneck's `minTime` (200 ms) and its reservoir (refilled each 250 ms): the second call does not run.
# - cockatiel's breaker (`halfOpenAfter` 300 ms): still refuses long after.
# - opossum's breaker (a timer) and lru-cache's `ttl` (`performance.now`) take no notice.
# What goes by `Date.now()` waits for the clock to catch up. A queue before a paid API stands still, in silence.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
npm init -y >/dev/null
npm install --no-audit --no-fund --silent p-queue@10.0.0 bottleneck@2.19.5 cockatiel@4.0.0 opossum@10.0.0 lru-cache@11.5.3
cat > see.mjs <<'JS'
import Bottleneck from 'bottleneck'
import { circuitBreaker, ConsecutiveBreaker, handleAll } from 'cockatiel'
import { LRUCache } from 'lru-cache'
import CircuitBreaker from 'opossum'
import PQueue from 'p-queue'

const machineNow = Date.now
let offsetMs = 0
Date.now = () => machineNow() + offsetMs
const setBack = () => { offsetMs = -3_600_000 }
const setRight = () => { offsetMs = 0 }
const wait = ms => new Promise(resolve => setTimeout(resolve, ms))
const soon = async promise => await Promise.race([
  promise.then(() => 'runs', () => 'refused'), wait(1500).then(() => 'does not run')
])
const seen = {}

for (const strict of [false, true]) {
  setRight()
  const queue = new PQueue({ interval: 300, intervalCap: 2, strict })
  await queue.add(() => {})
  await queue.add(() => {})
  setBack()
  seen[`p-queue${strict ? ' strict' : ''}`] = await soon(queue.add(() => {}))
}
for (const [name, options] of Object.entries({
  'bottleneck minTime': { minTime: 200 },
  'bottleneck reservoir': { reservoir: 1, reservoirRefreshAmount: 1, reservoirRefreshInterval: 250 }
})) {
  setRight()
  const limiter = new Bottleneck(options)
  await limiter.schedule(async () => {})
  setBack()
  seen[name] = await soon(limiter.schedule(async () => {}))
}
const once = async fire => {
  setRight()
  await fire().catch(() => {})
  setBack()
  await wait(600)
  return await soon(fire())
}
let calls = 0
const failsOnce = async () => { if (calls++ === 0) throw new Error('the first one fails') }
const policy = circuitBreaker(handleAll, { halfOpenAfter: 300, breaker: new ConsecutiveBreaker(1) })
seen['cockatiel halfOpenAfter'] = await once(() => policy.execute(failsOnce))
calls = 0
const breaker = new CircuitBreaker(failsOnce, { resetTimeout: 300, volumeThreshold: 1, errorThresholdPercentage: 1 })
seen['opossum resetTimeout'] = await once(() => breaker.fire())
setRight()
const cache = new LRUCache({ max: 1, ttl: 200 })
cache.set('a', 1)
setBack()
await wait(400)
seen['lru-cache ttl'] = cache.has('a') ? 'kept' : 'over'
console.log(seen)

const expected = {
  'p-queue': 'does not run',
  'p-queue strict': 'does not run',
  'bottleneck minTime': 'does not run',
  'bottleneck reservoir': 'does not run',
  'cockatiel halfOpenAfter': 'refused',
  'opossum resetTimeout': 'runs',
  'lru-cache ttl': 'over'
}
const same = JSON.stringify(seen) === JSON.stringify(expected)
console.log(same ? 'as it was seen' : 'CHANGED')
process.exit(same ? 0 : 1)
JS
node see.mjs
