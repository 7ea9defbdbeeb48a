import { Type } from 'typebox'
import { group, name, text, word } from './file-vocabulary.ts'

const algorithms = [
  'RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512', 'ES256', 'ES384', 'ES512', 'EdDSA', 'HS256', 'HS384', 'HS512'
] as const

/** Somebody else who issues sessions. */
export const issuer = group({
  issuer: text('.', 'a text', 'The `iss` of its tokens, letter for letter.'),
  jwksUrl: Type.Optional(text('.', 'a URL', 'Where its public keys are. https:, unless loopback.')),
  secretFile: Type.Optional(text('.', 'the path of a file',
    'Instead of `jwksUrl`: a file with a secret of at least 32 bytes, shared with the issuer (HS256).')),
  audience: text('.', 'a text', 'The `aud` that its tokens must carry.'),
  algorithms: Type.Array(word(algorithms, 'A signature algorithm.'), {
    minItems: 1,
    title: 'a list of signature algorithms',
    description: 'The only algorithms accepted.',
    default: ['RS256']
  }),
  plan: name('the name of a plan', 'default', 'The plan of its sessions.'),
  subjectPrefix: Type.Optional(text('^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$', 'letters, digits, ".", "_" and "-"',
    'Stands before its subjects in place of the issuer. The same one twice merges two issuers.'))
})
