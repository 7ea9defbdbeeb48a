import t from 'tap'
import { isBlameless } from '../../src/http/credential.ts'

t.test('a failure from a foreign page is nobody\'s, unless it presents a secret', async t => {
  const origin = 'https://evil.example'
  const isOurs = (other: string): boolean => other === 'https://app.example'
  const blameless = (headers: Record<string, string>, method = 'GET') =>
    isBlameless({ method, headers, opensWith: undefined }, isOurs)
  t.equal(blameless({ origin }), true)
  t.equal(blameless({ 'sec-fetch-site': 'cross-site' }), true)
  t.equal(blameless({ origin: 'https://app.example' }), false)
  t.equal(blameless({}), false, 'programs that are no browsers')
  t.equal(blameless({ origin, cookie: '__Host-apixo_session_8080=guess' }), false, 'a session cookie is a secret')
  t.equal(blameless({ origin, authorization: 'Bearer guess' }), false)
  t.equal(
    blameless({ origin: 'https://app.example', 'access-control-request-method': 'POST' }, 'OPTIONS'),
    true,
    'preflights'
  )
  t.equal(isBlameless({ method: 'GET', headers: { origin }, opensWith: 'ticket' }, isOurs), false)
})
