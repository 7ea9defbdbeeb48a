import t from 'tap'
import { creditNotices, type CreditsEvent, localChannel } from '../../src/domain/credit-notices.ts'

const event: CreditsEvent = {
  subject: 'app:alice', plan: 'default', pool: null, window: '0', usedPercent: 80, left: 2_000_000, resetsAt: 9e12
}

function twoReplicas () {
  const channel = localChannel<CreditsEvent>()
  let published = 0
  const count = {
    ...channel,
    publish (event: CreditsEvent) {
      published++
      channel.publish(event)
    }
  }
  return { here: creditNotices(count), there: creditNotices(count), count: () => published }
}

t.test('each step of a window is told once to all who watch the subject, whichever replica finds it', async t => {
  const { here, there, count } = twoReplicas()
  const heard: Array<readonly [string, number]> = []
  here.watch('app:alice', ({ usedPercent }) => heard.push(['here', usedPercent]))
  here.watch('app:bob', () => heard.push(['bob', 0]))
  there.watch('app:alice', ({ usedPercent }) => heard.push(['there', usedPercent]))
  for (const replica of [here, there, here]) replica.tell(event)
  t.same(heard, [['here', 80], ['there', 80]])
  t.equal(count(), 1, 'and nothing goes between replicas that was told')
  there.tell({ ...event, usedPercent: 100, left: 0 })
  here.tell({ ...event, usedPercent: 80 })
  t.same(heard.slice(2), [['here', 100], ['there', 100]], 'not 80 after 100')
  for (const more of [{ window: '1' }, { pool: 'team' }, { plan: 'team' }]) here.tell({ ...event, ...more })
  t.equal(heard.length, 10, 'other windows have steps of their own')
})

t.test('the same step that two replicas have published at a time is told once', async t => {
  const channel = localChannel<CreditsEvent>()
  const notices = creditNotices(channel)
  let heard = 0
  notices.watch('app:alice', () => heard++)
  channel.publish(event)
  channel.publish(event)
  t.equal(heard, 1)
})

t.test('who has left hears nothing more, and takes nobody along', async t => {
  const { here } = twoReplicas()
  const heard: string[] = []
  const leave = here.watch('app:alice', ({ window }) => heard.push(`one ${window}`))
  const other = here.watch('app:alice', ({ window }) => heard.push(`two ${window}`))
  leave()
  leave()
  here.tell(event)
  other()
  const again = here.watch('app:alice', ({ window }) => heard.push(`three ${window}`))
  other()
  here.tell({ ...event, window: '1' })
  again()
  here.watch('app:alice', ({ window }) => heard.push(`four ${window}`))
  here.close()
  here.tell({ ...event, window: '2' })
  t.same(heard, ['two 0', 'three 1'])
})
