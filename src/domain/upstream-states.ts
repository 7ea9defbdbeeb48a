import { dayMs } from './time.ts'

/** How long the upstream keeps an answer that may be gone on with, ms; what is older is nobody's here. */
export const stateMs = 30 * dayMs
/** No id of the upstream's is as long. */
export const maxStateIdLength = 256

/** Something that the upstream keeps: an answer, an item of one, a conversation, a container. */
export interface UpstreamState {
  /** The key that made it: only its account knows it. */
  readonly keyId: string
  /** The most tokens that going on with it reads once more. */
  readonly tokens: number
}

/** What the upstream keeps for each subject, by the ids that its answers have told, for `stateMs`. */
export interface UpstreamStates {
  /**
   * These are the subject's from now on: whoever asks after this was called finds them. One that is known already is
   * written anew. It is on disk when it resolves; throws `GW_STORE_DOWN`.
   */
  remember (subject: string, ids: readonly string[], state: UpstreamState): Promise<void>
  /** In the order of the ids; `null`: it is not the subject's, whoever's it is. Throws `GW_STORE_DOWN`. */
  of (subject: string, ids: readonly string[]): Promise<ReadonlyArray<UpstreamState | null>>
}
