// Whatever Node there is reads this first, so it is plain JavaScript without anything new. A Node that is too old does
// not know what to do with TypeScript, and would say so by a stack trace.
const least = 24

if (Number(process.versions.node.split('.')[0]) < least) {
  process.stderr.write('apixo-gateway: Node ' + least + ' or newer is needed, and this is ' + process.version +
    '. On Linux x64 `npm ci` brings it, for `npm run` and `npx`; elsewhere get it from https://nodejs.org.\n')
  process.exit(1)
}
