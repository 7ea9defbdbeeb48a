import type { Test } from 'tap'
import { endsKeptMs, type Page, type PageRequest, type TaskRecord, type UsageRow } from '../../src/domain/records.ts'
import type { TaskFilter } from '../../src/domain/task-list.ts'
import { pagesOf } from '../helpers/pages.ts'
import { answer, openBooks, type OpenStore, periodStart, places, sent, terms } from './open-books.ts'

const subject = 'app:alice'
const all = { cursor: null, limit: 100 }
const dayMs = 86_400_000
const ever = { from: '2000-01-01', to: '2100-01-01' }

/** Every TaskRecords must pass this, whatever is behind it. */
export function taskRecordsContract (t: Test, open: OpenStore): void {
  for (const group of [listing, narrowing, ofAll, inFull, ending, releasing, summing, retaining]) group(t, open)
}

async function allPages (
  read: (page: PageRequest) => Promise<Page<TaskRecord>>,
  limit: number,
  between = async () => {}
): Promise<TaskRecord[]> {
  const found: TaskRecord[] = []
  for await (const { items } of pagesOf(cursor => read({ cursor, limit }))) {
    if (items.length > limit) throw new Error('a page is too long')
    found.push(...items)
    await between()
  }
  return found
}

function listing (t: Test, open: OpenStore): void {
  t.test('a record says what has become of a task', async t => {
    const { records, ledger, at, time } = await openBooks(t, open)
    const createdAt = time.now()
    const id = await at('claimed', { operation: 'batch', model: 'sora-2', microcredits: 5 }, 'one')
    const claimed = {
      id,
      subject,
      taskId: 'one',
      operation: 'batch',
      model: 'sora-2',
      stage: 'claimed',
      state: null,
      microcredits: 5,
      refunded: false,
      createdAt,
      endedAt: null,
      abandonedAt: null
    }
    t.same(await records.tasksOf(subject, all), { items: [claimed], next: null })
    time.advance(1000)
    await ledger.settle({ taskId: 'one', state: 'failed', answer })
    const failed = { ...claimed, stage: 'settled', state: 'failed', refunded: true, endedAt: createdAt + 1000 }
    t.same(await records.tasksOf(subject, all), { items: [failed], next: null })
    const lost = await at('unknown')
    t.match((await records.tasksOf(subject, all)).items, [
      { id: lost, taskId: null, stage: 'unknown', state: null, endedAt: createdAt + 1000 },
      failed
    ])
    await at('settled', {}, 'two')
    t.match((await records.tasksOf(subject, all)).items[0], {
      taskId: 'two',
      stage: 'settled',
      state: 'success',
      refunded: false
    })
  })

  t.test('a list has what was claimed or is unknown, once, and nothing that may be nothing yet', async t => {
    const { records, ledger, at, time } = await openBooks(t, open)
    for (const place of places.filter(place => place !== 'given up')) {
      await at(place, {}, place)
      time.advance(1)
    }
    await at('claimed', { subject: 'app:bob' }, 'of bob')
    const listed = async () =>
      (await records.tasksOf(subject, all)).items.map(({ taskId, stage }) => `${taskId} ${stage}`)
    t.same(await listed(), ['null unknown', 'settled settled', 'claimed claimed'])
    time.advance(terms.giveUpMs)
    await ledger.sweep()
    t.same(
      await listed(),
      ['null unknown', 'settled settled', 'claimed unknown', 'null unknown'],
      'what was sent is unknown, too'
    )
    t.same((await records.tasksOf('app:carol', all)).items, [])
  })

  t.test('a list comes in pages, the newest first, and does not shift when more is made', async t => {
    const { records, at, time } = await openBooks(t, open)
    for (let count = 0; count < 10; count++) {
      await at('claimed', {}, `task ${count}`)
      time.advance(1)
    }
    let count = 0
    const found = await allPages(
      page => records.tasksOf(subject, page),
      3,
      async () => {
        await at('claimed', {}, `new ${count++}`)
      }
    )
    t.same(
      found.map(({ taskId }) => taskId),
      Array.from({ length: 10 }, (_, index) => `task ${9 - index}`)
    )
    t.equal(
      (await records.tasksOf(subject, { cursor: null, limit: count + 10 })).next,
      null,
      'a page that is just full is the last'
    )
  })

  t.test('what runs and what has ended are one list in the order of the submits, on pages of any length', async t => {
    const { records, at, ledger } = await openBooks(t, open)
    const stages = 'sccscssccccsc'.split('').map(letter => letter === 's' ? 'settled' as const : 'claimed' as const)
    for (const [index, stage] of stages.entries()) await at(stage, {}, `task ${index}`)
    for (const index of [1, 8]) await ledger.settle({ taskId: `task ${index}`, state: 'success', answer })
    const newestFirst = stages.map((_, index) => `task ${index}`).reverse()
    for (const limit of [1, 2, 3, 5, 50]) {
      const listed = await allPages(page => records.tasksOf(subject, page), limit)
      t.same(listed.map(({ taskId }) => taskId), newestFirst, `${limit} a page`)
    }
  })
}

const idsOf = (records: readonly TaskRecord[]) => records.map(({ taskId, model }) => taskId ?? model)

function narrowing (t: Test, open: OpenStore): void {
  t.test('a list is narrowed by model, state and time, on pages of any length', async t => {
    const { records, at, time } = await openBooks(t, open, { giveUpMs: 9 * dayMs })
    const start = time.now()
    for (let count = 0; count < 12; count++) {
      await at(count % 2 === 0 ? 'settled' : 'claimed', { model: count % 3 === 0 ? 'suno' : 'veo' }, `task ${count}`)
      time.advance(dayMs / 4)
    }
    await at('unknown', { model: 'lost' })
    const listed = async (filter: TaskFilter, limit = 100) =>
      idsOf(await allPages(page => records.tasksOf(subject, page, filter), limit))
    const tasks = (...numbers: readonly number[]) => numbers.map(number => `task ${number}`)
    for (const limit of [1, 2, 100]) {
      t.same(await listed({ model: 'suno' }, limit), tasks(9, 6, 3, 0))
      t.same(await listed({ state: 'running' }, limit), tasks(11, 9, 7, 5, 3, 1))
      t.same(await listed({ state: 'success', model: 'suno' }, limit), tasks(6, 0))
      t.same(await listed({ from: start + dayMs, before: start + 2 * dayMs }, limit), tasks(7, 6, 5, 4))
    }
    t.same(await listed({ state: 'unknown' }), ['lost'])
    t.same(await listed({ state: 'failed' }), [])
    t.same(await listed({ from: start + 9 * dayMs }), [])
    t.same(await listed({ before: start }), [])
    t.equal((await records.tasksOf(subject, { cursor: null, limit: 4 }, { model: 'suno' })).next, null, 'just full')
  })

  t.test('the end of a span is found among many, and in spite of a clock that was put back', async t => {
    const { records, at, time } = await openBooks(t, open)
    for (let day = 0; day < 20; day++) {
      await at('settled', {}, `day ${day}`)
      time.advance(day === 9 ? -dayMs / 2 : dayMs)
    }
    const start = time.now() - 18.5 * dayMs
    const of = async (from: number, before: number) =>
      idsOf((await records.tasksOf(subject, all, { from: start + from * dayMs, before: start + before * dayMs })).items)
    t.same(await of(4, 6), ['day 5', 'day 4'])
    t.same(await of(8, 10), ['day 11', 'day 10', 'day 9', 'day 8'], 'two were made after it was put back')
    t.same(await of(0, 1), ['day 0'])
    t.same(await of(17, 30), ['day 19'])
  })
}

function ofAll (t: Test, open: OpenStore): void {
  t.test('the tasks of all subjects are one list, the newest first, on pages of any length', async t => {
    const { records, at, time } = await openBooks(t, open)
    for (let count = 0; count < 12; count++) {
      const more = { subject: `app:${'abc'[count % 3]} {${count % 3}}`, model: count % 2 === 0 ? 'suno' : 'veo' }
      await at(count % 4 === 0 ? 'claimed' : 'settled', more, `task ${count}`)
      time.advance(1)
    }
    await at('sent', { subject: 'app:z' })
    const listed = async (filter: TaskFilter, limit: number) =>
      idsOf(await allPages(page => records.tasks(page, filter), limit))
    const newest = (wanted: (number: number) => boolean) =>
      Array.from({ length: 12 }, (_, index) => 11 - index).filter(wanted).map(number => `task ${number}`)
    for (const limit of [1, 3, 5, 100]) {
      t.same(await listed({}, limit), newest(() => true), `${limit} a page`)
      t.same(await listed({ state: 'running' }, limit), newest(number => number % 4 === 0), `${limit} a page, running`)
      t.same(await listed({ model: 'veo' }, limit), newest(number => number % 2 === 1), `${limit} a page, of one model`)
    }
    t.same(await records.tasks({ cursor: 'made up', limit: 3 }, {}), { items: [], next: null })
  })

  t.test('tasks of several subjects that were made in one instant are each listed once', async t => {
    const { records, at } = await openBooks(t, open)
    for (let count = 0; count < 6; count++) await at('claimed', { subject: `app:${count}` }, `task ${count}`)
    for (const filter of [{}, { state: 'running' }] as const) {
      const found = idsOf(await allPages(page => records.tasks(page, filter), 1))
      t.same(found.sort(), Array.from({ length: 6 }, (_, index) => `task ${index}`))
    }
  })

  t.test('what was forgotten is in no list of all', async t => {
    const { records, at, time } = await openBooks(t, open)
    await at('settled', {}, 'old')
    time.advance(terms.retentionMs)
    await at('settled', { subject: 'app:bob' }, 'young')
    for (const filter of [{}, { state: 'success' }] as const) {
      t.same(idsOf(await allPages(page => records.tasks(page, filter), 10)).filter(id => id !== 'old'), ['young'])
    }
  })
}

function inFull (t: Test, open: OpenStore): void {
  t.test('one task is told in full, by its own id and by that of its record', async t => {
    const { records, ledger, accounts, at, time } = await openBooks(t, open)
    await accounts.grant({ subject, microcredits: 3 })
    const createdAt = time.now()
    const session = { id: 'se:ssion', uses: 9, creditLimit: null, expiresAt: createdAt + dayMs }
    const id = await at('claimed', { microcredits: 5, creditLimit: 2, refundable: true, session }, 'one')
    const running = {
      id,
      subject,
      taskId: 'one',
      operation: 'generateTask',
      model: 'nano-banana',
      stage: 'claimed',
      state: null,
      microcredits: 5,
      refunded: false,
      createdAt,
      endedAt: null,
      abandonedAt: null,
      keyId: sent.keyId,
      refundable: true,
      periodStart,
      fromGrants: 3,
      sessionId: 'se:ssion',
      leaseUntil: createdAt + terms.giveUpMs,
      answerBytes: null
    }
    t.same(await records.taskAt('one'), running)
    t.same(await records.taskAt(id), running)
    time.advance(1000)
    await ledger.settle({ taskId: 'one', state: 'success', answer })
    const ended = { stage: 'settled', state: 'success', endedAt: time.now(), leaseUntil: null, answerBytes: answer.length }
    t.same(await records.taskAt('one'), { ...running, ...ended })
    const lost = await at('unknown')
    t.match(await records.taskAt(lost), { taskId: null, stage: 'unknown', sessionId: null, answerBytes: null })
    for (const name of [await at('reserved'), await at('sent'), await at('released'), 'two', '', '0', 'x#1', '*']) {
      t.equal(await records.taskAt(name), null, name)
    }
  })
}

function ending (t: Test, open: OpenStore): void {
  t.test('ends are told in their order, each place once, in pages of any length, and those of one subject', async t => {
    const { records, ledger, at, time } = await openBooks(t, open)
    const begin = time.now()
    const later: string[] = []
    for (let count = 0; count < 12; count++) {
      if (count % 3 === 0) time.advance(1000)
      await at(count % 2 === 0 ? 'settled' : 'claimed', {}, `täsk {${count}}`)
      if (count % 2 === 1) later.push(`täsk {${count}}`)
    }
    for (const place of ['sent', 'unknown', 'released'] as const) await at(place)
    await at('settled', { subject: 'app:bob' }, 'of bob')
    time.advance(1000)
    for (const taskId of later) await ledger.settle({ taskId, state: 'failed', answer })
    const first = { endedAt: begin, taskId: '' }
    const whole = await records.endsOf(subject, first, 100)
    const [early, late] = [whole.slice(0, 6), whole.slice(6)]
    t.same(early.map(({ taskId }) => taskId).sort(), [0, 10, 2, 4, 6, 8].map(count => `täsk {${count}}`))
    t.same(early.map(({ endedAt }) => (endedAt - begin) / 1000), [1, 1, 2, 3, 3, 4])
    t.same(late.map(({ taskId }) => taskId).sort(), later.sort())
    t.same(late.map(({ endedAt }) => endedAt), later.map(() => begin + 5000))
    for (const limit of [1, 2, 5, 12]) {
      const found = []
      for (
        let page = await records.endsOf(subject, first, limit);
        page.length > 0;
        page = await records.endsOf(subject, page.at(-1)!, limit)
      ) { found.push(...page) }
      t.same(found, whole, `by ${limit}`)
    }
    t.same(
      await records.endsOf(subject, { endedAt: begin + 5000, taskId: '' }, 100),
      late,
      'those at that very time too'
    )
    t.same(await records.endsOf(subject, { endedAt: begin + 5001, taskId: '' }, 100), [])
    t.same(await records.endsOf('app:carol', first, 100), [])
  })

  t.test('ends of the last day stay in order, however many there are', async t => {
    const { records, at, time } = await openBooks(t, open)
    await at('settled', {}, 'long ago')
    time.advance(endsKeptMs - 1000)
    await at('settled', {}, 'a moment ago')
    time.advance(2000)
    await at('settled', {}, 'now')
    t.same(
      (await records.endsOf(subject, { endedAt: time.now() - endsKeptMs, taskId: '' }, 100)).map(
        ({ taskId }) => taskId
      ),
      ['a moment ago', 'now']
    )
  })
}

function releasing (t: Test, open: OpenStore): void {
  t.test('the unknown ones of all subjects are listed, the oldest first, until they are let go or found', async t => {
    const { records, ledger, at, time } = await openBooks(t, open)
    const ids: string[] = []
    for (let count = 0; count < 7; count++) {
      ids.push(await at('unknown', { subject: `app:${count % 3}` }))
      await at('settled', {}, `task ${count}`)
      time.advance(1)
    }
    const unknowns = async () => (await allPages(records.unknowns, 2)).map(({ id }) => id)
    t.same(await unknowns(), ids)
    await records.release(ids[1]!)
    await ledger.advance(ids[3]!, { to: 'claimed', taskId: 'found' })
    t.same(await unknowns(), ids.filter((_, index) => index !== 1 && index !== 3))
  })

  t.test('what the operator lets go is given back once, also when fifty ask for it', async t => {
    const { records, accounts, at } = await openBooks(t, open)
    await at('claimed', { microcredits: 3 }, 'another')
    const id = await at('unknown', { microcredits: 5 })
    const released = await Promise.all(Array.from({ length: 50 }, () => records.release(id)))
    t.equal(released.filter(Boolean).length, 1)
    t.equal(await records.release(id), false)
    t.same(await accounts.balanceOf(subject, periodStart), { used: 3, granted: 0, unfinished: 1 })
    t.match((await records.tasksOf(subject, all)).items[0], { id, stage: 'unknown', refunded: true, microcredits: 5 })
  })

  for (const place of places.filter(place => place !== 'unknown' && place !== 'given up')) {
    t.test(`what is ${place} is not let go`, async t => {
      const { records, at, creditsUsed } = await openBooks(t, open)
      const id = await at(place, { microcredits: 5 })
      const before = await creditsUsed()
      t.equal(await records.release(id), false)
      t.equal(await creditsUsed(), before)
    })
  }

  t.test('a name that no reservation has is not let go', async t => {
    const { records, at } = await openBooks(t, open)
    await at('unknown')
    for (const name of ['', '0', '-1', '1e0', ' 1', 'x', '*', '9'.repeat(30), "1' OR '1"]) {
      t.equal(await records.release(name), false, name)
    }
    t.equal((await records.unknowns(all)).items.length, 1)
  })

  t.test(
    'what was let go and is found after all has its owner and slot, costs nothing, and is not refunded again',
    async t => {
      const { records, ledger, accounts, at, time } = await openBooks(t, open)
      await at('claimed', { microcredits: 3 }, 'another')
      const [late, swept] = [await at('unknown', { microcredits: 5 }), await at('unknown', { microcredits: 7 })]
      for (const id of [late, swept]) await records.release(id)
      await ledger.advance(late, { to: 'claimed', taskId: 'late' })
      await ledger.advance(swept, { to: 'claimed', taskId: 'swept' })
      t.match(await ledger.taskOf('late'), { subject, stage: 'claimed' })
      t.same(await accounts.balanceOf(subject, periodStart), { used: 3, granted: 0, unfinished: 3 })
      t.equal(await ledger.settle({ taskId: 'late', state: 'failed', answer }), true)
      t.same(await accounts.balanceOf(subject, periodStart), { used: 3, granted: 0, unfinished: 2 })
      time.advance(terms.giveUpMs)
      await ledger.sweep()
      t.equal(await records.release(swept), false, 'it is unknown again, and was let go before')
      t.match(await accounts.balanceOf(subject, periodStart), { used: 3 })
    }
  )

  t.test('what the operator lets go is no refund of the period', async t => {
    const { records, ledger, at, creditsUsed } = await openBooks(t, open, { refundsPerPeriod: 1 })
    for (let count = 0; count < 3; count++) await records.release(await at('unknown', { microcredits: 5 }))
    await at('claimed', { microcredits: 5 })
    await ledger.settle({ taskId: 'task', state: 'failed', answer })
    t.equal(await creditsUsed(), 0)
  })
}

function summing (t: Test, open: OpenStore): void {
  t.test('usage is summed up by day, subject and model, and knows what ended how and what is charged', async t => {
    const { records, ledger, at, time } = await openBooks(t, open, { refundsPerPeriod: 1 })
    const [bob, suno] = [{ subject: 'app:bob' }, { model: 'suno' }]
    for (const place of ['settled', 'claimed', 'unknown', 'sent', 'reserved', 'released'] as const) {
      await at(place, { microcredits: 5 }, place)
    }
    await at('settled', { ...suno, microcredits: 100 }, 'suno')
    for (const taskId of ['refunded', 'charged']) {
      await at('claimed', { microcredits: 7 }, taskId)
      await ledger.settle({ taskId, state: 'failed', answer })
    }
    await at('settled', { ...bob, microcredits: 11 }, 'of bob')
    time.advance(dayMs)
    await records.release(await at('unknown', { ...bob, microcredits: 13 }))
    await at('claimed', { ...bob, microcredits: 17 }, 'of the day after')

    const [today, tomorrow] = ['2026-01-15', '2026-01-16']
    const none = { tasks: 0, succeeded: 0, failed: 0, unknown: 0, microcredits: 0 }
    const rows: UsageRow[] = [
      {
        ...none,
        day: today!,
        subject,
        model: 'nano-banana',
        tasks: 5,
        succeeded: 1,
        failed: 2,
        unknown: 1,
        microcredits: 22
      },
      { ...none, day: today!, subject, model: 'suno', tasks: 1, succeeded: 1, microcredits: 100 },
      { ...none, day: today!, subject: 'app:bob', model: 'nano-banana', tasks: 1, succeeded: 1, microcredits: 11 },
      { ...none, day: tomorrow!, subject: 'app:bob', model: 'nano-banana', tasks: 2, microcredits: 17 }
    ]
    t.same(await records.usage(ever), rows)
    t.same(await records.usage({ from: today!, to: today! }), rows.slice(0, 3))
    t.same(await records.usage({ from: tomorrow!, to: '2026-02-01' }), rows.slice(3))
    t.same(await records.usage({ from: '2026-01-17', to: '2026-02-01' }), [])
  })

  t.test('what was let go is not unknown in the usage of its day, whatever comes of it later', async t => {
    const { records, ledger, at, time } = await openBooks(t, open)
    const [late, swept] = [await at('unknown', { microcredits: 5 }), await at('unknown', { microcredits: 7 })]
    const still = await at('unknown', { microcredits: 11 })
    const day = '2026-01-15'
    const none = { day, subject, model: 'nano-banana', tasks: 3, succeeded: 0, failed: 0, unknown: 0, microcredits: 0 }
    t.same(await records.usage(ever), [{ ...none, unknown: 3, microcredits: 23 }])
    time.advance(dayMs)
    for (const id of [late, swept, late]) await records.release(id)
    t.same(
      await records.usage(ever),
      [{ ...none, unknown: 1, microcredits: 11 }],
      'as many as the list of unknown ones has'
    )
    await ledger.advance(late, { to: 'claimed', taskId: 'late' })
    await ledger.advance(swept, { to: 'claimed', taskId: 'swept' })
    t.same(await records.usage({ from: day, to: day }), [{ ...none, unknown: 1, microcredits: 11 }], 'found')
    await ledger.settle({ taskId: 'late', state: 'success', answer })
    time.advance(terms.giveUpMs)
    await ledger.sweep()
    t.same(await records.usage(ever), [{ ...none, succeeded: 1, unknown: 1, microcredits: 11 }], 'and unknown again')
    await records.release(still)
    t.same(await records.usage(ever), [{ ...none, succeeded: 1 }])
  })

  t.test('a day is one of UTC, and that of the reservation', async t => {
    const { records, ledger, reserve, time } = await openBooks(t, open)
    time.advance(Date.UTC(2026, 1, 28, 23, 59, 59, 999) - time.now())
    const id = await reserve()
    time.advance(1)
    await ledger.advance(id, sent)
    await ledger.advance(id, { to: 'claimed', taskId: 'task' })
    const other = await reserve()
    await ledger.advance(other, sent)
    await ledger.advance(other, { to: 'unknown' })
    t.match(await records.usage(ever), [{ day: '2026-02-28', unknown: 0 }, { day: '2026-03-01', unknown: 1 }])
  })
}

function retaining (t: Test, open: OpenStore): void {
  t.test('what has ended is forgotten past its retention, with its answer; usage is not', async t => {
    const { records, ledger, at, time, tidyAll } = await openBooks(t, open)
    for (let count = 0; count < 12; count++) await at('settled', { model: `model ${count % 2}` }, `old ${count}`)
    await at('unknown')
    time.advance(dayMs)
    await at('settled', {}, 'young')
    const before = await records.usage(ever)
    time.advance(terms.retentionMs - dayMs - 1)
    await tidyAll()
    t.equal((await records.tasksOf(subject, all)).items.length, 14, 'not a millisecond too early')
    t.match(await ledger.taskOf('old 0'), { stage: 'settled' })
    time.advance(1)
    await tidyAll()
    t.same((await records.tasksOf(subject, all)).items.map(({ taskId }) => taskId), ['young'])
    t.same((await records.unknowns(all)).items, [])
    t.equal(await ledger.taskOf('old 0'), null)
    t.match(await ledger.taskOf('young'), { stage: 'settled', finalAnswer: answer })
    t.same(await records.usage(ever), before)
    time.advance(dayMs)
    await tidyAll()
    t.same(await records.usage(ever), before, 'the sums of one day are added up')
    t.same((await records.tasksOf(subject, all)).items, [])
  })

  t.test('what has not ended, or ended late, is kept for as long after its end', async t => {
    const { records, ledger, at, time, tidyAll } = await openBooks(t, open, { giveUpMs: 2 * terms.retentionMs })
    await at('claimed', { microcredits: 5 }, 'running')
    await at('claimed', { microcredits: 5 }, 'late')
    time.advance(terms.retentionMs - 1)
    await ledger.settle({ taskId: 'late', state: 'success', answer })
    time.advance(terms.retentionMs - 1)
    await tidyAll()
    t.same((await records.tasksOf(subject, all)).items.map(({ taskId }) => taskId), ['late', 'running'])
    time.advance(1)
    await tidyAll()
    t.same((await records.tasksOf(subject, all)).items.map(({ taskId }) => taskId), ['running'])
    t.equal(await ledger.settle({ taskId: 'running', state: 'failed', answer }), true)
    t.match(await records.usage(ever), [{ tasks: 2, succeeded: 1, failed: 1, microcredits: 5 }])
  })

  t.test('credits of the running period are not touched by it', async t => {
    const { accounts, at, time, tidyAll } = await openBooks(t, open)
    time.advance(terms.retentionMs)
    const now = { periodStart: time.now() - 30 * dayMs }
    await at('claimed', { ...now, microcredits: 5 })
    await tidyAll()
    t.match(await accounts.balanceOf(subject, now.periodStart), { used: 5 })
  })
}
