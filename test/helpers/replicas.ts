import type { Test } from 'tap'
import { clock } from './clock.ts'
import { startGateway, type TestGateway, type TestGatewayOptions } from './gateway.ts'

/** Gateways over one sandbox and one store, with one clock. */
export async function startReplicas (
  t: Test,
  count: number,
  storeUrl: string,
  options: TestGatewayOptions = {}
): Promise<readonly TestGateway[]> {
  const shared = { time: clock(), ...options, env: { GATEWAY_STORE: storeUrl, ...options.env } }
  const first = await startGateway(t, shared)
  const others = Array.from({ length: count - 1 }, () => startGateway(t, { ...shared, upstream: first.sandbox }))
  return [first, ...await Promise.all(others)]
}
