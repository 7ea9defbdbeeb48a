import { endOfTime } from '../instant.ts'
import type { Revocations, SessionIssuer, SessionRequest } from './session.ts'

/**
 * When sessions begin, and up to when they are ended, though somebody sets the wall clock. All sessions of a subject are
 * ended by when they were issued, so a clock that was put back would miss those from before, and end those to come.
 */
export interface IssueTimes {
  /**
   * When a new session of the subject begins, Unix ms: now, or right after the instant up to which all its sessions were
   * ended, if the clock is behind that. Throws `GW_STORE_DOWN`.
   */
  next (subject: string): Promise<number>
  /**
   * Up to when sessions are ended that are to end now, Unix ms: now, or the latest instant that any clock of this gateway
   * has shown, if ours is more than a minute behind it. Throws `GW_STORE_DOWN`.
   */
  end (): Promise<number>
  /** Writes down how far the clock has come, about once a minute. Throws `GW_STORE_DOWN`. */
  note (): Promise<void>
}

/** A session that is minted after all of its subject's were ended is not one of those, whatever the clock says. */
export function mintedInTime<Sessions extends SessionIssuer> (sessions: Sessions, { next }: Pick<IssueTimes, 'next'>): Sessions {
  return {
    ...sessions,
    async mint (request: SessionRequest) {
      const { issuer = 'app', subject } = request
      return await sessions.mint({ ...request, issuedAt: await next(`${issuer}:${subject}`) })
    }
  }
}

export interface IssueTimesOptions {
  readonly revocations: Pick<Revocations, 'revokeSubject' | 'endedBefore'>
  readonly now: () => number
}

/** How far the clock has come is kept as the end of a subject that nobody can be: names of subjects are printable. */
const mark = '\nlatest'
/** The mark is set so far ahead, ms: it is written once in that time, and no session begins after it. */
const aheadMs = 60_000
/** So far may the clocks of two replicas differ, ms; a greater difference is a clock that was put back. */
const skewMs = 60_000

export function issueTimes ({ revocations, now }: IssueTimesOptions): IssueTimes {
  let latest = -Infinity
  let marked = -Infinity

  const reach = (at: number): number => {
    latest = Math.max(latest, at)
    return at
  }
  const note = async (): Promise<void> => {
    if (latest <= marked) return
    const until = latest + aheadMs
    await revocations.revokeSubject(mark, until, endOfTime)
    marked = until
  }

  return {
    async next (subject) {
      const at = reach(Math.max(now(), await revocations.endedBefore(subject) + 1))
      await note()
      return at
    },
    async end () {
      const at = reach(now())
      const until = await revocations.endedBefore(mark)
      return at + aheadMs + skewMs < until ? Math.max(latest, until) : latest
    },
    async note () {
      reach(now())
      await note()
    }
  }
}
