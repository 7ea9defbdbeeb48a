import { asciiFold, capProblem, type CapRule, textPattern } from '../domain/caps.ts'
import { globs } from '../domain/policy.ts'
import {
  type ConditionalRule, type Conditions, defaultOf, perFields, type PriceRule, submitRules
} from '../domain/prices.ts'
import { hasOwnPrefix, ownIss } from '../domain/session.ts'
import { tokenGlob } from '../domain/token-prices.ts'
import { ceilingProblems, planPoolProblems } from './ceiling-rules.ts'
import type { GatewayFile, IssuerSettings } from './file-schema.ts'
import { type FileProblem, type GatewayFileReading, type KeyPath, leaves, pathText } from './file.ts'
import { insecurityOf, reachOf } from './parsers.ts'
import { shown } from './problems.ts'

/** A rule of a price, and where it stands in the file. */
interface PlacedRule {
  readonly path: KeyPath
  readonly rule: ConditionalRule
}

function rulesOf (glob: string, price: PriceRule): readonly PlacedRule[] {
  return (submitRules(price) ?? []).map((rule, index) => ({
    path: Array.isArray(price) ? ['prices', glob, index] : ['prices', glob],
    rule
  }))
}

/** What must hold for prices beyond the shape of their keys. */
export function priceProblems ({ prices }: GatewayFile): FileProblem[] {
  return [
    ...Object.entries(prices).flatMap(([glob, price]) => {
      const rules = rulesOf(glob, price)
      return [...rules.flatMap(factorProblems), ...rules.flatMap(deadRules), ...lastProblems(rules)]
    }),
    ...hiddenGlobs(prices).filter(({ glob }) => !isOldForm(prices[glob]!)).map(({ path, by }) => ({
      path,
      problem: `never counts, as ${pathText(['prices', by])} comes first`,
      expected: 'the narrower of two globs first'
    }))
  ]
}

function factorProblems ({ path, rule }: PlacedRule): FileProblem[] {
  const per = perFields(rule)
  const at = [...path, 'per']
  const twice = per.filter((field, index) => per.indexOf(field) !== index)
  const outside = isInList(path) ? per.filter(field => !isOfInput(field)) : []
  return [
    ...twice.map(field => ({ path: at, problem: `names ${field} twice`, expected: 'each field once' })),
    ...outside.map(field => ({ path: at, problem: `is ${field}`, expected: `input.${field}` })),
    ...defaultProblems(rule, per, [...path, 'default'])
  ]
}

function defaultProblems (
  { default: value }: ConditionalRule, per: readonly string[], path: KeyPath
): FileProblem[] {
  if (value === undefined) return []
  if (per.length === 0) {
    return [{ path, problem: 'stands without per', expected: 'beside it per, the field that it stands in for' }]
  }
  if (typeof value === 'number') {
    const expected = 'numbers, each under its field'
    return per.length === 1 ? [] : [{ path, problem: 'is one number for several fields', expected }]
  }
  return Object.keys(value).filter(field => !per.includes(field)).map(field =>
    ({ path: [...path, field], problem: 'is no field of per', expected: `one of ${per.join(', ')}` }))
}

function isInList (path: KeyPath): boolean {
  return path.length > 2
}

export function isOfInput (field: string): boolean {
  return field.startsWith('input.')
}

/** A sentence for the log, and where in the file it is about. */
export function warning (path: KeyPath, problem: string): FileProblem {
  return { path, problem, expected: '' }
}

function lastProblems (rules: readonly PlacedRule[]): FileProblem[] {
  const last = rules.at(-1)
  if (last?.rule.when === undefined) return []
  return [{
    path: last.path,
    problem: 'is the last rule, and has a when',
    expected: 'after it a rule without when, for all that matches no other'
  }]
}

/** A rule, or a value of it, that an earlier one always takes first. */
function deadRules (
  { path, rule: { when = {} } }: PlacedRule, index: number, rules: readonly PlacedRule[]
): FileProblem[] {
  const earlier = rules.slice(0, index)
  const coverOf = (conditions: Conditions) => earlier.find(({ rule }) => covers(rule.when ?? {}, conditions))
  const problem = (by: PlacedRule) => `never counts, as ${pathText(by.path)} comes first`
  const cover = coverOf(when)
  if (cover !== undefined) return [{ path, problem: problem(cover), expected: 'the rule with more conditions first' }]
  return Object.entries(when).flatMap(([field, values]) => [values].flat().flatMap(value => {
    const by = coverOf({ ...when, [field]: value })
    if (by === undefined) return []
    const at = [...path, 'when', field]
    return [{ path: at, problem: `${shown(String(value))} ${problem(by)}`, expected: 'each value in one rule' }]
  }))
}

/** Whether all that matches the narrow conditions matches the wide ones as well, whatever the case of its letters. */
function covers (wide: Conditions, narrow: Conditions): boolean {
  return Object.entries(wide).every(([field, values]) => {
    const [taken, given] = [valuesIn(values), narrow[field]]
    return given !== undefined && valuesIn(given).every(value => taken.includes(value))
  })
}

function valuesIn (values: Conditions[string]): ReadonlyArray<string | number | boolean> {
  return [values].flat().map(value => typeof value === 'string' ? asciiFold(value) : value)
}

/** Globs whose models an earlier one takes all. Prices per token and prices of submits do not see each other. */
function hiddenGlobs (prices: GatewayFile['prices']) {
  const rows = Object.entries(prices).map(([glob, price]) => ({ glob, isText: submitRules(price) === null }))
  return rows.flatMap(({ glob, isText }, index) => {
    // What a star of the later one stands for, a star of the earlier one has to take.
    const takes = (earlier: string): boolean =>
      (isText ? tokenGlob(earlier) : globs([earlier], { ignoreCase: true }))(glob)
    const by = rows.slice(0, index).find(row => row.isText === isText && takes(row.glob))
    return by === undefined ? [] : [{ glob, path: ['prices', glob], by: by.glob }]
  })
}

/** As version 0.3.0 knew it. Files of that time start as they did, whatever is odd in them. */
function isOldForm (price: PriceRule): boolean {
  if (typeof price === 'number') return true
  return !Array.isArray(price) && !('min' in price) && !('per' in price && typeof price.per === 'object') &&
    !('default' in price && typeof price.default === 'object')
}

/** What may be meant as it stands, and most often is not. */
export function priceWarnings ({ prices }: GatewayFile): FileProblem[] {
  if (Object.keys(prices).length === 0) {
    return [warning(['prices'], 'is empty: every submit costs one credit, a film as much as a picture.')]
  }
  const rows = Object.entries(prices).map(([glob, price]) => rulesOf(glob, price))
  return [
    ...hiddenGlobs(prices).filter(({ glob }) => isOldForm(prices[glob]!)).map(({ path, by }) =>
      warning(path, `never counts, as ${pathText(['prices', by])} comes first.`)),
    ...rows.flat().flatMap(({ path, rule }) => perFields(rule).filter(field => !isOfInput(field)).map(field =>
      warning([...path, 'per'], `is ${field}, which no submit has: write input.${field}.`))),
    ...rows.flatMap(rules => {
      const last = rules.at(-1)
      const dearer = last && rules.find(({ rule }) => isCheaper(last.rule, rule))
      if (dearer === undefined) return []
      return [warning(last!.path, `may be cheaper than ${pathText(dearer.path)}, and counts when its fields are left out.`)]
    })
  ]
}

/** Whether there may be a submit that costs less by the first rule than by the second. */
function isCheaper (one: ConditionalRule, other: ConditionalRule): boolean {
  if (one.credits < other.credits || leastOf(one) < leastOf(other)) return true
  return perFields(other).some(field => !perFields(one).includes(field) ||
    (defaultOf(one, field) ?? Infinity) < (defaultOf(other, field) ?? 0))
}

/** What one unit of each field costs. */
function leastOf ({ credits, min = 0 }: ConditionalRule): number {
  return Math.max(credits, min)
}

/** A cap of one field, and where it stands in the file. */
interface PlacedCap {
  readonly path: KeyPath
  readonly field: string
  readonly rule: CapRule
}

function capsIn ({ caps }: GatewayFile): readonly PlacedCap[] {
  return Object.entries(caps).flatMap(([glob, fields]) =>
    Object.entries(fields).map(([field, rule]) => ({ path: ['caps', glob, field], field, rule })))
}

/** What must hold for caps beyond the shape of their keys. */
export function capProblems (file: GatewayFile): FileProblem[] {
  return capsIn(file).flatMap(cap => {
    const broken = [...boundProblems(cap), ...kindProblems(cap), ...patternProblems(cap)]
    return broken.length > 0 ? broken : capDefaultProblems(cap)
  })
}

function boundProblems ({ path, rule: { min = -Infinity, max = Infinity } }: PlacedCap): FileProblem[] {
  if (min <= max) return []
  return [{ path, problem: `min ${min} is greater than max ${max}`, expected: 'a min no greater than max' }]
}

/** A field that has to be two things at once can't be anything. */
function kindProblems ({ path, rule: { min, max, maxItems, pattern, not } }: PlacedCap): FileProblem[] {
  const kinds = [
    min !== undefined || max !== undefined ? 'a number' : [],
    maxItems !== undefined ? 'a list' : [],
    pattern !== undefined || not !== undefined ? 'a text' : []
  ].flat()
  if (kinds.length < 2) return []
  return [{ path, problem: `asks for ${kinds.join(' and for ')}`, expected: 'bounds of one kind' }]
}

function patternProblems ({ path, rule }: PlacedCap): FileProblem[] {
  return (['pattern', 'not'] as const).flatMap(key => {
    const problem = rule[key] === undefined ? null : problemOfPattern(rule[key])
    if (problem === null) return []
    return [{
      path: [...path, key],
      problem: `is no regular expression of RE2 (${problem})`,
      expected: 'one without lookarounds and references to groups'
    }]
  })
}

function problemOfPattern (source: string): string | null {
  try {
    textPattern(source)
    return null
  } catch (error) {
    return (error as RangeError).message
  }
}

function capDefaultProblems ({ path, field, rule }: PlacedCap): FileProblem[] {
  if (rule.default === undefined) return []
  const at = [...path, 'default']
  if (!isOfInput(field)) return [{ path: at, problem: `is for ${field}`, expected: 'a field of the input' }]
  if (rule.required === true) {
    return [{ path: at, problem: 'stands beside required', expected: 'one of the two: what is written in is there' }]
  }
  const problem = capProblem(rule)(rule.default)
  if (problem === null) return []
  return [{ path: at, problem: `is ${shown(String(rule.default))}, outside its own cap`, expected: `what ${problem}` }]
}

/** What may be meant as it stands, and most often is not. */
export function capWarnings (file: GatewayFile): FileProblem[] {
  return capsIn(file)
    .filter(({ field }) => !isOfInput(field) && field !== 'provider')
    .map(({ path, field }) => warning(path, `is ${field}, which no cap sees: write input.${field}.`))
}

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
  { reads: ['plans', 'pools'], check: planPoolProblems },
  { reads: ['plans', 'pools', 'gateway'], check: ceilingProblems },
  { reads: ['pools'], check: ({ pools }) => decimalProblems(pools, 'pools') },
  { reads: ['gateway'], check: ({ gateway }) => decimalProblems(gateway, 'gateway') },
  { reads: ['prices'], check: ({ prices }) => decimalProblems(prices, 'prices') },
  { reads: ['prices'], check: priceProblems },
  { reads: ['caps'], check: capProblems },
  { reads: ['limits'], check: limitProblems },
  { reads: ['sessions'], check: sessionProblems },
  { reads: ['submit'], check: fieldProblems },
  { reads: ['issuers'], check: issuerProblems },
  { reads: ['issuers', 'plans'], check: issuerPlanProblems },
  { reads: ['guests', 'plans'], check: guestProblems },
  { reads: ['alarms'], check: alarmProblems }
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

/** It is held to what an upstream is held to. Where its name leads is judged again at each connection. */
function alarmProblems ({ alarms: { url, insecureUrl } }: GatewayFile): FileProblem[] {
  if (url === undefined) return []
  const path = ['alarms', 'url']
  const parsed = /[\s\\]/.test(url) ? null : URL.parse(url)
  if (parsed === null) return [{ path, problem: `${shown(url)} is not a URL`, expected: 'a URL such as https://ops.example/alarms' }]
  if (parsed.username !== '' || parsed.password !== '') {
    return [{ path, problem: 'has credentials in it', expected: 'a URL without them: messages are signed' }]
  }
  const reason = insecurityOf(url)
  if (reason === undefined || insecureUrl) return []
  return [{ path, problem: `is refused: ${reason}`, expected: 'https: and a public host, or alarms.insecureUrl: true' }]
}

function alarmWarnings ({ alarms: { url, insecureUrl } }: GatewayFile): string[] {
  if (!insecureUrl || url === undefined) return []
  return ['alarms.insecureUrl is true: alarms may be sent unencrypted, or into a private network.']
}

/** Sentences for the log, at every start. */
export function fileWarnings ({ file, locate }: GatewayFileReading): string[] {
  const { guests } = file
  const open = guests.enabled && guests.proof === 'none'
    ? ['guests.proof is none: any program makes tasks as a guest, up to the limits of guests and at your cost.']
    : []
  const doubtful = [...priceWarnings(file), ...capWarnings(file)].map(locate).map(({ setting, source, problem }) =>
    `${setting} (${source}) ${problem}`)
  return [...open, ...alarmWarnings(file), ...doubtful]
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
