import { errorTable } from '../../src/errors.ts'
import type { ReferenceDocument } from './document.ts'

/** Of no use to whoever writes an app. */
const left: ReadonlySet<string> = new Set(['Operator', 'Upstream', 'Health', 'Pages'])

/** The reference in short, for an agent that is to write an app against the gateway (https://llmstxt.org). */
export function llmsText ({ info, tags, paths }: ReferenceDocument): string {
  const operations = Object.entries(paths).flatMap(([path, item]) =>
    Object.entries(item).map(([method, operation]) => ({ name: `${method.toUpperCase()} ${path}`, operation })))
  const routes = tags.filter(({ name }) => !left.has(name)).map(({ name, description }) => {
    const own = operations.filter(({ operation }) => operation.tags.includes(name))
    const lines = own.map(({ name, operation: { summary, description: more } }) =>
      `- \`${name}\`: ${summary}.${more === undefined ? '' : ` ${more}`}`)
    return `### ${name}\n\n${description}\n\n${lines.join('\n')}`
  })
  const byStatus = Map.groupBy(errorTable, ({ status }) => status)
  const errors = Array.from(byStatus, ([status, list]) => `- ${status}: ${list.map(({ code }) => code).join(', ')}`)
  return `# ${info.title} ${info.version}

> ${info.description.split('\n\n', 1)[0]}

The whole reference: /gateway/openapi.json (OpenAPI 3.1), /gateway/docs (a page). The client for pages: /gateway/client.js.

## Credentials

- The app's backend has the issuer token, and mints a session for each user: \`POST /gateway/sessions\` with \`{"subject":"alice"}\` answers 201 \`{"token","subject","expiresAt"}\`. Never from a page: it would have the issuer token.
- The page has the session's token, and sends it with each call. Stock SDKs take it as their API key.
- No key of APIXO is ever in a page or in an answer.

## How to make something

1. \`POST /api/v1/generateTask/{model}\` with \`{"input":{…}}\` and an \`Idempotency-Key\`: a new one for each task, the same at each try. \`data.taskId\` is its id.
2. Wait: \`GET /gateway/tasks/{taskId}/events\` (server-sent events; the end comes as \`state\`, then \`results\`), or \`GET /api/v1/statusTask/{model}?taskId=…\` no more often than \`retry-after\` says. Pictures take seconds, videos minutes.
3. \`GET /gateway/tasks/{taskId}/results\`: links for \`<img>\` and \`<video>\`, good for some minutes each.

## Routes

${routes.join('\n\n')}

## Errors

The code is in the header \`x-gateway-error\` and in \`error.code\`. With \`x-should-retry: false\` never send it again; with \`retry-after\` wait so many seconds. After GW_OUTCOME_UNKNOWN the task may exist: look into \`GET /gateway/tasks\`.

${errors.join('\n')}
`
}
