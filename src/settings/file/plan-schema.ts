import { Type } from 'typebox'
import { amount, count, exact, fieldPath, glob, group, oneOf, text, word } from './vocabulary.ts'

/** What a session may do. Keys that are missing take their defaults in any plan, not in `default` alone. */
export const plan = group({
  models: Type.Array(Type.String(glob), {
    title: 'a list of globs',
    description: 'Models that may be used. Empty means none.',
    default: ['*']
  }),
  requestsPerMinute: count(60, 'Submits and LLM calls a minute, per subject.'),
  pollsPerMinute: count(600, 'Status calls a minute, per subject: they have their own budget.'),
  concurrentTasks: count(5, 'Unfinished tasks at a time, per subject.'),
  credits: Type.Union([amount('Credits.'), Type.Literal('unlimited')], {
    title: 'a number, 0 to 1000000000, or the word unlimited',
    description: 'Credits per period, per subject, at most 6 decimals. `unlimited` must be written out.',
    default: 100
  }),
  period: oneOf(['minute', 'hour', 'day', 'month'], 'day', 'How often the credits begin anew, by UTC.')
})

const submitPrice = group({
  credits: amount('Credits per submit, or per unit of `per`.'),
  per: Type.Optional(text(fieldPath, 'a field of the body such as input.duration', 'It multiplies the credits; below the min of its cap, or below 1, it counts as that.')),
  default: Type.Optional(amount('The number that counts when the field of `per` is absent.')),
  onFailed: Type.Optional(word(['refund', 'charge'], 'The credits of a failed task; refund when absent.'))
})

const tokenPrice = group({
  inputPerMillion: amount('Credits per million input tokens.'),
  outputPerMillion: amount('Credits per million output tokens.')
})

export const price = Type.Union([amount('Credits per submit.'), submitPrice, tokenPrice], {
  title: 'a number, or {credits, per, default, onFailed}, or {inputPerMillion, outputPerMillion}'
})

const plainValue = Type.Union([Type.String(), Type.Number(), Type.Boolean()], {
  title: 'a text, a number, or true or false'
})

/** Bounds of one field of a request. */
const cap = Type.Object({
  min: Type.Optional(Type.Number({ title: 'a number', description: 'The least number allowed.' })),
  max: Type.Optional(Type.Number({ title: 'a number', description: 'The greatest number allowed.' })),
  oneOf: Type.Optional(Type.Array(plainValue, {
    minItems: 1,
    title: 'a list of at least one value',
    description: 'The only values allowed.'
  }))
}, { ...exact, minProperties: 1, title: 'a mapping with min, max or oneOf' })

export const caps = Type.Record(Type.String({ pattern: fieldPath }), cap, {
  ...exact,
  title: 'caps, each under a field of the body such as input.duration'
})
