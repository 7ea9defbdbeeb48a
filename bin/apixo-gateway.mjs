#!/usr/bin/env node
import './require-node.mjs'

// Not a static import: that would be read before the line above has run.
await import('../src/cli.ts')
