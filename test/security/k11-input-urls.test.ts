import { createServer } from 'node:http'
import t from 'tap'
import { startGateway } from '../helpers/gateway.ts'
import { httpPort } from '../helpers/http-server.ts'

t.test('URLs inside input are data: passed on as they are, and fetched by nobody here', async t => {
  const fetched: string[] = []
  const bait = createServer((request, response) => {
    fetched.push(request.url!)
    response.end()
  })
  const origin = `http://127.0.0.1:${await httpPort(t, bait)}`

  const { call, status, mint, sandbox } = await startGateway(t)
  const token = await mint('mallory')
  const input = {
    prompt: `look at ${origin}/prompt`,
    image_urls: [
      `${origin}/image`,
      'file:///etc/passwd',
      'http://169.254.169.254/latest/meta-data',
      'http://[::1]/',
      'data:text/html,<script>alert(1)</script>',
      'gopher://127.0.0.1:6379/_x',
      `//${origin.slice(7)}/x`
    ],
    video_urls: [`${origin}/video`],
    loras: [{ path: `${origin}/lora` }],
    image: { url: `${origin}/nested` },
    $ref: `${origin}/ref`,
    xml: '<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><x>&e;</x>'
  }
  const text = JSON.stringify({ request_type: 'async', input })
  const reply = await call('/api/v1/generateTask/nano-banana', { token, body: text })
  t.equal(reply.status, 200)
  await status(token, reply.json.data.taskId)
  t.equal(sandbox.submits[0]!.body.toString(), text, 'byte for byte')
  t.same(fetched, [])
  t.ok(sandbox.calls.every(({ url }) => url.startsWith('/api/v1/')))
})
