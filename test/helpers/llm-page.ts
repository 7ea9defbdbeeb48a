import { join } from 'node:path'
import type { Page } from 'playwright-core'
import { rolldown } from 'rolldown'
import type { Said, SdkPlace } from './llm-sdks.ts'
import type { SdkError, SdkName } from './llm-ai-sdks.ts'

/** A call of an SDK, made in a page. */
export interface CallInPage {
  readonly name: SdkName
  readonly place: SdkPlace
  readonly form: 'plain' | 'streamed'
  readonly prompt: string
  readonly hasTool?: boolean
  /** What the page does at the first piece of text; a plain call is aborted at once. */
  readonly leaves?: 'abort' | 'break'
}

/** The SDKs as one script for pages, as a bundler of an app makes it: `window.llm`. */
export async function llmScript (): Promise<string> {
  const build = await rolldown({
    input: join(import.meta.dirname, 'llm-in-page.ts'), platform: 'browser', logLevel: 'silent'
  })
  const { output: [{ code }] } = await build.generate({ format: 'iife', name: 'llm' })
  await build.close()
  return code
}

/** Calls an SDK in a page that has the script. */
export async function callInPage (page: Page, call: CallInPage): Promise<Said | SdkError> {
  // The script's name is known in the page alone.
  return await page.evaluate(call => (globalThis as any).llm.run(call), call)
}
