import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { referenceFiles } from './reference/files.ts'

/** `npm run reference`: writes what `/gateway/docs` and its neighbours answer, from the routes as they are. */
const folder = join(import.meta.dirname, '../src/pages/reference')

for (const [name, text] of Object.entries(await referenceFiles())) writeFileSync(join(folder, name), text)
