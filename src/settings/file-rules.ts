import { hasOwnPrefix, ownIss } from '../domain/session.ts'
import type { GatewayFile, IssuerSettings } from './file-schema.ts'
import { type FileProblem, type GatewayFileReading, type KeyPath, leaves } from './file.ts'
import { reachOf } from './parsers.ts'
import { capProblems, capWarnings } from './cap-rules.ts'
import { priceProblems, priceWarnings } from './price-rules.ts'
import { shown } from './problems.ts'

/** What must hold for issuers beyond the shape of their keys. */
function issuerProblems ({ issuers }: GatewayFile): readonly FileProblem[] {
  return issuers.flatMap((issuer, index) => {
    const path = ['issuers', index]
    return [
      ...keyProblems(issuer, path),
      ...audienceProblems(issuer, path),
      ...nameProblems(issuer, issuers.slice(0, index), path),
      ...(issuer.jwksUrl === undefined ? [] : jwksProblems(issuer.jwksUrl, [...path, 'jwksUrl']))
    ]
  })
}

/** A public key that is taken for a shared secret lets anybody sign (RFC 8725 section 2.1). */
function keyProblems ({ issuer, jwksUrl, secretFile, algorithms }: IssuerSettings, path: KeyPath): FileProblem[] {
  if (jwksUrl === undefined && secretFile === undefined && !isDiscoverable(issuer)) {
    return [
      {
        path,
        problem: 'has no keys',
        expected: 'jwksUrl, secretFile, or an https: URL as issuer that leads to its configuration'
      }
    ]
  }
  if (jwksUrl !== undefined && secretFile !== undefined) {
    return [{ path: [...path, 'secretFile'], problem: 'stands beside jwksUrl', expected: 'one of the two' }]
  }
  const shared = algorithms.filter(algorithm => algorithm.startsWith('HS'))
  const fitting = secretFile === undefined ? shared.length === 0 : shared.length === algorithms.length
  if (fitting) return []
  const expected =
    secretFile === undefined ? 'no HS algorithm, for public keys' : 'HS256, HS384 or HS512, for secretFile'
  return [{ path: [...path, 'algorithms'], problem: 'do not fit the keys', expected }]
}

/** OpenID Connect Discovery section 3: a URL without query and fragment. */
function isDiscoverable (issuer: string): boolean {
  return jwksProblems(issuer, []).length === 0 && !/[?#]/.test(issuer)
}

/** Without one of the two, a token that the issuer made for any other app would be let in (RFC 8725 section 3.9). */
function audienceProblems ({ audience, claims = {} }: IssuerSettings, path: KeyPath): FileProblem[] {
  if (audience !== undefined || Object.keys(claims).length > 0) return []
  return [
    {
      path: [...path, 'audience'],
      problem: 'is missing',
      expected: 'a text, or claims that tell tokens for this app from others'
    }
  ]
}

/** Stored subjects have 160 characters. */
const maxNameLength = 96

function nameProblems (issuer: IssuerSettings, before: readonly IssuerSettings[], path: KeyPath): FileProblem[] {
  const reserved = (['issuer', 'subjectPrefix'] as const).filter(key => hasOwnPrefix(`${issuer[key] ?? ''}:`))
  const problems: FileProblem[] = reserved.map(key => ({
    path: [...path, key],
    problem: 'begins like the subjects of the gateway\'s own sessions',
    expected: 'a name other than app, guest and token'
  }))
  if (before.some(other => other.issuer === issuer.issuer)) {
    problems.push({ path: [...path, 'issuer'], problem: 'is there twice', expected: 'each issuer once' })
  }
  if (issuer.issuer === ownIss) {
    problems.push({
      path: [...path, 'issuer'],
      problem: 'is the gateway itself',
      expected: 'the name of another issuer'
    })
  }
  if (nameOf(issuer).length > maxNameLength) {
    problems.push({
      path: [...path, 'subjectPrefix'],
      problem: 'is missing',
      expected: `a short name, as the issuer has more than ${maxNameLength} characters`
    })
  }
  if (before.some(other => isAmbiguous(nameOf(issuer), nameOf(other)))) {
    problems.push({
      path: [...path, 'subjectPrefix'],
      problem: 'is missing',
      expected: 'a name, as subjects of one issuer could be taken for those of another'
    })
  }
  if (before.some(other => nameOf(issuer) === nameOf(other) && issuer.subjectPrefix !== other.subjectPrefix)) {
    const expected = 'another name, or the same subjectPrefix for both to merge them'
    problems.push({ path: [...path, 'subjectPrefix'], problem: 'is the name of another issuer', expected })
  }
  return problems
}

function nameOf ({ issuer, subjectPrefix = issuer }: IssuerSettings): string {
  return subjectPrefix
}

/** `a` and `a:b`: the subject `b:c` of the first is the subject `c` of the second. */
function isAmbiguous (one: string, other: string): boolean {
  return one.startsWith(`${other}:`) || other.startsWith(`${one}:`)
}

function jwksProblems (text: string, path: KeyPath): FileProblem[] {
  const url = URL.parse(text)
  const safe = url?.protocol === 'https:' || (url?.protocol === 'http:' && reachOf(url.hostname) === 'loopback')
  if (safe && url.username === '' && url.password === '') return []
  const problem = safe ? 'has credentials in it' : 'is not an https: URL'
  return [{ path, problem, expected: 'an https: URL without credentials; http: on loopback alone' }]
}

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

/** An operator that gives sessions to anybody has to say how much they may cost. */
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
export function fileWarnings ({ file, locate }: GatewayFileReading): string[] {
  const { guests } = file
  const open = guests.enabled && guests.proof === 'none'
    ? ['guests.proof is none: any program makes tasks as a guest, up to the limits of guests and at your cost.']
    : []
  const doubtful = [...priceWarnings(file), ...capWarnings(file)].map(locate).map(({ setting, source, problem }) =>
    `${setting} (${source}) ${problem}`)
  return [...open, ...doubtful]
}

/** Credits are counted in millionths. `multipleOf` could say so in the schema, but editors reckon it in binary. */
function decimalProblems (section: unknown, name: string): FileProblem[] {
  return leaves(section, [name])
    .filter(({ path, value }) =>
      typeof value === 'number' && Number(value.toFixed(6)) !== value && !path.includes('when'))
    .map(({ path, value }) => ({ path, problem: `is ${value}`, expected: 'a number with at most 6 decimals' }))
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
