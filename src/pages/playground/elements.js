'use strict'
/* What the other scripts of this page are made of. */
/* exported counted, element, lost, part, say, time */

const part = id => document.getElementById(id)
const element = (name, properties, ...children) => {
  const it = Object.assign(document.createElement(name), properties)
  it.append(...children)
  return it
}
const say = problem => {
  part('problem').textContent = problem
  part('problem').hidden = problem === ''
}
const lost = 'The connection to the gateway failed.'

const time = text => new Date(text).toLocaleString(undefined, { dateStyle: 'medium', timeStyle: 'short' })
const counted = (count, noun) => `${count.toLocaleString()} ${noun}${count === 1 ? '' : 's'}`
