import { reachOf } from '../environment/addresses.ts'
import type { KeyPath } from './key-path.ts'
import type { FileProblem } from './problems.ts'
import type { GatewayFile, IssuerSettings } from './schema.ts'

/** What must hold for issuers beyond the shape of their keys. */
export function issuerProblems ({ issuers }: GatewayFile): readonly FileProblem[] {
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
    return [{ path, problem: 'has no keys', expected: 'jwksUrl, secretFile, or an https: URL as issuer that leads to its configuration' }]
  }
  if (jwksUrl !== undefined && secretFile !== undefined) {
    return [{ path: [...path, 'secretFile'], problem: 'stands beside jwksUrl', expected: 'one of the two' }]
  }
  const shared = algorithms.filter(algorithm => algorithm.startsWith('HS'))
  const fitting = secretFile === undefined ? shared.length === 0 : shared.length === algorithms.length
  if (fitting) return []
  const expected = secretFile === undefined ? 'no HS algorithm, for public keys' : 'HS256, HS384 or HS512, for secretFile'
  return [{ path: [...path, 'algorithms'], problem: 'do not fit the keys', expected }]
}

/** OpenID Connect Discovery section 3: a URL without query and fragment. */
function isDiscoverable (issuer: string): boolean {
  return jwksProblems(issuer, []).length === 0 && !/[?#]/.test(issuer)
}

/** Without one of the two, a token that the issuer made for any other app would be let in (RFC 8725 section 3.9). */
function audienceProblems ({ audience, claims = {} }: IssuerSettings, path: KeyPath): FileProblem[] {
  if (audience !== undefined || Object.keys(claims).length > 0) return []
  return [{ path: [...path, 'audience'], problem: 'is missing', expected: 'a text, or claims that tell tokens for this app from others' }]
}

/** Stored subjects begin with these when the gateway itself has issued the session. */
const ownPrefix = /^(?:app|guest|token)(?::|$)/

/** The `iss` of the gateway's own tokens. */
const ownName = 'apixo-gateway'
/** Stored subjects have 160 characters. */
const maxNameLength = 96

function nameProblems (issuer: IssuerSettings, before: readonly IssuerSettings[], path: KeyPath): FileProblem[] {
  const reserved = (['issuer', 'subjectPrefix'] as const).filter(key => ownPrefix.test(issuer[key] ?? ''))
  const problems: FileProblem[] = reserved.map(key => ({
    path: [...path, key],
    problem: 'begins like the subjects of the gateway\'s own sessions',
    expected: 'a name other than app, guest and token'
  }))
  if (before.some(other => other.issuer === issuer.issuer)) {
    problems.push({ path: [...path, 'issuer'], problem: 'is there twice', expected: 'each issuer once' })
  }
  if (issuer.issuer === ownName) {
    problems.push({ path: [...path, 'issuer'], problem: 'is the gateway itself', expected: 'the name of another issuer' })
  }
  if (nameOf(issuer).length > maxNameLength) {
    problems.push({ path: [...path, 'subjectPrefix'], problem: 'is missing', expected: `a short name, as the issuer has more than ${maxNameLength} characters` })
  }
  if (before.some(other => isAmbiguous(nameOf(issuer), nameOf(other)))) {
    problems.push({ path: [...path, 'subjectPrefix'], problem: 'is missing', expected: 'a name, as subjects of one issuer could be taken for those of another' })
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
