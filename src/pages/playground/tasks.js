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
  const listen = bearer === null ? listenByCookie : listenByToken
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

const listenByCookie = (path, signal, heard) => {
  const source = new EventSource(path)
  for (const type of ['state', 'results']) source.addEventListener(type, event => heard[type](JSON.parse(event.data)))
  source.onerror = () => {
    // It tries again by itself, but not after a refusal, and need not after the end.
    if (!heard.isOver() && source.readyState !== EventSource.CLOSED) return
    source.close()
    heard.end()
  }
  signal.addEventListener('abort', () => source.close())
}

/** `EventSource` sends no header, and a token in the address would be in logs and histories: the same stream, read by hand. */
const listenByToken = async (path, signal, heard) => {
  let lastId = null
  const tell = block => {
    const valueOf = name => block.split('\n').filter(line => line.startsWith(`${name}: `)).map(line => line.slice(name.length + 2)).join('\n')
    lastId = valueOf('id') || lastId
    heard[valueOf('event')]?.(JSON.parse(valueOf('data')))
  }
  while (!signal.aborted && !heard.isOver()) {
    try {
      const headers = { authorization: `Bearer ${bearer.token}`, ...lastId === null ? {} : { 'last-event-id': lastId } }
      const response = await fetch(path, { headers, signal })
      if (response.status !== 200) break
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader()
      for (let rest = '', chunk; !(chunk = await reader.read()).done;) {
        const blocks = (rest + chunk.value).split('\n\n')
        rest = blocks.pop()
        blocks.forEach(tell)
      }
    } catch { /* The connection was lost, or nobody listens any more. */ }
    if (!signal.aborted && !heard.isOver()) await new Promise(resolve => setTimeout(resolve, 3000))
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
