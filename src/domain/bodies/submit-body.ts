import { badBody, gatewayError } from '../../errors.ts'
import type { CallbackHosts } from '../callbacks/callback-hosts.ts'
import { nameCheck } from './body-names.ts'
import { readJson } from './json.ts'
import { taskReferences, type TaskReferences } from './task-references.ts'

/** A submit as the gateway understood it, and the bytes that say the same and nothing more. */
export interface SubmitBody extends TaskReferences {
  readonly input: Readonly<Record<string, unknown>>
  readonly bytes: Buffer
  /** Where the gateway itself is to tell the end of the task. The upstream never hears of it. */
  readonly deliverTo?: string
}

export interface SubmitCallbacks {
  /** Where callers may be told the end of a task; nowhere when absent. */
  readonly hosts?: CallbackHosts
  /** Where the upstream is to tell us; it is not asked to when absent. */
  readonly upstreamTo?: string
}

const checkName = nameCheck(['request_type', 'input', 'provider', 'source'])

/**
 * Reads the body of `POST /generateTask/{model}` (APIXO docs, "Generate task": request body).
 *
 * `extraFields` are top-level names the operator lets pass. The original bytes are kept when all of them may go; else
 * the top level is built anew around each value's own text, so that no number is ever re-printed.
 * Throws `GW_BAD_REQUEST` or `GW_CALLBACK_DENIED`.
 */
export function readSubmitBody (original: Buffer, extraFields: ReadonlySet<string>, { hosts, upstreamTo }: SubmitCallbacks = {}): SubmitBody {
  const { value, texts } = readJson(original)
  const maySayWhere = hosts !== undefined && !hosts.isEmpty
  for (const name of texts.keys()) if (name !== 'callback_url' || !maySayWhere) checkName(name, '', extraFields)
  const deliverTo = maySayWhere && texts.has('callback_url') ? hosts.check(value.callback_url) : undefined
  checkRequestType(value.request_type, maySayWhere, deliverTo)
  if (!extraFields.has('provider') && value.provider !== undefined && value.provider !== 'auto') {
    throw badBody('provider must be "auto" or left out')
  }
  const input = value.input
  if (typeof input !== 'object' || input === null || Array.isArray(input)) throw badBody('input must be an object')

  return {
    input: input as Record<string, unknown>,
    ...taskReferences(input),
    bytes: bytesFor(original, texts, name => name === 'input' || extraFields.has(name), upstreamTo),
    ...(deliverTo === undefined ? {} : { deliverTo })
  }
}

/** `callback` and `async` come to the same for the upstream, which is told in our own words either way. */
function checkRequestType (type: unknown, maySayWhere: boolean, deliverTo: string | undefined): void {
  if (type === undefined || type === 'async') return
  if (type !== 'callback') throw badBody('request_type must be "async" or left out')
  if (!maySayWhere) throw gatewayError('GW_CALLBACK_DENIED', { about: 'request_type callback' })
  if (deliverTo === undefined) throw badBody('request_type callback needs a callback_url')
}

function bytesFor (original: Buffer, texts: ReadonlyMap<string, string>, passes: (name: string) => boolean, upstreamTo?: string): Buffer {
  const ownWords: ReadonlyArray<readonly [string, string]> = upstreamTo === undefined
    ? [['request_type', '"async"']]
    : [['request_type', '"callback"'], ['callback_url', JSON.stringify(upstreamTo)]]
  const isAsSent = [...texts.keys()].every(name => name === 'request_type' || passes(name))
  if (upstreamTo === undefined && isAsSent && texts.has('request_type')) return original
  const callers = [...texts].filter(([name]) => passes(name))
  return Buffer.from(`{${[...ownWords, ...callers].map(([name, text]) => `${JSON.stringify(name)}:${text}`).join(',')}}`)
}
