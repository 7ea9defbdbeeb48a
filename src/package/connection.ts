import { Duplex } from 'node:stream'

/** What a server knows of the other end. */
export interface Peer {
  /** `undefined`: nobody knows. */
  readonly remoteAddress: string | undefined
  readonly encrypted: boolean
}

/**
 * One end of a connection in memory, with as much of a socket as Node's server and the gateway use. Node has
 * `duplexPair`, but an end of it hears neither of the other's being destroyed nor of a time-out.
 */
class End extends Duplex implements Peer {
  readonly remoteAddress: string | undefined
  readonly encrypted: boolean
  #other: End | null = null
  /** Lets the other end write on. */
  #goOn: (() => void) | null = null
  #taken = 0
  #stall: NodeJS.Timeout | undefined

  constructor ({ remoteAddress, encrypted }: Peer) {
    super({ allowHalfOpen: false })
    this.remoteAddress = remoteAddress
    this.encrypted = encrypted
  }

  connect (other: End): void { this.#other = other }

  override _read (): void {
    const goOn = this.#goOn
    this.#goOn = null
    if (goOn !== null) goOn()
  }

  override _write (chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    this.#give([{ chunk }], done)
  }

  override _writev (chunks: ReadonlyArray<{ readonly chunk: Buffer }>, done: () => void): void {
    this.#give(chunks, done)
  }

  #give (chunks: ReadonlyArray<{ readonly chunk: Buffer }>, done: () => void): void {
    const other = this.#other!
    let isWanted = true
    for (const { chunk } of chunks) isWanted = other.push(chunk)
    const taken = (): void => {
      this.#taken++
      done()
    }
    // Not at once: a body that is all in memory would hold up the event loop to its end.
    if (isWanted) setImmediate(taken)
    else other.#goOn = taken
  }

  override _final (done: () => void): void {
    this.#other!.push(null)
    done()
  }

  override _destroy (error: Error | null, done: (error: Error | null) => void): void {
    clearInterval(this.#stall)
    process.nextTick(() => this.#other!.destroy())
    done(error)
  }

  /** As `net.Socket` has it, for one side of it: 'timeout' when the other end takes nothing of what waits, in ms. */
  setTimeout (ms: number): this {
    clearInterval(this.#stall)
    let before = -1
    this.#stall = ms === 0
      ? undefined
      : setInterval(() => {
        if (this.writableLength > 0 && this.#taken === before) this.emit('timeout')
        before = this.#taken
      }, ms).unref()
    return this
  }
}

/** The two ends of a connection; what `peer` says is what the far one knows of the near one. */
export function connection (peer: Peer): { readonly near: Duplex, readonly far: Duplex } {
  const [near, far] = [new End({ remoteAddress: undefined, encrypted: peer.encrypted }), new End(peer)]
  near.connect(far)
  far.connect(near)
  return { near, far }
}
