import { Cluster, type Redis } from 'ioredis'
import { recent } from '../../domain/recent.ts'
import { forgetSlackMs, type Revocations } from '../../domain/session.ts'
import type { GuestCounts, RateCounter, RateWindow, SpentProofs } from '../../domain/store.ts'
import { namesOf } from '../../domain/subject-data.ts'
import { type Token, tokenRetentionMs, type TokenStore, usedEveryMs } from '../../domain/tokens.ts'
import { type UnknownCalls, unknownMs } from '../../domain/unknown-calls.ts'
import { stateMs, type UpstreamStates } from '../../domain/upstream-states.ts'
import type { Commands, Reply } from './client.ts'
import { encoded, keptFor, type KeyNames, slackMs } from './keys.ts'

const rememberedSessions = 10_000

/**
 * Revocations in Redis: a key for each session, and one for all of a subject's. Asking costs a round trip per request,
 * of one command, for a revocation has to hold on all replicas at once. An id that was revoked stays so, and is not
 * asked about again. An id whose session ended with all others of its subject may have a later session: a token's, once
 * it is rotated.
 */
export function redisRevocations ({ ask, on }: Commands, keys: KeyNames, now: () => number): Revocations {
  const revoked = recent<true>(rememberedSessions)
  const names = recent<readonly string[]>(rememberedSessions, {
    memoMethod: subject => namesOf(subject).map(name => keys.revocationOf(name))
  })
  const endsOf = (subject: string): readonly string[] => names.memo(subject)
  return {
    async revoke (sessionId, expiresAt) {
      const lastsMs = expiresAt + forgetSlackMs - now()
      if (lastsMs <= 0) return false
      const set = await ask(client => client.set(keys.revocation(sessionId), expiresAt, 'PX', keptFor(lastsMs), 'NX'))
      revoked.set(sessionId, true)
      return set === 'OK'
    },
    async revokeSubject (subject, before, expiresAt) {
      const keptMs = keptFor(expiresAt + forgetSlackMs - now())
      await on(keys.revocationOf(subject), 'raiseNumber', { number: before, keptMs })
    },
    async endedBefore (subject) {
      return latestOf(await ask(client => valuesOf(client, endsOf(subject))))
    },
    async isRevoked ({ id, subject, issuedAt }) {
      if (revoked.has(id)) return true
      const [byId, ...ends] = await ask(client => valuesOf(client, [keys.revocation(id), ...endsOf(subject)]))
      if (byId !== null) revoked.set(id, true)
      return byId !== null || issuedAt <= latestOf(ends)
    }
  }
}

/** In one command; the keys of a cluster stand on several nodes. */
async function valuesOf (
  client: Redis | Cluster, names: readonly string[]
): Promise<ReadonlyArray<string | null>> {
  return client instanceof Cluster
    ? await Promise.all(names.map(name => client.get(name)))
    : await client.mget([...names])
}

function latestOf (ends: ReadonlyArray<string | null | undefined>): number {
  return Math.max(-Infinity, ...ends.flatMap(end => end == null ? [] : [Number(end)]))
}

/** Tokens in Redis: a hash each, forgotten by itself long after its end. */
export function redisTokens ({ on, ask }: Commands, keys: KeyNames): TokenStore {
  const listed = keys.tokens
  return {
    async find (id) {
      const fields = await ask(client => client.hgetall(keys.token(id)))
      return fields.id === undefined ? null : tokenFrom(fields)
    },
    async used (id, at) {
      await on(listed, 'recordTokenUse', { id: encoded(id), at, unlessAfter: at - usedEveryMs })
    },
    async create (token) {
      const keptMs = token.expiresAt - token.createdAt + tokenRetentionMs
      await on(listed, 'createToken', { id: encoded(token.id), keptMs, token: fieldsOf(token) })
    },
    async list ({ cursor, limit }) {
      if (cursor !== null && !/^[1-9]\d{0,15}$/.test(cursor)) return { items: [], next: null }
      const found = await on(listed, 'listTokens', { below: cursor ?? 'inf', limit: limit + 1 }) as readonly Reply[]
      const items = found.filter((_, index) => index % 2 === 1).slice(0, limit).map(fields => tokenFrom(pairs(fields)))
      return { items, next: found.length / 2 > limit ? String(found[2 * limit - 2]) : null }
    },
    async rotate (id, { hash, issuedAt }, until) {
      return tokenOrNull(await on(listed, 'rotateToken', { id: encoded(id), hash, issuedAt, previousUntil: until }))
    },
    async accept (id, invitation, { hash, issuedAt }) {
      const request = { id: encoded(id), invitation, hash, issuedAt, keptAfterMs: tokenRetentionMs }
      return tokenOrNull(await on(listed, 'acceptInvitation', request))
    },
    revoke: async (id, at) => await on(listed, 'revokeToken', { id: encoded(id), at }) === 1
  }
}

type Fields = Readonly<Record<string, string>>

/** Of a new one. */
function fieldsOf (token: Token): Fields {
  return {
    ...(token.pool !== null && { pool: token.pool }),
    id: token.id,
    subject: token.subject,
    plan: token.plan,
    models: JSON.stringify(token.models),
    scopes: JSON.stringify(token.scopes),
    createdAt: String(token.createdAt),
    ttlMs: String(token.ttlMs),
    expiresAt: String(token.expiresAt),
    isInvitation: token.isInvitation ? '1' : '0',
    hash: token.secret.hash,
    issuedAt: String(token.secret.issuedAt)
  }
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
  const { id, subject, plan, pool = null, models, scopes, isInvitation, hash, previousHash, revokedAt, usedAt } = fields
  const instant = (text: string | undefined): number | null => text === undefined ? null : Number(text)
  return {
    id: id!,
    subject: subject!,
    plan: plan!,
    pool,
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

export function redisGuestCounts ({ on }: Commands, keys: KeyNames): GuestCounts {
  return {
    async take (name, limit, windowMs) {
      return await on(keys.guestCount(name), 'takeFromWindow', { limit, windowMs }) as number
    },
    async putBack (name) {
      await on(keys.guestCount(name), 'putBack', {})
    }
  }
}

export function redisSpentProofs ({ ask }: Commands, keys: KeyNames, now: () => number): SpentProofs {
  return {
    async spend (id, expiresAt) {
      const lastsMs = expiresAt - now()
      if (lastsMs <= 0) return false // it may have been spent, and be forgotten
      return await ask(client => client.set(keys.spentProof(id), 1, 'PX', lastsMs + slackMs, 'NX')) === 'OK'
    }
  }
}

/** Windows go by the clock of the server, so that all replicas agree on their ends. */
export function redisRates ({ on }: Commands, keys: KeyNames): RateCounter {
  const windowFrom = (reply: Reply): RateWindow => {
    const [count, endsInMs] = reply as [number, number]
    return { count, endsInMs }
  }
  return {
    hit: async (key, windowMs) => windowFrom(await on(keys.rate(key), 'hitRate', { windowMs })),
    look: async key => windowFrom(await on(keys.rate(key), 'readRate', {}))
  }
}

/** In the slot of their subject, so that erasing it takes them along. */
export function redisUpstreamStates ({ ask }: Commands, keys: KeyNames): UpstreamStates {
  return {
    async remember (subject, ids, { keyId, tokens }) {
      await ask(client => Promise.all(ids.map(id =>
        client.set(keys.upstreamState(subject, id), `${tokens} ${keyId}`, 'PX', stateMs))))
    },
    async of (subject, ids) {
      const found = await ask(client => Promise.all(ids.map(id => client.get(keys.upstreamState(subject, id)))))
      return found.map(text => {
        const [, tokens, keyId] = /^(\d+) (.*)$/s.exec(text ?? '') ?? []
        return keyId === undefined ? null : { keyId, tokens: Number(tokens) }
      })
    }
  }
}

/** They end by the clock of the server, in the slot of their subject, so that erasing it takes them along. */
export function redisUnknownCalls ({ ask }: Commands, keys: KeyNames): UnknownCalls {
  return {
    async remember (subject, fingerprint) {
      await ask(client => client.set(keys.unknownCall(subject, fingerprint), 1, 'PX', unknownMs))
    },
    async has (subject, fingerprint) {
      return await ask(client => client.exists(keys.unknownCall(subject, fingerprint))) === 1
    }
  }
}
