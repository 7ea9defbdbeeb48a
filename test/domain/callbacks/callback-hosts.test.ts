import t from 'tap'
import { callbackHosts } from '../../../src/domain/webhooks.ts'

t.test('hosts are named exactly, or as all below a domain; the port is the caller\'s to choose', async t => {
  const hosts = callbackHosts(['app.example', '*.hooks.example', '[2606:2800:21f:cb07:6820:80da:af6b:8b2c]'])
  t.equal(hosts.isEmpty, false)
  const allowed = [
    'https://app.example/', 'https://app.example:8443/a?b=c', 'https://x.hooks.example/', 'https://x.y.hooks.example/',
    'https://[2606:2800:21f:cb07:6820:80da:af6b:8b2c]/'
  ]
  for (const url of allowed) {
    t.equal(hosts.check(url), url)
    t.equal(hosts.permits(url), true, url)
  }
  t.equal(hosts.check('HTTPS://APP.example'), 'https://app.example/')
  for (const url of ['https://b.app.example/', 'https://hooks.example/', 'https://xhooks.example/']) {
    t.throws(() => hosts.check(url), { code: 'GW_CALLBACK_DENIED' }, url)
    t.equal(hosts.permits(url), false, url)
  }
  t.equal(hosts.permits('no URL'), false)
})

t.test('an address of a network of our own is refused, also when it is on the list', async t => {
  const own = [
    '127.0.0.1',
    '10.0.0.1',
    '169.254.169.254',
    '[::1]',
    '[fd00::1]',
    '[::ffff:7f00:1]',
    '0.0.0.0',
    '100.64.0.1'
  ]
  const hosts = callbackHosts(own)
  for (const host of own) t.throws(() => hosts.check(`https://${host}/`), { code: 'GW_CALLBACK_DENIED' }, host)
})

t.test('an empty list is nobody', async t => {
  const hosts = callbackHosts([])
  t.equal(hosts.isEmpty, true)
  t.throws(() => hosts.check('https://app.example/'), { code: 'GW_CALLBACK_DENIED' })
})
