import t, { type Test } from 'tap'
import { startGateway } from '../helpers/gateway.ts'

// How programs that know APIXO and nothing of a gateway call it: only the host and the key are other ones.
// https://apixo.ai/docs/api-reference

interface Status {
  readonly code: number
  readonly message: string
  readonly data: { readonly taskId: string, readonly state: string, readonly resultJson?: string }
}

const prompt = 'a lighthouse at dusk'

async function journey (t: Test) {
  const { origin, mint, time, sandbox } = await startGateway(t, { models: [{ id: 'nano-banana', category: 'image' }] })
  const key = await mint('alice')
  // The programs wait by the clock of the test.
  const pause = async (ms: number) => {
    time.advance(ms)
  }
  const check = async (resultUrl: string): Promise<void> => {
    t.match(resultUrl, /^http:.*\.png$/)
    const picture = await fetch(resultUrl)
    t.equal(picture.headers.get('content-type'), 'image/png')
    t.strictSame(sandbox.submits.length, 1)
    t.strictSame(
      [...sandbox.tasks.values()].map(task => task.prompt),
      [prompt]
    )
  }
  return { origin, key, pause, check }
}

t.test(
  "fetch as in APIXO's documents makes a picture, with the gateway's host and a session token as the key",
  async t => {
    const { origin, key, pause, check } = await journey(t)
    const host = `${origin}/api/v1`
    const authorization = `Bearer ${key}`

    const submitted = await fetch(`${host}/generateTask/nano-banana`, {
      method: 'POST',
      headers: { Authorization: authorization, 'Content-Type': 'application/json' },
      body: JSON.stringify({ request_type: 'async', input: { mode: 'text-to-image', prompt, aspect_ratio: '1:1' } })
    })
    const {
      code,
      data: { taskId }
    } = (await submitted.json()) as Status
    t.equal(code, 200)

    const states: string[] = []
    for (;;) {
      const polled = await fetch(`${host}/statusTask/nano-banana?taskId=${taskId}`, {
        headers: { Authorization: authorization }
      })
      const { data } = (await polled.json()) as Status
      states.push(data.state)
      if (data.state === 'success') {
        await check((JSON.parse(data.resultJson!) as { resultUrls: string[] }).resultUrls[0]!)
        break
      }
      if (data.state === 'failed') throw new Error('the task failed')
      await pause(2000)
    }
    // Every two seconds, of a task that is looked at every three.
    t.strictSame(states, ['pending', 'pending', 'processing', 'processing', 'success'])
  }
)

t.test(
  'a client that resolves absolute paths against its base URL and names a content type on GET works as well',
  async t => {
    const { origin, key, pause, check } = await journey(t)
    const call = async (method: string, path: string, body?: unknown): Promise<Status> => {
      const response = await fetch(new URL(path, `${origin}/`), {
        method,
        headers: {
          Authorization: `Bearer ${key}`,
          'Content-Type': 'application/json',
          'User-Agent': 'apixo-mcp-server/0.3.2'
        },
        ...(body === undefined ? {} : { body: JSON.stringify(body) })
      })
      const text = await response.text()
      if (!response.ok) throw new Error(text)
      return JSON.parse(text) as Status
    }

    const model = encodeURIComponent('nano-banana')
    const input = { mode: 'text-to-image', prompt }
    const {
      data: { taskId }
    } = await call('POST', `/api/v1/generateTask/${model}`, {
      request_type: 'async',
      input,
      provider: 'auto',
      source: 'mcp'
    })
    let status: Status
    do {
      await pause(3000)
      status = await call('GET', `/api/v1/statusTask/${model}?taskId=${encodeURIComponent(taskId)}`)
    } while (status.data.state !== 'success')
    await check((JSON.parse(status.data.resultJson!) as { resultUrls: string[] }).resultUrls[0]!)
  }
)

for (const header of ['x-api-key', 'X-Goog-Api-Key']) {
  t.test(`the token may stand in ${header}, where other SDKs put their key`, async t => {
    const { origin, key, pause, check } = await journey(t)
    const headers = { [header]: key, 'content-type': 'application/json' }
    const body = JSON.stringify({ input: { prompt } })
    const submitted = await fetch(`${origin}/api/v1/generateTask/nano-banana`, { method: 'POST', headers, body })
    const {
      data: { taskId }
    } = (await submitted.json()) as Status
    await pause(6000)
    const polled = await fetch(`${origin}/api/v1/statusTask/nano-banana?taskId=${taskId}`, { headers })
    const { data } = (await polled.json()) as Status
    t.equal(data.state, 'success')
    await check((JSON.parse(data.resultJson!) as { resultUrls: string[] }).resultUrls[0]!)
  })
}
