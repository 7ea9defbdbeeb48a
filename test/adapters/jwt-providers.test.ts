import { SignJWT } from 'jose'
import t from 'tap'
import { jwtSessions, type TrustedIssuer } from '../../src/adapters/jwt-sessions/jwt-sessions.ts'
import { Secret } from '../../src/domain/secret.ts'
import type { Session } from '../../src/domain/session.ts'
import { clock } from '../helpers/clock.ts'
import { identityProvider } from '../helpers/identity-provider.ts'

const time = clock()
const now = time.now() / 1000
const secret = 'the-jwt-secret-of-a-project-as-its-dashboard-shows-it'

interface Provider {
  /** As under `issuers` in config/gateway.yaml; the address of the keys stands in each test. */
  readonly settings: Omit<TrustedIssuer, 'jwksUrl' | 'plan'>
  readonly header: object
  readonly claims: object
  readonly session: Partial<Session>
  /** Tokens of the same provider, with the same keys, that are no session here. */
  readonly refused: Readonly<Record<string, object>>
}

const supabase = 'https://abcdefghijkl.supabase.co/auth/v1'
const supabaseUser = {
  iss: supabase,
  sub: '5f0c7d1e-3c1b-4d53-9d0b-6f3c5c4f8a11',
  aud: 'authenticated',
  exp: now + 3600,
  iat: now,
  email: 'alice@example.com',
  phone: '',
  app_metadata: { provider: 'email', providers: ['email'], plan: 'pro' },
  user_metadata: { plan: 'free of charge' },
  role: 'authenticated',
  aal: 'aal1',
  amr: [{ method: 'password', timestamp: now }],
  session_id: '0d5b0f6e-5f5e-4a58-8a1b-0b1c6a0a3f51',
  is_anonymous: false
}
const supabaseSession = { subject: `${supabase}:${supabaseUser.sub}`, plan: 'pro', models: ['*'] }
const supabaseRefused = {
  'somebody who has not signed up': { is_anonymous: true },
  'the service role, which is no user': { aud: undefined, sub: undefined, role: 'service_role' }
}
const firebaseProvider = { identities: { email: ['alice@example.com'] }, sign_in_provider: 'password' }

const providers: Readonly<Record<string, Provider>> = {
  Auth0: {
    settings: {
      issuer: 'https://tenant.eu.auth0.com/',
      audience: 'https://api.example',
      algorithms: ['RS256'],
      planClaim: 'https://app.example/plan'
    },
    header: { kid: 'NjVBRjY5MDlCMUIwNzU4RTA2QzZFMDQ4QzQ2MDAyQjVDNjk1RTM2Qg' },
    claims: {
      iss: 'https://tenant.eu.auth0.com/',
      sub: 'auth0|5f7c8ec7c33c6c004bbafe82',
      aud: ['https://api.example', 'https://tenant.eu.auth0.com/userinfo'],
      iat: now,
      exp: now + 86_400,
      azp: 'my_client_id',
      scope: 'openid profile email',
      'https://app.example/plan': 'gold'
    },
    session: { subject: 'https://tenant.eu.auth0.com/:auth0|5f7c8ec7c33c6c004bbafe82', plan: 'gold', models: ['*'] },
    refused: {
      'a token for its own API': { aud: 'https://tenant.eu.auth0.com/userinfo' },
      'an ID token': { aud: 'my_client_id' }
    }
  },
  // Its tokens have no audience: the page that asked for one (`azp`) is what tells one app from another.
  Clerk: {
    settings: {
      issuer: 'https://clerk.app.example',
      claims: { azp: ['https://app.example'] },
      algorithms: ['RS256'],
      subjectPrefix: 'clerk'
    },
    header: { kid: 'ins_2abcDEF', cat: 'cl_B7d4PD111AAA' },
    claims: {
      azp: 'https://app.example',
      exp: now + 60,
      fva: [0, -1],
      iat: now,
      iss: 'https://clerk.app.example',
      jti: 'a1b2c3d4e5f6a7b8c9d0',
      nbf: now - 10,
      pla: 'u:free',
      sid: 'sess_2abc',
      sts: 'active',
      sub: 'user_2abcDEFghi',
      v: 2
    },
    session: { id: 'clerk:a1b2c3d4e5f6a7b8c9d0', subject: 'clerk:user_2abcDEFghi' },
    refused: {
      'a token for another page': { azp: 'https://evil.example' },
      'one that was not asked for by a page': { azp: undefined }
    }
  },
  Supabase: {
    settings: {
      issuer: supabase,
      audience: 'authenticated',
      algorithms: ['ES256'],
      planClaim: 'app_metadata.plan',
      claims: { is_anonymous: [false] }
    },
    header: { kid: 'b0a4f0c8-5f5b-4f0e-9d3c-1a2b3c4d5e6f' },
    claims: supabaseUser,
    session: supabaseSession,
    refused: supabaseRefused
  },
  'Supabase, with its older shared secret': {
    settings: {
      issuer: supabase,
      audience: 'authenticated',
      algorithms: ['HS256'],
      planClaim: 'app_metadata.plan',
      claims: { is_anonymous: [false] }
    },
    header: { kid: 'Qk1v7c' },
    claims: supabaseUser,
    session: supabaseSession,
    refused: supabaseRefused
  },
  // Its keys are those of all its projects: the audience is what makes a token one of ours.
  Firebase: {
    settings: {
      issuer: 'https://securetoken.google.com/my-project',
      audience: 'my-project',
      algorithms: ['RS256'],
      claims: { 'firebase.sign_in_provider': ['password', 'google.com'] }
    },
    header: { kid: '6b8a1f0c2d' },
    claims: {
      iss: 'https://securetoken.google.com/my-project',
      aud: 'my-project',
      auth_time: now - 100,
      user_id: 'mZ0cG4pY3XfT',
      sub: 'mZ0cG4pY3XfT',
      iat: now,
      exp: now + 3600,
      email: 'alice@example.com',
      email_verified: true,
      firebase: firebaseProvider
    },
    session: { subject: 'https://securetoken.google.com/my-project:mZ0cG4pY3XfT' },
    refused: {
      'somebody who has not signed up': { firebase: { ...firebaseProvider, sign_in_provider: 'anonymous' } },
      'another project under this one\'s name': { aud: 'their-project' }
    }
  },
  // `account` is in the tokens of all clients of a realm; `azp` tells them apart.
  Keycloak: {
    settings: {
      issuer: 'https://id.example/realms/app',
      audience: 'account',
      algorithms: ['RS256'],
      subjectClaim: 'preferred_username',
      claims: { azp: ['my-app'], 'realm_access.roles': ['images'], typ: ['Bearer'] }
    },
    header: { kid: 'FJ86GcF3jTbNLOco4NvZkUCIUmfYCqoqtOQeMfbhNlE' },
    claims: {
      exp: now + 300,
      iat: now,
      jti: '8d5d1f2a-6c1b-4a53-9d0b-6f3c5c4f8a11',
      iss: 'https://id.example/realms/app',
      aud: 'account',
      sub: 'f1b5c0de-1111-2222-3333-444455556666',
      typ: 'Bearer',
      azp: 'my-app',
      sid: '1b2c3d',
      acr: '1',
      realm_access: { roles: ['offline_access', 'images'] },
      resource_access: { account: { roles: ['view-profile'] } },
      scope: 'openid email profile',
      preferred_username: 'alice'
    },
    session: {
      id: 'https://id.example/realms/app:8d5d1f2a-6c1b-4a53-9d0b-6f3c5c4f8a11',
      subject: 'https://id.example/realms/app:alice'
    },
    refused: {
      'another client of the realm': { azp: 'their-app' },
      'a user without the role': { realm_access: { roles: ['offline_access'] } },
      'an ID token': { typ: 'ID' }
    }
  }
}

for (const [name, { settings, header, claims, session, refused }] of Object.entries(providers)) {
  t.test(`a token as ${name} issues it is a session`, async t => {
    const [alg] = settings.algorithms as [string]
    const isShared = alg.startsWith('HS')
    const provider = await identityProvider(t, isShared ? 'ES256' : alg)
    Object.assign(provider.published[0] as object, { kid: (header as { kid: string }).kid })
    const verifier = jwtSessions({
      issuers: [{ plan: 'default', ...settings, ...(isShared ? {} : { jwksUrl: provider.jwksUrl }) }],
      secrets: new Map(isShared ? [[settings.issuer, { current: [new Secret(secret)] }]] : []),
      ...time,
      onKeysFailed: () => t.fail('the keys are there')
    })
    const print = (payload: object): Promise<string> => isShared
      ? new SignJWT({ ...payload }).setProtectedHeader({ alg, typ: 'JWT', ...header }).sign(Buffer.from(secret))
      : provider.sign(payload, { header: { ...header } })
    t.match(await verifier.verify(await print(claims)), { plan: 'default', issuedAt: time.now(), ...session })
    for (const [title, more] of Object.entries(refused)) {
      await t.rejects(verifier.verify(await print({ ...claims, ...more })), { code: 'GW_BAD_SESSION' }, title)
    }
  })
}

t.test('the public key of a Supabase project is no session: it names another issuer, and no user', async t => {
  const verifier = jwtSessions({
    issuers: [{ plan: 'default', ...providers['Supabase, with its older shared secret']!.settings }],
    secrets: new Map([[supabase, { current: [new Secret(secret)] }]]),
    ...time,
    onKeysFailed: () => t.fail('nothing is fetched')
  })
  const anon = { iss: 'supabase', ref: 'abcdefghijkl', role: 'anon', iat: now, exp: now + 315_360_000 }
  t.equal(
    await verifier.verify(
      await new SignJWT(anon).setProtectedHeader({ alg: 'HS256', typ: 'JWT' }).sign(Buffer.from(secret))
    ),
    null
  )
})
