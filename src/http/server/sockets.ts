import type { Server } from 'node:http'

/** Ends connections beyond `most` from one address: ten thousand idle sockets must not keep others out. */
export function limitSockets (server: Server, most: number): void {
  const open = new Map<string, number>()
  server.on('connection', socket => {
    const address = String(socket.remoteAddress)
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
