import { shown } from '../settings-error.ts'
import { issuerProblems } from './issuer-rules.ts'
import { leaves, type KeyPath } from './key-path.ts'
import type { FileProblem } from './problems.ts'
import type { GatewayFile } from './schema.ts'

interface FileRule {
  /** The sections that the rule reads. It is left out while one of them has a problem of its own. */
  readonly reads: ReadonlyArray<keyof GatewayFile>
  readonly check: (file: GatewayFile) => readonly FileProblem[]
}

const rules: readonly FileRule[] = [
  { reads: ['plans'], check: ({ plans }) => missingPlan(plans, 'default', ['plans', 'default']) },
  { reads: ['plans'], check: ({ plans }) => decimalProblems(plans, 'plans') },
  { reads: ['prices'], check: ({ prices }) => decimalProblems(prices, 'prices') },
  { reads: ['prices'], check: priceProblems },
  { reads: ['caps'], check: capProblems },
  { reads: ['limits'], check: limitProblems },
  { reads: ['sessions'], check: sessionProblems },
  { reads: ['submit'], check: fieldProblems },
  { reads: ['issuers'], check: issuerProblems },
  { reads: ['issuers', 'plans'], check: issuerPlanProblems },
  { reads: ['guests', 'plans'], check: guestProblems }
]

/** What the schema can not say, because it takes two values at once or more than a shape. */
export function fileRuleProblems (file: GatewayFile, broken: ReadonlySet<keyof GatewayFile>): readonly FileProblem[] {
  return rules.filter(({ reads }) => !reads.some(section => broken.has(section))).flatMap(({ check }) => check(file))
}

function missingPlan (plans: GatewayFile['plans'], name: string, path: KeyPath): FileProblem[] {
  if (plans[name] !== undefined) return []
  return [{ path, problem: `there is no plan ${shown(name)}`, expected: 'a plan of that name under plans' }]
}

function issuerPlanProblems ({ plans, issuers }: GatewayFile): FileProblem[] {
  return issuers.flatMap(({ plan }, index) => missingPlan(plans, plan, ['issuers', index, 'plan']))
}

/** Who gives sessions to anybody has to say how much they may cost. */
function guestProblems ({ plans, guests }: GatewayFile): FileProblem[] {
  if (!guests.enabled) return []
  const problems = missingPlan(plans, guests.plan, ['guests', 'plan'])
  if (plans[guests.plan]?.credits === 'unlimited') {
    const path = ['plans', guests.plan, 'credits']
    problems.push({ path, problem: 'is unlimited, in the plan of guests', expected: 'a number' })
  }
  if (guests.proof === 'turnstile' && guests.turnstileSecretFile === undefined) {
    const path = ['guests', 'turnstileSecretFile']
    problems.push({ path, problem: 'is missing', expected: 'the path of a file, as proof is turnstile' })
  }
  return problems
}

/** Sentences for the log, at every start. */
export function fileWarnings ({ guests }: GatewayFile): string[] {
  if (!guests.enabled || guests.proof !== 'none') return []
  return ['guests.proof is none: any program makes tasks as a guest, up to the limits of guests and at your cost.']
}

/** Credits are counted in millionths. `multipleOf` could say so in the schema, but editors reckon it in binary. */
function decimalProblems (section: unknown, name: string): FileProblem[] {
  return leaves(section, [name])
    .filter(({ value }) => typeof value === 'number' && Number(value.toFixed(6)) !== value)
    .map(({ path, value }) => ({ path, problem: `is ${value}`, expected: 'a number with at most 6 decimals' }))
}

function priceProblems ({ prices }: GatewayFile): FileProblem[] {
  return Object.entries(prices)
    .filter(([, price]) => typeof price === 'object' && 'default' in price && !('per' in price))
    .map(([glob]) => ({
      path: ['prices', glob, 'default'],
      problem: 'stands without per',
      expected: 'beside it per, the field that it stands in for'
    }))
}

function capProblems ({ caps }: GatewayFile): FileProblem[] {
  return Object.entries(caps).flatMap(([glob, fields]) => Object.entries(fields)
    .filter(([, { min = -Infinity, max = Infinity }]) => min > max)
    .map(([field, { min, max }]) => ({
      path: ['caps', glob, field],
      problem: `min ${min} is greater than max ${max}`,
      expected: 'a min no greater than max'
    })))
}

function limitProblems ({ limits: { bodyBytes, bodyBytesInFlight } }: GatewayFile): FileProblem[] {
  if (bodyBytes <= bodyBytesInFlight) return []
  return [{
    path: ['limits', 'bodyBytesInFlight'],
    problem: `is ${bodyBytesInFlight}, which has no room for one body`,
    expected: `at least the ${bodyBytes} of limits.bodyBytes`
  }]
}

function sessionProblems ({ sessions: { defaultTtlSeconds, maxTtlSeconds } }: GatewayFile): FileProblem[] {
  if (defaultTtlSeconds <= maxTtlSeconds) return []
  return [{
    path: ['sessions', 'defaultTtlSeconds'],
    problem: `is ${defaultTtlSeconds}, longer than any session may last`,
    expected: `at most the ${maxTtlSeconds} of sessions.maxTtlSeconds`
  }]
}

/** Passed on, they would make APIXO send results to an address of a caller's choice. */
const neverPassed = ['callback_url', 'webhook_url', 'webhook', 'request_type']

function fieldProblems ({ submit: { fields } }: GatewayFile): FileProblem[] {
  return fields.flatMap((field, index) => {
    if (!neverPassed.includes(field.toLowerCase())) return []
    const problem = `is ${shown(field)}, which is never passed on`
    return [{ path: ['submit', 'fields', index], problem, expected: 'another field' }]
  })
}
