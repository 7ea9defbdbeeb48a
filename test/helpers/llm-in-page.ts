import { outcomeOf, type SdkError, sdks } from './llm-ai-sdks.ts'
import type { CallInPage } from './llm-page.ts'
import type { Said } from './llm-sdks.ts'

/** Run in a page: what a call came to, in values that leave it. */
export async function run (
  { name, place, form, prompt, hasTool = false, leaves }: CallInPage
): Promise<Said | SdkError> {
  const leaving = new AbortController()
  const call = outcomeOf(sdks[name](place)[form]({
    prompt,
    hasTool,
    signal: leaving.signal,
    onText () {
      if (leaves === 'abort') leaving.abort()
      return leaves !== 'break'
    }
  }))
  return await call
}
