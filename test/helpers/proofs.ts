import { type Challenge, solveChallenge } from 'altcha-lib'
import { deriveKey } from 'altcha-lib/algorithms/pbkdf2'

/** What the widget of ALTCHA sends when it has solved a challenge. */
export async function solve (challenge: object): Promise<string> {
  const solution = await solveChallenge({ challenge: challenge as Challenge, deriveKey })
  return encode({ challenge, solution })
}

export function encode (payload: unknown): string {
  return Buffer.from(JSON.stringify(payload)).toString('base64')
}

export function decode (proof: string): any {
  return JSON.parse(Buffer.from(proof, 'base64').toString())
}
