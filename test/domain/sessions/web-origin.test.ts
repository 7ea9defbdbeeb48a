import t from 'tap'
import { isTrustworthy, isWebOrigin } from '../../../src/domain/session.ts'

t.test('a web origin is exact, and nobody on the way can pretend to be it', async t => {
  for (const origin of [
    'https://app.example',
    'https://app.example:8443',
    'https://203.0.113.9',
    'https://xn--4ca.example',
    'http://localhost:5173',
    'http://app.localhost',
    'http://127.0.0.1:1',
    'http://[::1]:3'
  ]) {
    t.equal(isWebOrigin(origin), true, origin)
  }
  for (const text of [
    '',
    '*',
    'null',
    'app.example',
    'https://',
    'https://app.example/',
    'https://app.example:443',
    'https://App.example',
    'https://*.example',
    'https://app.example/*',
    'https://ä.example',
    'https://me@app.example',
    'https://app.example?',
    ' https://app.example',
    'http://app.example',
    'http://10.0.0.1',
    'http://localhost.example',
    'http://127.0.0.1.example',
    'ftp://localhost',
    'file://',
    'data:text/html,x',
    'blob:https://app.example/x',
    'app://localhost'
  ]) { t.equal(isWebOrigin(text), false, text) }
})

t.test('https is trustworthy, and http on this machine', async t => {
  for (const url of [
    'https://app.example',
    'http://localhost',
    'http://127.9.9.9',
    'http://[::1]',
    'http://[::ffff:127.0.0.1]'
  ]) { t.equal(isTrustworthy(new URL(url)), true, url) }
  for (const url of ['http://app.example', 'http://0.0.0.0', 'http://192.168.0.1', 'http://[::]', 'ws://localhost']) {
    t.equal(isTrustworthy(new URL(url)), false, url)
  }
})
