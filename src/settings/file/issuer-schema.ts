import { Type } from 'typebox'
import { exact, group, name, text, word } from './vocabulary.ts'

const algorithms = [
  'RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512', 'ES256', 'ES384', 'ES512', 'EdDSA', 'HS256', 'HS384', 'HS512'
] as const

function claim (description: string) {
  return Type.Optional(text('.', 'the name or the path of a claim: sub, app_metadata.plan', description))
}

const claims = Type.Record(Type.String({ pattern: '.' }), Type.Array(
  Type.Union([Type.String(), Type.Boolean()], { title: 'a text, or true or false' }),
  { minItems: 1, title: 'a list of values', description: 'The values of which the claim has to have one.' }
), { ...exact, title: 'claims, each with a list of values', description: 'Claims that its tokens must carry, each with one of its values.' })

/** Somebody else who issues sessions. */
export const issuer = group({
  issuer: text('.', 'a text', 'The `iss` of its tokens, letter for letter.'),
  jwksUrl: Type.Optional(text('.', 'a URL',
    'Where its public keys are. https:, unless loopback. Without it they are found by OpenID Connect Discovery.')),
  secretFile: Type.Optional(text('.', 'the path of a file',
    'In place of public keys: a file with a secret of at least 32 bytes, shared with the issuer (HS256). It is read again ' +
    'when it changes. Several, a line each, let it rotate.')),
  audience: Type.Optional(text('.', 'a text',
    'The `aud` that its tokens must carry. Only with `claims` it may be left out, for issuers that set none.')),
  claims: Type.Optional(claims),
  algorithms: Type.Array(word(algorithms, 'A signature algorithm.'), {
    minItems: 1,
    title: 'a list of signature algorithms',
    description: 'The only algorithms accepted.',
    default: ['RS256']
  }),
  subjectClaim: claim('The claim that names the subject; `sub` when absent. Never one that users can choose themselves.'),
  subjectPrefix: Type.Optional(text('^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$', 'letters, digits, ".", "_" and "-"',
    'Stands before its subjects in place of the issuer. The same one twice merges two issuers.')),
  plan: name('the name of a plan', 'default', 'The plan of its sessions.'),
  planClaim: claim('The claim that names another plan. Never one that users can choose themselves.'),
  modelsClaim: claim('The claim that lists models; all that the plan has when this is not set. Tokens without it: none.'),
  scopesClaim: claim('The claim that lists scopes; all of them when this is not set. Tokens without it: none.')
})
