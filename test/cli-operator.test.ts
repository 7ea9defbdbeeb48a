import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { isKnownSubject, type Traces } from '../src/features/admin/admin.ts'
import { startSandbox } from '../src/sandbox/sandbox.ts'
import { claimed, open } from './adapters/sqlite-files.ts'
import { gatewayEnvironment, type GatewayProcess, runScript, startProcess } from './helpers/gateway-process.ts'
import { apiKey, issuerToken } from './helpers/gateway.ts'
import { redisServer } from './helpers/redis-server.ts'

const stores: Readonly<Record<string, (t: Test) => Promise<Record<string, string>>>> = {
  'a SQLite file': async () => ({}),
  Redis: async t => ({ GATEWAY_STORE: (await redisServer(t)).url })
}
const config = 'plans: { default: { credits: 2, period: month } }'
const script = 'src/cli.ts'

/** A gateway that runs, and the command line beside it. */
async function start (t: Test, more: Readonly<Record<string, string>> = {}, yaml = config) {
  const sandbox = await startSandbox({ keys: [apiKey] })
  t.teardown(() => sandbox.close())
  const cwd = t.testdir({ 'gateway.yaml': yaml })
  const env = { ...gatewayEnvironment(sandbox.origin), ...more }
  const gateway = await startProcess(t, { cwd, env })
  return { cwd, env, gateway, cli: (...args: readonly string[]) => run(t, cwd, args, env) }
}

async function run (t: Test, cwd: string, args: readonly string[], env: Readonly<Record<string, string>> = {}) {
  const program = runScript(t, { cwd, script, args, env })
  return { code: await program.ended, stdout: program.stdout, stderr: program.stderr }
}

async function mint ({ origin }: GatewayProcess, subject: string, more: object = {}): Promise<string> {
  const headers = { authorization: `Bearer ${issuerToken}`, 'content-type': 'application/json' }
  const reply = await fetch(`${origin}/gateway/sessions`, {
    method: 'POST',
    headers,
    body: JSON.stringify({ subject, ...more })
  })
  return ((await reply.json()) as { token: string }).token
}

async function submit ({ origin }: GatewayProcess, token: string, prompt = 'a red cube'): Promise<number> {
  const reply = await fetch(`${origin}/api/v1/generateTask/nano-banana`, {
    method: 'POST',
    headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
    body: JSON.stringify({ input: { mode: 'text-to-image', prompt } })
  })
  await reply.arrayBuffer()
  return reply.status
}

const today = () => new Date().toISOString().slice(0, 10)

t.test('credits that are granted beside a running gateway count at once', async t => {
  const { gateway, cli } = await start(t)
  const token = await mint(gateway, 'alice')
  t.same([await submit(gateway, token), await submit(gateway, token), await submit(gateway, token)], [200, 200, 402])
  t.strictSame(await cli('credits', 'grant', 'app:alice', '1.5'), {
    code: 0,
    stdout: 'app:alice has 1.5 granted credits left.\n',
    stderr: ''
  })
  t.same([await submit(gateway, token), await submit(gateway, token)], [200, 402])
  t.match(await cli('credits', 'grant', 'app:alice', '0.000001'), {
    code: 0,
    stdout: 'app:alice has 0.500001 granted credits left.\n'
  })
})

for (const [name, storeOf] of Object.entries(stores)) {
  t.test(`a grant to a subject that nobody has heard of wants --create, over ${name}`, async t => {
    const { gateway, cli } = await start(t, await storeOf(t))
    t.strictSame(await cli('credits', 'grant', 'app:alcie', '5'), {
      code: 1,
      stdout: '',
      stderr:
        'apixo-gateway: Nothing is known of app:alcie: is it misspelt? If it has yet to come, say so by --create.\n'
    })
    t.same(
      JSON.parse((await cli('audit', '--format', 'json')).stdout).map(({ kind }: { kind: string }) => kind),
      ['settings'],
      'nothing was done'
    )
    t.match(await cli('session', 'end', '--subject', 'app:alcie'), {
      code: 0,
      stdout: /^Ended: /,
      stderr: 'But nothing is known of app:alcie, no session, task or credits: is it misspelt?\n'
    })
    t.match(await cli('session', 'end', 'no-such-session'), {
      code: 0,
      stdout: /^Ended: /,
      stderr: 'But the audit trail has no session no-such-session: if no other issuer gave it, is it misspelt?\n'
    })
    t.match(await cli('session', 'end', 'A1b2C3d4E5f'), { code: 0, stderr: /no session A1b2C3d4E5f/ })
    t.equal((await cli('credits', 'grant', 'app:alcie', '5')).code, 1, 'having been ended is not being known')
    t.match(await cli('credits', 'grant', 'app:alcie', '5', '--create'), {
      code: 0,
      stdout: 'app:alcie has 5 granted credits left.\n',
      stderr: ''
    })
    t.match(await cli('credits', 'grant', 'app:alcie', '1'), {
      code: 0,
      stdout: 'app:alcie has 6 granted credits left.\n'
    })

    await mint(gateway, 'bob')
    await cli('token', 'create', '--subject', 'carol')
    for (const subject of ['app:bob', 'token:carol']) {
      t.match(await cli('credits', 'grant', subject, '1'), { code: 0, stderr: '' }, subject)
    }
    t.match(await cli('session', 'end', '--subject', 'app:bob'), { code: 0, stderr: '' })
  })
}

t.test('a subject is known by its tasks when the audit trail has forgotten its sessions', async t => {
  const traces = (tasks: number, pages: readonly string[][]): Traces => ({
    records: { tasksOf: async () => ({ items: Array(tasks), next: null }) },
    accounts: { balanceOf: async () => ({ used: 0, granted: 0, unfinished: 0 }) },
    audit: {
      async read ({ cursor }) {
        const index = Number(cursor)
        const items = pages[index]!.map(
          subject => ({ at: 0, kind: 'mint', actor: 'issuer', subject, detail: {} }) as const
        )
        return { items, next: index + 1 < pages.length ? String(index + 1) : null }
      }
    }
  })
  t.ok(await isKnownSubject(traces(1, [[]]), 'app:alice'))
  t.ok(await isKnownSubject(traces(0, [['app:bob'], ['app:alice']]), 'app:alice'), 'on a later page')
  t.notOk(await isKnownSubject(traces(0, [['app:bob'], ['app:carol']]), 'app:alice'))
})

t.test('extras and prepaid credits that are given beside a running gateway count at once', async t => {
  const { gateway, cli } = await start(t, {}, `
plans: { default: { credits: 1, ceilings: {} }, team: { credits: 100, pool: design } }
pools: { design: { ceilings: { none: 0 } } }
prices: { "*": 1 }
`)
  const [alice, bob] = [await mint(gateway, 'alice'), await mint(gateway, 'bob', { plan: 'team' })]
  t.same([await submit(gateway, alice), await submit(gateway, alice), await submit(gateway, bob)], [200, 402, 402])
  t.strictSame(await cli('credits', 'extra', '1', '--subject', 'app:alice', '--until', '2099-01-01'), {
    code: 0, stdout: 'app:alice has 1 extra credits now.\n', stderr: ''
  })
  t.strictSame(await cli('credits', 'grant', '2.5', '--pool', 'design'), {
    code: 0, stdout: 'The pool design has been granted 2.5 credits in all.\n', stderr: ''
  })
  t.same([await submit(gateway, alice), await submit(gateway, bob), await submit(gateway, bob)], [200, 200, 200])
  t.same([await submit(gateway, alice), await submit(gateway, bob)], [402, 402])
  t.match(await cli('credits', 'extra', '1', '--gateway', '--until', '2099-01-01'), {
    code: 0, stdout: 'The gateway has 1 extra credits now.\n'
  })
  for (const [args, why] of [
    [['extra', '1', '--subject', 'app:alcie', '--until', '2099-01-01'], /Nothing is known of app:alcie/],
    [['extra', '1', '--pool', 'sales', '--until', '2099-01-01'], /There is no pool "sales": pools are "design"\./],
    [['grant', '1', '--gateway'], /It would not count: gateway has no ceilings\.none/]
  ] as const) t.match(await cli('credits', ...args), { stderr: why })
})

t.test('a grant that makes no sense is refused before anything is opened, and says what to change', async t => {
  const cwd = t.testdir({})
  await Promise.all(
    (
      [
        [['give', 'app:alice', '1'], /: grant, extra\./],
        [['grant', 'alice', '1'], /: app:alice\./],
        [['grant', 'app:alice', '0'], /above 0/],
        [['grant', 'app:alice', '-1'], /Unknown option/],
        [['grant', 'app:alice', '1e3'], /such as 12\.5/],
        [['grant', 'app:alice', '0.0000001'], /six decimals/],
        [['grant', 'app:alice'], /grant SUBJECT CREDITS, or/],
        [['grant', '1', '--pool', 'a', '--until', '2099-01-01'], /grant SUBJECT CREDITS, or/],
        [['grant', '1', '--subject', 'app:alice'], /grant SUBJECT CREDITS, or/],
        [['grant', 'app:alice', '1', '--pool', 'a'], /nothing else but --create/],
        [['grant', 'app:alice', '1', '--until', '2099-01-01'], /nothing else but --create/],
        [['extra', '1', '--gateway'], /has an end/],
        [['extra', 'app:alice', '1', '--until', '2099-01-01'], /--subject SUBJECT/],
        [['extra', 'x', '--gateway', '--until', '2099-01-01'], /such as 12\.5/]
      ] as const
    ).map(async ([args, why]) => {
      const { code, stdout, stderr } = await run(t, cwd, ['credits', ...args])
      t.equal(code, 64, args.join(' '))
      t.equal(stdout, '')
      t.match(stderr, why)
      t.match(stderr, /\n\nUsage: apixo-gateway credits grant SUBJECT CREDITS \[--create\]\n/)
    })
  )
})

t.test('usage is a table for people, and CSV or JSON for programs', async t => {
  const { gateway, cli } = await start(t)
  const [month, day] = [today().slice(0, 8), today()]
  t.strictSame(await cli('usage'), { code: 0, stdout: `No tasks from ${month}01 to ${day}.\n`, stderr: '' })
  const [alice, bob] = [await mint(gateway, 'alice'), await mint(gateway, 'bob')]
  await submit(gateway, alice)
  t.equal((await cli('usage')).stdout, `From ${month}01 to ${day}:

SUBJECT    TASKS  SUCCEEDED  FAILED  UNKNOWN  CREDITS
app:alice      1          0       0        0        1
`)
  await submit(gateway, alice)
  await submit(gateway, bob, 'sandbox:drop-after')
  t.equal((await cli('usage', '--by', 'subject,model', '--from', day)).stdout, `From ${day} to ${day}:

SUBJECT    MODEL        TASKS  SUCCEEDED  FAILED  UNKNOWN  CREDITS
app:alice  nano-banana      2          0       0        0        2
app:bob    nano-banana      1          0       0        1        1
total                       3          0       0        1        3
`
  )
  t.equal(
    (await cli('usage', '--format=csv')).stdout,
    'subject,tasks,succeeded,failed,unknown,credits\r\n"app:alice",2,0,0,0,2\r\n"app:bob",1,0,0,1,1\r\n'
  )
  t.same(JSON.parse((await cli('usage', '--format', 'json', '--by', 'day')).stdout), {
    from: `${month}01`, to: day, by: ['day'], rows: [{ day, tasks: 3, succeeded: 0, failed: 0, unknown: 1, credits: 3 }]
  })
  await Promise.all(
    (
      [
        [['--by', 'plan'], /by must/],
        [['--from', 'monday'], /from must/],
        [['--format', 'xml'], /--format must be one of table, csv, json/]
      ] as const
    ).map(async ([args, why]) => {
      t.match(await cli('usage', ...args), { code: 64, stdout: '', stderr: why }, args.join(' '))
    })
  )
})

t.test('what has no known end is listed, and let go once', async t => {
  const { gateway, cli } = await start(t)
  t.strictSame(await cli('unknown'), { code: 0, stdout: 'All is known.\n', stderr: '' })
  const token = await mint(gateway, 'alice')
  for (let count = 0; count < 2; count++) await submit(gateway, token, `sandbox:drop-after, the ${count}.`)
  t.equal(await submit(gateway, token), 402)
  const { stdout } = await cli('unknown')
  t.match(
    stdout,
    /^ID +MADE \(UTC\) +SUBJECT +MODEL +CREDITS +TASK ID\n(\S+ +\d{4}-\d\d-\d\d \d\d:\d\d:\d\d +app:alice +nano-banana +1 +-\n){2}$/
  )
  const [{ id }, { id: other }] = JSON.parse((await cli('unknown', '--format', 'json')).stdout)
  t.match(await cli('unknown', '--limit', '1'), {
    code: 0,
    stdout: new RegExp(`^ID.*\\n${id} .*\\n$`),
    stderr: 'There are more: see --limit.\n'
  })
  t.strictSame(await cli('unknown', 'release', id), {
    code: 0,
    stdout: 'Released: its credits are given back.\n',
    stderr: ''
  })
  t.equal(await submit(gateway, token), 200, 'the running gateway knows it at once')
  t.match(await cli('unknown', 'release', id), {
    code: 1,
    stdout: '',
    stderr: `apixo-gateway: ${id} is none of them, or not any more.\n`
  })
  const [wrong, none] = await Promise.all([cli('unknown', 'forget', other), cli('unknown', '--limit', '0')])
  t.match(wrong, { code: 64, stderr: /: release\./ })
  t.match(none, { code: 64, stderr: /--limit must be a whole number/ })
})

t.test('the audit trail tells who did what, the command line included', async t => {
  const { gateway, cli } = await start(t)
  const token = await mint(gateway, 'alice')
  await fetch(`${gateway.origin}/gateway/session`, { method: 'DELETE', headers: { authorization: `Bearer ${token}` } })
  await cli('credits', 'grant', 'app:alice', '3')
  const { stdout, stderr } = await cli('audit')
  t.equal(stderr, '')
  const [head, ...rows] = stdout.trimEnd().split(/\n(?! )/)
  t.match(head, /^AT \(UTC\) +WHAT +BY +SUBJECT$/)
  for (const [index, row] of [
    / grant +cli +app:alice\n {4}credits=3$/,
    / revoke +app:alice +app:alice\n {4}session=/,
    / mint +issuer +app:alice\n {4}session=\S+ plan=default ttlSeconds=3600 models=1 scopes=/,
    / settings +gateway +-\n {4}changed=null$/
  ].entries()) {
    t.match(rows[index], row)
  }
  t.equal(rows.length, 4, 'and the command line writes down no settings of its own')
  t.match(JSON.parse((await cli('audit', '--format', 'json')).stdout), [
    { kind: 'grant' },
    { kind: 'revoke' },
    { kind: 'mint' },
    { kind: 'settings' }
  ])
  t.match(await cli('audit', '--limit', '1'), {
    code: 0,
    stdout: /^AT.*\n.* grant .*\n {4}credits=3\n$/,
    stderr: 'There are more: see --limit.\n'
  })
  t.notOk(stdout.includes(token))
})

t.test('a command that does not find the ledger says whose settings it needs', async t => {
  const cwd = t.testdir({ 'gateway.yaml': config })
  const hint = /\nThis command needs the settings of the server: /
  const env = gatewayEnvironment('http://127.0.0.1:1')
  await Promise.all(
    [['usage'], ['unknown', 'release', '1'], ['credits', 'grant', 'app:alice', '1']].map(async args => {
      const [unset, missing] = await Promise.all([run(t, cwd, args), run(t, cwd, args, env)])
      t.match(unset, { code: 78, stdout: '', stderr: /^apixo-gateway: 3 settings are wrong:/ }, args.join(' '))
      t.match(unset.stderr, hint)
      t.match(
        missing,
        {
          code: 1,
          stdout: '',
          stderr: /^apixo-gateway: the ledger .*gateway\.db can not be opened: there is no such file/
        },
        args.join(' ')
      )
      t.match(missing.stderr, hint)
    })
  )
  t.match(await run(t, cwd, ['usage'], { ...env, GATEWAY_STORE: 'sqlite::memory:' }), { code: 1, stderr: hint })
  t.throws(() => rmSync(join(cwd, 'gateway.db')), { code: 'ENOENT' }, 'and none is made')
})

for (const [name, storeOf] of Object.entries(stores)) {
  t.test(`tasks of everybody are listed, what runs now is found, and one is shown in full, over ${name}`, async t => {
    const { gateway, cli } = await start(t, await storeOf(t))
    await submit(gateway, await mint(gateway, 'alice'))
    await submit(gateway, await mint(gateway, 'bob'), 'sandbox:drop-after')
    const listed = await cli('task', 'list')
    t.match(listed.stdout, /^MADE \(UTC\) +SUBJECT +MODEL +STATE +CREDITS +ID\n.*app:bob .*unknown.*\n.*app:alice .*running/)
    const all = JSON.parse((await cli('task', 'list', '--format', 'json', '--state', 'running')).stdout)
    t.match(all, [{ subject: 'app:alice', state: 'running', credits: 1 }])
    t.equal((await cli('task', 'list', '--subject', 'app:carol')).stdout, 'There are no such tasks.\n')
    t.match(await cli('task', 'list', '--limit', '1', '--from', today(), '--to', today(), '--model', 'nano-banana'), {
      stdout: /app:bob/, stderr: 'There are more: see --limit.\n'
    })
    t.match(JSON.parse((await cli('task', 'show', all[0].taskId)).stdout), { ...all[0], stage: 'claimed' })
    t.match(JSON.parse((await cli('task', 'show', all[0].id)).stdout), { ...all[0], stage: 'claimed' })
    t.match(await cli('task', 'show', 'none'), { code: 1, stderr: 'apixo-gateway: There is no task none.\n' })
  })
}

t.test('a failed task is listed with its refund, and its answer goes with its subject', async t => {
  const cwd = t.testdir({ 'gateway.yaml': config })
  const store = open(t, join(cwd, 'gateway.db'), { now: Date.now })
  await claimed(store, 'a task', { microcredits: 2_000_000 })
  await store.ledger.settle({ taskId: 'a task', state: 'failed', answer: Buffer.from('{"code":200}') })
  await store.close()
  const env = gatewayEnvironment('http://127.0.0.1:9')
  t.match(await run(t, cwd, ['task', 'list'], env), { code: 0, stdout: /failed +2 \(refunded\) +a task/ })
  t.match(await run(t, cwd, ['subject', 'erase', '--subject', 'app:alice'], env), { code: 0, stdout: /^Erased: 1 tasks/ })
})

t.test('words that make no sense of tasks are refused before the store is opened', async t => {
  const cwd = t.testdir({})
  for (const [args, about] of [
    [['list', '--state', 'done'], /state must be one of running/],
    [['list', '--subject', 'alice'], /subject must have its stored form/],
    [['list', '--limit', '0'], /--limit/],
    [['list', 'x'], /Say task list, or task show ID/],
    [['show'], /Say task list, or task show ID/],
    [['forget', 'x'], /must be one of list, show/]
  ] as const) t.match(await run(t, cwd, ['task', ...args]), { code: 64, stderr: about }, args.join(' '))
})

t.test('a subject is exported, and erased from the file beside a gateway that runs', async t => {
  const { gateway, cli, cwd } = await start(t)
  const token = await mint(gateway, 'al1ce')
  await submit(gateway, token, 'sandbox:drop-after')
  await cli('credits', 'grant', 'app:al1ce', '5')
  const exported = (await cli('subject', 'export', '--subject', 'app:al1ce')).stdout.trimEnd().split('\n')
  t.same(exported.map(line => JSON.parse(line).kind).slice(0, 2), ['subject', 'task'])
  writeFileSync(join(cwd, 'gateway.db.version-9'), 'app:al1ce')
  const erased = await cli('subject', 'erase', '--subject', 'app:al1ce')
  t.match(erased, {
    code: 0,
    stdout: /^Erased: 1 tasks and 0 tokens; \d entries of the audit trail and the sums for the books are of erased:/,
    stderr: /A copy from before an upgrade .* delete .*\/gateway\.db\.version-9\n$/
  })
  for (const file of ['gateway.db', 'gateway.db-wal']) {
    t.notOk(readFileSync(join(cwd, file), 'latin1').includes('al1ce'), file)
  }
  t.equal(await submit(gateway, token), 401)
  const usage = JSON.parse((await cli('usage', '--format', 'json')).stdout)
  t.match(usage.rows, [{ subject: /^erased:/, tasks: 1, unknown: 1, credits: 1 }])
  t.match(await cli('subject', 'erase', '--subject', 'app:al1ce', '--no-rewrite'), {
    code: 0, stdout: /^Erased: 0 tasks/, stderr: /Nothing is known of app:al1ce: is it misspelt\?/
  })
  await submit(gateway, await mint(gateway, 'bob'), 'sandbox:forever')
  t.match(await cli('subject', 'erase', '--subject', 'app:bob'), {
    code: 1, stderr: /Nothing is erased: 1 of app:bob still run/
  })
})

t.test('words that make no sense of a subject are refused before the store is opened', async t => {
  const cwd = t.testdir({})
  for (const [args, about] of [
    [['export'], /Say whose/],
    [['erase', '--subject', 'alice'], /subject must have its stored form/],
    [['forget', '--subject', 'app:alice'], /must be one of export, erase/],
    [['export', '--subject', 'app:alice', '--no-rewrite'], /export has no option --no-rewrite/]
  ] as const) t.match(await run(t, cwd, ['subject', ...args]), { code: 64, stderr: about }, args.join(' '))
})

t.test('over Redis there is no file to write anew, and no copy beside it', async t => {
  const { gateway, cli } = await start(t, await stores['Redis']!(t))
  await submit(gateway, await mint(gateway, 'alice'), 'sandbox:drop-after')
  t.match(await cli('subject', 'erase', '--subject', 'app:alice'), { code: 0, stdout: /^Erased: 1 tasks/, stderr: '' })
})
