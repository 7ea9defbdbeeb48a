import { type Token, type TokenBook, tokenRetentionMs, usedEveryMs } from '../../domain/sessions/tokens.ts'
import type { Commands, Reply } from './commands.ts'
import { encoded, type KeyNames } from './key-names.ts'

/** Tokens in Redis: a hash each, forgotten by itself long after its end. */
export function redisTokens ({ on, ask }: Commands, keys: KeyNames): TokenBook {
  const listed = keys.tokens
  return {
    async find (id) {
      const fields = await ask(client => client.hgetall(keys.token(id)))
      return fields.id === undefined ? null : tokenFrom(fields)
    },
    async used (id, at) { await on(listed, 'useToken', encoded(id), at, at - usedEveryMs) },
    async create (token) {
      const keptMs = token.expiresAt - token.createdAt + tokenRetentionMs
      await on(listed, 'createToken', encoded(token.id), keptMs, ...Object.entries(fieldsOf(token)).flat())
    },
    async list ({ cursor, limit }) {
      if (cursor !== null && !/^[1-9]\d{0,15}$/.test(cursor)) return { items: [], next: null }
      const found = await on(listed, 'listTokens', cursor ?? 'inf', limit + 1) as readonly Reply[]
      const items = found.filter((_, index) => index % 2 === 1).slice(0, limit).map(fields => tokenFrom(pairs(fields)))
      return { items, next: found.length / 2 > limit ? String(found[2 * limit - 2]) : null }
    },
    rotate: async (id, { hash, issuedAt }, until) =>
      tokenOrNull(await on(listed, 'rotateToken', encoded(id), hash, issuedAt, until)),
    accept: async (id, invitation, { hash, issuedAt }) =>
      tokenOrNull(await on(listed, 'acceptInvitation', encoded(id), invitation, hash, issuedAt, tokenRetentionMs)),
    revoke: async (id, at) => await on(listed, 'revokeToken', encoded(id), at) === 1
  }
}

type Fields = Readonly<Record<string, string>>

/** Of a new one. */
function fieldsOf ({ models, scopes, isInvitation, secret, previous, revokedAt, usedAt, ...plain }: Token) {
  const lists = { models: JSON.stringify(models), scopes: JSON.stringify(scopes) }
  return { ...plain, ...secret, ...lists, isInvitation: Number(isInvitation) }
}

function tokenOrNull (reply: Reply): Token | null {
  return reply === null ? null : tokenFrom(pairs(reply))
}

/** Bytes that come as a name and a value, and so on. */
function pairs (reply: Reply): Fields {
  const texts = (reply as Buffer[]).map(String)
  return Object.fromEntries(texts.flatMap((name, index) => index % 2 === 0 ? [[name, texts[index + 1]!]] : []))
}

function tokenFrom (fields: Fields): Token {
  const { id, subject, plan, models, scopes, isInvitation, hash, previousHash, revokedAt, usedAt } = fields
  const instant = (text: string | undefined): number | null => text === undefined ? null : Number(text)
  return {
    id: id!,
    subject: subject!,
    plan: plan!,
    models: JSON.parse(models!),
    scopes: JSON.parse(scopes!),
    createdAt: Number(fields.createdAt),
    ttlMs: Number(fields.ttlMs),
    expiresAt: Number(fields.expiresAt),
    isInvitation: isInvitation === '1',
    secret: { hash: hash!, issuedAt: Number(fields.issuedAt) },
    previous: previousHash === undefined
      ? null
      : { hash: previousHash, issuedAt: Number(fields.previousIssuedAt), until: Number(fields.previousUntil) },
    revokedAt: instant(revokedAt),
    usedAt: instant(usedAt)
  }
}
