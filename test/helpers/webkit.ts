import { globSync } from 'node:fs'
import type { Test } from 'tap'
import { startProgram } from './program.ts'
import { closedPort } from './raw-server.ts'
import { webkitPaths } from './system-packages.ts'
import { until } from './until.ts'

/** One window of a WebKit, which Playwright's own package does not drive where the system has it. */
export interface WebKitPage {
  open (url: string): Promise<void>
  /** Runs a body of a function, with `return`, in the page. */
  run (script: string, ...args: readonly unknown[]): Promise<any>
}

/** A WebKit without a window that anybody sees, driven as https://www.w3.org/TR/webdriver2/ says. It ends with its test. */
export async function webkit (t: Test): Promise<WebKitPage> {
  const { driver, display } = webkitPaths()
  const screen = startProgram(t, [display, '-displayfd', '1', '-nolisten', 'tcp'], { cwd: '/' })
  const [, number] = await screen.says(/^(\d+)$/m)
  const port = await closedPort()
  startProgram(t, [driver, `--port=${port}`], { cwd: '/', env: { DISPLAY: `:${number}`, GDK_BACKEND: 'x11' } })
  const address = `http://127.0.0.1:${port}`
  const call = async (method: string, path: string, body?: unknown): Promise<any> => {
    const response = await fetch(address + path, { method, ...(body !== undefined && { body: JSON.stringify(body) }) })
    const { value } = await response.json() as { readonly value: any }
    if (!response.ok) throw new Error(`${method} ${path}: ${JSON.stringify(value)}`)
    return value
  }
  await until('the driver listens', () => fetch(`${address}/status`).then(({ ok }) => ok, () => false))
  const [binary] = globSync('/usr/lib/*/webkit2gtk-4.1/MiniBrowser')
  const { sessionId } = await call('POST', '/session', {
    capabilities: { alwaysMatch: { 'webkitgtk:browserOptions': { binary, args: ['--automation'] } } }
  })
  t.teardown(() => call('DELETE', `/session/${sessionId}`))
  return {
    open: url => call('POST', `/session/${sessionId}/url`, { url }),
    run: (script, ...args) => call('POST', `/session/${sessionId}/execute/sync`, { script, args })
  }
}
