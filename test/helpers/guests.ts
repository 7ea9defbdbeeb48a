import { proofHeader } from '../../src/http/receive.ts'
import type { CallOptions, Reply, TestGateway } from './gateway.ts'
import { solve } from './proofs.ts'

type Headers = Readonly<Record<string, string>>

/** What a page of the gateway's own origin does for guests. */
export function guestsOf ({ origin, call, submit }: Pick<TestGateway, 'origin' | 'call' | 'submit'>) {
  const headersWith = (proof: string | undefined, more: Headers): Headers =>
    ({ origin, ...(proof === undefined ? {} : { [proofHeader]: proof }), ...more })
  /** For a new session, or for the next submit of that one. */
  const challengeFor = async (token?: string): Promise<any> => {
    const reply =
      token === undefined
        ? await call('/gateway/sessions/guest/challenge')
        : await call('/gateway/session/challenge', { token })
    if (reply.status !== 200) throw new Error(`no challenge: ${reply.text}`)
    return reply.json
  }
  const proofFor = async (token?: string): Promise<string> => await solve(await challengeFor(token))
  const enter = (proof?: string, more: Headers = {}): Promise<Reply> =>
    call('/gateway/sessions/guest', { method: 'POST', headers: headersWith(proof, more) })

  return {
    challengeFor,
    proofFor,
    enter,
    async guest (more: Headers = {}): Promise<string> {
      const reply = await enter(await proofFor(), more)
      if (reply.status !== 201) throw new Error(`no session: ${reply.text}`)
      return reply.json.token
    },
    make: (token: string, proof?: string, more: Headers = {}, options: CallOptions = {}): Promise<Reply> =>
      submit(token, undefined, undefined, { ...options, headers: headersWith(proof, more) })
  }
}
