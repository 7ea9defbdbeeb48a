/** What the backend of the tests mints sessions with. */
export const issuerToken = 'issuer-token-of-the-backend-0001'

export interface CallOptions {
  readonly method?: string
  readonly token?: string
  readonly body?: unknown
  readonly headers?: Readonly<Record<string, string>>
  readonly signal?: AbortSignal
}

export interface Reply {
  readonly status: number
  readonly headers: Headers
  readonly text: string
  /** The parsed body; `undefined` when it is no JSON. */
  readonly json: any
  /** `x-gateway-error`. */
  readonly error: string | null
}

/** Calls a gateway over a real socket. All methods reject when the connection dies. */
export interface Caller {
  call (path: string, options?: CallOptions): Promise<Reply>
  /** A session's token, minted with `issuerToken`. Throws when there is none. */
  mint (subject: string, more?: object): Promise<string>
  submit (token: string, prompt?: string, model?: string, options?: CallOptions): Promise<Reply>
  status (token: string, taskId: string, model?: string, options?: CallOptions): Promise<Reply>
}

/** Whoever calls the gateway at that origin. */
export function callerOf (origin: string): Caller {
  const call: Caller['call'] = async (path, { method, token, body, headers = {}, signal } = {}) => {
    const text = body === undefined || typeof body === 'string' ? body : JSON.stringify(body)
    const response = await fetch(origin + path, {
      method: method ?? (body === undefined ? 'GET' : 'POST'),
      headers: {
        ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
        ...(text === undefined ? {} : { 'content-type': 'application/json' }),
        ...headers
      },
      redirect: 'manual',
      ...(text === undefined ? {} : { body: text }),
      ...(signal === undefined ? {} : { signal })
    })
    return replyFrom(response)
  }

  return {
    call,
    async mint (subject, more = {}) {
      const { status, json, text } = await call('/gateway/sessions', { token: issuerToken, body: { subject, ...more } })
      if (status !== 201) throw new Error(`minting failed: ${text}`)
      return json.token
    },
    submit: (token, prompt = 'a red cube', model = 'nano-banana', more = {}) =>
      call(`/api/v1/generateTask/${model}`, {
        token,
        body: { request_type: 'async', input: { mode: 'text-to-image', prompt } },
        ...more
      }),
    status: (token, taskId, model = 'nano-banana', more = {}) =>
      call(`/api/v1/statusTask/${model}?taskId=${encodeURIComponent(taskId)}`, { token, ...more })
  }
}

async function replyFrom (response: Response): Promise<Reply> {
  const text = await response.text()
  let json
  try {
    json = JSON.parse(text)
  } catch {
    /* not JSON: the test looks at the text */
  }
  return {
    status: response.status,
    headers: response.headers,
    text,
    json,
    error: response.headers.get('x-gateway-error')
  }
}
