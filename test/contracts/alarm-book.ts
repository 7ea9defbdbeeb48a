import type { Test } from 'tap'
import type { SeenAlarm, ToldAlarm } from '../../src/domain/alarms.ts'
import { openBooks, type OpenStore } from './open-books.ts'

const seen: SeenAlarm = {
  kind: 'key-benched',
  about: 'k1',
  grade: null,
  since: 1,
  until: 2,
  count: 1,
  text: 'it is benched',
  details: { keyId: 'k1', count: 3 }
}
const told: ToldAlarm = { isOn: true, grade: null, at: 3, attempts: 0, nextAt: 0 }

/** Every AlarmBook must pass this, whatever is behind it. */
export function alarmBookContract (t: Test, open: OpenStore): void {
  t.test('what was seen and what was told of it stand side by side, by the name', async t => {
    const { alarmBook: book } = await openBooks(t, open)
    t.same(await book.all(), [])
    await book.see('two of "it"', seen)
    await book.see('one', { ...seen, grade: 80 })
    t.same(await book.all(), [
      { name: 'one', seen: { ...seen, grade: 80 }, told: null },
      { name: 'two of "it"', seen, told: null }
    ])
    await book.tell('one', told)
    await book.see('one', { ...seen, until: 9 })
    await book.tell('one', { ...told, attempts: 2 })
    t.same((await book.all())[0], { name: 'one', seen: { ...seen, until: 9 }, told: { ...told, attempts: 2 } })
  })

  t.test('what is forgotten is gone, and may come again as new', async t => {
    const { alarmBook: book } = await openBooks(t, open)
    for (const name of ['one', 'two']) {
      await book.see(name, seen)
      await book.tell(name, told)
    }
    await book.forget('one')
    await book.forget('one')
    t.same((await book.all()).map(({ name }) => name), ['two'])
    await book.see('one', seen)
    t.same((await book.all())[0], { name: 'one', seen, told: null })
  })
}
