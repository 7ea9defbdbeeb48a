'use strict'
/* Who is signed in, and what is shown then. */
/* global bearer, call, clearRequest, clearTasks, counted, endStay, inThisTab, keep, listModels, listTasks, offerVisit, part, reasonOf, say, time */
/* exported logOut, refresh, signIn */

/** Why a cookie would not last here. Such a browser drops it without a word, and the swap has used up the token. */
const whyNoCookie = () => {
  if (!isSecureContext) return `This page came without https, so the browser keeps no session cookie: ${inThisTab}`
  return navigator.cookieEnabled && keepsCookies() ? null : `This browser keeps no cookies for this page: ${inThisTab}`
}

/** Of the kind of the session's: without https Safari keeps none of them on localhost, secure context or not. */
const keepsCookies = () => {
  const [probe, place] = ['__Host-apixo_probe=1', 'Secure; Path=/; SameSite=Strict']
  document.cookie = `${probe}; ${place}`
  const isKept = document.cookie.split('; ').includes(probe)
  document.cookie = `${probe}; ${place}; Max-Age=0`
  return isKept
}

const signIn = async token => {
  say('')
  if (!/^[\w.~+/=-]+$/.test(token)) return say('This is no session token: it has letters, digits and dots, and no spaces.')
  const why = whyNoCookie()
  if (why !== null) return await tryBearer(token, why)
  const swapped = await call('/gateway/sessions/cookie', { method: 'POST', token })
  // A gateway behind a proxy that it does not know takes this page for another's.
  const isRefused = swapped.status === 400 || swapped.status === 403
  if (isRefused) return await tryBearer(token, `The gateway set no session cookie: ${inThisTab} ${reasonOf(swapped)}`)
  if (!swapped.ok) return say(reasonOf(swapped))
  keep(null)
  if ((await call('/gateway/session')).status !== 401) return await refresh()
  const isSpent = (await call('/gateway/session', { token })).status === 401
  if (isSpent) return say('This browser kept no session cookie, and the token was used up by it. Allow cookies for this page, and sign in with a new token.')
  await tryBearer(token, `This browser kept no session cookie: ${inThisTab}`)
}

const tryBearer = async (token, why) => {
  const answer = await call('/gateway/session', { token })
  if (!answer.ok) return say(reasonOf(answer))
  keep({ token, why })
  await refresh()
}

/** Who is signed in, and what is left; the one place that finds out that nobody is. */
const refresh = async () => {
  const answer = await call('/gateway/session')
  if (answer.ok) return await enter(answer.json)
  if (answer.status !== 401) return say(reasonOf(answer))
  const wasIn = bearer !== null || answer.code === 'GW_BAD_SESSION' || !part('desk').hidden
  if (part('entry').hidden) leave(wasIn ? 'Your session has ended. Sign in again.' : '')
}

const logOut = async everywhere => {
  const isToken = part('account').dataset.subject.startsWith('token:')
  if (everywhere && isToken && !confirm('This ends all your sessions, and your token with them. Go on?')) return
  // Who logs out with a person's token would end it for good; it is enough that this tab forgets it.
  if (everywhere || !isToken || bearer === null) {
    const answer = await call(`/gateway/session${everywhere ? '?everywhere=true' : ''}`, { method: 'DELETE' })
    if (!answer.ok && answer.status !== 401) return say(reasonOf(answer))
  }
  leave('')
  part('token').focus()
}

const view = name => {
  for (const id of ['entry', 'desk']) part(id).hidden = id !== name
  for (const id of ['account', 'exits']) part(id).hidden = name !== 'desk'
  part('why').textContent = bearer?.why ?? ''
  part('why').hidden = bearer === null
  document.querySelector('main').classList.toggle('wide', name === 'desk')
}

const enter = async ({ subject, plan, credits, uses }) => {
  const isByHand = !part('entry').hidden
  // Another tab has logged out, and in as somebody else.
  if (!part('desk').hidden && part('account').dataset.subject !== subject) leave('')
  const isNew = part('desk').hidden
  part('account').dataset.subject = subject
  part('subject').textContent = subject.startsWith('guest:') ? 'A visitor' : subject.slice(subject.indexOf(':') + 1)
  part('plan').textContent = plan
  part('credits').textContent = leftOf(credits, uses)
  part('token').value = ''
  view('desk')
  // At once: when the lists are there, a person may be typing elsewhere.
  if (isByHand) part('prompt').focus()
  if (isNew) await Promise.all([listModels(), listTasks()])
}

const leave = problem => {
  endStay()
  keep(null)
  clearRequest()
  clearTasks()
  view('entry')
  say(problem)
  offerVisit().catch(() => { /* Then there is nothing to offer. */ })
}

const leftOf = ({ left, resetsAt, session }, uses) => [
  left === null ? 'No limit on credits' : `${counted(left, 'credit')} left, renewed on ${time(resetsAt)}`,
  ...session === null ? [] : [`${counted(session.left, 'credit')} in this session`],
  ...uses === null ? [] : [`${counted(uses.left, 'submit')} in this session`]
].join(' · ')
