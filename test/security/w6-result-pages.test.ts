import t from 'tap'
import { resultTickets } from '../../src/features/results/routes.ts'
import { fileServer, taskWith, whole } from '../helpers/file-server.ts'
import { startGateway } from '../helpers/gateway.ts'

const page = '<script>fetch("/gateway/session")</script>'
const config = 'plans: { default: { credits: unlimited, concurrentTasks: 100 } }\nresults: { hosts: ["127.0.0.1"] }'

t.test(
  "no result becomes a page of the gateway's origin: what could be one is saved to a file, and all is sandboxed",
  async t => {
    const gateway = await startGateway(t, { config })
    const { call, mint, settings, time } = gateway
    let type = ''
    const files = await fileServer(t, (...args) => whole(page, type)(...args))
    const token = await mint('alice')
    const taskId = await taskWith(gateway, token, { resultUrls: [`${files.origin}/a.png`, `${files.origin}/a.html`] })
    const { ticketFor } = resultTickets({
      ...settings.file.results,
      secrets: { current: settings.sessionSecrets },
      now: time.now,
      taskOf: async () => null
    })
    const ticket = (index: number) => `/gateway/results/${ticketFor({ taskId, subject: 'app:alice' }, index)}`

    for (type of [
      'text/html',
      'text/html; charset=utf-7',
      'image/svg+xml',
      'application/xhtml+xml',
      'text/xml',
      'application/xml',
      'application/pdf',
      'text/plain',
      'application/json',
      'text/javascript',
      'application/wasm',
      'multipart/x-mixed-replace',
      'message/rfc822',
      'image/png, text/html',
      'text/html;image/png',
      'IMAGE/SVG+XML',
      'image/x-unknown',
      '*/*'
    ]) {
      for (const path of [`/gateway/tasks/${taskId}/results/0`, ticket(0), `${ticket(0)}?download=1`]) {
        const { status, headers } = await call(path, { token })
        t.equal(status, 200)
        t.equal(headers.get('content-type'), 'application/octet-stream', type)
        t.match(headers.get('content-disposition'), /^attachment; filename="[\w.-]+\.bin"$/)
      }
    }
    for (const [index, stated, sent] of [
      [0, 'image/png', 'image/png'],
      [0, '', 'image/png'],
      [1, '', 'application/octet-stream']
    ] as const) {
      type = stated
      for (const path of [`/gateway/tasks/${taskId}/results/${index}`, ticket(index)]) {
        const { headers } = await call(path, { token })
        t.equal(headers.get('content-type'), sent, 'a page that passes for a picture is a broken picture')
        t.equal(headers.get('x-content-type-options'), 'nosniff')
        t.equal(headers.get('content-security-policy'), "default-src 'none'; sandbox")
        t.equal(headers.get('cross-origin-resource-policy'), 'same-origin')
      }
    }
  }
)

t.test('a name that the upstream chose can not end the header it stands in', async t => {
  const gateway = await startGateway(t, { config })
  const { call, mint, submit, status, sandbox } = gateway
  const files = await fileServer(t, whole('x', 'text/html'))
  const token = await mint('alice')
  const taskId = 'a";b\r\nset-cookie: c=d/../é'
  sandbox.next((_request, response) =>
    response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify({ code: 200, data: { taskId } }))
  )
  t.equal((await submit(token)).json.data.taskId, taskId)
  sandbox.next((_request, response) =>
    response
      .writeHead(200, { 'content-type': 'application/json' })
      .end(
        JSON.stringify({ code: 200, data: { taskId, state: 'success', resultJson: { resultUrls: [files.origin] } } })
      )
  )
  await status(token, taskId)
  const { headers } = await call(`/gateway/tasks/${encodeURIComponent(taskId)}/results/0`, { token })
  t.equal(headers.get('content-disposition'), 'attachment; filename="nano-banana-abset-co-0.bin"')
  t.equal(headers.get('set-cookie'), null)
})
