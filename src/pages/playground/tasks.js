'use strict'
/* The tasks and their results. */
/* global bearer, call, element, lost, part, reasonOf, refresh, say, tend, time */
/* exported clearTasks, listTasks, watch */

const states = { pending: 'Waiting for its turn…', processing: 'It is being made…', success: 'Done.' }
let watching = new AbortController()
const stop = () => watching.abort()
const clearTasks = () => {
  stop()
  part('task').hidden = true
  part('results').replaceChildren()
  part('tasks').replaceChildren()
}

const watch = (taskId, model) => {
  stop()
  const { signal } = watching = new AbortController()
  let isOver = false
  part('task-title').textContent = model
  part('state').textContent = states.pending
  part('results').replaceChildren()
  part('task').hidden = false
  listen(`/gateway/tasks/${encodeURIComponent(taskId)}/events`, signal, {
    state ({ data: { state, failMsg, failCode } }) {
      isOver = state === 'success' || state === 'failed'
      part('state').textContent = state === 'failed' ? `It failed: ${failMsg ?? 'no reason was given'} (${failCode ?? 'failed'})` : states[state] ?? state
    },
    results ({ results }) {
      results.forEach((link, index) => show(new URL(link, location.origin).pathname, `${model}, result ${index + 1}`, signal))
    },
    isOver: () => isOver,
    end () {
      if (!isOver) part('state').textContent = 'The gateway tells no more about this task. Look at it again from the list.'
      if (!signal.aborted) tend(() => Promise.all([refresh(), listTasks()]))
    }
  })
}

/** Too many at once, or a gateway that restarts: it passes. An `EventSource` would end for good at each of these. */
const isPassing = status => status === 429 || (status > 500 && status < 505)
/**
 * The stream, read by hand: `EventSource` sends no header (a token in the address would be in logs and histories), and says
 * of no refusal which it was.
 */
const listen = async (path, signal, heard) => {
  let lastId = null
  let retryMs = 3000
  const tell = block => {
    const valueOf = name => block.split('\n').filter(line => line.startsWith(`${name}: `)).map(line => line.slice(name.length + 2)).join('\n')
    lastId = valueOf('id') || lastId
    retryMs = Number(valueOf('retry')) || retryMs
    heard[valueOf('event')]?.(JSON.parse(valueOf('data')))
  }
  while (!signal.aborted && !heard.isOver()) {
    let waitMs = null
    try {
      const headers = { ...bearer === null ? {} : { authorization: `Bearer ${bearer.token}` }, ...lastId === null ? {} : { 'last-event-id': lastId } }
      const response = await fetch(path, { headers, signal })
      if (response.status !== 200) {
        if (!isPassing(response.status)) break
        waitMs = 1000 * response.headers.get('retry-after')
        response.body?.cancel()
      } else {
        const reader = response.body.pipeThrough(new TextDecoderStream()).getReader()
        for (let rest = '', chunk; !(chunk = await reader.read()).done;) {
          const blocks = (rest + chunk.value).split('\n\n')
          rest = blocks.pop()
          blocks.forEach(tell)
        }
      }
    } catch { /* The connection was lost, or nobody listens any more. */ }
    if (!signal.aborted && !heard.isOver()) await new Promise(resolve => setTimeout(resolve, Math.max(waitMs, retryMs)))
  }
  heard.end()
}

/** A ticket in the path is what lets the browser load a result by itself. Its first byte tells what it is. */
const show = async (path, alt, signal) => {
  const figure = element('figure', {})
  part('results').append(figure)
  const download = element('a', { href: `${path}?download=1`, download: '' }, 'Download')
  try {
    const response = await fetch(path, { headers: { range: 'bytes=0-0' }, signal })
    if (!response.ok) return figure.append(reasonOf({ status: response.status, code: response.headers.get('x-gateway-error'), json: await response.json() }))
    response.body.cancel()
    const [kind] = response.headers.get('content-type').split('/')
    if (kind === 'image') figure.append(element('img', { src: path, alt }))
    if (kind === 'video' || kind === 'audio') figure.append(element(kind, { src: path, controls: true, ariaLabel: alt }))
    figure.append(download)
  } catch {
    if (!signal.aborted) figure.append(lost)
  }
}

const listTasks = async () => {
  const { ok, json } = await call('/gateway/tasks?limit=10')
  if (!ok) return
  const focused = document.activeElement.dataset.taskId
  part('no-tasks').hidden = json.tasks.length > 0
  part('tasks').replaceChildren(...json.tasks.map(({ taskId, model, state, createdAt }) => {
    const button = element('button', { className: 'quiet', type: 'button', ariaLabel: `Show the task of ${model}, ${time(createdAt)}` }, 'Show')
    button.dataset.taskId = taskId
    button.addEventListener('click', () => {
      say('')
      watch(taskId, model)
      part('task-title').focus()
    })
    return element('li', {}, element('span', {}, model, element('small', {}, `${state}, ${time(createdAt)}`)), ...taskId === null ? [] : [button])
  }))
  part('tasks').querySelector(`[data-task-id="${CSS.escape(focused ?? '')}"]`)?.focus()
}
