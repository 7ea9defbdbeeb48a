'use strict'

const search = document.getElementById('search')
const none = document.getElementById('none')
const sections = Array.from(document.querySelectorAll('section'), section => ({
  section,
  parts: Array.from(section.querySelectorAll('details, tr'), part => ({ part, text: part.textContent.toLowerCase() }))
}))

/** Shows what has all the words that were typed. */
function filter () {
  const words = search.value.toLowerCase().split(/\s+/)
  let found = false
  for (const { section, parts } of sections) {
    let hasAny = false
    for (const { part, text } of parts) {
      part.hidden = !words.every(word => text.includes(word))
      hasAny ||= !part.hidden
    }
    section.hidden = !hasAny
    found ||= hasAny
  }
  none.hidden = found
}

/** A link to a part opens it, and shows it whatever was typed. */
function openTarget () {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)))
  if (target === null) return
  if (target.closest('[hidden]') !== null) {
    search.value = ''
    filter()
  }
  if (target.tagName === 'DETAILS') target.open = true
  target.scrollIntoView()
}

search.addEventListener('input', filter)
window.addEventListener('hashchange', openTarget)
openTarget()
