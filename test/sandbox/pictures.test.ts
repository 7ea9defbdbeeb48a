import { PNG } from 'pngjs'
import t from 'tap'
import { drawable, picture, wrap } from '../../src/sandbox/pictures.ts'
import { resultLifeMs } from '../../src/sandbox/responses.ts'
import { sandboxFor } from './client.ts'
import { lettersIn } from './letters-in.ts'

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
