'use strict'
/* Buttons, and the beginning. */
/* global generate, logOut, lost, part, recall, refresh, say, signIn, suggest, visit */
/* exported tend */

/** Whatever goes wrong is said; nobody is left waiting. */
const tend = deed => deed().catch(error => {
  if (error.name !== 'AbortError') say(error instanceof TypeError ? `${lost} Try again in a minute.` : error.message)
})
/** One press at a time. The button is not disabled: it would lose the focus. */
const onPress = (id, deed) => {
  const button = part(id)
  const [target, type] = button.type === 'submit' ? [button.form, 'submit'] : [button, 'click']
  target.addEventListener(type, async event => {
    event.preventDefault()
    if (button.ariaDisabled === 'true') return
    button.ariaDisabled = 'true'
    await tend(deed)
    button.ariaDisabled = 'false'
  })
}

onPress('enter', () => signIn(part('token').value.trim()))
onPress('generate', generate)
onPress('visit', visit)
onPress('log-out', () => logOut(false))
onPress('log-out-everywhere', () => logOut(true))
part('model').addEventListener('change', suggest)
part('reveal').addEventListener('click', () => {
  const isShown = part('token').type === 'text'
  part('token').type = isShown ? 'password' : 'text'
  part('reveal').ariaPressed = String(!isShown)
})

recall()
tend(refresh)
