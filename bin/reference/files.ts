import { referenceDocument } from './document.ts'

/** What is served of the reference, by the names of the files. */
export async function referenceFiles (): Promise<Readonly<Record<string, string>>> {
  const document = await referenceDocument()
  return { 'openapi.json': `${JSON.stringify(document, null, 1)}\n` }
}
