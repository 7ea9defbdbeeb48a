import { createHmac } from 'node:crypto'
import { createServer } from 'node:http'
import type { Test } from 'tap'
import { httpPort } from './http-server.ts'
import type { ReceivedMessage } from './webhook-receiver.ts'

/** The secret that the operator's server was given, as both sides have it. */
export const alarmSecret = `whsec_${Buffer.from('an alarm key of 32 bytes, or more').toString('base64')}`

/** The operator's own server, on this machine. */
export interface AlarmReceiver {
  readonly url: string
  readonly messages: readonly ReceivedMessage[]
  /** What came, as `alarm.raised key-benched`. */
  readonly heard: readonly string[]
  /** The statuses of the next answers; 204 when there is none left. */
  readonly answers: number[]
  /** What happens before each of the next answers. */
  readonly before: Array<() => void>
}

export async function alarmReceiver (t: Test): Promise<AlarmReceiver> {
  const messages: ReceivedMessage[] = []
  const heard: string[] = []
  const answers: number[] = []
  const before: Array<() => void> = []
  const port = await httpPort(t, createServer((request, response) => {
    const chunks: Buffer[] = []
    request.on('data', (chunk: Buffer) => chunks.push(chunk))
    request.on('end', () => {
      const body = Buffer.concat(chunks)
      messages.push({ path: request.url!, headers: request.headers, body })
      const { type, data: { kind = '' } } = JSON.parse(String(body))
      heard.push(`${type} ${kind}`.trim())
      before.shift()?.()
      response.writeHead(answers.shift() ?? 204).end()
    })
  }))
  return { url: `http://127.0.0.1:${port}/alarms?team=1`, messages, heard, answers, before }
}

/**
 * Whether a message is signed with this secret, reckoned as the specification has it and not by the code under test.
 *
 * https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md#signature-scheme
 */
export function isSignedWith (secret: string, { headers, body }: ReceivedMessage): boolean {
  const signed = `${headers['webhook-id']}.${headers['webhook-timestamp']}.${body}`
  const expected = createHmac('sha256', Buffer.from(secret.slice('whsec_'.length), 'base64')).update(signed)
  return String(headers['webhook-signature']).split(' ').includes(`v1,${expected.digest('base64')}`)
}
