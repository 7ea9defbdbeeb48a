import { referenceDocument } from './document.ts'
import { llmsText } from './llms.ts'
import { referencePage } from './page.ts'

/** What is served of the reference, by the names of the files. */
export async function referenceFiles (): Promise<Readonly<Record<string, string>>> {
  const document = await referenceDocument()
  return {
    'openapi.json': `${JSON.stringify(document, null, 1)}\n`,
    'docs.html': referencePage(document),
    'llms.txt': llmsText(document)
  }
}
