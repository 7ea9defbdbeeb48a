import t from 'tap'
import { isInRange, isTrustworthy, isWebOrigin, readAddressRange } from '../../src/domain/session.ts'

t.test('a network is read in each way that means one thing, and written in one', async t => {
  for (const [text, range] of [
    ['203.0.113.0/24', '203.0.113.0/24'],
    ['203.0.113.7/24', '203.0.113.0/24'],
    ['203.0.113.7/32', '203.0.113.7/32'],
    ['0.0.0.0/0', '0.0.0.0/0'],
    ['10.1.2.3/08', '10.0.0.0/8'],
    ['2001:DB8::1/48', '2001:db8::/48'],
    ['::1/128', '::1/128'],
    ['::/0', '::/0'],
    ['::ffff:203.0.113.9/120', '203.0.113.0/24'],
    ['::ffff:0:0/96', '0.0.0.0/0']
  ] as const) { t.equal(readAddressRange(text), range, text) }
  for (const text of [
    '',
    '/',
    'x',
    '10.0.0.1',
    '10/8',
    '10.0/16',
    '010.0.0.0/8',
    '0x0a.0.0.0/8',
    '10.0.0.0/',
    '10.0.0.0/33',
    '10.0.0.0/-1',
    '10.0.0.0/+8',
    '10.0.0.0/8/8',
    '10.0.0.0/255.0.0.0',
    ' 10.0.0.0/8',
    '::/129',
    '::ffff:10.0.0.0/95',
    'fe80::1%eth0/64',
    '[::1]/128',
    '::1/128 '
  ]) { t.equal(readAddressRange(text), null, text) }
})

t.test('an address lies in a network however it is written, and what is none lies nowhere', async t => {
  const isIn = (address: string, text: string): boolean => isInRange(address, readAddressRange(text)!)
  for (const address of ['203.0.113.0', '203.0.113.255', '::ffff:203.0.113.9', '::ffff:cb00:7109']) {
    t.equal(isIn(address, '203.0.113.0/24'), true, address)
  }
  for (const address of [
    '203.0.112.255',
    '203.0.114.0',
    '::ffff:203.0.114.9',
    '2001:db8::1',
    '',
    'x',
    'localhost',
    '203.0.113.9:80'
  ]) { t.equal(isIn(address, '203.0.113.0/24'), false, address) }
  t.equal(isIn('2001:0db8:0000::ffff', '2001:db8::/64'), true)
  t.equal(isIn('2001:db8:0:1::1', '2001:db8::/64'), false)
  t.equal(isIn('fe80::1%eth0', 'fe80::/10'), true)
  t.equal(isIn('10.0.0.1', '::/0'), false, 'each kind by itself')
  t.equal(isIn('::1', '0.0.0.0/0'), false)
})

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
