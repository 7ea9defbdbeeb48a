import t from 'tap'
import { pictureOf } from '../helpers/chromium.ts'
import { cookieNameAt } from '../helpers/cookies.ts'
import {
  button,
  entered,
  generate,
  kept,
  passUntilSaid,
  pictureWidth,
  playgrounds,
  secureOrigin,
  signIn
} from '../helpers/playground.ts'

const { open, start } = await playgrounds(t)

t.test(
  'over https the session is in a cookie that no script can read, and lasts until its person logs out',
  async t => {
    const gateway = await start(t)
    const { page, requests, complaints } = await open(t, secureOrigin)
    t.equal(page.url(), `${secureOrigin}/gateway/`)
    await page.getByLabel('Session token').waitFor()
    t.notOk(await button(page, 'Log out').isVisible())
    await pictureOf(page, 'playground-signed-out')
    const token = await gateway.mint('alice')
    await signIn(page, token)
    t.match(await page.context().cookies(), [
      { name: cookieNameAt(secureOrigin), httpOnly: true, secure: true, sameSite: 'Strict', path: '/' }
    ])
    t.same(await kept(page), ['', '{}', '{}'])
    t.equal(await page.getByLabel('Session token').inputValue(), '')
    t.notOk(await page.locator('#why').isVisible())
    t.match(
      await page.locator('#account').innerText(),
      /^alice, plan default\n100 credits left, renewed on \d+ \w+ \d+, 00:00$/
    )
    t.same(
      await page
        .locator('#model optgroup')
        .evaluateAll(groups => groups.map(group => [(group as HTMLOptGroupElement).label, group.textContent])),
      [
        ['Pictures', 'nano-banana: 1 credit'],
        ['Videos', 'sora-2: 2 credits × duration'],
        ['Music and speech', 'suno: 1 credit']
      ]
    )
    await pictureOf(page, 'playground-signed-in')

    await generate(page, 'a lighthouse at dusk')
    await page.locator('#task').waitFor()
    await pictureOf(page, 'playground-running')
    await passUntilSaid(page, gateway, 'Done.')
    t.equal(await pictureWidth(page), 512)
    await page.getByText('99 credits left').waitFor()
    await page
      .locator('#tasks')
      .getByText(/^success, /)
      .waitFor()
    await pictureOf(page, 'playground-done')
    const [, download] = await Promise.all([
      page.getByRole('link', { name: 'Download' }).click(),
      page.waitForEvent('download')
    ])
    t.match(download.suggestedFilename(), /\.png$/)

    await page.reload()
    await page.getByText('99 credits left').waitFor()
    await button(page, /^Show the task of nano-banana, /).click()
    t.equal(await pictureWidth(page), 512, 'it is shown again')
    t.equal(await page.evaluate(() => document.activeElement?.id), 'task-title')

    const { name, value } = (await page.context().cookies())[0]!
    await button(page, 'Log out').click()
    await page.getByLabel('Session token').waitFor()
    t.same(await page.context().cookies(), [])
    t.equal(
      (
        await gateway.call('/gateway/session', {
          headers: { cookie: `${name}=${value}`, 'sec-fetch-site': 'same-origin' }
        })
      ).error,
      'GW_BAD_SESSION'
    )
    t.equal(await page.locator('#tasks li, #results figure').count(), 0, 'the next person sees nothing of it')
    t.same(complaints(), [])
    t.ok(
      requests.every(request => request.includes(` ${secureOrigin}/`) || request === 'GET data:,'),
      'it asked nobody else'
    )
    t.notOk(requests.some(request => request.includes(token)))
  }
)

t.test('without https the page says why there is no cookie, and keeps the token in its tab', async t => {
  const gateway = await start(t)
  const { page, requests, complaints } = await open(t, gateway.lanOrigin)
  const setCookies: string[] = []
  page.on('response', async response => {
    if ((await response.headerValue('set-cookie')) !== null) setCookies.push(response.url())
  })
  await page.reload()
  t.equal(await page.evaluate(() => isSecureContext), false)
  const token = await gateway.mint('alice')
  await signIn(page, token)
  const why =
    'This page came without https, so the browser keeps no session cookie: the token stays in this tab until you close it.'
  t.equal(await page.locator('#why').innerText(), why)
  t.same(await kept(page), ['', '{}', JSON.stringify({ 'apixo-session': JSON.stringify({ token, why }) })])
  await generate(page, 'a lighthouse at dusk')
  await page.locator('#task').waitFor()
  await passUntilSaid(page, gateway, 'Done.')
  t.equal(await pictureWidth(page), 512)
  await pictureOf(page, 'playground-lan')
  t.same(await page.context().cookies(), [])
  t.same(setCookies, [])
  t.notOk(requests.some(request => request.includes(token) || request.includes('sessions/cookie')))
  t.same(
    gateway
      .lines()
      .filter(({ operation }) => operation === 'taskEvents')
      .map(({ status }) => status),
    [200],
    'one stream, to its end'
  )

  await page.reload()
  await page.locator('#desk').waitFor()
  t.equal(await page.locator('#why').innerText(), why)
  const other = await page.context().newPage()
  await other.goto(gateway.lanOrigin)
  await other.getByLabel('Session token').waitFor()
  t.same(await kept(other), ['', '{}', '{}'], 'another tab knows nothing')
  await button(page, 'Log out').click()
  await page.getByLabel('Session token').waitFor()
  t.same(await kept(page), ['', '{}', '{}'])
  t.equal((await gateway.call('/gateway/session', { token })).error, 'GW_BAD_SESSION')
  t.same(complaints(), [])
})

t.test('what is typed is text and nothing else, and the policy stops what was slipped in', async t => {
  const gateway = await start(t)
  const { page, complaints } = await open(t, secureOrigin)
  const markup = '<img src=x onerror=alert(1)>'
  page.on('dialog', dialog => t.fail(dialog.message()))
  await page.getByLabel('Session token').fill(markup)
  await button(page, 'Sign in').click()
  await page.getByText('This is no session token').waitFor()
  await signIn(page, await gateway.mint(markup))
  t.equal(await page.locator('#subject').textContent(), markup)
  await page.getByLabel('Options').fill(`{"mode":"text-to-image","seed":12345678901234567890,"style":"${markup}"}`)
  await generate(page, markup)
  await passUntilSaid(page, gateway, 'Done.')
  t.equal(await pictureWidth(page), 512)
  t.equal(
    gateway.sandbox.submits[0]!.body.toString(),
    `{"request_type":"async","input":{"prompt":"${markup}","mode":"text-to-image","seed":12345678901234567890,"style":"${markup}"}}`
  )
  t.same(complaints(), [])
  const ran = await page.evaluate(() => {
    const script = document.createElement('script')
    script.append('window.slipped = true')
    document.body.append(script)
    return (window as { slipped?: boolean }).slipped === true
  }).catch(error => String(error))
  t.match(String(ran), /false|TrustedScript/)
  t.not(complaints().length, 0)
})

t.test('a visitor gets in by some work, and does some for each picture', async t => {
  const gateway = await start(t)
  const { page, complaints } = await open(t, secureOrigin, {
    colorScheme: 'dark',
    viewport: { width: 360, height: 740 }
  })
  await button(page, 'Try it as a visitor').click()
  await entered(page)
  t.match(await page.locator('#account').innerText(), /plan guest\n5 credits left/)
  await pictureOf(page, 'playground-visitor')
  await generate(page, 'a lighthouse at dusk')
  // Its proof of work takes a browser's own time, and would be out of date when the gateway's passes meanwhile.
  await page.locator('#state', { hasText: /Waiting for its turn|It is being made/ }).waitFor()
  await passUntilSaid(page, gateway, 'Done.')
  t.equal(await pictureWidth(page), 512)
  await page.getByText('4 credits left').waitFor()
  t.equal(await page.evaluate(() => document.documentElement.scrollWidth), 360, 'it fits a telephone')
  await pictureOf(page, 'playground-dark')
  await button(page, 'Log out').click()
  await page.getByLabel('Session token').waitFor()
  await pictureOf(page, 'playground-signed-out-dark')
  t.same(complaints(), [])
})

t.test('it works by keyboard alone', async t => {
  const gateway = await start(t)
  const { page } = await open(t, secureOrigin)
  const token = await gateway.mint('alice')
  const focused = () => page.evaluate(() => document.activeElement?.id)
  await page.getByLabel('Session token').waitFor()
  await page.keyboard.press('Tab')
  t.equal(await focused(), 'token')
  await page.keyboard.insertText(token)
  await page.keyboard.press('Tab')
  await page.keyboard.press('Space')
  t.equal(await page.getByLabel('Session token').getAttribute('type'), 'text')
  t.equal(await button(page, 'Show').getAttribute('aria-pressed'), 'true')
  await page.keyboard.press('Space')
  t.equal(await page.getByLabel('Session token').getAttribute('type'), 'password')
  await page.keyboard.press('Shift+Tab')
  await page.keyboard.press('Enter')
  await entered(page)
  t.equal(await focused(), 'prompt')
  await page.keyboard.insertText('a red cube')
  for (const id of ['options', 'generate']) {
    await page.keyboard.press('Tab')
    t.equal(await focused(), id)
  }
  await page.keyboard.press('Enter')
  await page.locator('#task').waitFor()
  t.equal(await focused(), 'generate', 'the button keeps it')
  await passUntilSaid(page, gateway, 'Done.')
})

t.test('who signs in can type at once, and goes on typing when the lists come', async t => {
  const gateway = await start(t)
  const { page } = await open(t, secureOrigin)
  const listed = Promise.withResolvers<void>()
  await page.route('**/gateway/models', async route => {
    await listed.promise
    await route.continue()
  })
  await page.getByLabel('Session token').fill(await gateway.mint('alice'))
  // In Safari a click gives a button no focus.
  await page.evaluate(() =>
    document.getElementById('enter')!.addEventListener('click', () => (document.activeElement as HTMLElement).blur())
  )
  await button(page, 'Sign in').click()
  await page.locator('#prompt:focus').waitFor()
  await page.getByLabel('Options').fill('{"seed":1}')
  listed.resolve()
  await entered(page)
  t.equal(await page.evaluate(() => document.activeElement?.id), 'options')
  t.equal(await page.getByLabel('Options').inputValue(), '{"seed":1}')
})
