import t from 'tap'
import { first } from '../src/cli/operator.ts'
import { type Column, paragraph, table } from '../src/cli/output.ts'

interface Row { readonly id: string, readonly name: string, readonly note: string, readonly count: number }
const columns: ReadonlyArray<Column<Row>> = [
  { title: 'id', of: ({ id }) => id },
  { title: 'name', of: ({ name }) => name, shrinks: true },
  { title: 'note', of: ({ note }) => note, shrinks: true },
  { title: 'count', of: ({ count }) => count }
]
const row = (more: Partial<Row>): Row => ({ id: '1', name: 'alice', note: 'x', count: 7, ...more })

t.test('texts stand to the left, numbers to the right', t => {
  t.equal(table(columns, [row({}), row({ id: '22', count: 123456 })]), `ID  NAME   NOTE   COUNT
1   alice  x          7
22  alice  x     123456
`)
  t.end()
})

t.test('a table fits its terminal: the widest of the columns that may shrink gives way', t => {
  const rows = [row({ id: 'x'.repeat(20), name: 'n'.repeat(100), note: 'y'.repeat(30) })]
  const lines = table(columns, rows, 80).trimEnd().split('\n')
  t.ok(lines.every(line => line.length <= 80))
  t.match(lines[1], /^x{20} {2}n{23}… {2}y{24}… {6}7$/)
  t.equal(
    table(columns, rows, Infinity).split('\n')[1]!.length,
    20 + 100 + 30 + 5 + 6,
    'and is whole when nobody looks'
  )
  t.match(table(columns, rows, 10).split('\n')[1], /^x{20} {2}n{7}… {2}y{7}… {6}7$/, 'but something of each is left')
  t.match(table(columns.slice(0, 1), rows, 10), 'x'.repeat(20))
  t.intercept(process.stdout, 'columns', { value: 60 })
  t.equal(table(columns, rows).split('\n')[1]!.length, 60, 'as wide as the terminal says it is')
  t.end()
})

t.test('a name can not talk to the terminal', t => {
  const text = table(columns, [row({ name: '\x1b[2Jmallory\u202e\u2028' })])
  t.match(text, '\uFFFD[2Jmallory\uFFFD\uFFFD')
  t.notMatch(text, /[\x1b\u202e\u2028]/) // eslint-disable-line no-control-regex
  t.end()
})

t.test('words under a row fit the terminal too, but for one that is longer than it', t => {
  t.equal(paragraph(['one=1', 'two=2', 'three=3'], 15), '    one=1 two=2\n    three=3\n')
  t.equal(
    paragraph(['one=1', `two=${'2'.repeat(20)}`, '\x1b[2J'], 12),
    `    one=1\n    two=${'2'.repeat(20)}\n    \uFFFD[2J\n`
  )
  t.equal(paragraph(['one=1', 'two=2']), '    one=1 two=2\n')
  t.equal(paragraph([]), '')
  t.end()
})

t.test('a long list is read in pages until there is enough', async t => {
  const all = Array.from({ length: 1203 }, (_, index) => index)
  const asked: number[] = []
  const read = async ({ cursor = '0', limit }: { cursor?: string | undefined, limit: number }) => {
    asked.push(limit)
    const end = Number(cursor) + limit
    return { items: all.slice(Number(cursor), end), next: end < all.length ? String(end) : null }
  }
  t.same(await first(1100, read), { items: all.slice(0, 1100), hasMore: true })
  t.same(asked, [500, 500, 100])
  t.same(await first(2000, read), { items: all, hasMore: false })
  t.same(await first(1203, read), { items: all, hasMore: false })
})
