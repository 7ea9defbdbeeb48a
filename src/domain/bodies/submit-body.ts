import { badBody, gatewayError } from '../../errors.ts'
import type { CallbackHosts } from '../callbacks/callback-hosts.ts'
import { isLeftOpen, nameCheck } from './body-names.ts'
import { readJson } from './json.ts'
import { taskReferences, type TaskReferences } from './task-references.ts'

/** A submit as the gateway understood it, and the bytes that say the same and nothing more. */
export interface SubmitBody extends TaskReferences {
  readonly input: Readonly<Record<string, unknown>>
  readonly bytes: Buffer
  /** Where the gateway itself is to tell the end of the task. The upstream never hears of it. */
  readonly deliverTo?: string
}

/** What the body of one submit may say, and what is said to the upstream in its place. */
export interface SubmitBodyRules {
  /** Top-level names that the operator lets pass. */
  readonly extraFields: ReadonlySet<string>
  /** Whether `provider: official` passes for this model. */
  readonly mayBeOfficial: boolean
  /** Where callers may be told the end of a task; `null`: nowhere. */
  readonly hosts: CallbackHosts | null
  /** Where the upstream is to tell us; `null`: it is not asked to. */
  readonly upstreamTo: string | null
}

const checkName = nameCheck(['request_type', 'input', 'provider', 'source'])

/**
 * Reads the body of `POST /generateTask/{model}` (APIXO docs, "Generate task": request body).
 *
 * The original bytes are kept when all of them may go; else the top level is built anew around each value's own text, so
 * that no number is ever re-printed. An optional field that is left open is dropped; inside `input` nothing ever is.
 * Throws `GW_BAD_REQUEST` or `GW_CALLBACK_DENIED`.
 */
export function readSubmitBody (original: Buffer, { extraFields, mayBeOfficial, hosts, upstreamTo }: SubmitBodyRules): SubmitBody {
  const { value, texts } = readJson(original)
  const maySayWhere = hosts !== null && !hosts.isEmpty
  for (const name of texts.keys()) if (name !== 'callback_url' || !maySayWhere) checkName(name, '', value[name], extraFields)
  const asks = (name: string) => texts.has(name) && !isLeftOpen(name, value[name])
  const deliverTo = maySayWhere && asks('callback_url') ? hosts.check(value.callback_url) : undefined
  if (asks('request_type')) checkRequestType(value.request_type, maySayWhere, deliverTo)
  const isOfficial = mayBeOfficial && value.provider === 'official'
  if (asks('provider') && value.provider !== 'auto' && !isOfficial && !extraFields.has('provider')) {
    throw badBody(`provider must be ${mayBeOfficial ? '"auto", "official"' : '"auto"'} or left out`)
  }
  const passes = (name: string) => name === 'input' || (name === 'provider' && isOfficial) || (extraFields.has(name) && asks(name))
  const { input } = value
  if (typeof input !== 'object' || input === null || Array.isArray(input)) throw badBody('input must be an object')

  return {
    input: input as Record<string, unknown>,
    ...taskReferences(input),
    bytes: bytesFor(original, texts, name => name === 'request_type' ? asks(name) : passes(name), upstreamTo),
    ...(deliverTo === undefined ? {} : { deliverTo })
  }
}

/** `callback` and `async` come to the same for the upstream, which is told in our own words either way. */
function checkRequestType (type: unknown, maySayWhere: boolean, deliverTo: string | undefined): void {
  if (type === 'async') return
  if (type !== 'callback') throw badBody('request_type must be "async" or left out')
  if (!maySayWhere) throw gatewayError('GW_CALLBACK_DENIED', { about: 'request_type callback' })
  if (deliverTo === undefined) throw badBody('request_type callback needs a callback_url')
}

function bytesFor (
  original: Buffer, texts: ReadonlyMap<string, string>, passes: (name: string) => boolean, upstreamTo: string | null
): Buffer {
  const ownWords: ReadonlyArray<readonly [string, string]> = upstreamTo === null
    ? [['request_type', '"async"']]
    : [['request_type', '"callback"'], ['callback_url', JSON.stringify(upstreamTo)]]
  if (upstreamTo === null && texts.has('request_type') && [...texts.keys()].every(passes)) return original
  const callers = [...texts].filter(([name]) => name !== 'request_type' && passes(name))
  return Buffer.from(`{${[...ownWords, ...callers].map(([name, text]) => `${JSON.stringify(name)}:${text}`).join(',')}}`)
}
