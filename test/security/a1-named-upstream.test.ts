import t from 'tap'
import { startSandbox } from '../../src/sandbox/sandbox.ts'
import { apiKey, startGateway } from '../helpers/gateway.ts'
import { rawHttp, rawRequest } from '../helpers/raw-http.ts'

const path = '/api/v1/generateTask/nano-banana'

t.test('no header names the upstream', async t => {
  const evil = await startSandbox({ keys: [apiKey] })
  t.teardown(() => evil.close())
  const { call, mint, sandbox } = await startGateway(t)
  const token = await mint('mallory')
  const { host, hostname, port } = new URL(evil.origin)
  const names = [
    'x-target-url',
    'x-portkey-custom-host',
    'x-upstream',
    'x-fal-target-url',
    'x-forwarded-host',
    'x-host',
    'x-original-url',
    'x-rewrite-url',
    'x-forwarded-server',
    'x-http-destinationurl',
    'x-proxy-url',
    'x-base-url',
    'api-base',
    'x-api-base',
    'forwarded',
    'x-forwarded-uri',
    'x-real-host',
    'proxy',
    'http-proxy',
    'origin',
    'referer'
  ]
  for (const name of names) {
    const value = name === 'forwarded' ? `host=${host}` : name.includes('host') ? host : evil.origin
    t.equal(
      (await call(path, { token, body: { input: { prompt: 'x' } }, headers: { [name]: value } })).status,
      200,
      name
    )
  }
  const all = Object.fromEntries(names.map(name => [name, evil.origin]))
  t.equal(
    (
      await call(path, {
        token,
        body: { input: { prompt: 'x' } },
        headers: { ...all, 'x-forwarded-port': port, 'x-forwarded-for': hostname }
      })
    ).status,
    200
  )
  t.equal(sandbox.submits.length, names.length + 1)
  t.equal(evil.calls.length, 0)
  for (const { url, rawHeaders } of sandbox.submits) {
    t.equal(url, path)
    t.notMatch(rawHeaders.join(), host)
  }
})

t.test('no field of a body names the upstream: unknown ones are refused, those inside input are data', async t => {
  const evil = await startSandbox({ keys: [apiKey] })
  t.teardown(() => evil.close())
  const { call, mint, sandbox } = await startGateway(t)
  const token = await mint('mallory')
  for (const name of [
    'api_base',
    'base_url',
    'url',
    'host',
    'target',
    'endpoint',
    'proxy',
    'headers',
    'api_key',
    'apiKey',
    'key',
    'model'
  ]) {
    t.equal(
      (await call(path, { token, body: { [name]: evil.origin, input: { prompt: 'x' } } })).error,
      'GW_BAD_REQUEST',
      name
    )
  }
  t.equal(sandbox.calls.length, 0)
  const input = { prompt: 'x', api_base: evil.origin, headers: { authorization: 'x' }, image_urls: [evil.origin] }
  t.equal((await call(path, { token, body: { input } })).status, 200)
  t.same([...sandbox.tasks.values()][0]!.input, input)
  t.equal(evil.calls.length, 0)
})

t.test('a Host of the caller\'s own, or a target with a host in it, changes nothing', async t => {
  const evil = await startSandbox({ keys: [apiKey] })
  t.teardown(() => evil.close())
  const { origin, mint, sandbox } = await startGateway(t)
  const headers = [`authorization: Bearer ${await mint('mallory')}`]
  const body = JSON.stringify({ input: { prompt: 'x' } })
  const { host } = new URL(evil.origin)
  const length = `content-type: application/json\r\ncontent-length: ${body.length}`
  await rawHttp(
    t,
    origin,
    `POST ${path} HTTP/1.1\r\nhost: ${host}\r\nconnection: close\r\n${headers[0]}\r\n${length}\r\n\r\n${body}`
  )
  await rawHttp(t, origin, rawRequest(`POST ${evil.origin}${path}`, headers, body))
  await rawHttp(t, origin, rawRequest(`POST //${host}${path}`, headers, body))
  await rawHttp(t, origin, `CONNECT ${host} HTTP/1.1\r\nhost: ${host}\r\n\r\n`)
  t.equal(evil.calls.length, 0)
  t.ok(sandbox.calls.every(({ rawHeaders }) => rawHeaders[1] === new URL(sandbox.origin).host))
})
