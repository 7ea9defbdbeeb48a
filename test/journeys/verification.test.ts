import { DatabaseSync } from 'node:sqlite'
import t from 'tap'
import { hourMs } from '../../src/domain/time.ts'
import { gatewayError } from '../../src/errors.ts'
import { adminToken, startGateway } from '../helpers/gateway.ts'
import { overStore, storeFile } from '../helpers/store-file.ts'
import { until } from '../helpers/until.ts'

const env = { GATEWAY_ADMIN_TOKEN: adminToken }

t.test('every hour the gateway looks through its books, and says by an alarm and in numbers what it has found', async t => {
  const store = storeFile(t)
  const { gateway, mint, submit, call, time, log } = await startGateway(t, { store, env })
  const db = new DatabaseSync(store, { timeout: 1000 })
  t.teardown(() => db.close())
  const gauges = async () => {
    const { text } = await call('/metrics', { token: adminToken })
    return text.split('\n').filter(line => /^gateway_(?:ledger_|alarms\{kind="ledger-check)/.test(line))
  }
  const looked = async (msg: RegExp) => {
    time.advance(hourMs)
    await gateway.tidy()
    const find = () => log.find(line => msg.test(line.msg))
    await until(`${msg}`, () => find() !== undefined)
    return find()!
  }
  await submit(await mint('alice'))
  await submit(await mint('bob'))
  t.same(await gauges(), ['gateway_alarms{kind="ledger-check"} 0'], 'nobody has looked yet')

  t.match(await looked(/books of the ledger agree/), { level: 30, subjects: 2, tasks: 2, skipped: 0 })
  t.match(await gauges(), [
    'gateway_alarms{kind="ledger-check"} 0',
    'gateway_ledger_faults 0',
    /^gateway_ledger_verification_seconds \d/,
    `gateway_ledger_verification_timestamp_seconds ${time.now() / 1000}`
  ])

  const add = db.prepare(`INSERT INTO credits VALUES ('app:alice', ${Date.UTC(2026, 0, 15)}, 5000000, 0)
    ON CONFLICT DO UPDATE SET used = used + 5000000`)
  add.run()
  const { faults, ...alarm } = await looked(/do not agree/)
  t.match(alarm, { level: 50, alarm: 'ledger-check', count: 1, subjects: 2 })
  t.match(faults, [/^app:alice: of its period since 2026-01-15T00:00:00.000Z \d credits are used.*\. What it may still spend/])
  t.match(await gauges(), ['gateway_alarms{kind="ledger-check"} 1', 'gateway_ledger_faults 1'])

  db.exec("UPDATE credits SET used = used - 5000000 WHERE subject = 'app:alice'")
  await looked(/an alarm is over/)
  t.match(await gauges(), ['gateway_alarms{kind="ledger-check"} 0', 'gateway_ledger_faults 0'])
})

t.test('where the books can not be read that is said, and no alarm of theirs', async t => {
  const { gateway, call, time, log } = await startGateway(t, {
    env,
    createGateway: overStore(() => ({ books: { verify: () => Promise.reject(gatewayError('GW_STORE_DOWN')) } }))
  })
  time.advance(hourMs)
  await gateway.tidy()
  await until('it is said', () => log.some(({ level, msg }) => level === 40 && /could not be looked through/.test(msg)))
  t.match((await call('/metrics', { token: adminToken })).text, 'gateway_alarms{kind="ledger-check"} 0')
})
