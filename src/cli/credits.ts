import type { Extra } from '../domain/ceilings.ts'
import { systemClock } from '../domain/time.ts'
import { checkGrant, isKnownSubject, type Traces } from '../features/admin/admin.ts'
import { creditExtras, type ExtraRequest, type ExtraTarget, type GivenExtra } from '../features/admin/extras.ts'
import { type Command, type Given, UsageError } from './command.ts'
import { withOperator, withStore } from './operator.ts'

export const credits: Command = {
  usage: `credits grant SUBJECT CREDITS [--create]
       apixo-gateway credits grant CREDITS --pool POOL | --gateway
       apixo-gateway credits extra CREDITS --until TIME
                                   --subject SUBJECT | --pool POOL | --gateway

  Gives credits beyond what the settings say. They count at once, also in a
  server that is running. Grants last until they are spent: a subject's beyond
  its plan's, and those of a pool or the gateway where it is prepaid, which is
  to say that it has ceilings.none. An extra raises limits until its end: that
  of a subject's period, and each ceiling of a pool or the gateway.

  SUBJECT   in its stored form, issuer and name: app:alice
  CREDITS   above 0, with at most six decimals: 12.5
  --create  also when nothing is known of the subject: it has had no session, no
            task and no credits yet
  --until   an instant to come, UTC: 2026-12-24 or 2026-12-24T18:00Z
`,
  options: {
    create: { type: 'boolean' },
    subject: { type: 'string' },
    pool: { type: 'string' },
    gateway: { type: 'boolean' },
    until: { type: 'string' }
  },
  operands: [2, 3],
  async run (given) {
    const [verb] = given.operands
    if (verb === 'extra') await give(given)
    else if (verb !== 'grant') throw new UsageError('What can be done with credits is: grant, extra.')
    else if (given.operands.length === 2) await grantAbove(given)
    else await grant(given)
    return 0
  }
}

function numberFrom (credits: string): number {
  if (!/^\d+(?:\.\d+)?$/.test(credits)) throw new UsageError('CREDITS must be a number such as 12.5.')
  return Number(credits)
}

function targetOf ({ options: { subject, pool }, flags }: Given): ExtraTarget {
  return { subject, pool, gateway: flags.has('gateway') ? true : undefined }
}

async function grant (given: Given): Promise<void> {
  const { operands: [, subject, credits], flags, options } = given
  if (Object.values(targetOf(given)).some(value => value !== undefined) || options.until !== undefined) {
    throw new UsageError('A grant names its subject and its credits, and nothing else but --create.')
  }
  const amount = numberFrom(credits!)
  checkGrant(subject!, amount)
  const granted = await withOperator(async (operator, store) => {
    if (!flags.has('create')) await checkKnown(store, subject!)
    return await operator.grant(subject!, amount)
  })
  process.stdout.write(`${subject} has ${granted} granted credits left.\n`)
}

async function grantAbove (given: Given): Promise<void> {
  const { subject, ...above } = targetOf(given)
  const { operands: [, credits], options: { until } } = given
  if (subject !== undefined || until !== undefined || (above.pool ?? above.gateway) === undefined) {
    throw new UsageError('Say whose it is to be: grant SUBJECT CREDITS, or grant CREDITS --pool POOL, or --gateway.')
  }
  const { total } = await giveExtra({ ...above, credits: numberFrom(credits!) })
  process.stdout.write(`${nameOf(above)} has been granted ${total} credits in all.\n`)
}

async function give (given: Given): Promise<void> {
  const { operands: [, credits, odd], options: { until }, flags } = given
  if (odd !== undefined) throw new UsageError('An extra takes the credits alone: its subject is --subject SUBJECT.')
  if (until === undefined) throw new UsageError('An extra has an end: --until TIME.')
  const target = targetOf(given)
  const { total } = await giveExtra({ ...target, credits: numberFrom(credits!), until }, flags.has('create'))
  process.stdout.write(`${nameOf(target)} has ${total} extra credits now.\n`)
}

function nameOf ({ subject, pool }: ExtraTarget): string {
  return subject ?? (pool === undefined ? 'The gateway' : `The pool ${pool}`)
}

/** `isNew`: nothing need be known of the subject. */
function giveExtra (request: ExtraRequest, isNew = true): Promise<GivenExtra> {
  return withStore(async ({ file: rules }, store) => {
    const { ceilings, audit: trail } = store
    const accounts = { raise: (extra: Extra) => ceilings.raise(extra), rules }
    if (!isNew && request.subject !== undefined) await checkKnown(store, request.subject)
    return await creditExtras({ accounts, trail, actor: 'cli', now: systemClock.now })(request)
  })
}

async function checkKnown (traces: Traces, subject: string): Promise<void> {
  if (await isKnownSubject(traces, subject)) return
  throw new Error(`Nothing is known of ${subject}: is it misspelt? If it has yet to come, say so by --create.`)
}
