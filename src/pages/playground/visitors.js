'use strict'
/* Visitors, where the gateway lets them in: each session and each submit costs some work (https://altcha.org). */
/* global call, part, reasonOf, say, signIn */
/* exported offerVisit, proveFor, visit */

const offerVisit = async () => {
  // Without https a browser has no cryptography for it.
  part('visit').hidden = !crypto.subtle || !(await call('/gateway/sessions/guest/challenge')).ok
}

const visit = async () => {
  say('')
  const entered = await call('/gateway/sessions/guest', { method: 'POST', headers: { 'x-apixo-proof': await proveFor('/gateway/sessions/guest/challenge') } })
  if (entered.ok) await signIn(entered.json.token)
  else say(reasonOf(entered))
}

const proveFor = async path => {
  const { ok, json: challenge, ...refused } = await call(path)
  if (!ok) throw new Error(reasonOf({ ...refused, json: challenge }))
  const { nonce, salt, cost, keyLength, keyPrefix } = challenge.parameters
  const bytes = hex => Uint8Array.from(hex.match(/../g), byte => parseInt(byte, 16))
  const pbkdf2 = { name: 'PBKDF2', hash: 'SHA-256', salt: bytes(salt), iterations: cost }
  for (let counter = 0; ; counter++) {
    const password = bytes(nonce + counter.toString(16).padStart(8, '0'))
    const key = await crypto.subtle.importKey('raw', password, 'PBKDF2', false, ['deriveBits'])
    const bits = new Uint8Array(await crypto.subtle.deriveBits(pbkdf2, key, keyLength * 8))
    const derivedKey = Array.from(bits, byte => byte.toString(16).padStart(2, '0')).join('')
    if (derivedKey.startsWith(keyPrefix)) return btoa(JSON.stringify({ challenge, solution: { counter, derivedKey } }))
  }
}
