import ipaddr from 'ipaddr.js'

/**
 * A network in CIDR notation (RFC 4632, RFC 4291), in the one way that we write it: `203.0.113.7/24` is `203.0.113.0/24`,
 * and an IPv4 network inside IPv6 is an IPv4 network, for so are its callers' addresses. `null`: it is none.
 */
export function readAddressRange (text: string): string | null {
  // The library would take octal and three-part addresses too, which others read in other ways.
  const [address = '', length = ''] = text.split('/', 2)
  const isPlain = /^[0-9]{1,3}$/.test(length) && `${address}/${length}` === text && !address.includes('%')
  if (!isPlain || !(ipaddr.IPv4.isValidFourPartDecimal(address) || ipaddr.IPv6.isValid(address))) return null
  const parsed = ipaddr.parse(address)
  const isMapped = 'isIPv4MappedAddress' in parsed && parsed.isIPv4MappedAddress()
  const bits = Number(length) - (isMapped ? 96 : 0)
  const plain = ipaddr.process(address)
  if (bits < 0 || bits > plain.toByteArray().length * 8) return null
  const range = `${plain.toString()}/${bits}`
  const network = plain.kind() === 'ipv4' ? ipaddr.IPv4.networkAddressFromCIDR(range) : ipaddr.IPv6.networkAddressFromCIDR(range)
  return `${network.toString()}/${bits}`
}

/** An address as a proxy may name it: some write the port beside it, `203.0.113.7:4711` or `[2001:db8::1]:4711`. */
export function withoutPort (address: string): string {
  return /^\[(.+)\](?::\d+)?$/.exec(address)?.[1] ?? /^([\d.]+):\d+$/.exec(address)?.[1] ?? address
}

/** Whether an address lies in a network that `readAddressRange` has read. What is no address lies in none. */
export function isInRange (address: string, range: string): boolean {
  if (!ipaddr.isValid(address)) return false
  const caller = ipaddr.process(address)
  const [network, bits] = ipaddr.parseCIDR(range)
  return caller.kind() === network.kind() && caller.match(network, bits)
}
