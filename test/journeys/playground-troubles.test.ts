import type { Page } from 'playwright-core'
import t, { type Test } from 'tap'
import { pictureOf } from '../helpers/chromium.ts'
import { cookieNameAt } from '../helpers/cookies.ts'
import { adminToken, taskMs, type TestGateway } from '../helpers/gateway.ts'
import {
  button,
  generate,
  kept,
  passUntilSaid,
  pictureWidth,
  playgrounds,
  secureOrigin,
  signIn
} from '../helpers/playground.ts'
import { until } from '../helpers/until.ts'

const { front, open, start } = await playgrounds(t)

/** The page says that the token stays in its tab, and has not swapped it. */
async function holdsTokenInTab (t: Test, page: Page, lines: TestGateway['lines']): Promise<void> {
  t.match(
    await page.locator('#why').innerText(),
    /^This browser keeps no cookies for this page: the token stays in this tab/
  )
  t.same(
    lines().filter(({ operation }) => operation === 'swapSession'),
    []
  )
}

t.test('a gateway that does not know that it is behind https sets no cookie, and the page goes on without', async t => {
  const gateway = await start(t, { env: {} })
  const { page, complaints } = await open(t, secureOrigin)
  const token = await gateway.mint('alice')
  await signIn(page, token)
  t.match(
    await page.locator('#why').innerText(),
    /^The gateway set no session cookie: the token stays in this tab until you close it\. .+ \(GW_ORIGIN_DENIED\)$/
  )
  await generate(page, 'a red cube')
  await passUntilSaid(page, gateway, 'Done.')
  t.equal(await pictureWidth(page), 512)
  t.same(await page.context().cookies(), [])
  t.same(complaints(), [])
})

t.test('a stream that is cut off is taken up again where it was, by a page with a token too', async t => {
  const gateway = await start(t, { env: {} })
  const { page, requests, complaints } = await open(t, secureOrigin)
  await page.clock.install()
  await page.reload()
  await signIn(page, await gateway.mint('alice'))
  let answers = ''
  front.pass = answer => {
    answers += answer
    return answer
  }
  await generate(page, 'a red cube')
  await until('the gateway has looked at the task', () => answers.includes('id: pending\n'))
  gateway.pass(taskMs / 2)
  // What the page has not read yet, it can't come back with; and before an answer has begun the browser itself asks
  // once more.
  await page.getByText('It is being made…').waitFor()
  let isCut = false
  front.pass = () => {
    isCut = true
    return null
  }
  const streams = () => requests.filter(request => request.endsWith('/events')).length
  await gateway.passUntil('it is cut off', () => isCut)
  front.pass = answer => answer
  t.equal(streams(), 1)
  const again = page.waitForRequest(request => request.url().endsWith('/events'))
  await until('it is back', async () => {
    await page.clock.runFor(3000)
    return streams() === 2
  })
  t.equal((await again).headers()['last-event-id'], 'processing')
  await passUntilSaid(page, gateway, 'Done.')
  t.equal(await pictureWidth(page), 512)
  await until(
    'both have ended',
    () => gateway.lines().filter(({ operation }) => operation === 'taskEvents').length === 2
  )
  t.same(complaints(), [])
})

for (const [kind, env] of [['a cookie', undefined], ['a token', {}]] as const) {
  t.test(`a stream that is refused for a while is asked for again, by a page with ${kind}`, async t => {
    const gateway = await start(t, env === undefined ? {} : { env })
    const { page } = await open(t, secureOrigin)
    await page.clock.install()
    await page.reload()
    await signIn(page, await gateway.mint('alice'))
    const refusals = [429, 503, 502]
    const asked: number[] = []
    await page.route('**/events', async route => {
      asked.push(await page.evaluate(() => Date.now()))
      const status = refusals.shift()
      if (status === undefined) await route.continue()
      else await route.fulfill({ status, headers: { 'retry-after': '7' } })
    })
    await generate(page, 'a red cube')
    await until('it gets through', async () => {
      await page.clock.runFor(500)
      return asked.length === 4
    })
    t.ok(asked.every((time, index) => index === 0 || time - asked[index - 1]! >= 7000), 'when it was told to')
    await passUntilSaid(page, gateway, 'Done.')
    t.equal(await pictureWidth(page), 512)
  })
}

t.test('a stream that is refused for good is not asked for again', async t => {
  const gateway = await start(t)
  const { page, requests } = await open(t, secureOrigin)
  await signIn(page, await gateway.mint('alice'))
  await page.route('**/events', route => route.fulfill({ status: 404 }))
  await generate(page, 'a red cube')
  await page.getByText('The gateway tells no more about this task.').waitFor()
  t.equal(requests.filter(request => request.endsWith('/events')).length, 1)
})

t.test('a browser that drops secure cookies on a page that counts as secure costs nobody a token', async t => {
  const { mint, lines, origin } = await start(t, { env: {} })
  const { page } = await open(t, origin)
  // As WebKit does at http://localhost: such a cookie is not kept, whoever sets it, and nothing is said.
  await page.addInitScript(() => {
    const { get, set } = Object.getOwnPropertyDescriptor(Document.prototype, 'cookie')!
    Object.defineProperty(Document.prototype, 'cookie', {
      get: get!,
      set (text: string) {
        if (!/;\s*secure/i.test(text)) set!.call(this, text)
      }
    })
  })
  await page.reload()
  t.equal(await page.evaluate(() => isSecureContext), true)
  const token = await mint('alice')
  await signIn(page, token)
  await holdsTokenInTab(t, page, lines)
})

t.test(
  'where secure cookies are kept on http, as in Chromium at localhost, the session is in one, and the probe is gone',
  async t => {
    const { mint, origin } = await start(t, { env: {} })
    const { page } = await open(t, origin)
    await signIn(page, await mint('alice'))
    t.notOk(await page.locator('#why').isVisible())
    t.same(
      (await page.context().cookies()).map(({ name }) => name),
      [cookieNameAt(origin)]
    )
  }
)

t.test('a browser that keeps no cookies costs nobody a token', async t => {
  const { mint, lines } = await start(t)
  const { page } = await open(t, secureOrigin)
  await page.addInitScript(() => { Object.defineProperty(navigator, 'cookieEnabled', { value: false }) })
  await page.reload()
  await signIn(page, await mint('alice'))
  await holdsTokenInTab(t, page, lines)
})

t.test(
  "a cookie that gets lost on its way is noticed: a person's token stays in the tab, a minted one is used up",
  async t => {
    const { mint, call } = await start(t)
    const { page } = await open(t, secureOrigin)
    front.pass = answer => Buffer.from(answer.toString('latin1').replace(/^set-cookie/im, 'x-lost'), 'latin1')
    await page.getByLabel('Session token').fill(await mint('alice'))
    await button(page, 'Sign in').click()
    await page.getByText('the token was used up by it').waitFor()
    t.same(await kept(page), ['', '{}', '{}'])

    const { token } = (await call('/gateway/admin/tokens', { token: adminToken, body: { subject: 'bob' } })).json
    await signIn(page, token)
    t.match(await page.locator('#why').innerText(), /^This browser kept no session cookie: the token stays in this tab/)
    await button(page, 'Log out').click()
    await page.getByLabel('Session token').waitFor()
    t.equal(
      (await call('/gateway/session', { token })).status,
      200,
      "to log out ends the tab's session, and not the token"
    )
    await signIn(page, token)
    page.once('dialog', dialog => dialog.dismiss())
    await button(page, 'Log out everywhere').click()
    t.equal((await call('/gateway/session', { token })).status, 200)
    page.once('dialog', dialog => dialog.accept())
    await button(page, 'Log out everywhere').click()
    await page.getByLabel('Session token').waitFor()
    t.equal((await call('/gateway/session', { token })).status, 401)
  }
)

t.test('options that are no JSON object are not sent', async t => {
  const gateway = await start(t)
  const { page } = await open(t, secureOrigin)
  await signIn(page, await gateway.mint('alice'))
  for (const options of ['{', '[]', 'null', '1', '"x"']) {
    await page.getByLabel('Options').fill(options)
    await generate(page, 'a red cube')
    await page.getByText('The options are no JSON object').waitFor()
    t.equal(await page.evaluate(() => document.activeElement?.id), 'options')
  }
  await page.getByLabel('Options').fill('{"prompt":"another"}')
  await button(page, 'Generate').click()
  await page.locator('#problem').getByText(/prompt.+\(GW_BAD_REQUEST\)/).waitFor()
  t.equal(gateway.sandbox.submits.length, 0)
  for (const options of ['', ' {} ']) {
    await page.getByLabel('Options').fill(options)
    await button(page, 'Generate').click()
    await page.locator('#task').waitFor()
  }
  await until('both are there', () => gateway.sandbox.submits.length === 2)
  t.equal(gateway.sandbox.submits[1]!.body.toString(), '{"request_type":"async","input":{"prompt":"a red cube"}}')
  await page.getByLabel('Options').fill('{"mode":"text-to-image"}')
  await page.getByLabel('Model').selectOption('suno')
  t.equal(await page.getByLabel('Options').inputValue(), '{"mode":"V5"}', 'each kind has its own')
  await page.getByLabel('Options').fill('{"mode":"V4"}')
  await page.getByLabel('Model').selectOption('sora-2')
  t.equal(await page.getByLabel('Options').inputValue(), '{"mode":"V4"}', 'what a person wrote stays')
})

t.test('a submit whose answer was lost is asked for again, and not sent again', async t => {
  const gateway = await start(t)
  const { page } = await open(t, secureOrigin)
  await signIn(page, await gateway.mint('alice'))
  front.pass = () => null
  await generate(page, 'a red cube')
  await page.getByText('the gateway does not make the same task twice').waitFor()
  t.equal(gateway.sandbox.submits.length, 1, 'the gateway has made it')
  front.pass = answer => answer
  await button(page, 'Generate').click()
  await page.locator('#task').waitFor()
  t.notOk(await page.locator('#problem').isVisible())
  t.equal(gateway.sandbox.submits.length, 1)
  await button(page, 'Generate').click()
  await until('another press is another task', () => gateway.sandbox.submits.length === 2)
})

t.test('what went wrong is said with its code', async t => {
  const gateway = await start(t)
  const { page } = await open(t, secureOrigin)
  const problem = page.locator('#problem')
  await page.getByLabel('Session token').fill('not.a.token')
  await button(page, 'Sign in').click()
  await problem.getByText('(GW_BAD_SESSION)').waitFor()
  await signIn(page, await gateway.mint('bob', { uses: 1 }))
  t.match(await page.locator('#credits').innerText(), /^100 credits left, .+ · 1 submit in this session$/)
  await generate(page, 'sandbox:drop-after')
  await problem.getByText('a new Idempotency-Key makes it anew. (GW_OUTCOME_UNKNOWN)').waitFor()
  await button(page, 'Generate').click()
  await problem.getByText('(GW_OUTCOME_UNKNOWN)').waitFor()
  t.equal(gateway.sandbox.submits.length, 1, 'nor does the page, if somebody tries')
  await generate(page, 'another')
  await problem.getByText('(GW_SESSION_SPENT)').waitFor()
  t.ok(await page.locator('#desk').isVisible(), 'a session without further submits is still one')
  await button(page, 'Log out').click()

  await signIn(page, await gateway.mint('alice', { plan: 'poor' }))
  await generate(page, 'sandbox:failed')
  await passUntilSaid(page, gateway, 'It failed: ')
  t.match(await page.locator('#state').innerText(), /^It failed: \w.+ \(\w+\)$/)
  await generate(page, 'sandbox:http-400')
  await problem.getByText(/ \(400\)$/).waitFor()
  await generate(page, 'a red cube')
  await page.getByText('0 credits left').waitFor()
  t.notOk(await problem.isVisible())
  await generate(page, 'one more')
  await problem
    .getByText('The credits of this period, or of this session, are used up. (GW_CREDITS_EXHAUSTED)')
    .waitFor()
  await pictureOf(page, 'playground-exhausted')

  await page.route('**/gateway/**', route => route.abort())
  await button(page, 'Log out').click()
  await problem.getByText('The connection to the gateway failed.').waitFor()
})

t.test('a session that ends is said to have ended, and takes what was shown with it', async t => {
  const gateway = await start(t)
  const { page } = await open(t, secureOrigin)
  await signIn(page, await gateway.mint('alice', { ttlSeconds: 60 }))
  await generate(page, 'sandbox:forever')
  await page.locator('#task').waitFor()
  gateway.pass(60_000)
  await button(page, 'Generate').click()
  await page.getByText('Your session has ended. Sign in again.').waitFor()
  t.notOk(await page.locator('#desk').isVisible())
  t.equal(await page.locator('#prompt').inputValue(), '')
  await page.reload()
  await page.getByLabel('Session token').waitFor()
  t.notOk(await page.locator('#problem').isVisible(), 'once')
})

t.test('videos and sounds are played, by what they are and not by their model', async t => {
  const gateway = await start(t)
  const { page, complaints } = await open(t, secureOrigin)
  await signIn(page, await gateway.mint('alice', { ttlSeconds: 7 * 86_400 }))
  await generate(page, 'a red cube')
  await passUntilSaid(page, gateway, 'Done.')
  for (const [contentType, element] of [
    ['video/mp4', 'video'],
    ['audio/mpeg', 'audio'],
    ['application/octet-stream', 'a']
  ] as const) {
    await page.route('**/gateway/results/**', route => route.fulfill({ contentType, body: 'x' }))
    await button(page, /^Show the task/).click()
    await page.locator(`#results ${element}`).waitFor()
    await page.getByRole('link', { name: 'Download' }).waitFor()
    t.equal(await page.locator('#results figure > *').count(), element === 'a' ? 1 : 2, contentType)
    await page.unroute('**/gateway/results/**')
  }
  gateway.pass(25 * 3600_000)
  await button(page, /^Show the task/).click()
  await page.locator('#results').getByText('(GW_RESULT_EXPIRED)').waitFor()
  t.same(complaints(), [])
})

t.test('where guests are off, or the browser has no https, nobody is offered to try', async t => {
  const gateway = await start(t, { config: 'plans: { default: {} }' })
  const { page } = await open(t, secureOrigin)
  await until('it has asked', () => gateway.lines().some(({ status }) => status === 404))
  await page.waitForLoadState('networkidle')
  t.notOk(await button(page, 'Try it as a visitor').isVisible())
  const lan = await open(t, (await start(t)).lanOrigin)
  await lan.page.getByLabel('Session token').waitFor()
  await lan.page.waitForLoadState('networkidle')
  t.notOk(await button(lan.page, 'Try it as a visitor').isVisible())
})
