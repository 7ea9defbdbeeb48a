import t from 'tap'
import { maxPatternText, textPattern } from '../../src/domain/caps.ts'

t.test('a pattern matches anywhere in a text, in the syntax of RE2', async t => {
  t.ok(textPattern('b+')('abbc'))
  t.notOk(textPattern('^b+')('abbc'))
  t.ok(textPattern('(?i)LIGHT\\w*')('a lighthouse'))
  t.ok(textPattern('^\\p{Greek}+$')('αβγ'))
})

t.test('what is none, what is no part of RE2 and what is too large is refused', async t => {
  for (const [source, message] of [
    ['[', /missing closing \]/],
    ['(a)\\1', /invalid escape sequence/],
    ['a(?=b)', /invalid or unsupported/],
    ['(?:a{50}){50}', /./],
    ['[ab]{1000}c{1000}', /too large/]
  ] as const) t.throws(() => textPattern(source), { name: 'RangeError', message }, source)
})

t.test('no text makes a pattern slow', async t => {
  const texts = ['a', '-', '--', 'ab', ' a', '--rs', 'é', '😀'].map(part => part.repeat(maxPatternText).slice(0, maxPatternText))
  for (const source of ['(a+)+$', '(a*)*b', '(a|a)*c', '(?:a?){30}a{30}$', '(.*)(.*)(.*)[^a]x', '--(?i:rs|dur)\\b', 'a.{1,300}b$']) {
    const matches = textPattern(source)
    for (const text of texts) {
      const { user: before } = process.threadCpuUsage()
      matches(`${text.slice(1)}!`)
      t.ok(process.threadCpuUsage().user - before < 2_000_000, `${source}: ${text.slice(0, 4)}`)
    }
  }
})
