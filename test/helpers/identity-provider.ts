import { createServer, type ServerResponse } from 'node:http'
import { type CryptoKey, exportJWK, generateKeyPair, type JWK, SignJWT } from 'jose'
import type { Test } from 'tap'
import { httpPort } from './http-server.ts'

/** How a server of documents can be no good. Each answers one request in the place of the document. */
export const misbehaviours = {
  'is down': response => { response.destroy() },
  'says nothing': () => {},
  'stops halfway': response => { response.writeHead(200, { 'content-length': '1000' }).write('{"keys":[') },
  'has a fault': response => { response.writeHead(500).end('{"keys":[]}') },
  'is not there': response => { response.writeHead(404).end() },
  'answers in HTML': response => { response.writeHead(200, { 'content-type': 'text/html' }).end('<html>login</html>') },
  'answers nothing': response => { response.writeHead(200).end() },
  'has nothing to answer': response => { response.writeHead(204).end() },
  'answers null': response => { response.writeHead(200).end('null') },
  'answers a text': response => { response.writeHead(200).end('"keys"') },
  'has no keys': response => { response.writeHead(200).end('{"keys":[]}') },
  'has keys that are no list': response => { response.writeHead(200).end('{"keys":{"length":1}}') },
  'says far too much': response => { response.writeHead(200).end(`{"keys":[],"x":"${'x'.repeat(300_000)}"}`) },
  'never stops talking': response => {
    const more = () => { while (!response.destroyed && response.write(' '.repeat(65_536))); }
    response.writeHead(200).on('drain', more)
    more()
  },
  'sends elsewhere': response => { response.writeHead(302, { location: '/other-keys' }).end() }
} as const satisfies Record<string, (response: ServerResponse) => void>

export type Misbehaviour = keyof typeof misbehaviours

export interface SignOptions {
  /** Another key than the newest. */
  readonly key?: ProviderKey
  /** Added to the header; `undefined` takes a name away. */
  readonly header?: Readonly<Record<string, unknown>>
}

export interface ProviderKey {
  readonly kid: string
  readonly alg: string
  readonly privateKey: CryptoKey
  readonly jwk: JWK
}

/** A real server that issues tokens and publishes its keys. It ends with its test. */
export interface IdentityProvider {
  readonly origin: string
  readonly jwksUrl: string
  /** Paths that were asked for. */
  readonly requests: string[]
  /** What it publishes, next to what is no key of its own. */
  readonly published: unknown[]
  /** What its configuration says; more names, or others. */
  configuration: Record<string, unknown>
  /** From now on; `undefined`: it does well again. */
  misbehave (how: Misbehaviour | undefined): void
  /** Makes a key and publishes it. */
  addKey (alg: string, more?: JWK): Promise<ProviderKey>
  sign (claims: object, options?: SignOptions): Promise<string>
}

export async function identityProvider (t: Test, alg = 'ES256'): Promise<IdentityProvider> {
  const keys: ProviderKey[] = []
  let misbehaviour: Misbehaviour | undefined
  const server = createServer((request, response) => {
    provider.requests.push(request.url!)
    if (misbehaviour !== undefined) return misbehaviours[misbehaviour](response)
    const document = request.url!.endsWith('/.well-known/openid-configuration')
      ? provider.configuration
      : { keys: provider.published }
    response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(document))
  })
  const origin = `http://127.0.0.1:${await httpPort(t, server)}`

  const provider: IdentityProvider = {
    origin,
    jwksUrl: `${origin}/keys`,
    requests: [],
    published: [],
    configuration: { issuer: origin, jwks_uri: `${origin}/keys` },
    misbehave (how) { misbehaviour = how },
    async addKey (alg, more = {}) {
      const { privateKey, publicKey } = await generateKeyPair(alg, { extractable: true })
      const kid = `key-${keys.length + 1}`
      const jwk = { ...await exportJWK(publicKey), kid, alg, use: 'sig', ...more }
      keys.push({ kid, alg, privateKey, jwk })
      provider.published.push(jwk)
      return keys.at(-1)!
    },
    async sign (claims, { key = keys.at(-1)!, header = {} } = {}) {
      return await new SignJWT({ ...claims })
        .setProtectedHeader({ alg: key.alg, kid: key.kid, typ: 'JWT', ...header })
        .sign(key.privateKey)
    }
  }
  await provider.addKey(alg)
  return provider
}
