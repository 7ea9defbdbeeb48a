import { randomBytes } from 'node:crypto'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { createGateway } from './gateway.ts'
import { startSandbox } from './sandbox/sandbox.ts'
import { loadSettings, type Settings } from './settings.ts'

/** One of each vendor that the sandbox plays. */
const llmModels = { openai: 'gpt-5.4', anthropic: 'claude-haiku-4-5-20251001', gemini: 'gemini-2.5-pro' } as const

/** A gateway over a stand-in of APIXO, with throw-away store and secrets. */
export interface Demo {
  /** What to type into a second terminal. */
  readonly instructions: string
  readonly close: () => Promise<void>
}

const root = join(import.meta.dirname, '..')

interface DemoOptions {
  readonly port: number
  readonly logLevel: string
  /** Of pages that may call it, as in `GATEWAY_ALLOWED_ORIGINS`. */
  readonly allowedOrigins?: string | undefined
}

/** Starts the whole thing on this machine, with nothing to configure and nothing to pay. */
export async function startDemo ({ port, logLevel, allowedOrigins = '' }: DemoOptions): Promise<Demo> {
  const fresh = () => randomBytes(32).toString('base64url')
  const [apiKey, issuerToken] = [fresh(), fresh()]
  const sandbox = await startSandbox({ keys: [apiKey] })
  const settings = loadSettings({
    cwd: root,
    env: {
      APIXO_API_KEY: apiKey,
      APIXO_BASE_URL: sandbox.origin,
      APIXO_LLM_BASE_URL: sandbox.origin,
      GATEWAY_SESSION_SECRET: fresh(),
      GATEWAY_ISSUER_TOKEN: issuerToken,
      GATEWAY_STORE: 'sqlite::memory:',
      GATEWAY_ALLOWED_ORIGINS: allowedOrigins,
      PORT: String(await isFree(port) ? port : 0),
      LOG_LEVEL: logLevel
    }
  })
  const gateway = await createGateway(withTokenPrices(settings))
  const origin = await gateway.listen()
  return {
    instructions: instructions(origin, issuerToken),
    async close () {
      await gateway.close()
      await sandbox.close()
    }
  }
}

/** Prices per token, which open the LLM routes, before those of the config file: there is no upstream's bill here. */
function withTokenPrices (settings: Settings): Settings {
  const { file } = settings
  const price = { inputPerMillion: 100, outputPerMillion: 500 }
  const prices = Object.fromEntries(Object.values(llmModels).map(model => [model, price]))
  return { ...settings, file: { ...file, prices: { ...prices, ...file.prices } } }
}

function isFree (port: number): Promise<boolean> {
  const probe = createServer()
  return new Promise(resolve => {
    probe.once('error', () => resolve(false))
    probe.listen(port, '127.0.0.1', () => probe.close(() => resolve(true)))
  })
}

/**
 * Plain `curl`, `sed` and `grep`: nothing that a second terminal may lack. It may be pasted line by line or at once. No
 * comment has a quote in it: to zsh a pasted comment is a command, and the quote would swallow the next line.
 */
function instructions (origin: string, issuerToken: string): string {
  const json = "-H 'content-type: application/json'"
  const bearer = '-H "authorization: Bearer $TOKEN"'
  const status = `curl -s "${origin}/api/v1/statusTask/nano-banana?taskId=$TASK" ${bearer}`
  return `The gateway listens on ${origin}. A sandbox stands in for APIXO: no key is needed, nothing is charged.
Paste this into a second terminal.

# 1. Your backend mints a session for one of its users. Only it knows the issuer token.
TOKEN=$(curl -s ${origin}/gateway/sessions -H 'authorization: Bearer ${issuerToken}' ${json} -d '{"subject":"alice"}' | sed -E 's/.*"token":"([^"]+)".*/\\1/'); echo "$TOKEN"

# Or go on in a browser instead, at ${origin}/gateway/ where that token is swapped for a cookie, and is used up.

# 2. The page submits a task, with that token where the APIXO key would be.
TASK=$(curl -s ${origin}/api/v1/generateTask/nano-banana ${bearer} ${json} -d '{"input":{"mode":"text-to-image","prompt":"a lighthouse at dusk"}}' | sed -E 's/.*"taskId":"([^"]+)".*/\\1/'); echo "$TASK"

# 3. It polls until the task has ended: about six seconds.
while STATUS=$(${status}); echo "$STATUS"; echo "$STATUS" | grep -qE '"state":"(pending|processing)"'; do sleep 2; done

# 4. And fetches the picture into this folder. Look at it: it shows your prompt.
curl -s -o picture.png "$(echo "$STATUS" | grep -oE 'http[^"\\]+' | head -n 1)"; ls -l picture.png

# 5. SDKs of language models take the same token for their key. One line each, in the folder of npm ci.
${sdkLines(origin).map(script => `TOKEN=$TOKEN node -e '${script}'`).join('\n')}

For a page, in its <script type="module">. Start the demo with its origin: GATEWAY_ALLOWED_ORIGINS=http://localhost:5173
${pageLines(origin).join('\n')}
Ctrl-C here stops both.
`
}

/** What a page's author writes. */
function pageLines (origin: string): readonly string[] {
  return [
    `import { createClient } from '${origin}/gateway/client.js'`,
    `const client = createClient({ baseUrl: '${origin}', token: 'what step 1 has shown' })`,
    "const input = { mode: 'text-to-image', prompt: 'a lighthouse at dusk' }",
    "const { results } = await client.generate('nano-banana', input)",
    'document.body.append(Object.assign(new Image(), { src: results[0] }))'
  ]
}

/** JavaScript without a single quote: openai, anthropic, genai and ai, each as its documents show it first. */
function sdkLines (origin: string): readonly string[] {
  const { openai, anthropic, gemini } = llmModels
  const apiKey = 'apiKey: process.env.TOKEN'
  const messages = 'messages: [{ role: "user", content: "hi" }]'
  return [
    'import OpenAI from "openai"; ' +
      `const { choices } = await new OpenAI({ baseURL: "${origin}/v1", ${apiKey} }).chat.completions.create({ ` +
      `model: "${openai}", ${messages} }); console.log("openai:", choices[0].message.content)`,
    'import Anthropic from "@anthropic-ai/sdk"; ' +
      `const { content } = await new Anthropic({ baseURL: "${origin}", ${apiKey} }).messages.create({ ` +
      `model: "${anthropic}", max_tokens: 100, ${messages} }); console.log("anthropic:", content[0].text)`,
    'import { GoogleGenAI } from "@google/genai"; ' +
      `const { text } = await new GoogleGenAI({ ${apiKey}, httpOptions: { baseUrl: "${origin}" } }).models.generateContent({ ` +
      `model: "${gemini}", contents: "hi" }); console.log("genai:", text)`,
    'import { generateText } from "ai"; import { createOpenAI } from "@ai-sdk/openai"; ' +
      `const { text } = await generateText({ model: createOpenAI({ baseURL: "${origin}/v1", ${apiKey} })("${openai}"), ` +
      'prompt: "hi" }); console.log("ai:", text)'
  ]
}
