import { type CreditAccounts, tooMuchGranted } from '../../domain/ledger/credits.ts'
import type { Commands } from './commands.ts'
import { encoded } from './key-names.ts'

export function redisAccounts ({ ofSubject }: Commands): CreditAccounts {
  return {
    async balanceOf (subject, periodStart) {
      const [used, granted, unfinished] = (await ofSubject(subject, 'balance', periodStart) as Array<Buffer | number>).map(Number)
      return { used: used!, granted: granted!, unfinished: unfinished! }
    },
    async spentIn (subject, budgetId) {
      const [uses, microcredits] = (await ofSubject(subject, 'spent', encoded(budgetId)) as Buffer[]).map(Number)
      return { uses: uses!, microcredits: microcredits! }
    },
    async grant ({ subject, microcredits }) {
      const left = await ofSubject(subject, 'grant', microcredits)
      if (left === null) throw tooMuchGranted()
      return Number(left)
    }
  }
}
