import t from 'tap'
import { configPath, load, problemsOf } from './fixture.ts'

const yaml = (alarms: string): string => `plans: { default: {} }\nprices: { "*": 1 }\nalarms: { ${alarms} }`
const bytes = (count: number, fill = 'an alarm key that is long enough for every test, and more than that') =>
  Buffer.from(fill.slice(0, count))
const secret = bytes(32).toString('base64')

t.test('alarms are sent to a public https: address or to this machine, and elsewhere when it is said', async t => {
  for (const url of ['https://ops.example/a?b=c', 'http://127.0.0.1:9/x', 'https://localhost/']) {
    const settings = load(t, { yaml: yaml(`url: "${url}"`), env: { GATEWAY_ALARM_SECRET: secret } })
    t.equal(settings.file.alarms.url, url)
    t.same(settings.warnings, [])
  }
  const { warnings } = load(t, {
    yaml: yaml('url: "http://ops.internal/", insecureUrl: true'), env: { GATEWAY_ALARM_SECRET: secret }
  })
  t.same(warnings, ['alarms.insecureUrl is true: alarms may be sent unencrypted, or into a private network.'])
  t.same(load(t, { yaml: yaml('insecureUrl: true') }).warnings, [], 'where nothing is sent there is nothing to warn of')
})

t.test('without a secret nobody could tell our messages from others', async t => {
  const at = { yaml: yaml('url: "https://ops.example/"') }
  t.match(problemsOf(t, at), [{ setting: 'GATEWAY_ALARM_SECRET', problem: 'is not set, and alarms.url is' }])
  const bad = { ...at, env: { GATEWAY_ALARM_SECRET: 'short' } }
  t.match(problemsOf(t, bad), [{ setting: 'GATEWAY_ALARM_SECRET', problem: 'has 5 bytes, fewer than 32' }], 'once')
})

t.test('a secret is a key in base64, with or without its prefix, and several let it rotate', async t => {
  const revealed = (text: string) =>
    load(t, { env: { GATEWAY_ALARM_SECRET: text } }).alarmSecrets?.map(secret => secret.reveal())
  const other = bytes(64).toString('base64')
  t.same(revealed(secret), [`whsec_${secret}`])
  t.same(revealed(`whsec_${secret}\n${other}`), [`whsec_${secret}`, `whsec_${other}`])
  t.same(revealed(secret.replace(/=+$/, '')), [`whsec_${secret.replace(/=+$/, '')}`])
  for (const [text, problem] of [
    ['an alarm secret that is no base64 at all', 'is not in base64'],
    [bytes(66).toString('base64'), 'has a key of 66 bytes, not of 24 to 64'],
    [`whsec_${bytes(23).toString('base64')}`, 'has a key of 23 bytes, not of 24 to 64']
  ] as const) {
    t.match(problemsOf(t, { env: { GATEWAY_ALARM_SECRET: text } }), [{ setting: 'GATEWAY_ALARM_SECRET', problem }])
  }
})

t.test('a balance below nothing is refused, with its line', async t => {
  t.match(problemsOf(t, { yaml: yaml('upstreamBalanceBelow: -1') }), [
    { setting: 'alarms.upstreamBalanceBelow', source: `${configPath(t)}:3`, problem: 'is -1' }
  ])
})

t.test('what is no such address is refused, with its line', async t => {
  for (const [url, problem] of [
    ['http://ops.example/', 'is refused: http://ops.example is not encrypted'],
    ['https://10.0.0.1/', 'is refused: 10.0.0.1 is a private address'],
    ['https://ops:pw@ops.example/', 'has credentials in it'],
    ['https://ops example/', '"https://ops example/" is not a URL']
  ]) {
    t.match(problemsOf(t, { yaml: yaml(`url: "${url}"`), env: { GATEWAY_ALARM_SECRET: secret } }), [
      { setting: 'alarms.url', source: `${configPath(t)}:3`, problem }
    ])
  }
})
