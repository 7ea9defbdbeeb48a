import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type Browser, type BrowserContextOptions, chromium as playwright, type Page } from 'playwright-core'
import type { Test } from 'tap'
import { chromiumPath } from './system-packages.ts'

export interface ChromiumOptions {
  /** On top of its usual flags. */
  readonly flags?: readonly string[]
  /** Where it finds hosts that are nowhere: `gateway.example:443` at `127.0.0.1:8443`. */
  readonly hosts?: Readonly<Record<string, string>>
}

/** A page, and all that it has asked for and complained about. */
export interface WatchedPage {
  readonly page: Page
  /** Method and URL of each request. */
  readonly requests: readonly string[]
  /** What is in its console, and what its scripts have thrown. */
  readonly complaints: readonly string[]
}

/** Without a window, as root in a container too, and asking nobody by itself. */
const usualFlags = [
  '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync', '--no-proxy-server'
]

/** A Chromium that ends with its test. */
export async function chromium (t: Test, { flags = [], hosts = {} }: ChromiumOptions = {}): Promise<Browser> {
  const rules = Object.entries(hosts).map(([host, address]) => `MAP ${host} ${address}`)
  const browser = await playwright.launch({
    executablePath: chromiumPath(),
    args: [...usualFlags, ...(rules.length === 0 ? [] : [`--host-resolver-rules=${rules.join(', ')}`]), ...flags]
  })
  t.teardown(() => browser.close())
  return browser
}

/**
 * Opens a page with cookies and storage of its own, which are gone with its test. Options such as `ignoreHTTPSErrors`
 * are Playwright's.
 */
export async function openPage (
  t: Test,
  browser: Browser,
  url: string,
  options: BrowserContextOptions = {}
): Promise<WatchedPage> {
  const context = await browser.newContext(options)
  t.teardown(() => context.close())
  const page = await context.newPage()
  const [requests, complaints]: [string[], string[]] = [[], []]
  page.on('request', request => requests.push(`${request.method()} ${request.url()}`))
  page.on('console', message => complaints.push(message.text()))
  page.on('pageerror', error => complaints.push(String(error)))
  await page.goto(url)
  return { page, requests, complaints }
}

/** Takes a picture of a page, in PNG; it is kept in the folder that `TEST_SCREENSHOTS` names, if there is one. */
export async function pictureOf (page: Page, name: string): Promise<Buffer> {
  const picture = await page.screenshot()
  const folder = process.env.TEST_SCREENSHOTS
  if (folder) writeFileSync(join(folder, `${name}.png`), picture)
  return picture
}
