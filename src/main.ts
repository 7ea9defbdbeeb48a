import '#require-node' // a Node that strips types and yet is too old reads this first
import { createGateway } from './gateway.ts'
import { processSettings, SettingsError } from './settings.ts'

/** EX_CONFIG of sysexits.h: something is wrong with the settings, and starting again won't help. */
const exitConfig = 78
/** On top of `drainMs`: to write the last answers, close the store and say goodbye, ms. */
const farewellMs = 3000

async function main (): Promise<void> {
  const settings = processSettings()
  const gateway = await createGateway(settings)
  for (const warning of settings.warnings) gateway.log.warn(warning)

  let exitCode: number | undefined
  const stop = (code: number): void => {
    exitCode = code
    setTimeout(() => process.exit(1), settings.file.upstream.drainMs + farewellMs).unref()
    gateway.close().catch(/* c8 ignore start: nothing in a stop throws but a fault of ours */ err => {
      exitCode = 1
      gateway.log.fatal({ err }, 'the stop has failed')
    } /* c8 ignore stop */).finally(() => process.exit(exitCode))
  }
  // Registered before it listens: a signal that comes while it starts also ends in a clean stop. A second one cuts the
  // waiting short, and no more than that: submits that the upstream may have accepted are answered in any case.
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP', 'SIGQUIT'] as const) {
    process.on(signal, () => {
      gateway.log.info({ signal }, exitCode === undefined ? 'stopping' : 'stopping at once')
      if (exitCode === undefined) {
        stop(0)
      } else {
        exitCode = 1
        gateway.hurry()
      }
    })
  }
  // Also of promises that nobody has caught. A second error ends nothing sooner: it may be the same, from the next
  // request.
  process.on('uncaughtException', err => {
    gateway.log.fatal({ err }, 'stopping after an error that nobody caught')
    if (exitCode === undefined) stop(1)
    else exitCode = 1
  })
  await gateway.listen()
}

// Not awaited here, as the bundle of the image is CommonJS, which can't.
main().catch(error => {
  process.stderr.write(`apixo-gateway: ${(error as Error).message}\n`)
  process.exit(error instanceof SettingsError ? exitConfig : 1)
})
