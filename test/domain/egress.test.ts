import t from 'tap'
import { guardedLookup, isWithin, type Resolve, type ResolvedAddress, resultHosts } from '../../src/domain/egress.ts'

const resolver = (addresses: string, error: Error | null = null): Resolve => (_hostname, _options, done) =>
  done(error, addresses.split(' ').filter(Boolean).map(address => ({ address, family: address.includes(':') ? 6 : 4 })))

function look (resolve: Resolve, all?: boolean): unknown {
  let found: unknown
  guardedLookup(resolve, address => !address.startsWith('10.'))(
    'app.example',
    all === undefined ? {} : { all },
    (error, address, family) => {
      found =
        error === null
          ? all === true
            ? (address as ResolvedAddress[]).map(({ address }) => address)
            : [address, family]
          : error
    }
  )
  return found
}

t.test('a name is resolved as it is asked for: to the first address, or to all', async t => {
  t.same(look(resolver('1.1.1.1 2606::1')), ['1.1.1.1', 4])
  t.same(look(resolver('2606::1 1.1.1.1'), false), ['2606::1', 6])
  t.same(look(resolver('1.1.1.1 2606::1'), true), ['1.1.1.1', '2606::1'])
})

t.test('a name is refused when any of its addresses is, or when there is none', async t => {
  for (const addresses of ['10.0.0.1', '1.1.1.1 10.0.0.1', '10.0.0.1 1.1.1.1', '']) {
    for (const all of [true, false]) {
      t.match(look(resolver(addresses), all), { code: 'ERR_REFUSED_ADDRESS', message: /app\.example/ }, addresses)
    }
  }
})

t.test('a name that does not resolve says so', async t => {
  t.match(look(resolver('', new Error('ENOTFOUND'))), { message: 'ENOTFOUND' })
})

const targetOf = resultHosts({
  hosts: ['*.apixo.ai', 'cdn.example', '203.0.114.9', '10.0.0.5', '127.0.0.1', '[::1]', 'localhost'],
  ownOrigin: 'http://sandbox:8080'
})

t.test("results come over https from the hosts on the list, and from the upstream's own origin", t => {
  t.same(targetOf('https://file.apixo.ai/temp/a.png?x=1#y'), {
    origin: 'https://file.apixo.ai',
    path: '/temp/a.png?x=1',
    reach: 'public'
  })
  t.same(targetOf('HTTPS://A.B.File.APIXO.AI:8443'), {
    origin: 'https://a.b.file.apixo.ai:8443',
    path: '/',
    reach: 'public'
  })
  t.match(targetOf('https://cdn.example/a'), { reach: 'public' })
  t.match(targetOf('https://203.0.114.9/a'), { reach: 'public' })
  t.match(targetOf('http://sandbox:8080/temp/a.png'), { reach: 'any' })
  for (const host of ['127.0.0.1', '[::1]', 'localhost', 'LOCALHOST']) {
    t.match(targetOf(`http://${host}:4000/a`), { reach: 'loopback' }, host)
    t.match(targetOf(`https://${host}/a`), { reach: 'loopback' }, host)
  }
  t.end()
})

t.test('no trick makes another host of the list\'s', t => {
  for (const url of [
    'http://file.apixo.ai/a',
    'ftp://file.apixo.ai/a',
    'file:///etc/passwd',
    'data:image/png;base64,AA',
    'ws://localhost/',
    'gopher://127.0.0.1/',
    'https://apixo.ai/a',
    'https://apixo.ai.evil.test/',
    'https://evilapixo.ai/',
    'https://file.apixo.ai.',
    'https://file.apixo.ai./a',
    'https://user@file.apixo.ai/',
    'https://:pass@file.apixo.ai/',
    'https://file.apixo.ai@evil.test/',
    'https://evil.test/https://file.apixo.ai/',
    'https://evil.test#.apixo.ai',
    'https://evil.test?.apixo.ai',
    'https://evil.test\\.apixo.ai/',
    'https:\\\\file.apixo.ai/',
    'https://evil.test/\\@file.apixo.ai',
    ' https://file.apixo.ai/',
    'https://file.apixo.ai/a b',
    'https://file.apixo.ai/\ta',
    'https://file.apixo.ai/\r\nhost: x',
    'https://ｆile.apixo.ai/',
    'https://file.apixo。ai/',
    '//file.apixo.ai/a',
    'file.apixo.ai/a',
    '',
    'nonsense',
    `https://file.apixo.ai/${'a'.repeat(8192)}`,
    'https://file.apixo.ai:99999/',
    'http://sandbox:8081/',
    'https://sandbox:8080/',
    'http://sandbox/',
    'http://sandbox:8080@evil.test/',
    'https://10.0.0.5/',
    'http://10.0.0.5/',
    'https://169.254.169.254/',
    'https://[::ffff:10.0.0.5]/',
    'https://[::ffff:a9fe:a9fe]/',
    'http://127.0.0.2/',
    'http://0.0.0.0/',
    'http://[::]/',
    'http://cdn.example/',
    'https://cdn.example.evil.test/',
    'https://x.cdn.example/'
  ]) { t.equal(targetOf(url), null, url.slice(0, 80)) }
  t.match(
    targetOf('http://0x7f.1/'),
    { origin: 'http://127.0.0.1', reach: 'loopback' },
    'other spellings of an address are that address'
  )
  t.end()
})

t.test('an empty list means the upstream\'s own origin and no other', t => {
  const none = resultHosts({ hosts: [], ownOrigin: 'https://api.apixo.ai' })
  t.match(none('https://api.apixo.ai/a'), { reach: 'any' })
  for (const url of ['https://file.apixo.ai/', 'http://localhost/', 'http://api.apixo.ai/']) t.equal(none(url), null)
  t.end()
})

t.test('a public reach holds no address of this machine, this network, or a tunnel into them', t => {
  for (const address of [
    '127.0.0.1',
    '127.9.9.9',
    '0.0.0.0',
    '10.0.0.1',
    '172.16.0.1',
    '192.168.1.1',
    '100.64.0.1',
    '169.254.169.254',
    '224.0.0.1',
    '240.0.0.1',
    '255.255.255.255',
    '192.0.0.1',
    '192.0.2.1',
    '198.18.0.1',
    '198.51.100.1',
    '203.0.113.1',
    '192.88.99.1',
    '::',
    '::1',
    '::2',
    '::127.0.0.1',
    '::ffff:127.0.0.1',
    '::ffff:10.0.0.1',
    '::ffff:0:10.0.0.1',
    '64:ff9b::a00:1',
    '64:ff9b:1::a00:1',
    '2002:a00:1::',
    '2001::1',
    'fe80::1',
    'fe80::1%eth0',
    'fec0::1',
    'fc00::1',
    'fd00:ec2::254',
    'ff02::1',
    '100::1',
    '2001:db8::1',
    '3fff::1',
    '5f00::1',
    '4000::1'
  ]) { t.equal(isWithin('public', address), false, address) }
  for (const address of ['1.1.1.1', '104.18.0.1', '2606:4700::1111', '::ffff:1.1.1.1']) {
    t.equal(isWithin('public', address), true, address)
  }
  t.end()
})

t.test("a loopback reach holds the loopback alone, and that of the operator's own upstream everything", t => {
  for (const address of ['127.0.0.1', '127.0.0.53', '::1', '::ffff:127.0.0.1']) {
    t.equal(isWithin('loopback', address), true, address)
  }
  for (const address of ['10.0.0.1', '1.1.1.1', '::', '0.0.0.0', 'fe80::1']) {
    t.equal(isWithin('loopback', address), false, address)
  }
  t.equal(isWithin('any', '10.0.0.1'), true)
  t.end()
})
