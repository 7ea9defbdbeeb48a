import { SignJWT } from 'jose'
import { request, type Shot } from './load.ts'

/** The requests that targets are given. One that has no such route, or no such check, goes without. */
export type ShotName =
  'submit' | 'submit16k' | 'upload' | 'running' | 'finished' | 'refused' | 'refusedNew' | 'limited'

export type Shots = { readonly [Name in ShotName]?: readonly Shot[] }

export type Headers = Readonly<Record<string, string>>

/** The upstream's tasks of these models have always ended, never end, and have another state each time one asks. */
export const models = { finished: 'nano-banana', running: 'never-ends', changing: 'changes' } as const

export const json = { 'content-type': 'application/json' }

/** An address that every peer with a limit lets in once a minute. All of 127.0.0.0/8 is this machine. */
export const limitedAddress = '127.0.0.2'

/** Stands in a request where a number goes that is new each time the request is sent. */
const serial = 'SERIAL00'

/** A submit of so many bytes: 300 are an ordinary prompt, 16 kB one with a small picture, 5 MB one with a large one. */
function bodyOf (bytes: number): string {
  const withPrompt = (prompt: string) =>
    JSON.stringify({ request_type: 'async', input: { mode: 'text-to-image', prompt, aspect_ratio: '1:1' } })
  const room = bytes - withPrompt('').length
  return withPrompt('a lighthouse in fog '.repeat(Math.ceil(room / 20)).slice(0, room))
}

const bodies = { submit: bodyOf(300), submit16k: bodyOf(16_384), upload: bodyOf(5_000_000) } as const

export function bearer (token: string): Headers {
  return { authorization: `Bearer ${token}` }
}

export function submitShot (credential: Headers, size: keyof typeof bodies = 'submit'): Shot {
  return {
    method: 'POST',
    path: `/api/v1/generateTask/${models.finished}`,
    headers: { ...json, ...credential },
    body: bodies[size]
  }
}

export function statusShot (credential: Headers, taskId: string, model: string = models.finished): Shot {
  return { method: 'GET', path: `/api/v1/statusTask/${model}?taskId=${taskId}`, headers: credential }
}

/** Of each caller one, in turn. */
export function submitShots (credentials: readonly Headers[]): Shots {
  return {
    submit: credentials.map(credential => submitShot(credential)),
    submit16k: credentials.map(credential => submitShot(credential, 'submit16k')),
    upload: credentials.slice(0, 1).map(credential => submitShot(credential, 'upload'))
  }
}

/** Status calls of a peer that forwards them all. */
export function forwardedStatusShots (credential: Headers): Shots {
  return { running: [statusShot(credential, 'any', models.running)], finished: [statusShot(credential, 'any')] }
}

/**
 * A token of the right shape whose signature is wrong, the dearest kind to refuse: the same one over and over, and one
 * that nobody has seen before.
 */
export function refusedShots (token: string): Shots {
  const last = token.endsWith('AAAA') ? 'BBBB' : 'AAAA'
  // Not at the end: the last character of a signature holds two bits that have to be zero.
  const at = token.lastIndexOf('.') + 8
  const fresh = token.slice(0, at) + serial + token.slice(at + serial.length)
  return {
    refused: [submitShot(bearer(token.slice(0, -4) + last))],
    refusedNew: [{ ...submitShot(bearer(fresh)), serial }]
  }
}

/** Tokens as a backend would sign them for a gateway that was put together from parts. */
export async function jwts (secret: string, subjects: readonly string[]): Promise<string[]> {
  return await Promise.all(subjects.map(async subject => await new SignJWT({ sub: subject })
    .setProtectedHeader({ alg: 'HS256' })
    .setExpirationTime('2h')
    .sign(Buffer.from(secret))))
}

/** Submits a task and resolves with its id. */
export async function madeTask (port: number, credential: Headers, model: string): Promise<string> {
  const shot = { ...submitShot(credential), path: `/api/v1/generateTask/${model}` }
  const { status, json: answer } = await request(port, shot)
  const taskId = answer?.data?.taskId
  if (typeof taskId !== 'string') throw new Error(`no task: ${status} ${JSON.stringify(answer)}`)
  return taskId
}

/** A task that has ended, and whose end the gateway has seen. */
export async function finishedTask (port: number, credential: Headers): Promise<string> {
  const taskId = await madeTask(port, credential, models.finished)
  const { json: seen } = await request(port, statusShot(credential, taskId))
  if (seen?.data?.state !== 'success') throw new Error(`no finished task: ${JSON.stringify(seen)}`)
  return taskId
}
