import closeWithGrace from 'close-with-grace'
import { createGateway } from './app.ts'
import { loadSettings, readDotEnv, SettingsError } from './settings.ts'

/** EX_CONFIG of sysexits.h: something is wrong with the settings, and starting again won't help. */
const exitConfig = 78
/** On top of `drainMs`: to close the store and say goodbye, ms. */
const farewellMs = 3000

try {
  const cwd = process.cwd()
  const settings = loadSettings({ env: { ...readDotEnv(cwd), ...process.env }, cwd })
  const gateway = await createGateway(settings)
  for (const warning of settings.warnings) gateway.log.warn(warning)

  // Registered before it listens: a signal that comes while it starts also ends in a clean stop.
  closeWithGrace({ delay: settings.file.upstream.drainMs + farewellMs, logger: false }, async ({ signal, err }) => {
    if (err !== undefined) gateway.log.fatal({ err }, 'stopping after an error that nobody caught')
    else gateway.log.info({ signal }, 'stopping')
    await gateway.close()
  })
  await gateway.listen()
} catch (error) {
  process.stderr.write(`apixo-gateway: ${(error as Error).message}\n`)
  process.exit(error instanceof SettingsError ? exitConfig : 1)
}
