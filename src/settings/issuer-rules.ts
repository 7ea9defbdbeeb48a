import { reachOf } from './addresses.ts'
import type { FileProblem } from './file-problems.ts'
import type { GatewayFile, IssuerSettings } from './file-schema.ts'
import type { KeyPath } from './key-path.ts'

/** What must hold for issuers beyond the shape of their keys. */
export function issuerProblems ({ issuers }: GatewayFile): readonly FileProblem[] {
  return issuers.flatMap((issuer, index) => {
    const path = ['issuers', index]
    return [
      ...keyProblems(issuer, path),
      ...nameProblems(issuer, issuers.slice(0, index), path),
      ...(issuer.jwksUrl === undefined ? [] : jwksProblems(issuer.jwksUrl, [...path, 'jwksUrl']))
    ]
  })
}

/** A public key that is taken for a shared secret lets anybody sign (RFC 8725 section 2.1). */
function keyProblems ({ jwksUrl, secretFile, algorithms }: IssuerSettings, path: KeyPath): FileProblem[] {
  if (jwksUrl === undefined && secretFile === undefined) {
    return [{ path, problem: 'has no keys', expected: 'jwksUrl, or secretFile' }]
  }
  if (jwksUrl !== undefined && secretFile !== undefined) {
    return [{ path: [...path, 'secretFile'], problem: 'stands beside jwksUrl', expected: 'one of the two' }]
  }
  const shared = algorithms.filter(algorithm => algorithm.startsWith('HS'))
  const fitting = jwksUrl === undefined ? shared.length === algorithms.length : shared.length === 0
  if (fitting) return []
  const expected = jwksUrl === undefined ? 'HS256, HS384 or HS512, for secretFile' : 'no HS algorithm, for jwksUrl'
  return [{ path: [...path, 'algorithms'], problem: 'do not fit the keys', expected }]
}

/** Stored subjects begin with these when the gateway itself has issued the session. */
const ownPrefix = /^(?:app|guest|token)(?::|$)/

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
  return problems
}

function jwksProblems (text: string, path: KeyPath): FileProblem[] {
  const url = URL.parse(text)
  const safe = url?.protocol === 'https:' || (url?.protocol === 'http:' && reachOf(url.hostname) === 'loopback')
  if (safe && url.username === '' && url.password === '') return []
  const problem = safe ? 'has credentials in it' : 'is not an https: URL'
  return [{ path, problem, expected: 'an https: URL without credentials; http: on loopback alone' }]
}
