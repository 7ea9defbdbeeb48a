import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { parseEnv } from 'node:util'
import t from 'tap'
import { Check } from 'typebox/schema'
import { parse } from 'yaml'
import { environmentVariables, gatewayFileSchema, gatewayFileSchemaText, loadSettings } from '../../src/settings.ts'
import type { JsonSchema } from '../../src/settings/file.ts'
import { load, required } from './fixture.ts'

const root = fileURLToPath(new URL('../../', import.meta.url))
const read = (path: string) => readFileSync(new URL(path, new URL('../../', import.meta.url)), 'utf8')
const loadSample = (path: string) => loadSettings({ env: { ...required, GATEWAY_CONFIG: path }, cwd: root })

t.test('config/gateway.schema.json is current', t => {
  const script = 'import("./src/settings.ts").then(s => process.stdout.write(s.gatewayFileSchemaText()))'
  const command = `node -e '${script}' > config/gateway.schema.json`
  t.equal(read('config/gateway.schema.json'), gatewayFileSchemaText(), `make it anew by: ${command}`)
  t.end()
})

t.test('the config file that ships is valid, changes no default, and has the plans of the examples', t => {
  t.ok(Check(gatewayFileSchema(), parse(read('config/gateway.yaml'))))
  const { plans: { default: plan, guest, team, ...others }, ...rest } = loadSample('config/gateway.yaml').file
  const { plans, ...defaults } = load(t).file
  t.same({ default: plan, ...others }, plans)
  t.same(rest, defaults)
  t.match([guest, team], [{ credits: 5, models: ['nano-banana*'] }, { credits: 500, period: 'month' }])
  t.end()
})

t.test('the complete example is valid, and shows the default of every key but those of its examples', t => {
  t.ok(Check(gatewayFileSchema(), parse(read('config/gateway.example.yaml'))))
  const { plans, prices, caps, ...example } = loadSample('config/gateway.example.yaml').file
  const { plans: defaultPlans, prices: none, caps: nothing, ...defaults } = load(t).file
  t.same(plans['default'], defaultPlans['default'])
  t.same(example, defaults)
  t.end()
})

t.test('what the complete example has in comments can be put in as it is', t => {
  const [before, rest] = read('config/gateway.example.yaml').split(/^issuers: \[\].*\n/m)
  const [commented] = /^(?:#.*\n)+/.exec(rest!)!
  const issuers = commented.replace(/^# /gm, '')
  const { file } = load(t, {
    yaml: before! + issuers + rest!.slice(commented.length),
    files: { 'secrets/shop': 's'.repeat(3) + 'q7Zc0vT2mLx9RfWk4JbN8sHd1yUeGaPo' }
  })
  t.match(file.issuers, [
    { issuer: 'https://id.example/', algorithms: ['RS256'] },
    { issuer: 'https://shop.example', secretFile: './secrets/shop' }
  ])
  t.end()
})

t.test('the complete example has every key of the schema', t => {
  const text = read('config/gateway.example.yaml')
  for (const name of Object.keys(keysOf(gatewayFileSchema()))) {
    t.match(text, new RegExp(`^[\\s#]*(?:- |.*[{ ])?"?${RegExp.escape(name)}"?:`, 'm'), name)
  }
  t.end()
})

t.test('every key of the schema says what it does and what it takes', t => {
  for (const [name, { title, description }] of Object.entries(keysOf(gatewayFileSchema()))) {
    t.match(description, /^.+\.$/, `${name}: description`)
    t.type(title, 'string', `${name}: title`)
  }
  t.end()
})

t.test('.env.example has every variable with its default, and no secret in it', t => {
  const text = read('.env.example')
  t.same(
    parseEnv(text),
    Object.fromEntries(environmentVariables.filter(({ secret }) => secret).map(({ name }) => [name, '']))
  )
  const all = parseEnv(text.replace(/^# (?=[A-Z_]+=)/gm, ''))
  t.same(all, Object.fromEntries(environmentVariables.map(({ name, default: value }) => [name, value ?? ''])))
  t.equal(text.match(/openssl rand -base64 48/g)?.length, 3)
  t.end()
})

/** The named keys of a schema, at any depth. */
function keysOf (schema: JsonSchema): Record<string, JsonSchema> {
  const { properties = {}, patternProperties = {}, items, anyOf = [] } = schema
  const inner = [...Object.values(properties), ...Object.values(patternProperties), ...[items ?? []].flat(), ...anyOf]
  return Object.assign({ ...properties }, ...inner.map(keysOf))
}
