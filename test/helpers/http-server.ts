import { once } from 'node:events'
import type { Server } from 'node:http'
import type { Server as TlsServer } from 'node:https'
import type { Test } from 'tap'
import { listen } from './raw-server.ts'

/**
 * The port of the loopback where a server listens from now on. It ends with its test, and with it every answer that
 * never would.
 */
export async function httpPort (t: Test, server: Server | TlsServer): Promise<number> {
  const port = await listen(server)
  t.teardown(async () => {
    server.close()
    server.closeAllConnections()
    await once(server, 'close')
  })
  return port
}
