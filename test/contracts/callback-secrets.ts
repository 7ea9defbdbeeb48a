import type { Test } from 'tap'
import { answer, openBooks, type OpenStore, sent } from './open-books.ts'

const callbackHash = 'hash-of-a-secret'

/** Every CallbackSecrets must pass this, whatever is behind it. */
export function callbackSecretsContract (t: Test, open: OpenStore): void {
  t.test('a reservation is found by its hash from the moment it is sent, and so is its task', async t => {
    const { ledger, callbackSecrets, reserve } = await openBooks(t, open)
    const reservation = await reserve({ model: 'suno' })
    t.equal(await callbackSecrets.reservationOf(callbackHash), null, 'not before')
    await ledger.advance(reservation, { ...sent, callbackHash })
    const known = { reservation, subject: 'app:alice', model: 'suno', keyId: 'key-1' }
    t.same(await callbackSecrets.reservationOf(callbackHash), { ...known, task: null })
    await ledger.advance(reservation, { to: 'claimed', taskId: 'task' })
    t.same(await callbackSecrets.reservationOf(callbackHash), { ...known, task: await ledger.taskOf('task') })
    await ledger.settle({ taskId: 'task', state: 'success', answer })
    t.match(await callbackSecrets.reservationOf(callbackHash), { task: { finalAnswer: answer } })
    t.equal(await callbackSecrets.reservationOf('another'), null)
    t.equal(await callbackSecrets.reservationOf(''), null)
  })

  t.test('an unknown one is found too, and can be claimed by what its callback says', async t => {
    const { ledger, callbackSecrets, reserve } = await openBooks(t, open)
    const reservation = await reserve()
    await ledger.advance(reservation, { ...sent, callbackHash })
    await ledger.advance(reservation, { to: 'unknown' })
    t.match(await callbackSecrets.reservationOf(callbackHash), { reservation, task: null })
    t.equal(await ledger.advance(reservation, { to: 'claimed', taskId: 'late' }), true)
    t.match(await callbackSecrets.reservationOf(callbackHash), { task: { taskId: 'late', stage: 'claimed' } })
  })

  t.test('with a second key the secret stays the same', async t => {
    const { ledger, callbackSecrets, reserve } = await openBooks(t, open)
    const reservation = await reserve()
    await ledger.advance(reservation, { ...sent, callbackHash })
    await ledger.advance(reservation, { to: 'sent', keyId: 'key-2', callbackHash })
    t.match(await callbackSecrets.reservationOf(callbackHash), { reservation, keyId: 'key-2' })
    await ledger.advance(reservation, { to: 'sent', keyId: 'key-2', callbackHash: 'another' })
    t.match(await callbackSecrets.reservationOf(callbackHash), { reservation })
    t.equal(await callbackSecrets.reservationOf('another'), null)
  })

  t.test('what has left no trace is not found any more', async t => {
    const { ledger, callbackSecrets, reserve, time, tidyAll } = await openBooks(t, open, { retentionMs: 1000 })
    const released = await reserve()
    await ledger.advance(released, { ...sent, callbackHash })
    await ledger.advance(released, { to: 'released' })
    t.equal(await callbackSecrets.reservationOf(callbackHash), null)
    const ended = await reserve()
    await ledger.advance(ended, { ...sent, callbackHash: 'ended' })
    await ledger.advance(ended, { to: 'claimed', taskId: 'task' })
    await ledger.settle({ taskId: 'task', state: 'failed', answer })
    time.advance(1000)
    await tidyAll()
    t.equal(await callbackSecrets.reservationOf('ended'), null)
  })
}
