import { ReplyError } from 'ioredis'
import { gatewayError } from '../../errors.ts'

/**
 * Answers that mean that the server can't serve, not that it was asked for nonsense: of a replica, a full or a loading
 * server, a cluster that is being repaired, a changed password, a full disk, … An older server wraps what happens within
 * a script: `ERR Error running script (call to f_…): @user_script:12: -OOM command not allowed …`
 */
const outage = /^(?:ERR Error running script.*?-)?(?:READONLY|OOM|LOADING|CLUSTERDOWN|MASTERDOWN|MOVED|ASK|TRYAGAIN|NOAUTH|WRONGPASS|NOPERM|MISCONF|NOREPLICAS|BUSY|NOSCRIPT|ERR max number of clients)\b/

/** Makes errors of what the client threw. Only its sentence is kept: the client hangs commands on it, with all they say. */
export interface Failures {
  /** What went wrong, for a log. */
  reason (error: unknown): Error
  /** What is thrown instead: `GW_STORE_DOWN`, or the reason itself when the server was asked for nonsense. */
  failure (error: unknown): Error
}

export function failures (password: string | undefined): Failures {
  const reason = (error: unknown): Error => {
    const { message, code } = error as Error & { readonly code?: unknown }
    // Of several addresses that were tried there is no message. A server that does not know a command repeats it whole.
    const text = withoutSecret(message || String(code), password)
    return Object.assign(new Error(text), code === undefined ? {} : { code })
  }
  return {
    reason,
    failure (error) {
      const cause = reason(error)
      if (error instanceof ReplyError && !outage.test(cause.message)) return cause
      return gatewayError('GW_STORE_DOWN', { retryAfterSeconds: 1, cause })
    }
  }
}

function withoutSecret (text: string, password: string | undefined): string {
  return password === undefined ? text : text.replaceAll(password, '[secret]')
}
