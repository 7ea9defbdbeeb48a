import { connect, createServer, type Socket } from 'node:net'
import type { Test } from 'tap'
import { listen } from './raw-server.ts'

/** A way to a Redis that can end between any two scripts, as a replica does that is killed. */
export interface RedisRelay {
  readonly url: string
  /** Scripts that have come to it so far. */
  readonly scripts: number
  /** After so many more scripts nothing gets through any more: the last one is done, and its answer is lost. */
  cutAfter (scripts: number): void
  /** After so many more scripts it waits with the next one, until `go` is called. */
  waitAfter (scripts: number): { readonly waits: Promise<void>, go (): void }
}

/** It leads to that port of loopback, and ends with its test. */
export async function redisRelay (t: Test, port: number): Promise<RedisRelay> {
  const sockets = new Set<Socket>()
  let scripts = 0
  let cutAt = Infinity
  let waitAt = Infinity
  let isCut = false
  let wait: { readonly reached: () => void, readonly isOver: Promise<void> } | null = null

  const toRedis = async (near: Socket, far: Socket): Promise<void> => {
    for await (const chunk of near) {
      for (const command of commandsIn(chunk)) {
        if (isScript(command)) scripts++
        if (scripts > waitAt) {
          waitAt = Infinity
          wait!.reached()
          await wait!.isOver
        }
        if (scripts > cutAt || isCut) return end()
        far.write(command)
        // It is done, though nobody hears of it.
        if (scripts === cutAt && isScript(command)) isCut = true
      }
    }
    far.end()
  }
  const fromRedis = async (far: Socket, near: Socket): Promise<void> => {
    for await (const chunk of far) {
      if (isCut) return end()
      near.write(chunk)
    }
    near.end()
  }
  const end = (): void => {
    isCut = true
    for (const socket of sockets) socket.destroy()
  }
  const server = createServer(near => {
    const far = connect(port, '127.0.0.1')
    for (const socket of [near, far]) {
      sockets.add(socket)
      socket.on('error', () => {}).on('close', () => sockets.delete(socket))
    }
    if (isCut) return end()
    toRedis(near, far).catch(() => {})
    fromRedis(far, near).catch(() => {})
  })
  const url = `redis://127.0.0.1:${await listen(server)}`
  t.teardown(() => {
    end()
    server.close()
  })

  return {
    url,
    get scripts () { return scripts },
    cutAfter (count) { cutAt = scripts + count },
    waitAfter (count) {
      waitAt = scripts + count
      const reached = Promise.withResolvers<void>()
      const over = Promise.withResolvers<void>()
      wait = { reached: reached.resolve, isOver: over.promise }
      return { waits: reached.promise, go: over.resolve }
    }
  }
}

const scriptStart = /(?=\*\d+\r\n\$\d+\r\neval)/i

/** Scripts one by one, with what goes before the next one. */
function commandsIn (chunk: Buffer): Buffer[] {
  return chunk.toString('latin1').split(scriptStart).map(text => Buffer.from(text, 'latin1'))
}

function isScript (command: Buffer): boolean {
  return command.toString('latin1').search(scriptStart) === 0
}
