import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { join } from 'node:path'
import { createGateway, type Gateway } from '../gateway.ts'
import { ownPrefixes } from '../http/server.ts'
import { environmentVariables, loadSettings, readDotEnv, type Settings, SettingsError } from '../settings.ts'
import { readText } from '../settings/problems.ts'

/** What a gateway within another program is told. Both absent: as the command `start` finds its settings. */
export interface GatewaySettings {
  /**
   * The variables of the README by their names, as texts, in the place of the process's environment and its `.env`.
   * `HOST` and `PORT` mean nothing here, for the host listens.
   */
  readonly env?: Readonly<Record<string, string | undefined>> | undefined
  /** What a config file would hold, in the place of the file that `GATEWAY_CONFIG` names. */
  readonly config?: object | undefined
}

/** Nothing but a server of its own can keep what these promise. */
const ownServerOnly = [
  ['GATEWAY_ADMIN_PORT', 'adminPort', 'the admin API and the metrics are on the host\'s port, behind the admin token'],
  ['GATEWAY_STATIC_DIR', 'staticDir', 'the host serves its own front end']
] as const

/** What may stand beside ours in the options of a plugin. */
const known = new Set(['env', 'config', 'addresses', 'prefix', 'logLevel', 'logSerializers'])

/** Throws a `SettingsError` with all that is to be changed. Ends no process, and opens nothing. */
export function guestSettings (given: GatewaySettings): Settings {
  const unknown = Object.keys(given).filter(name => !known.has(name))
  if (unknown.length > 0) throw new SettingsError(unknown.map(unknownProblem))
  const cwd = process.cwd()
  const env = given.env ?? { ...readDotEnv(cwd), ...process.env }
  const settings = given.config === undefined ? loadSettings({ env, cwd }) : withConfig(env, given.config, cwd)
  const useless = ownServerOnly.filter(([, key]) => settings[key] !== undefined)
  if (useless.length > 0) {
    throw new SettingsError(useless.map(([setting, , why]) => ({
      setting,
      source: settings.origins.get(setting)!,
      problem: 'is for a gateway with a server of its own',
      expected: `no such setting: ${why}`
    })))
  }
  return settings
}

function unknownProblem (setting: string) {
  const isVariable = environmentVariables.some(({ name }) => setting.startsWith(name))
  return {
    setting,
    source: 'the settings given',
    problem: 'there is no such setting',
    expected: isVariable ? `env: { ${setting}: … }` : 'env and config'
  }
}

/** An object is read as the file that it would be; models.json is looked for where it lies without one. */
function withConfig (env: NonNullable<GatewaySettings['env']>, config: object, cwd: string): Settings {
  const configPath = join(cwd, 'config', 'settings.config')
  const text = JSON.stringify(config, null, 2)
  return loadSettings({
    cwd,
    env: { ...env, GATEWAY_CONFIG: configPath },
    readFile: (path, maxBytes) => path === configPath ? text : readText(path, maxBytes)
  })
}

/** A gateway that listens nowhere. Throws a `SettingsError`. */
export async function openGuest (settings: Settings): Promise<Gateway> {
  const gateway = await createGateway(settings)
  for (const warning of settings.warnings) gateway.log.warn(warning)
  return gateway
}

/**
 * The gateway as a plugin: `await app.register(gateway, { config, env })`. It is a Fastify of its own whose requests
 * come by the host's port, so nothing crosses over: it sets no hook, error handler or 404 handler of its host, and its
 * answers carry none of the host's headers. Hooks that the host has before a route is found (`onRequest`) run before
 * it, as they are the host's to say who gets in at all. Closes with its host, after what runs.
 *
 * A gateway with a server of its own also keeps callers from holding connections, which here is the host's to do: its
 * `requestTimeout`, `http.headersTimeout` and `http.maxConnections`. `GATEWAY_TRUST_PROXY` is ours, and the
 * host's `trustProxy` does not count.
 *
 * Rejects with a `SettingsError` that says what to change. Must be registered without a prefix, on HTTP/1.1.
 */
export async function gateway (app: FastifyInstance, settings: GatewaySettings): Promise<void> {
  if (app.prefix !== '') {
    throw new Error(`apixo-gateway: the prefix ${app.prefix} can not be: SDKs, cookies and signed links know the ` +
      'gateway by its addresses. Register it without a prefix, or give it a host name of its own.')
  }
  if (app.initialConfig.http2 === true) {
    throw new Error('apixo-gateway: it speaks HTTP/1.1. Leave http2 to the proxy before this server.')
  }
  await mount(app, await openGuest(guestSettings(settings)))
}

/**
 * Leads the gateway's addresses to it, and closes it with its host. Where the host has a route of the same address
 * already, such as `/livez`, that one stays.
 */
export async function mount (app: FastifyInstance, guest: Gateway): Promise<void> {
  await guest.app.ready()
  // Not in a handler: the host would have read the body, or have refused it.
  const onRequest = (request: FastifyRequest, reply: FastifyReply): void => {
    reply.hijack()
    guest.app.routing(request.raw, reply.raw)
  }
  /* c8 ignore next: a hook that answers is never followed by the handler */
  const handler = (): never => { throw new Error('a request of the gateway has come past it') }
  const schema: object = { hide: true } // for the host's documentation: these are not its routes
  for (const url of ownPrefixes.flatMap(prefix => [prefix, `${prefix}/*`])) {
    const method = app.supportedMethods.filter(method => !app.hasRoute({ method, url }))
    // Silent, as the host would log the URL, which may hold a ticket.
    if (method.length > 0) app.route({ url, method, onRequest, handler, schema, logLevel: 'silent' })
  }
  app.addHook('preClose', () => guest.close())
}
