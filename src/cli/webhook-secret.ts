import { type Command, UsageError } from './command.ts'

export const command: Command = {
  usage: `webhook-secret HOST

  The secret with which a server checks the messages that the gateway sends
  it: one that stands in callbacks.allowedHosts, such as app.example. Its
  messages are signed by the rules of https://www.standardwebhooks.com.

  It is made from the newest session secret. While there are several of those,
  each message has a signature for each.
`,
  operands: [1],
  async run ({ operands }) {
    const host = operands[0]!
    if (host.includes('*') || URL.parse(`https://${host}`)?.hostname !== host) {
      throw new UsageError('HOST is one host in lower case, without scheme, port or path.')
    }
    const [{ loadSettings, readDotEnv }, { webhookSecret }] = await Promise.all([
      import('../settings.ts'), import('../domain/callbacks/webhook-signature.ts')
    ])
    const cwd = process.cwd()
    const { sessionSecrets } = loadSettings({ env: { ...readDotEnv(cwd), ...process.env }, cwd })
    process.stdout.write(`${webhookSecret(sessionSecrets[0]!, host).reveal()}\n`)
    return 0
  }
}
