import t from 'tap'
import { guardedLookup, type Resolve, type ResolvedAddress } from '../../../src/domain/egress.ts'

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
