/** An address that a name leads to. */
export interface ResolvedAddress { readonly address: string, readonly family: number }

/** Resolves a host name to all its addresses, as `dns.lookup` does. */
export type Resolve = (hostname: string, options: { readonly all: true }, done: (error: Error | null, addresses: ResolvedAddress[]) => void) => void

/** As a socket asks for the address it is to connect to. */
export type Lookup = (
  hostname: string,
  options: { readonly all?: boolean | undefined },
  done: (error: Error | null, address: string | ResolvedAddress[], family?: number) => void
) => void

/** The code of the error with which a connection is refused. */
export const refusedAddress = 'ERR_REFUSED_ADDRESS'

/**
 * Holds each new connection against the addresses its name leads to at that moment: a name that was judged earlier may
 * lead elsewhere by now (DNS rebinding). A name is refused when any of its addresses is out of bounds: an honest host has
 * no reason for a mixture.
 */
export function guardedLookup (resolve: Resolve, isAllowed: (address: string) => boolean): Lookup {
  return (hostname, { all }, done) => resolve(hostname, { all: true }, (error, addresses) => {
    if (error !== null) return done(error, [])
    const [first] = addresses
    if (first === undefined || !addresses.every(({ address }) => isAllowed(address))) {
      return done(Object.assign(new Error(`${hostname} leads to an address that is not to be called`), { code: refusedAddress }), [])
    }
    return all === true ? done(null, addresses) : done(null, first.address, first.family)
  })
}
