import type { Task } from '../ledger/ledger.ts'

/** How a result is handed to a browser. */
export interface Medium {
  readonly contentType: string
  /** Without a dot. */
  readonly extension: string
  /** A browser may show it in place; else it is saved to a file. */
  readonly isInline: boolean
}

/**
 * What a browser may show: it decodes these and runs nothing in them. SVG, HTML, XML and PDF can hold scripts and are
 * not here, nor is anything that nobody has thought of yet.
 */
const media: ReadonlyArray<readonly [contentType: string, extension: string, ...otherNames: string[]]> = [
  ['image/png', 'png'],
  ['image/jpeg', 'jpg', 'image/jpg', 'jpeg'],
  ['image/webp', 'webp'],
  ['image/gif', 'gif'],
  ['image/avif', 'avif'],
  ['video/mp4', 'mp4'],
  ['video/webm', 'webm'],
  ['video/quicktime', 'mov'],
  ['audio/mpeg', 'mp3', 'audio/mp3'],
  ['audio/wav', 'wav', 'audio/x-wav', 'audio/wave', 'audio/vnd.wave'],
  ['audio/ogg', 'ogg'],
  ['audio/aac', 'aac'],
  ['audio/flac', 'flac', 'audio/x-flac'],
  ['audio/mp4', 'm4a', 'audio/x-m4a']
]

const byName = new Map(media.flatMap(([contentType, extension, ...others]) =>
  [contentType, extension, ...others].map(name => [name, { contentType, extension, isInline: true }] as const)))

const unknown: Medium = { contentType: 'application/octet-stream', extension: 'bin', isInline: false }

/** Names for "some bytes", under which object stores keep what nobody gave a type. */
const nondescript = new Set(['', 'application/octet-stream', 'binary/octet-stream'])

/** The medium of a result, by the type its host gave; by the end of its URL only when that says nothing. */
export function mediumOf (contentType: string, url: string): Medium {
  const type = contentType.split(';', 1)[0]!.trim().toLowerCase()
  if (!nondescript.has(type)) return type.includes('/') ? byName.get(type) ?? unknown : unknown
  const extension = /\.([a-z0-9]{3,4})$/i.exec(URL.parse(url)?.pathname ?? '')?.[1]
  return byName.get(extension?.toLowerCase() ?? '') ?? unknown
}

/** `nano-banana-dff8afd3-0.png`: of checked characters only, for any file system and any header. */
export function fileNameOf ({ model, taskId }: Pick<Task, 'model' | 'taskId'>, index: number, { extension }: Medium): string {
  const plain = (text: string) => text.replaceAll(/[^A-Za-z0-9._-]/g, '')
  return `${plain(model)}-${plain(taskId).replace(/^task_/, '').slice(0, 8)}-${index}.${extension}`
}
