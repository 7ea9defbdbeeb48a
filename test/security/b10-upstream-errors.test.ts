import t from 'tap'
import { startGateway } from '../helpers/gateway.ts'

const config = 'plans: { default: { credits: 1 } }'

/** HTTP status of the upstream → what the caller of a submit gets. */
const submits = [
  { name: 'http-400', status: 400, error: null },
  { name: 'http-401', status: 502, error: 'GW_UPSTREAM_REFUSED_KEY' },
  { name: 'http-402', status: 502, error: 'GW_UPSTREAM_REFUSED_KEY' },
  { name: 'http-403', status: 403, error: null },
  { name: 'http-404', status: 404, error: null },
  { name: 'http-429', status: 429, error: null },
  { name: 'http-500', status: 500, error: null },
  { name: 'http-503', status: 503, error: null },
  { name: 'html-404', status: 502, error: 'GW_UPSTREAM_INVALID' },
  { name: 'code-400', status: 200, error: null },
  { name: 'code-401', status: 502, error: 'GW_UPSTREAM_REFUSED_KEY' },
  { name: 'code-402', status: 502, error: 'GW_UPSTREAM_REFUSED_KEY' },
  { name: 'code-403', status: 200, error: null },
  { name: 'code-404', status: 200, error: null },
  { name: 'code-429', status: 200, error: null },
  { name: 'code-500', status: 200, error: null },
  { name: 'code-503', status: 200, error: null }
]

for (const { name, status, error } of submits) {
  t.test(`a submit that is refused upstream stays refused, costs nothing, and is sent once: ${name}`, async t => {
    const { submit, mint, sandbox } = await startGateway(t, { config })
    const token = await mint('alice')
    const reply = await submit(token, `sandbox:${name}`)
    t.match(reply, { status, error })
    if (error === null) {
      t.equal(reply.json.code, Number(name.split('-')[1]), 'the body is the upstream\'s own')
      t.notOk('error' in reply.json)
    }
    t.equal(reply.headers.get('retry-after'), name === 'http-429' ? '7' : null, 'retry-after passes')
    t.equal(sandbox.submits.length, 1)
    t.equal((await submit(token, 'a song', 'suno')).status, 200, 'the credit was given back')
    t.equal((await submit(token, 'a song', 'suno')).error, 'GW_CREDITS_EXHAUSTED', 'once')
  })
}

const statuses = [
  { name: 'status-http-401', status: 502, error: 'GW_UPSTREAM_REFUSED_KEY' },
  { name: 'status-http-402', status: 502, error: 'GW_UPSTREAM_REFUSED_KEY' },
  { name: 'status-http-403', status: 403, error: null },
  { name: 'status-http-404', status: 404, error: null },
  { name: 'status-http-429', status: 429, error: null },
  { name: 'status-http-500', status: 500, error: null },
  { name: 'status-http-503', status: 503, error: null },
  { name: 'status-code-429', status: 200, error: null },
  { name: 'status-json-502', status: 502, error: null },
  { name: 'status-html-502', status: 502, error: 'GW_UPSTREAM_INVALID' },
  { name: 'status-html-404', status: 502, error: 'GW_UPSTREAM_INVALID' },
  { name: 'status-html-200', status: 502, error: 'GW_UPSTREAM_INVALID' },
  { name: 'status-cut-body', status: 502, error: 'GW_UPSTREAM_INVALID' },
  { name: 'status-drop', status: 502, error: 'GW_UPSTREAM_INVALID' },
  { name: 'status-gzip', status: 200, error: null },
  { name: 'status-endless-body', status: 502, error: 'GW_UPSTREAM_INVALID' },
  { name: 'status-echo-key', status: 502, error: 'GW_UPSTREAM_INVALID' },
  { name: 'status-slow-headers', status: 504, error: 'GW_UPSTREAM_TIMEOUT' },
  { name: 'status-slow-body', status: 504, error: 'GW_UPSTREAM_TIMEOUT' }
]

t.test('a status call that fails upstream never turns into a good answer, and ends no task', async t => {
  const {
    submit,
    status: statusOf,
    mint,
    time
  } = await startGateway(t, {
    config: 'plans: { default: { concurrentTasks: 30 } }\nupstream: { headersMs: 300, bodyIdleMs: 300 }'
  })
  const token = await mint('alice')
  for (const { name, status, error } of statuses) {
    const { taskId } = (await submit(token, `sandbox:${name}`)).json.data
    const reply = await statusOf(token, taskId)
    t.match(reply, { status, error }, name)
    t.notMatch(reply.text, '"state":"success"')
    t.equal(reply.headers.get('retry-after'), name === 'status-http-429' ? '7' : null)
    time.advance(60_000) // a 401 makes the key rest for the model
  }
})

t.test('a retry-after that is none, and a reason phrase, do not pass', async t => {
  const { submit, mint, sandbox } = await startGateway(t)
  const token = await mint('alice')
  const values: ReadonlyArray<readonly [string, string | null]> = [
    ['7', '7'],
    ['Fri, 31 Dec 1999 23:59:59 GMT', 'Fri, 31 Dec 1999 23:59:59 GMT'],
    ['-1', null],
    ['soon', null],
    ['99999999999', null],
    ['<script>', null]
  ]
  for (const [sent, passed] of values) {
    sandbox.next((_request, response) => {
      response
        .writeHead(429, 'reason-of-the-upstream', { 'retry-after': sent, 'content-type': 'application/json' })
        .end('{"code":429,"message":"slow"}')
    })
    const reply = await submit(token)
    t.equal(reply.status, 429)
    t.equal(reply.headers.get('retry-after'), passed, sent)
  }
})
