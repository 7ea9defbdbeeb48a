import t from 'tap'
import { byteRange, fileNameOf, isPastLife, mediumOf, resultLifeMs, resultUrls } from '../../../src/domain/results.ts'

function urlsOf (data: unknown) {
  return resultUrls({ finalAnswer: Buffer.from(JSON.stringify({ code: 200, message: 'success', data })) })
}

const success = (resultJson: unknown) => urlsOf({ taskId: 'x', state: 'success', resultJson })
const [a, b, c, d] = [
  'https://file.apixo.ai/a.png',
  'https://file.apixo.ai/b.png',
  'https://file.apixo.ai/c.mp3',
  'https://file.apixo.ai/d.jpg'
]

t.test('results are the URLs of resultJson, which is a text or an object', t => {
  t.same(success(JSON.stringify({ resultUrls: [a, b] })), [a, b])
  t.same(success({ resultUrls: [b, a] }), [b, a])
  t.same(success(JSON.stringify([a])), [a], 'a bare list')
  t.end()
})

t.test('each entry of resultUrls keeps its index, whatever is written there; other URLs follow, each once', t => {
  t.same(success({ note: 'see https://no.test', cover: d, resultUrls: [a, 'nonsense', a, b], again: b }), [
    a,
    'nonsense',
    a,
    b,
    d
  ])
  t.same(
    success({
      tracks: [
        { audio_url: c, source_audio_url: c, title: 'x', image_url: d },
        { download_url: a, seconds: 7, gone: null }
      ]
    }),
    [c, d, a]
  )
  t.same(success({ resultUrls: [{ audio_url: c }, { audio_url: a }] }), [c, a], 'objects in the list')
  t.same(success({ resultUrls: a, cover: null }), [a], 'one URL that is no list')
  t.end()
})

t.test('a task has no results while it runs, when it failed, and when its answer makes no sense', t => {
  t.same(resultUrls({ finalAnswer: null }), [])
  t.same(resultUrls({ finalAnswer: Buffer.from('no json') }), [])
  t.same(urlsOf({ state: 'processing', resultJson: { resultUrls: [a] } }), [])
  t.same(urlsOf({ state: 'failed', resultJson: { resultUrls: [a] } }), [])
  for (const broken of [undefined, null, 7, '', 'null', '{"resultUrls":', '"https://file.apixo.ai/a.png"', {}]) {
    t.same(success(broken), [], JSON.stringify(broken))
  }
  t.end()
})

t.test('there is an end to how many results are read, and how deep', t => {
  t.equal(success({ resultUrls: Array.from({ length: 5000 }, (_, index) => `${a}?${index}`) }).length, 100)
  let deep: unknown = a
  for (let level = 0; level < 1000; level++) deep = [deep]
  t.same(success({ deep }), [])
  t.end()
})

t.test('a result is past its life a day after its task has ended, or was made when nobody said when it ended', t => {
  const createdAt = 1_000_000
  const ended = (data: unknown) => ({ createdAt, finalAnswer: Buffer.from(JSON.stringify({ code: 200, data })) })
  t.equal(isPastLife(ended({ completeTime: 2_000_000 }), 2_000_000 + resultLifeMs - 1), false)
  t.equal(isPastLife(ended({ completeTime: 2_000_000 }), 2_000_000 + resultLifeMs), true)
  for (const task of [ended({}), ended(null), ended({ completeTime: 'noon' }), { createdAt, finalAnswer: null }]) {
    t.equal(isPastLife(task, createdAt + resultLifeMs - 1), false)
    t.equal(isPastLife(task, createdAt + resultLifeMs), true)
  }
  t.end()
})

t.test('a browser shows pictures, videos and sound; whatever else a result claims to be is saved to a file', t => {
  t.same(mediumOf('image/png', a), { contentType: 'image/png', extension: 'png', isInline: true })
  t.same(mediumOf('IMAGE/JPG; charset=x', a), { contentType: 'image/jpeg', extension: 'jpg', isInline: true })
  t.same(mediumOf('audio/x-wav', a), { contentType: 'audio/wav', extension: 'wav', isInline: true })
  for (const type of [
    'text/html',
    'image/svg+xml',
    'application/xml',
    'text/xml',
    'application/pdf',
    'application/json',
    'png',
    'image/png,text/html',
    'multipart/x-mixed-replace',
    '__proto__',
    'constructor',
    'video/',
    '/'
  ]) {
    t.same(mediumOf(type, a), { contentType: 'application/octet-stream', extension: 'bin', isInline: false }, type)
  }
  t.end()
})

t.test('only where the type says nothing does the end of the URL', t => {
  for (const type of ['', 'application/octet-stream', 'binary/octet-stream']) {
    t.equal(mediumOf(type, `${a}?x=.svg`).contentType, 'image/png')
    t.equal(mediumOf(type, 'https://x.test/a.MP4#x').contentType, 'video/mp4')
    for (const url of [
      'https://x.test/a.svg',
      'https://x.test/a.html',
      'https://x.test/png',
      'https://x.test/?a.png',
      'a.png',
      'https://x.test/a.'
    ]) {
      t.equal(mediumOf(type, url).isInline, false, url)
    }
  }
  t.end()
})

t.test('a file is named after model, task and index, in characters that no file system and no header minds', t => {
  const png = mediumOf('image/png', a)
  t.equal(
    fileNameOf({ model: 'nano-banana', taskId: 'dff8afd34c4e47719b85ad6651daa3f0' }, 0, png),
    'nano-banana-dff8afd3-0.png'
  )
  t.equal(fileNameOf({ model: 'gpt-5.4', taskId: 'task_abc123xyz789' }, 12, png), 'gpt-5.4-abc123xy-12.png')
  t.equal(fileNameOf({ model: '"; x=y\r\n', taskId: '../../é"\\' }, 1, png), 'xy-....-1.png')
  t.end()
})

t.test('a range of bytes has both ends in the file, or there is none', t => {
  t.same(byteRange('bytes=0-0', 10), { start: 0, end: 0 })
  t.same(byteRange('bytes=-4', 10), { start: 6, end: 9 })
  t.same(byteRange('bytes=4-', 10), { start: 4, end: 9 })
  for (const text of ['bytes=10-', 'bytes=-0', 'bytes=2-1', 'bytes=-', 'bytes=0-1,3-4', 'bytes', '']) {
    t.equal(byteRange(text, 10), null, text)
  }
  for (const text of ['bytes=0-', 'bytes=-1', 'bytes=0-0']) t.equal(byteRange(text, 0), null, 'an empty file has none')
  t.end()
})
