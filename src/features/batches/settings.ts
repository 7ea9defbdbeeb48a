import { flag, section } from '../../settings/schema-words.ts'

/** `batches` of the config file. */
export const batchSettings = section('Batches of tasks.', {
  enabled: flag(false, 'Opens the batch routes.')
})
