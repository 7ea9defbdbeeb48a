import type { Test } from 'tap'
import { type Clock, clock } from '../helpers/clock.ts'
import type { Throwing } from '../helpers/verifiers.ts'

/** A verifier with all that is needed to try it. */
export interface VerifierUnderTest {
  readonly verifier: Throwing
  /** Prints a session that begins now: `app:alice`, plan `default`, models `sora-2*`, scope `tasks:read`. */
  print (ttlSeconds: number): Promise<string>
  readonly subject: string
  /** Credentials that are none of this verifier's business. */
  readonly foreign: ReadonlyArray<readonly [title: string, credential: string]>
  /** Credentials that claim to be of this verifier, and are not good. */
  readonly bad: ReadonlyArray<readonly [title: string, credential: string]>
}

const badSession = { code: 'GW_BAD_SESSION' }

/** Every SessionVerifier must pass this. */
export function sessionVerifierContract (t: Test, open: (time: Clock) => Promise<VerifierUnderTest>): void {
  t.test('a good credential is a session with all that it may do', async t => {
    const time = clock()
    const { verifier, print, subject } = await open(time)
    const session = await verifier.verify(await print(60))
    t.match(session, {
      subject,
      plan: 'default',
      models: ['sora-2*'],
      scopes: ['tasks:read'],
      issuedAt: time.now(),
      expiresAt: time.now() + 60_000
    })
    t.match(session?.id, /^.{8,}$/)
    t.equal(session?.permits('sora-2-pro'), true)
    t.equal(session?.permits('suno'), false)
  })

  t.test('two sessions have two ids, and one has the same each time', async t => {
    const { verifier, print } = await open(clock())
    const [one, other] = [await print(60), await print(60)]
    const id = async (token: string) => (await verifier.verify(token))?.id
    t.not(await id(one), await id(other))
    t.equal(await id(one), await id(one))
  })

  t.test('a session ends to the second, whether it was seen before or not', async t => {
    const time = clock()
    const { verifier, print } = await open(time)
    const [seen, unseen] = [await print(60), await print(60)]
    time.advance(59_999)
    t.ok(await verifier.verify(seen))
    time.advance(1)
    await t.rejects(async () => verifier.verify(seen), badSession)
    await t.rejects(async () => verifier.verify(unseen), badSession)
    await t.rejects(async () => verifier.verify(seen), badSession, 'and stays so')
  })

  t.test('what is not this verifier\'s is left to the next', async t => {
    const { verifier, foreign } = await open(clock())
    for (const [title, credential] of foreign) t.equal(await verifier.verify(credential), null, title)
  })

  t.test('what claims to be this verifier\'s and is not good is refused for good', async t => {
    const { verifier, bad } = await open(clock())
    for (const [title, credential] of bad) await t.rejects(async () => verifier.verify(credential), badSession, title)
  })

  t.test('no single changed character of a credential is let in', async t => {
    const { verifier, print } = await open(clock())
    const token = await print(60)
    await verifier.verify(token)
    for (let index = 0; index < token.length; index++) {
      // A and Q differ in the first bits of the six: the last ones of a part may mean nothing (RFC 4648 section 3.5).
      const changed = token.slice(0, index) + (token[index] === 'A' ? 'Q' : 'A') + token.slice(index + 1)
      const session = await (async () => verifier.verify(changed))().catch(error => {
        if (error.code !== 'GW_BAD_SESSION') throw error
      })
      t.notOk(session, `character ${index}`)
    }
  })

  t.test('nothing that is sent makes a verifier do anything but answer', async t => {
    const { verifier } = await open(clock())
    const odd = [
      '',
      ' ',
      '.',
      '..',
      '...',
      'null',
      '{}',
      '\0',
      'ä.ö.ü',
      '😀',
      'e30.e30.',
      'e30.e30.e30',
      'bnVsbA.bnVsbA.bnVsbA',
      'x'.repeat(100_000),
      '.'.repeat(10_000)
    ]
    for (const credential of odd) {
      const session = await (async () => verifier.verify(credential))().catch(error => {
        if (error.code !== 'GW_BAD_SESSION') throw error
      })
      t.notOk(session, JSON.stringify(credential.slice(0, 20)))
    }
  })
}
