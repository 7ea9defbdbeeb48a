import type { ModelInfo, Quote, SessionInfo, TaskData, TaskPage, TaskQuery, UploadedFile } from './api.ts'
import { clientOver } from './calls.ts'
import { realTiming } from './transport.ts'

export type * from './api.ts'
export { type ClientCode, GatewayError } from './errors.ts'

/** Where the gateway is, and what lets the caller in. */
export interface ConnectionOptions {
  /** The gateway's origin, with a path if it stands below one; the page's own when absent. */
  readonly baseUrl?: string | undefined
  /** A session's token that lasts as long as the page. Without any, the session's cookie counts. */
  readonly token?: string | undefined
  /**
   * Gets a session's token from the app's backend. It is asked when there is none yet, and again when the gateway takes
   * the last one no more; once for all calls that wait for it.
   */
  readonly getToken?: (() => string | Promise<string>) | undefined
  /** In place of the platform's own. */
  readonly fetch?: typeof fetch | undefined
}

export interface ClientOptions extends ConnectionOptions {
  /** Gets what a guest has to prove for each task: a solved challenge, or the word of Turnstile. */
  readonly getProof?: (() => string | Promise<string>) | undefined
}

/** How far a task has come. */
export interface Progress {
  /** `uploading` and `submitting`, then the upstream's own words: `pending`, `processing`, `success`, `failed`. */
  readonly state: string
  /** `null` until the upstream has named it. */
  readonly taskId: string | null
}

/** One task; its model is asked for where there are no streams. */
export interface TaskName {
  readonly taskId: string
  readonly model: string
}

/** What a task has come to. */
export interface FinishedTask extends TaskName {
  /** Addresses at the gateway for `<img>` and `<video>`, each good for some minutes; `watch` gives new ones. */
  readonly results: readonly string[]
  /** The upstream's own last word. */
  readonly data: TaskData
}

export interface WatchOptions {
  /** Told each change once. */
  readonly onState?: ((progress: Progress) => void) | undefined
  /** Ends the wait, and what is being sent for it. A task that was made runs on, and is in `tasks()`. */
  readonly signal?: AbortSignal | undefined
}

/** A file of the person's own, or one that was uploaded before. */
export type InputFile = Blob | { readonly reference: string }

export interface GenerateOptions extends WatchOptions {
  /**
   * Names this task: the same key makes no second one. Without it a call that is like one that still runs, or one whose
   * outcome is not certain, is taken for the same; to make two alike at a time, give each a key.
   */
  readonly idempotencyKey?: string | undefined
  /** Uploaded first, where the gateway takes files. Their references become these fields of the input. */
  readonly files?: Readonly<Record<string, InputFile | readonly InputFile[]>> | undefined
}

export interface CallOptions {
  readonly signal?: AbortSignal | undefined
}

export interface RequestOptions extends CallOptions {
  readonly method?: string | undefined
  readonly headers?: Readonly<Record<string, string>> | undefined
  readonly body?: BodyInit | undefined
}

/** All methods throw a `GatewayError`, or the reason of an aborted signal. */
export interface Client {
  /** Makes a task and waits for its end. Throws `TASK_FAILED` with the upstream's reason when it fails. */
  generate (
    model: string, input: Readonly<Record<string, unknown>>, options?: GenerateOptions
  ): Promise<FinishedTask>
  /** Waits for the end of a task that was made before, also in another page; one that has ended gives new links. */
  watch (task: TaskName, options?: WatchOptions): Promise<FinishedTask>
  /** The caller's own tasks, the newest first. */
  tasks (query?: TaskQuery, options?: CallOptions): Promise<TaskPage>
  /** Who the caller is, and what is left. */
  session (options?: CallOptions): Promise<SessionInfo>
  /** The models that the caller may use. */
  models (options?: CallOptions): Promise<readonly ModelInfo[]>
  /** What a task would cost. */
  quote (model: string, input: Readonly<Record<string, unknown>>, options?: CallOptions): Promise<Quote>
  /**
   * Stores a file; `reference` stands for it in an input. Throws `GW_NOT_FOUND` where the gateway takes no files, as
   * those of this version do not.
   */
  upload (file: Blob, options?: CallOptions): Promise<UploadedFile & { readonly reference: string }>
  /**
   * Asks any route of the gateway, such as `/gateway/usage`, with the session: for what has no method here. It is sent
   * again when it is a GET, or has an `idempotency-key`.
   */
  request (path: string, options?: RequestOptions): Promise<Response>
}

/** The gateway, from a page, a worker, Node or React Native. It sends nothing before it is asked. */
export function createClient (options: ClientOptions = {}): Client {
  return clientOver(options, realTiming)
}
