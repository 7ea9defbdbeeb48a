import { connect, type Socket } from 'node:net'
import { createServer } from 'node:tls'
import type { BrowserContextOptions, Page } from 'playwright-core'
import type { Test } from 'tap'
import type { Model } from '../../src/domain/policy.ts'
import { certificate } from './certificate.ts'
import { chromium, openPage } from './chromium.ts'
import { clock } from './clock.ts'
import { crankedGateway } from './cranked-gateway.ts'
import { adminToken, type TestGatewayOptions } from './gateway.ts'
import { listen } from './raw-server.ts'

/** As its callers see a gateway behind https. */
export const secureOrigin = 'https://gateway.example'
/** This machine, under a name that browsers trust no more than any other without https. */
const lanHost = 'gateway.lan'
const models: readonly Model[] = [
  { id: 'nano-banana', category: 'image' },
  { id: 'sora-2', category: 'video' },
  { id: 'suno', category: 'audio' },
  { id: 'gpt-5.4', category: 'text' }
]
const config = `
plans: { default: { credits: 100 }, poor: { credits: 1 }, guest: { credits: 5 } }
prices: { "sora-2*": { credits: 2, per: input.duration, default: 8 }, "*": 1 }
guests: { enabled: true }`
/**
 * Beside what the page itself says: a call was refused, one of our headers is for https alone, advice about passwords.
 */
const usual = /^Failed to load resource|^The Cross-Origin-Opener-Policy header has been ignored|^\[DOM\] Password forms/

/** Ends TLS, and leads to whatever port it is told. */
interface Front {
  readonly address: string
  to: number
  /** What becomes of an answer on its way; `null`: its connection ends. */
  pass: (answer: Buffer) => Buffer | null
}

async function startFront (t: Test): Promise<Front> {
  const server = createServer(certificate(t, 'gateway.example'), (socket: Socket) => {
    const inner = connect(front.to, '127.0.0.1')
    socket.on('error', () => inner.destroy()).on('close', () => inner.destroy()).pipe(inner)
    inner.on('error', () => socket.destroy()).on('close', () => socket.end()).on('data', answer => {
      const passed = front.pass(answer)
      if (passed === null) socket.destroy()
      else socket.write(passed)
    })
  })
  const address = `127.0.0.1:${await listen(server)}`
  t.teardown(() => server.close())
  const front: Front = { address, to: 0, pass: answer => answer }
  return front
}

/** For the tests of a file: a browser, and https in front of the gateway that was started last. */
export async function playgrounds (t: Test) {
  const front = await startFront(t)
  const browser = await chromium(t, { hosts: { 'gateway.example:443': front.address, [lanHost]: '127.0.0.1' } })
  return {
    front,
    /** A gateway whose time, timers included, is the test's. */
    async start (t: Test, options: TestGatewayOptions = {}) {
      const env = { GATEWAY_PUBLIC_URL: secureOrigin, GATEWAY_ADMIN_TOKEN: adminToken }
      const time = clock(Date.now()) // a browser reads Max-Age by its own
      const gateway = await crankedGateway(t, { time, config, models, env, ...options })
      const { port } = new URL(gateway.origin)
      Object.assign(front, { to: Number(port), pass: (answer: Buffer) => answer })
      return { ...gateway, lanOrigin: `http://${lanHost}:${port}` }
    },
    async open (t: Test, origin: string, options: BrowserContextOptions = {}) {
      const settings = {
        viewport: { width: 1280, height: 960 },
        locale: 'en-GB',
        timezoneId: 'UTC',
        ignoreHTTPSErrors: true,
        ...options
      }
      const { page, requests, complaints } = await openPage(t, browser, `${origin}/`, settings)
      return { page, requests, complaints: () => complaints.filter(complaint => !usual.test(complaint)) }
    }
  }
}

export const button = (page: Page, name: string | RegExp) => page.getByRole('button', { name, exact: true })

export async function signIn (page: Page, token: string): Promise<void> {
  await page.getByLabel('Session token').fill(token)
  await button(page, 'Sign in').click()
  await entered(page)
}

/** After a press that lets somebody in: the models and tasks are listed too. */
export async function entered (page: Page): Promise<void> {
  await page.locator('#desk').waitFor()
  await page.locator('#entry [aria-disabled=true]').waitFor({ state: 'detached' })
}

export async function generate (page: Page, prompt: string): Promise<void> {
  await page.getByLabel('Prompt').fill(prompt)
  await button(page, 'Generate').click()
}

/** Time passes until the page says so of its task. */
export async function passUntilSaid (
  page: Page,
  { passUntil }: Awaited<ReturnType<typeof crankedGateway>>,
  text: string
): Promise<void> {
  await passUntil(text, async () => (await page.locator('#state').textContent())!.includes(text))
}

/** Of the result that is shown, once the browser has drawn it. */
export async function pictureWidth (page: Page): Promise<number> {
  return await page.locator('#results img').first().evaluate(async image => {
    await (image as HTMLImageElement).decode()
    return (image as HTMLImageElement).naturalWidth
  })
}

/** All that the page keeps where a script can read it. */
export function kept (page: Page): Promise<string[]> {
  return page.evaluate(() => [document.cookie, JSON.stringify(localStorage), JSON.stringify(sessionStorage)])
}
