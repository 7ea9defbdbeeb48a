/** More than any test has: a list without an end is an error, not a test that hangs. */
const mostPages = 1000

/** Reads one page after the other, until the last one. */
export async function * pagesOf<Page extends { readonly next: string | null }> (
  read: (cursor: string | null) => Promise<Page>
): AsyncGenerator<Page> {
  let cursor: string | null = null
  for (let count = 0; count < mostPages; count++) {
    const page: Page = await read(cursor)
    yield page
    if (page.next === null) return
    cursor = page.next
  }
  throw new Error('there is no last page')
}
