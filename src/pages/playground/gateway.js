'use strict'
/* Calls to the gateway. The session is in a cookie that no script can read, else in this tab. */
/* exported bearer, call, endStay, inThisTab, keep, reasonOf, recall, stay */

const place = 'apixo-session'
const inThisTab = 'the token stays in this tab until you close it.'
/** `{ token, why }` where there is no cookie, else `null`. */
let bearer = null

const keep = kept => {
  bearer = kept
  try {
    if (kept === null) sessionStorage.removeItem(place)
    else sessionStorage.setItem(place, JSON.stringify(kept))
  } catch { /* A browser that keeps nothing at all: the token lasts until the page is loaded again. */ }
}
const recall = () => {
  try {
    bearer = JSON.parse(sessionStorage.getItem(place))
  } catch { /* As above. */ }
}

/** Ends with the session: what one has asked for is not shown in the next, nor asked for in its name. */
let stay = new AbortController()
const endStay = () => {
  stay.abort()
  stay = new AbortController()
}

/** Throws when there is no answer at all, or nobody is here any more who has asked. */
const call = async (path, { method = 'GET', headers = {}, body, token = bearer?.token, signal = stay.signal } = {}) => {
  if (token) headers = { ...headers, authorization: `Bearer ${token}` }
  if (body) headers = { ...headers, 'content-type': 'application/json' }
  signal.throwIfAborted()
  const response = await fetch(path, { method, headers, body, signal })
  const json = await response.json().catch(() => null)
  signal.throwIfAborted()
  return { ok: response.ok, status: response.status, code: response.headers.get('x-gateway-error'), json }
}
const reasonOf = ({ status, code, json }) => `${json?.message ?? 'The gateway does not answer right now.'} (${code ?? status})`
