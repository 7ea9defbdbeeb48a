'use strict'
/* What is asked for. */
/* global call, counted, element, listTasks, lost, part, proveFor, reasonOf, refresh, say, stay, watch */
/* exported clearRequest, generate, listModels, suggest */

const categories = { image: 'Pictures', video: 'Videos', audio: 'Music and speech' }
const usual = { image: '{"mode":"text-to-image"}', video: '{"mode":"text-to-video"}', audio: '{"mode":"V5"}' }
/* Of several rules the last one is shown, before it the least that another asks for. */
const priceOf = ({ credits, per = [], rules = [] }) => {
  const least = Math.min(credits, ...rules.map(rule => rule.credits))
  const range = least < credits ? `${least} to ` : ''
  return [range + counted(credits, 'credit'), ...[per].flat().map(field => field.replace('input.', ''))].join(' × ')
}

const listModels = async () => {
  const { ok, json } = await call('/gateway/models')
  const groups = Object.entries(categories).map(([category, label]) => element('optgroup', { label },
    ...(ok ? json.models : []).filter(model => model.category === category).map(({ id, price }) => {
      const option = element('option', { value: id }, `${id}: ${priceOf(price)}`)
      option.dataset.category = category
      return option
    })))
  part('model').replaceChildren(...groups.filter(({ children }) => children.length > 0))
  if (part('model').value === '') part('model').append(element('option', { value: '' }, 'No model is listed for this session'))
  suggest()
}
/** What nobody has changed gives way to what is usual for the model. */
const suggest = () => {
  const options = part('options')
  if (options.value === '' || Object.values(usual).includes(options.value)) options.value = usual[part('model').selectedOptions[0].dataset.category] ?? '{}'
}

/** The JSON of a submit, or `null`. The options stay as they were typed: their numbers may have more digits than ours. */
const requestBody = () => {
  const text = part('options').value.trim() || '{}'
  let options = null
  try {
    options = JSON.parse(text)
  } catch { /* `null`, then. */ }
  const isGood = typeof options === 'object' && options !== null && !Array.isArray(options)
  part('options').setAttribute('aria-invalid', String(!isGood))
  if (!isGood) {
    say('The options are no JSON object. Write them like {"aspect_ratio":"1:1"}.')
    part('options').focus()
    return null
  }
  const comma = Object.keys(options).length === 0 ? '' : ','
  return `{"input":{"prompt":${JSON.stringify(part('prompt').value)}${comma}${text.slice(1)}}`
}

/** The last press of the button, while nobody knows what became of it. */
let press = null
const clearRequest = () => {
  press = null
  part('request').reset()
}
const newKey = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), byte => byte.toString(16).padStart(2, '0')).join('')

const generate = async () => {
  say('')
  const { signal } = stay
  const [model, body] = [part('model').value, requestBody()]
  if (body === null) return
  if (press?.model !== model || press.body !== body) press = { model, body, key: newKey() }
  const headers = { 'idempotency-key': press.key }
  if (part('account').dataset.subject.startsWith('guest:')) headers['x-apixo-proof'] = await proveFor('/gateway/session/challenge')
  const answer = await call(`/api/v1/generateTask/${encodeURIComponent(model)}`, { method: 'POST', headers, body, signal })
    .catch(() => {
      signal.throwIfAborted()
      throw new Error(`${lost} Press the button again: the gateway does not make the same task twice.`)
    })
  // Until an answer is certain the next press asks for it again, under the same key, and not for another task.
  if (answer.status < 500 && answer.status !== 409) press = null
  const taskId = answer.ok ? answer.json?.data?.taskId : undefined
  await Promise.all([refresh(), listTasks()])
  signal.throwIfAborted()
  if (!part('desk').hidden && taskId === undefined) say(reasonOf(answer))
  if (taskId === undefined) return
  watch(taskId, model)
  part('task').scrollIntoView({ block: 'nearest' })
}
