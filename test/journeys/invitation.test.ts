import type { BrowserContextOptions } from 'playwright-core'
import t, { type Test } from 'tap'
import { chromium, openPage, pictureOf, type WatchedPage } from '../helpers/chromium.ts'
import { adminToken, startGateway } from '../helpers/gateway.ts'

const publicUrl = 'https://ai.example'
const env = { GATEWAY_ADMIN_TOKEN: adminToken, GATEWAY_PUBLIC_URL: publicUrl }
const config = 'plans: { default: {}, team: { credits: 5 } }'
const browser = await chromium(t)

async function start (t: Test) {
  const gateway = await startGateway(t, { env, config })
  const invite = async (): Promise<string> => {
    const { json } = await gateway.call('/gateway/admin/invitations', {
      token: adminToken,
      body: { subject: 'bob', plan: 'team' }
    })
    return json.link.replace(publicUrl, gateway.origin)
  }
  return { ...gateway, invite }
}

function open (t: Test, link: string, options: BrowserContextOptions = {}): Promise<WatchedPage> {
  return openPage(t, browser, link, { viewport: { width: 720, height: 780 }, locale: 'en-GB', ...options })
}

t.test('who is invited opens the link, presses the button, and has a token', async t => {
  const { invite, call, origin } = await start(t)
  const link = await invite()
  const { page, requests, complaints } = await open(t, link, { permissions: ['clipboard-read', 'clipboard-write'] })
  t.equal(page.url(), `${origin}/gateway/invitation`, 'the secret is out of the address bar')
  t.equal(await page.evaluate(() => history.length), 2, 'and no step back')
  t.equal(await page.title(), 'Your invitation')
  t.ok(await page.getByText('You are invited').isVisible())
  await pictureOf(page, 'invitation')

  await page.getByRole('button', { name: 'Show my token' }).click()
  const shown = page.locator('#token')
  await shown.waitFor()
  const token = (await shown.textContent())!
  t.match(token, /^apx_/)
  t.match((await call('/gateway/session', { token })).json, { subject: 'token:bob', plan: 'team' })
  t.match(await page.locator('#result').innerText(), /For bob, until \d+ \w+ 2026\./)
  t.equal(
    await page.locator('#example').textContent(),
    `# who you are, and what is left\ncurl ${origin}/gateway/session \\\n  -H "Authorization: Bearer $TOKEN"`
  )
  await page.getByRole('button', { name: 'Copy' }).click()
  await page.getByText('Copied.').waitFor()
  t.equal(await page.evaluate(() => navigator.clipboard.readText()), token)
  await pictureOf(page, 'invitation-accepted')

  const [opened] = await Promise.all([
    page.context().waitForEvent('page'),
    page.getByRole('link', { name: 'try it here' }).click()
  ])
  await opened.getByLabel('Session token').waitFor()
  t.equal(opened.url(), `${origin}/gateway/`)
  t.same(
    await opened.evaluate(() => [document.referrer, window.opener, window.name, sessionStorage.length]),
    ['', null, '', 0],
    'nothing of the token goes along'
  )
  t.ok(await shown.isVisible())
  t.same(
    requests,
    [`GET ${origin}/gateway/invitation`, `POST ${origin}/gateway/invitations/accept`],
    'it asked nobody else'
  )
  t.same(complaints, [])
  await page.reload()
  t.equal(await page.locator('#token').textContent(), '', 'once')
  t.ok(await page.getByText('Open the link that you were sent once more').isVisible())
  t.ok(await page.getByRole('button', { name: 'Show my token' }).isDisabled())
})

t.test('who comes second is told so, and that nothing can be done with the link', async t => {
  const { invite } = await start(t)
  const link = await invite()
  const [first, second] = [await open(t, link), await open(t, link)]
  await first.page.getByRole('button', { name: 'Show my token' }).click()
  await first.page.locator('#token').waitFor()
  await second.page.getByRole('button', { name: 'Show my token' }).click()
  await second.page.getByText('This invitation can not be used').waitFor()
  t.notOk(await second.page.locator('#result').isVisible())
  await pictureOf(second.page, 'invitation-used')
})

t.test(
  'a link that was opened but not accepted is good for another day, and without a clipboard the token is selected',
  async t => {
    const { invite } = await start(t)
    const link = await invite()
    await open(t, link)
    const { page } = await open(t, link, { colorScheme: 'dark', viewport: { width: 360, height: 800 } })
    await page.evaluate(() => {
      Object.defineProperty(navigator, 'clipboard', { value: undefined })
    })
    await page.getByRole('button', { name: 'Show my token' }).click()
    await page.locator('#token').waitFor()
    await page.getByRole('button', { name: 'Copy' }).click()
    await page.getByText('It is selected').waitFor()
    t.equal(await page.evaluate(() => String(getSelection())), await page.locator('#token').textContent())
    t.equal(await page.evaluate(() => document.documentElement.scrollWidth), 360, 'it fits a telephone')
    await pictureOf(page, 'invitation-dark')
  }
)

t.test('while the gateway is away the page says so, and the button works again later', async t => {
  const { invite } = await start(t)
  const { page } = await open(t, await invite())
  const answers = [503, 0]
  await page.route('**/gateway/invitations/accept', async route => {
    const status = answers.shift()
    if (status === undefined) await route.continue()
    else if (status === 0) await route.abort()
    else await route.fulfill({ status, body: '{}' })
  })
  const button = page.getByRole('button', { name: 'Show my token' })
  await button.click()
  await page.getByText('Try again in a minute').waitFor()
  await button.click()
  await page.getByText('The connection failed').waitFor()
  await button.click()
  await page.locator('#token').waitFor()
  t.notOk(await page.locator('#problem').isVisible())
})

t.test('the policy of the page stops what was slipped into it', async t => {
  const { invite, origin } = await start(t)
  const { page, complaints } = await open(t, await invite())
  const ran = await page.evaluate(async origin => {
    const script = document.createElement('script')
    script.append('window.slipped = true')
    document.body.append(script)
    const elsewhere = await fetch(origin).then(() => 'let through', () => 'stopped')
    return [(window as { slipped?: boolean }).slipped === true, elsewhere]
  }, origin.replace('127.0.0.1', 'localhost')).catch(error => String(error))
  t.match(String(ran), /false,stopped|TrustedScript/)
  t.not(complaints.length, 0)
})
