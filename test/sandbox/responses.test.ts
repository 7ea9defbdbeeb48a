import { once } from 'node:events'
import type { Socket } from 'node:net'
import { gunzipSync } from 'node:zlib'
import { PNG } from 'pngjs'
import t, { type Test } from 'tap'
import { sandboxCases } from '../../src/sandbox/cases.ts'
import { drawable, picture, wrap } from '../../src/sandbox/pictures.ts'
import { resultLifeMs } from '../../src/sandbox/responses.ts'
import { key, rawSocket, rawSubmit, read, sandboxFor, until } from './client.ts'
import { lettersIn } from './letters-in.ts'

const messages = {
  400: 'Invalid request',
  401: 'Invalid or missing API key',
  402: 'Payment Required',
  403: 'Forbidden',
  404: 'Not Found',
  429: 'Too Many Requests',
  500: 'Server Error',
  503: 'Service Unavailable'
}

type Tools = Awaited<ReturnType<typeof sandboxFor>>
type Check = (call: () => Promise<Response>, tools: Tools, t: Test) => Promise<void>

/** Both doors of a case: a submit with its word, and the status of a task made with its status- word. */
async function eachDoor (t: Test, name: string, check: Check) {
  const tools = await sandboxFor(t)
  await t.test(`sandbox:${name}`, (t) => check(() => tools.submit(`a cube sandbox:${name}, blue`), tools, t))
  const id = await tools.taskId(`a cube sandbox:status-${name}, blue`)
  await t.test(`sandbox:status-${name}`, (t) => check(() => tools.status(id), tools, t))
}

/** What came over a bare connection, headers and all, until it ended. */
async function received (socket: Socket): Promise<string> {
  let text = ''
  socket.on('data', (chunk) => { text += String(chunk) })
  await once(socket, 'close')
  return text
}

t.test('every case has a name of its own and a line of meaning', async (t) => {
  t.equal(new Set(sandboxCases.map(({ name }) => name)).size, sandboxCases.length)
  for (const { name, meaning } of sandboxCases) {
    t.match(name, /^[a-z0-9]+(-[a-z0-9]+)*$/)
    t.match(meaning, /^[^\n]{10,90}$/, name)
  }
})

t.test('every case makes the task it says it makes, charges for it, and leaves the sandbox fit', async (t) => {
  for (const { name, makes } of sandboxCases) {
    const { sandbox, submit, taskId, balance } = await sandboxFor(t)
    await taskId('earlier')
    const answered = submit(`sandbox:${name}`).then((response) => response.body?.cancel(), () => {})
    await until(() => sandbox.submits.length === 2 && sandbox.submits[1]!.body.length > 0)
    const made = makes === 'task' ? 1 : 0
    t.equal(sandbox.tasks.size, 1 + made, name)
    t.equal(await balance(), made ? 99.94 : 99.97, name)
    sandbox.release()
    await answered
    t.equal((await submit('later')).status, 200, name)
    await sandbox.close()
  }
})

t.test('refusals come as HTTP statuses', async (t) => {
  for (const [code, message] of Object.entries(messages)) {
    await eachDoor(t, `http-${code}`, async (call, _, t) => {
      const response = await call()
      t.equal(response.status, Number(code))
      t.equal(response.headers.get('retry-after'), code === '429' ? '7' : null)
      t.match(await read(response), { code: Number(code), message })
    })
  }
})

t.test('refusals come as codes inside an HTTP 200', async (t) => {
  for (const [code, message] of Object.entries(messages)) {
    await eachDoor(t, `code-${code}`, async (call, _, t) => {
      const response = await call()
      t.equal(response.status, 200)
      t.match(await read(response), { code: Number(code), message })
    })
  }
})

t.test('an empty balance can be told with a 400', async (t) => {
  const { submit } = await sandboxFor(t)
  const response = await submit('sandbox:balance-400')
  t.equal(response.status, 400)
  t.strictSame(await read(response), { code: 400, message: 'Insufficient credits', data: null })
})

t.test('a CDN answers with a page', async (t) => {
  for (const code of [200, 404, 502]) {
    await eachDoor(t, `html-${code}`, async (call, _, t) => {
      const response = await call()
      t.equal(response.status, code)
      t.match(response.headers.get('content-type'), 'text/html')
      t.match(await response.text(), /^<!DOCTYPE html>/)
    })
  }
})

t.test('gateway errors come with an envelope', async (t) => {
  for (const code of [502, 504]) {
    await eachDoor(t, `json-${code}`, async (call, _, t) => {
      const response = await call()
      t.equal(response.status, code)
      t.match(await read(response), { code, data: null })
    })
  }
})

t.test('redirects lead to another host', async (t) => {
  for (const code of [302, 307, 308]) {
    await eachDoor(t, `redirect-${code}`, async (call, _, t) => {
      const response = await call()
      t.equal(response.status, code)
      t.equal(response.headers.get('location'), 'http://127.0.0.1:1/')
      t.equal(await response.text(), '')
    })
  }
  const { submit } = await sandboxFor(t, { redirectTo: 'https://elsewhere.example/x' })
  t.equal((await submit('sandbox:redirect-302')).headers.get('location'), 'https://elsewhere.example/x')
})

t.test('slow headers wait for their release', async (t) => {
  await eachDoor(t, 'slow-headers', async (call, { sandbox }, t) => {
    const answer = call()
    await until(() => sandbox.waiting === 1)
    sandbox.release()
    t.match(await read(await answer), { code: 200, data: { taskId: /./ } })
    t.equal(sandbox.waiting, 0)
  })
})

t.test('a slow body stops in its middle and waits for its release', async (t) => {
  await eachDoor(t, 'slow-body', async (call, { sandbox }, t) => {
    const response = await call()
    t.equal(response.status, 200)
    const reader = response.body!.getReader()
    const half = Buffer.from((await reader.read()).value!).toString()
    t.equal(half.length, Number(response.headers.get('content-length')) >> 1)
    sandbox.release()
    const rest = Buffer.from((await reader.read()).value!).toString()
    t.match(JSON.parse(half + rest), { code: 200, data: { taskId: /./ } })
  })
})

t.test('a release after the caller has hung up does no harm', async (t) => {
  const { sandbox, submit } = await sandboxFor(t)
  for (const name of ['slow-headers', 'slow-body']) {
    const socket = await rawSocket(t, sandbox, rawSubmit(`sandbox:${name}`))
    await until(() => sandbox.waiting === 1)
    socket.destroy()
    await submit('meanwhile')
    sandbox.release()
    t.equal((await submit('later')).status, 200)
  }
})

t.test('a cut body holds good JSON but less than its length says', async (t) => {
  await eachDoor(t, 'cut-body', async (call, _, t) => {
    const response = await call()
    t.equal(response.status, 200)
    await t.rejects(response.text())
  })
  const { sandbox } = await sandboxFor(t)
  const text = await received(await rawSocket(t, sandbox, rawSubmit('sandbox:cut-body')))
  const [head, body] = text.split('\r\n\r\n') as [string, string]
  t.match(JSON.parse(body), { code: 200, data: { taskId: /./ } })
  t.equal(Number(/content-length: (\d+)/.exec(head)?.[1]), body.length + 64)
})

t.test('an endless body is spaces until the reader goes away', async (t) => {
  await eachDoor(t, 'endless-body', async (call, _, t) => {
    const response = await call()
    let length = 0
    for await (const chunk of response.body!) {
      t.equal(Buffer.from(chunk).toString().trim(), '')
      length += chunk.length
      if (length > 1_000_000) break
    }
    t.ok(length > 1_000_000)
  })
})

t.test('an endless body goes no faster than it is read', async (t) => {
  const { sandbox, submit } = await sandboxFor(t)
  let written = () => 0
  // A first answer by hand, to get hold of the sandbox's end of the connection.
  sandbox.next(({ socket }, response) => {
    written = () => socket.bytesWritten
    response.end('{}')
  })
  const socket = await rawSocket(t, sandbox, rawSubmit('first'))
  await once(socket, 'data')
  socket.pause()
  socket.write(rawSubmit('sandbox:endless-body'))
  await until(() => sandbox.tasks.size === 1)
  let before = -1
  // Twenty requests come and go and not a byte more is written: the pipe is full. Without back-pressure it never is.
  while (before !== written()) {
    before = written()
    for (let n = 0; n < 20; n++) await submit('meanwhile')
  }
  t.ok(before > 16_384 && before < 64_000_000, `stopped after ${before} bytes`)
})

t.test('an answer can be compressed unasked', async (t) => {
  const { sandbox } = await sandboxFor(t)
  const socket = await rawSocket(t, sandbox, rawSubmit('sandbox:gzip'))
  const [bytes] = await once(socket, 'data') as [Buffer]
  const end = bytes.indexOf('\r\n\r\n')
  t.match(bytes.subarray(0, end).toString(), /^content-encoding: gzip/m)
  t.match(JSON.parse(gunzipSync(bytes.subarray(end + 4)).toString()), { code: 200, data: { taskId: /./ } })
  await eachDoor(t, 'gzip', async (call, _, t) => {
    t.match(await read(await call()), { code: 200 })
  })
})

t.test('an answer can hold the key it was asked with', async (t) => {
  await eachDoor(t, 'echo-key', async (call, _, t) => {
    t.match(await read(await call()), { code: 200, message: new RegExp(key), data: { taskId: /./ } })
  })
})

t.test('an answer can bring headers nobody may pass on', async (t) => {
  await eachDoor(t, 'bad-headers', async (call, _, t) => {
    const response = await call()
    for (const name of ['set-cookie', 'access-control-allow-origin', 'server', 'www-authenticate', 'clear-site-data']) {
      t.ok(response.headers.get(name), name)
    }
    t.match(await read(response), { code: 200, data: { taskId: /./ } })
  })
})

t.test('an answer can hold a number too large for JavaScript', async (t) => {
  await eachDoor(t, 'big-number', async (call, _, t) => {
    const text = await (await call()).text()
    t.match(text, '"seed":9223372036854775807,')
    t.match(JSON.parse(text), { data: { taskId: /./ } })
  })
})

t.test('a dropped submit has made its task or not, as its word says', async (t) => {
  const { sandbox, submit } = await sandboxFor(t)
  await t.rejects(submit('sandbox:drop-before'))
  t.equal(sandbox.tasks.size, 0)
  await t.rejects(submit('sandbox:drop-after'))
  t.equal(sandbox.tasks.size, 1)
})

t.test('a status call can be dropped', async (t) => {
  const { taskId, status } = await sandboxFor(t)
  await t.rejects(status(await taskId('sandbox:status-drop')))
})

t.test('the task id can be missing or in another place', async (t) => {
  const { submit } = await sandboxFor(t)
  t.strictSame(await read(await submit('sandbox:no-task-id')), { code: 200, message: 'success', data: {} })
  const { taskId, ...rest } = { taskId: '', ...await read(await submit('sandbox:top-level-task-id')) }
  t.match(taskId, /^[0-9a-f]{32}$/)
  t.strictSame(rest, { code: 200, message: 'success' })
})

t.test('a submit can be given the id of the latest earlier task, if there is one', async (t) => {
  const { sandbox, taskId } = await sandboxFor(t)
  const first = await taskId('sandbox:duplicate-task')
  t.equal(await taskId('sandbox:duplicate-task'), first)
  const second = await taskId('another')
  t.equal(await taskId('sandbox:duplicate-task'), second)
  t.equal(sandbox.tasks.size, 2)
})

t.test('a failed task says why inside a success envelope', async (t) => {
  const { clock, taskId, status, data } = await sandboxFor(t)
  const id = await taskId('sandbox:failed')
  t.equal((await data(id)).state, 'pending')
  const createTime = clock.now
  clock.now += 6000
  t.strictSame(await read(await status(id)), {
    code: 200,
    message: 'success',
    data: {
      taskId: id,
      state: 'failed',
      failCode: 'CONTENT_VIOLATION',
      failMsg: 'Content violates usage policy',
      createTime,
      completeTime: clock.now
    }
  })
})

t.test('a task can stay pending for ever', async (t) => {
  const { clock, taskId, data } = await sandboxFor(t)
  const id = await taskId('sandbox:forever')
  clock.now += 1e12
  t.equal((await data(id)).state, 'pending')
})

t.test('the middle third of a task can have a state nobody documents', async (t) => {
  const { clock, taskId, data } = await sandboxFor(t, { taskMs: 3000 })
  const id = await taskId('sandbox:unknown-state')
  const states: unknown[] = []
  for (let n = 0; n < 4; n++, clock.now += 1000) states.push((await data(id)).state)
  t.strictSame(states, ['pending', 'processing_r2', 'processing', 'success'])
})

t.test('the shape of a status answer can differ', async (t) => {
  const { clock, taskId, status, data } = await sandboxFor(t)
  const names = ['no-envelope', 'result-object', 'no-cost-time']
  const ids = await Promise.all(names.map((name) => taskId(`sandbox:${name}`)))
  const [bare, object, noCost] = ids as [string, string, string]
  const running = { state: 'pending', createTime: clock.now }
  t.strictSame(await read(await status(bare)), { data: { taskId: bare, ...running } })
  t.strictSame(await data(object), { taskId: object, ...running })
  t.strictSame(await data(noCost), { taskId: noCost, ...running })
  clock.now += 6000
  t.strictSame(Object.keys(await read(await status(bare))), ['data'])
  t.match((await data(object)).resultJson.resultUrls, [/\/temp\//])
  t.strictSame(Object.keys(await data(noCost)), ['taskId', 'state', 'resultJson', 'createTime', 'completeTime'])
})

t.test('several words can stand in one prompt', async (t) => {
  const { sandbox, clock, submit, data } = await sandboxFor(t)
  await t.rejects(submit('sandbox:drop-after sandbox:failed'))
  clock.now += 6000
  const [id] = sandbox.tasks.keys()
  t.equal((await data(id!)).state, 'failed')
})

const bytesOf = async (response: Response) => Buffer.from(await response.arrayBuffer())

async function finished (t: Parameters<typeof sandboxFor>[0], prompt: string, input?: object, model?: string) {
  const tools = await sandboxFor(t, { taskMs: 3000 })
  const id = await tools.taskId(prompt, input, model)
  tools.clock.now += 3000
  const { resultJson } = await tools.data(id, model)
  return { ...tools, urls: JSON.parse(resultJson).resultUrls as string[] }
}

t.test('a finished task hands out a picture with the prompt on it, and no key is needed', async (t) => {
  const { urls } = await finished(t, 'a red cube')
  const response = await fetch(urls[0]!)
  t.equal(response.status, 200)
  t.equal(response.headers.get('content-type'), 'image/png')
  t.equal(response.headers.get('accept-ranges'), 'bytes')
  const bytes = await bytesOf(response)
  t.match(PNG.sync.read(bytes), { width: 512, height: 512 })
  t.strictSame(lettersIn(bytes, 7), ['a red cube'])
  t.strictSame(lettersIn(bytes, 2), ['nano-banana'])
  t.same(await bytesOf(await fetch(urls[0]!)), bytes, 'the same picture at each fetch')
})

t.test('a task has as many results as were asked for, or as its model usually makes', async (t) => {
  for (const [model, input, count] of [
    ['nano-banana', {}, 1], ['nano-banana', { num_images: 4 }, 4], ['midjourney', {}, 4],
    ['midjourney', { num_images: 1 }, 1], ['suno', {}, 2], ['sora-2', {}, 1]
  ] as const) {
    const { urls } = await finished(t, 'a red cube', input, model)
    const pictures = await Promise.all(urls.map(async (url) => (await bytesOf(await fetch(url))).toString('hex')))
    t.equal(new Set(pictures).size, count, `${model}: all different`)
  }
})

t.test('a result is not there before its task has ended, nor when it failed', async (t) => {
  const { sandbox, clock, taskId, get } = await sandboxFor(t, { taskMs: 3000 })
  for (const [prompt, status] of [['one', 200], ['sandbox:failed', 404], ['sandbox:forever', 404]] as const) {
    const [name] = sandbox.tasks.get(await taskId(prompt))!.resultNames
    t.equal((await get(`/temp/${name}`)).status, 404)
    clock.now += 3000
    t.equal((await get(`/temp/${name}`)).status, status)
  }
})

t.test('a result is gone a day after its task has ended', async (t) => {
  const { clock, urls } = await finished(t, 'a red cube')
  clock.now += resultLifeMs - 1
  t.equal((await fetch(urls[0]!)).status, 200)
  clock.now += 1
  t.equal((await fetch(urls[0]!)).status, 410)
})

t.test('results carry the public origin when there is one', async (t) => {
  const { taskId, data } = await sandboxFor(t, { taskMs: 0, publicOrigin: 'https://file.example' })
  const { resultJson } = await data(await taskId('one'))
  t.match(JSON.parse(resultJson).resultUrls[0], /^https:\/\/file\.example\/temp\//)
})

t.test('a part of a result can be asked for', async (t) => {
  const { urls } = await finished(t, 'a red cube')
  const whole = await bytesOf(await fetch(urls[0]!))
  const size = whole.length
  for (const [range, start, end] of [
    ['bytes=0-99', 0, 99], ['bytes=100-', 100, size - 1], ['bytes=-8', size - 8, size - 1],
    [`bytes=9-${size + 9}`, 9, size - 1]
  ] as const) {
    const response = await fetch(urls[0]!, { headers: { range } })
    t.equal(response.status, 206, range)
    t.equal(response.headers.get('content-range'), `bytes ${start}-${end}/${size}`)
    t.same(await bytesOf(response), whole.subarray(start, end + 1))
  }
  for (const range of ['bytes=0-', `bytes=-${size + 9}`, 'bytes=-', 'bytes=0-1,4-5', 'lines=1-2']) {
    const response = await fetch(urls[0]!, { headers: { range } })
    t.equal(response.status, 200, range)
    t.same(await bytesOf(response), whole)
  }
  for (const range of [`bytes=${size}-`, 'bytes=5-4', 'bytes=-0']) {
    const response = await fetch(urls[0]!, { headers: { range } })
    t.equal(response.status, 416, range)
    t.equal(response.headers.get('content-range'), `bytes */${size}`)
  }
})

t.test('HEAD tells the length of a result without sending it', async (t) => {
  const { urls } = await finished(t, 'a red cube')
  const response = await fetch(urls[0]!, { method: 'HEAD' })
  t.equal(response.status, 200)
  t.equal((await bytesOf(response)).length, 0)
  t.ok(Number(response.headers.get('content-length')) > 1000)
})

t.test('colours follow the prompt', async (t) => {
  const corner = (prompt: string) => PNG.sync.read(picture(prompt, 'm', 0)).data.subarray(0, 3).join()
  t.equal(corner('one'), corner('one'))
  t.not(corner('one'), corner('two'))
})

t.test('a prompt is wrapped between words, in the largest letters it fits in', async (t) => {
  t.strictSame(lettersIn(picture('a lighthouse at dusk', 'm', 0), 7), ['a', 'lighthouse', 'at dusk'])
  const words = 'The quick brown fox jumps over the lazy dog, then rests for a while under the old oak tree.'
  const lines = lettersIn(picture(words, 'm', 0), 4)
  t.equal(lines.join(' '), words)
})

t.test('a word longer than a line is broken', async (t) => {
  t.strictSame(lettersIn(picture(`${'w'.repeat(40)} end`, 'm', 0), 2), ['w'.repeat(36), 'wwww end', 'm'])
})

t.test('a prompt too long for the picture ends in dots, however long it is', async (t) => {
  for (const times of [200, 200_000]) {
    const lines = lettersIn(picture('word '.repeat(times), 'm', 0), 2)
    t.equal(lines[0], 'word word word word word word word')
    t.strictSame(lines.slice(-2), ['...', 'm'])
  }
})

t.test('letters the font lacks become their plain cousins, or boxes', async (t) => {
  t.equal(drawable('  “Très”\n\tdétaillé… ~ Ö ß  '), '"Tres" detaille. - Ö s')
  t.equal(drawable('猫 🦊!'), '\uFFFD \uFFFD!')
  t.doesNotThrow(() => picture('猫 🦊', 'm', 0))
  t.strictSame(wrap('', 5), [])
})
