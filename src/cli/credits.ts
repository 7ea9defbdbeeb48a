import { checkGrant } from '../domain/operator/operator.ts'
import { isKnownSubject } from '../domain/operator/subject-form.ts'
import { type Command, UsageError } from './command.ts'
import { withOperator } from './ledger.ts'

export const command: Command = {
  usage: `credits grant SUBJECT CREDITS [--create]

  Gives a subject credits beyond its plan's. They last until they are spent, and
  count at once, also in a server that is running.

  SUBJECT   in its stored form, issuer and name: app:alice
  CREDITS   above 0, with at most six decimals: 12.5
  --create  also when nothing is known of the subject: it has had no session, no
            task and no credits yet
`,
  options: { create: { type: 'boolean' } },
  operands: [3],
  async run ({ operands: [verb, subject, credits], flags }) {
    if (verb !== 'grant') throw new UsageError('What can be done with credits is: grant.')
    if (!/^\d+(?:\.\d+)?$/.test(credits!)) throw new UsageError('CREDITS must be a number such as 12.5.')
    checkGrant(subject!, Number(credits))
    const granted = await withOperator(async (operator, store) => {
      if (!flags.has('create') && !await isKnownSubject(store, subject!)) {
        throw new Error(`Nothing is known of ${subject}: is it misspelt? If it has yet to come, say so by --create.`)
      }
      return await operator.grant(subject!, Number(credits))
    })
    process.stdout.write(`${subject} has ${granted} granted credits left.\n`)
    return 0
  }
}
