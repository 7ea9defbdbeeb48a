import type { Readable, Writable } from 'node:stream'

/** As `Readable.pipe` has it. */
interface PipeOptions { readonly end?: boolean | undefined }

/**
 * A body of bytes whose memory is given back as it is written: to pipe it somewhere is to give its pieces away.
 *
 * What Node reads lies outside of the collector's heap, and for every 32 MB of it the whole heap is searched for what
 * may go. Large bodies took a third of their time for that, and a hundred megabytes in between. Only for a body that
 * Node itself reads, from a socket or a file: nobody else may hold its pieces.
 */
export function freedPieces (body: Readable): Readable {
  return Object.assign(body, {
    pipe<To extends NodeJS.WritableStream> (to: To, options: PipeOptions = {}): To {
      pour(body, to as NodeJS.WritableStream as Writable, options)
      return to
    }
  })
}

function pour (body: Readable, to: Writable, { end = true }: PipeOptions): void {
  const take = (piece: Buffer<ArrayBuffer>): void => {
    if (to.destroyed || !to.write(piece, error => { if (!error) free(piece) })) body.pause()
  }
  const goOn = (): void => { body.resume() }
  const over = (): void => { if (end) to.end() }
  // An empty body may be over before anybody asks for it.
  if (body.readableEnded) process.nextTick(over)
  else body.on('data', take).once('end', over)
  to.on('drain', goOn)
  to.once('close', () => {
    to.off('drain', goOn)
    body.off('data', take).pause()
  })
}

/** A piece that fills its memory has it for itself; any other may share it with what somebody else still reads. */
function free ({ buffer, length }: Buffer<ArrayBuffer>): void {
  if (length === buffer.byteLength) buffer.transfer(0)
}
