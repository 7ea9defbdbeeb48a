import type { Server } from 'node:http'
import rateLimit from '@fastify/rate-limit'

/** Ends connections beyond `most` from one address: ten thousand idle sockets must not keep others out. */
export function limitSockets (server: Server, most: number): void {
  const open = new Map<string, number>()
  server.on('connection', socket => {
    const address = socketHolder(socket.remoteAddress)
    const count = (open.get(address) ?? 0) + 1
    open.set(address, count)
    socket.once('close', () => {
      const left = open.get(address)! - 1
      if (left === 0) open.delete(address)
      else open.set(address, left)
    })
    if (count > most) socket.destroy()
  })
}

/** Who a socket is counted for: an address, or in IPv6 the /64 that it is in, which a household has to itself. */
export function socketHolder (remoteAddress = ''): string {
  return rateLimit.normalizeIP(remoteAddress)
}
