import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { readModels } from '../../src/settings/file.ts'
import { root } from '../helpers/program.ts'
import { configPath, load, problemsOf } from './fixture.ts'

const written = (models: unknown): string => JSON.stringify({ models })

t.test('models.json stands beside the config file', async t => {
  t.strictSame(load(t, {}).models, [])
  const models = [
    { id: 'nano-banana', category: 'image' },
    { id: 'gpt-5.4', category: 'text', options: { sizes: [1, 2] } }
  ]
  const { warnings, ...settings } = load(t, { models: written(models) })
  t.strictSame(settings.models, models)
  t.strictSame(warnings, [])
})

t.test('beside a config file that has none the shipped one counts, with a warning', async t => {
  const shipped = join(root, 'config/models.json')
  const { models, warnings } = load(t, { models: null })
  t.same(models, JSON.parse(readFileSync(shipped, 'utf8')).models)
  t.strictSame(warnings, [`There is no models.json beside ${configPath(t)}: the shipped ${shipped} counts.`])
})

t.test('where the shipped one is gone there are no models, and it is said', async t => {
  const nowhere = () => { throw Object.assign(new Error('no'), { code: 'ENOENT' }) }
  for (const path of ['/app/config/gateway.yaml', join(root, 'config/gateway.yaml')]) {
    t.strictSame(readModels(path, nowhere), {
      models: [], problems: [], warnings: [`There is no models.json beside ${path}: no model has a category.`]
    })
  }
})

t.test('a shipped one that is broken is a problem too', async t => {
  const { problems } = readModels('/app/config/gateway.yaml', path => {
    if (path === join(root, 'config/models.json')) return '{}'
    throw Object.assign(new Error('no'), { code: 'ENOTDIR' })
  })
  t.match(problems, [{ setting: 'models', source: join(root, 'config/models.json:1'), problem: 'is missing' }])
})

t.test('one that is broken refuses to start, and says where', async t => {
  const place = join(t.testdirName, 'config', 'models.json')
  const problem = (text: string) => problemsOf(t, { models: text })
  t.match(problem('{"models": ['), [{ setting: 'models', source: place, problem: 'is no JSON' }])
  t.match(problem('models: []'), [{ problem: 'is no JSON' }])
  t.match(problem('[]'), [{ setting: 'models', problem: 'is an empty list', expected: 'a mapping with models' }])
  t.match(problem('{}'), [{ setting: 'models', problem: 'is missing' }])
  t.match(problem('{"models":[],\n"models":[]}'), [
    {
      source: `${place}:2`,
      problem: '"models" stands there twice, in line 1 and in line 2',
      expected: 'each key once: merge the second into the first'
    }
  ])
  t.match(problem('{"models":[\n{"id":"a","category":"picture"}]}'), [
    {
      setting: 'models[0].category',
      source: `${place}:2`,
      problem: 'is "picture"',
      expected: 'one of image, video, audio, text'
    }
  ])
  t.match(problem('{"models":[{"id":"../a","category":"image"}]}'), [
    { setting: 'models[0].id', expected: 'the name of a model' }
  ])
  t.match(problem('{"models":[{"id":"a"}]}'), [{ setting: 'models[0].category', problem: 'is missing' }])
  t.match(problem('{"models":[{"id":"a","category":"image","price":1}]}'), [
    { setting: 'models[0].price', problem: 'there is no such key' }
  ])
  t.match(problem('{"models":[{"id":"a","category":"image","options":[]}]}'), [{ setting: 'models[0].options' }])
  t.match(problem('{"models":[{"id":"a","category":"image"},{"id":"A","category":"video"}]}'), [
    { setting: 'models[1].id', problem: '"A" stands there twice' }
  ])
})

t.test('one that can not be read is not the same as none', async t => {
  const failing = (code: string) =>
    readModels('/app/config/gateway.yaml', () => {
      throw Object.assign(new Error('no'), { code })
    })
  t.match(failing('EACCES'), {
    models: [],
    problems: [{ source: '/app/config/models.json', problem: 'can not be read (EACCES)' }]
  })
})

t.test('the models that ship can be read, and each category is there', async t => {
  const { models, problems } = readModels(join(root, 'config/gateway.yaml'), path => readFileSync(path, 'utf8'))
  t.strictSame(problems, [])
  t.strictSame(new Set(models.map(({ category }) => category)), new Set(['image', 'video', 'audio', 'text']))
})
