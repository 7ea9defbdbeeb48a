import closeWithGrace from 'close-with-grace'
import { sqliteStore } from '../../../src/adapters/sqlite/store.ts'
import type { Task } from '../../../src/domain/ledger.ts'
import type { Store } from '../../../src/domain/store.ts'
import { createGateway } from '../../../src/gateway.ts'
import { loadSettings } from '../../../src/settings.ts'

/**
 * The gateway with a ledger that writes nothing down: what is left is what everything else costs. It knows whose the
 * newest tasks are, or no status call would get past *authorize*.
 */
const terms = { reservedMs: 1, sentMs: 1, giveUpMs: 1, refundsPerPeriod: 1, retentionMs: 1 }
const memory = sqliteStore({ path: ':memory:', terms, synchronous: 'normal', now: Date.now })
const reserved = new Map<string, { readonly subject: string, readonly model: string, readonly keyId: string }>()
const tasks = new Map<string, Task>()
const mostTasks = 10_000
let lastId = 0

const ledger: Store['ledger'] = {
  async reserve ({ subject, model, keyId }) {
    const id = String(++lastId)
    reserved.set(id, { subject, model, keyId })
    return { granted: true, id }
  },
  async reserveAll () { throw new Error('no batches here') },
  async advance (id, step) {
    if (step.to === 'sent') return true
    const demand = reserved.get(id)!
    reserved.delete(id)
    if (step.to === 'claimed' && tasks.size < mostTasks) {
      const { taskId } = step
      tasks.set(taskId, {
        ...demand,
        taskId,
        operation: 'generateTask',
        stage: 'claimed',
        microcredits: 0,
        createdAt: 0,
        finalAnswer: null
      })
    }
    return true
  },
  async settle ({ taskId, answer }) {
    const task = tasks.get(taskId)!
    tasks.set(taskId, { ...task, stage: 'settled', finalAnswer: answer })
    return true
  },
  taskOf: async taskId => tasks.get(taskId) ?? null,
  giveUp: async () => false,
  abandon: async () => ({ result: 'ended' }),
  sweep: async () => ({ released: 0, unknown: 0 })
}

const gateway = await createGateway(loadSettings({ env: process.env, cwd: process.cwd() }), {
  store: { ...memory, ledger }
})
closeWithGrace({ delay: 5000, logger: false }, () => gateway.close())
await gateway.listen()
