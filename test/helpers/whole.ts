import type { KeyChoice, KeyStatus } from '../../src/domain/key-ring.ts'
import type { Task } from '../../src/domain/ledger.ts'
import type { Plan } from '../../src/domain/policy.ts'
import type { TaskRecord } from '../../src/domain/records.ts'
import { Secret } from '../../src/domain/secret.ts'
import type { Revocations, Session } from '../../src/domain/session.ts'
import type { Upstream, UpstreamAnswer, UpstreamKey } from '../../src/domain/upstream.ts'
import { RequestState, type SessionRequestState } from '../../src/http/context.ts'

/** Whole objects of the domain, for tests that care about some of their fields. */

/** A task that runs. */
export function wholeTask (fields: Partial<Task> = {}): Task {
  return {
    taskId: 'a',
    subject: 'app:alice',
    operation: 'generateTask',
    model: 'nano-banana',
    keyId: 'one',
    stage: 'claimed',
    microcredits: 0,
    createdAt: 0,
    finalAnswer: null,
    ...fields
  }
}

/** The row of a task that runs. */
export function wholeRecord (fields: Partial<TaskRecord> = {}): TaskRecord {
  return {
    id: '1',
    subject: 'app:alice',
    taskId: 'a',
    operation: 'generateTask',
    model: 'nano-banana',
    stage: 'claimed',
    state: null,
    microcredits: 0,
    refunded: false,
    createdAt: 0,
    endedAt: null,
    abandonedAt: null,
    ...fields
  }
}

export function wholeKey (id: string): UpstreamKey {
  return { id, secret: new Secret(`the secret of ${id}`) }
}

export function wholeKeyStatus (fields: Partial<KeyStatus> = {}): KeyStatus {
  return { keyId: 'one', state: 'ready', since: 0, restingUntil: null, balance: null, ...fields }
}

/** Keys that work, and of which a submit gets the first. */
export function wholeKeys (ids: readonly string[]): KeyChoice {
  const keys = ids.map(wholeKey)
  return {
    choose: () => keys[0],
    byId: id => keys.find(key => key.id === id),
    verify: async () => 'fine',
    learn () {},
    readyInMs: () => 0
  }
}

export function wholeUpstream (send: Upstream['send']): Upstream {
  return { send, async close () {} }
}

export function wholeAnswer (text: string, fields: Partial<UpstreamAnswer> = {}): UpstreamAnswer {
  return {
    status: 200,
    contentType: 'application/json',
    retryAfter: undefined,
    body: Buffer.from(text),
    leaksKey: false,
    ...fields
  }
}

/** Nobody's session has been ended. */
export function wholeRevocations (fields: Partial<Revocations> = {}): Revocations {
  return {
    revoke: async () => true,
    revokeSubject: async () => {},
    endedBefore: async () => -Infinity,
    isRevoked: async () => false,
    ...fields
  }
}

/** A call that has passed *authenticate*. */
export function wholeCall (session: Session, plan: Plan): SessionRequestState {
  const call = new RequestState(() => {})
  call.identify(session, plan)
  if (!isIdentified(call)) throw new Error('it has no session')
  return call
}

function isIdentified (call: RequestState): call is SessionRequestState {
  return call.session !== null && call.plan !== null
}
