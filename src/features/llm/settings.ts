import { Type } from 'typebox'
import { count, flag, milliseconds, millisecondsOrNone, section, word } from '../../settings/schema-words.ts'

/** `llm` of the config file. The routes exist once a model has a price per token. */
export const llmSettings = section('LLM calls.', {
  defaultMaxOutputTokens: count(4096,
    'Output tokens that credits are set aside for when a request names no limit; it is written into the request.'),
  askForUsage: flag(true,
    'Has chat completions tell their usage where the caller did not ask; the event that tells it is not passed on.'),
  statefulFields: Type.Array(word(['previous_response_id', 'conversation', 'container', 'item_reference'], 'A field.'), {
    title: 'a list of: previous_response_id, conversation, container, item_reference',
    description: 'Fields that name what is kept at the upstream, let through for the subject whose answers told their ids.',
    default: []
  }),
  headersMs: milliseconds(600000, 'Until an answer begins.'),
  idleMs: milliseconds(120000, 'Between two pieces of an answer.'),
  totalMs: milliseconds(1800000, 'From a call to the end of its answer.'),
  heartbeatMs: millisecondsOrNone(20000,
    'A stream that has begun and is silent for so long gets a heartbeat, within twice the time; 0 for none.'),
  maxCalls: count(512, 'Calls at once, of all callers; one more is refused with 503.')
})
