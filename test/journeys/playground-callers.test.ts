import type { Page } from 'playwright-core'
import t from 'tap'
import { button, entered, generate, passUntilSaid, playgrounds, secureOrigin, signIn } from '../helpers/playground.ts'
import { until } from '../helpers/until.ts'

const { open, start } = await playgrounds(t)
/** What would come of an answer that has been let through is there by then, ms. */
const settledMs = 300

/** Holds back the answers that the page gets, and what it computes, from the moment that it is told which. */
async function gate (page: Page) {
  await page.addInitScript(() => {
    const at = window as any
    const opened = new Promise<void>(resolve => { at.letThrough = resolve })
    const ask = at.fetch.bind(at)
    at.heldBack = 0
    const hold = async <Result>(name: string, deed: () => Promise<Result>): Promise<Result> => {
      const isHeld = at.holdBack !== undefined && new RegExp(at.holdBack).test(name)
      if (isHeld) at.heldBack++
      const result = await deed()
      if (isHeld) await opened
      return result
    }
    at.fetch = (path: string, options: any) => hold(`${options?.method ?? 'GET'} ${path}`, () => ask(path, options))
    const derive = crypto.subtle.deriveBits.bind(crypto.subtle)
    crypto.subtle.deriveBits = (...given) => hold('work', () => derive(...given))
  })
  await page.reload()
  return {
    holdBack: (pattern: string) => page.evaluate(holdBack => { Object.assign(window, { holdBack }) }, pattern),
    heldBack: (): Promise<number> => page.evaluate(() => (window as any).heldBack),
    /** Whoever is there logs out and somebody else comes; what was held back gets through only then. */
    async handOver (token: string): Promise<void> {
      await page.evaluate(() => { Object.assign(window, { holdBack: undefined }) })
      await logOut(page)
      await signIn(page, token)
      await page.evaluate(() => (window as any).letThrough())
      await page.waitForTimeout(settledMs)
    }
  }
}

async function logOut (page: Page): Promise<void> {
  await button(page, 'Log out').click()
  await page.locator('#entry').waitFor()
}

t.test(
  'what was asked for before a log-out shows nothing after it, neither to nobody nor to who comes next',
  async t => {
    const gateway = await start(t)
    const { page, complaints } = await open(t, secureOrigin)
    const { holdBack, heldBack, handOver } = await gate(page)
    await signIn(page, await gateway.mint('alice'))
    await generate(page, 'a red cube')
    await until('her task is listed', async () => (await page.locator('#tasks li').count()) === 1)
    await holdBack('^GET /gateway/(tasks[?]|session$)')
    await gateway.passUntil('the end of it makes the page ask for both', async () => (await heldBack()) === 2)
    await handOver(await gateway.mint('bob'))
    t.same([await page.locator('#subject').innerText(), await page.locator('#tasks li').count()], ['bob', 0])
    await logOut(page)
    t.same([await page.locator('#entry').isVisible(), await page.locator('#desk').isVisible()], [true, false])
    t.same(complaints(), [])
  }
)

t.test(
  'a submit that is under way at a log-out is hers, and who comes next sees nothing of it and can press the button',
  async t => {
    const gateway = await start(t)
    const { page } = await open(t, secureOrigin)
    const { holdBack, heldBack, handOver } = await gate(page)
    await signIn(page, await gateway.mint('alice'))
    await holdBack('generateTask')
    await generate(page, 'a red cube')
    await until('it is under way', async () => (await heldBack()) === 1)
    await handOver(await gateway.mint('bob'))
    t.equal(await page.locator('#task').isVisible(), false)
    await generate(page, 'a blue cube')
    await passUntilSaid(page, gateway, 'Done.')
    t.same(
      gateway
        .lines()
        .filter(({ operation }) => operation === 'generateTask')
        .map(({ subject }) => subject),
      ['app:alice', 'app:bob']
    )
  }
)

for (const [part, pattern] of Object.entries({ 'is asked for': '/gateway/session/challenge', 'is made': '^work$' })) {
  t.test(`a visitor who logs out while the proof ${part} submits nothing in the name of who comes next`, async t => {
    const gateway = await start(t)
    const { page } = await open(t, secureOrigin)
    const { holdBack, heldBack, handOver } = await gate(page)
    await button(page, 'Try it as a visitor').click()
    await entered(page)
    await holdBack(pattern)
    await generate(page, 'a red cube')
    await until('it is on its way', async () => await heldBack() === 1)
    await handOver(await gateway.mint('bob'))
    await generate(page, 'a blue cube')
    await passUntilSaid(page, gateway, 'Done.')
    t.same(
      gateway
        .lines()
        .filter(({ operation }) => operation === 'generateTask')
        .map(({ subject }) => subject),
      ['app:bob']
    )
  })
}

t.test('a page whose cookie has become somebody else\'s, in another tab, shows theirs', async t => {
  const gateway = await start(t)
  const { page } = await open(t, secureOrigin)
  await signIn(page, await gateway.mint('alice'))
  await generate(page, 'a red cube')
  await passUntilSaid(page, gateway, 'Done.')
  const other = await page.context().newPage()
  await other.goto(`${secureOrigin}/gateway/`)
  await other.locator('#desk').waitFor()
  await logOut(other)
  await signIn(other, await gateway.mint('bob'))
  await generate(page, 'a blue cube')
  await until('it has found out', async () => await page.locator('#subject').innerText() === 'bob')
  await until('his list is there', async () => await page.locator('#tasks li').count() === 1)
})
