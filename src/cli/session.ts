import { checkSessionId } from '../domain/operator/session-ends.ts'
import { checkSubject, isKnownSession, isKnownSubject } from '../domain/operator/subject-form.ts'
import { isTokenId } from '../domain/sessions/token-form.ts'
import { type Command, UsageError } from './command.ts'
import { withOperator } from './ledger.ts'
import { shortInstant } from './table.ts'

export const command: Command = {
  usage: `session end --subject SUBJECT
       apixo-gateway session end ID

  Ends sessions for good: all of a subject that were issued until now, or one.
  Cookies and tokens are sessions as well, and so are those of other issuers.
  It counts in a server that is running, on every replica, within a second;
  streams that are open close within six.

  --subject  in its stored form, issuer and name: app:alice
  ID         as the audit trail has it, or of a token. Nobody has a list of
             sessions: an id that is none is ended like any other
`,
  options: { subject: { type: 'string' } },
  operands: [1, 2],
  async run ({ operands: [verb, id], options: { subject } }) {
    if (verb !== 'end') throw new UsageError('What can be done with sessions is: end.')
    if (id === undefined && subject !== undefined) await endAll(subject)
    else if (id !== undefined && subject === undefined) await endOne(id)
    else throw new UsageError('Say which: --subject SUBJECT for all of one, or the ID of a session.')
    return 0
  }
}

/** A subject that can't be one is refused before settings are read and the store is opened. */
async function endAll (subject: string): Promise<void> {
  checkSubject(subject)
  const [before, isKnown] = await withOperator(async (operator, store) =>
    [await operator.endSessions(subject), await isKnownSubject(store, subject)] as const)
  process.stdout.write(`Ended: all sessions of ${subject} until ${shortInstant(before)} UTC are of no use within a second.\n`)
  if (!isKnown) process.stderr.write(`But nothing is known of ${subject}, no session, task or credits: is it misspelt?\n`)
}

async function endOne (id: string): Promise<void> {
  checkSessionId(id)
  const isKnown = await withOperator(async (operator, store) => {
    await operator.endSession(id)
    return isTokenId(id) ? await store.tokens.find(id) !== null : await isKnownSession(store, id)
  })
  process.stdout.write(`Ended: session ${id} is of no use within a second.\n`)
  if (!isKnown) process.stderr.write(`But the audit trail has no session ${id}: if no other issuer gave it, is it misspelt?\n`)
}
