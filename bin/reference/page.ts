import type { Answer, Operation, Parameter, ReferenceDocument } from './document.ts'

/**
 * The document as a page, rendered here and not in the browser: it is there at once, under the policy that all our
 * pages have. Its own script does nothing but search.
 */
export function referencePage (document: ReferenceDocument): string {
  const { info, tags, paths, components } = document
  const operations = Object.entries(paths).flatMap(([path, item]) =>
    Object.entries(item).map(([method, operation]) => ({ path, method, operation })))
  const sections = tags.map(({ name, description }) => {
    const own = operations.filter(({ operation }) => operation.tags.includes(name))
    const rows = own.map(({ path, method, operation }) => operationPart(path, method, operation, components.responses))
    return `<section>\n<h2 id="${name}">${name}</h2>\n<p class="soft">${prose(description)}</p>\n${rows.join('\n')}\n</section>`
  })
  const schemas = Object.entries(components.schemas).map(([name, schema]) =>
    `<details id="schema-${name}"><summary><code>${name}</code></summary>\n${schemaPart(schema)}\n</details>`)
  const [intro, errors, methods, table] = info.description.split('\n\n')
  const codes = table!.split('\n').slice(2).map(row => row.split('|').map(cell => prose(cell.trim())))
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<link rel="icon" href="data:,">
<title>Reference</title>
<link rel="stylesheet" href="../style.css">
<link rel="stylesheet" href="docs.css">
<main>
<h1>Reference</h1>
<p class="soft">${info.title} ${info.version} · <a href="openapi.json">OpenAPI</a> · <a href="llms.txt">for agents</a> · <a href="./">playground</a></p>
<p>${prose(intro!)}</p>
<p>${prose(errors!)} ${prose(methods!)}</p>
<nav>${tags.map(({ name }) => `<a href="#${name}">${name}</a>`).join(' ')} <a href="#errors">Errors</a> <a href="#schemas">Schemas</a></nav>
<label for="search">Search</label>
<input id="search" type="search" placeholder="tasks, credits, GW_RATE_LIMITED" autocomplete="off" spellcheck="false">
<p id="none" class="soft" hidden>Nothing has these words.</p>
${sections.join('\n')}
<section>
<h2 id="errors">Errors</h2>
<table>${codes.map(([, code, status]) => `<tr><td>${code}<td>${status}`).join('')}</table>
</section>
<section>
<h2 id="schemas">Schemas</h2>
${schemas.join('\n')}
</section>
</main>
<script src="docs.js"></script>
</html>
`
}

function operationPart (
  path: string, method: string, operation: Operation, shared: Readonly<Record<string, Answer>>
): string {
  const { operationId, summary, description, security, parameters = [], requestBody, responses } = operation
  const credentials = security.flatMap(scheme => Object.keys(scheme)).map(name => `<code>${name}</code>`).join(' or ')
  const answers = Object.entries(responses).map(([status, answer]) =>
    `<dt><code>${status}</code><dd>${answerPart('$ref' in answer ? shared[answer.$ref.split('/').at(-1)!]! : answer)}`)
  return `<details id="${operationId}"><summary><b class="${method}">${method.toUpperCase()}</b> <code>${escaped(path)}</code> <span>${escaped(summary)}</span></summary>
${description === undefined ? '' : `<p>${prose(description)}</p>\n`}<p class="soft">${credentials === '' ? 'No credential.' : `Credential: ${credentials}.`}</p>
${parameters.length === 0 ? '' : `<h3>Parameters</h3>\n<dl>${parameters.map(parameterPart).join('')}</dl>\n`}${
  requestBody === undefined ? '' : `<h3>Body${requestBody.required ? '' : ', optional'}</h3>\n${schemaPart(requestBody.content['application/json']!.schema)}\n`
}<h3>Answers</h3>
<dl>${answers.join('')}</dl>
</details>`
}

function parameterPart ({ name, in: place, required, description = '', schema }: Parameter): string {
  const where = place === 'path' ? 'path' : `${place}${required === true ? ', required' : ''}`
  const type = 'enum' in schema ? ` ${typeOf(schema, '')}` : ''
  return `<dt><code>${escaped(name)}</code> <span class="soft">${where}</span><dd>${prose(description)}${type}`
}

function answerPart ({ description, content = {} }: Answer): string {
  const bodies = Object.entries(content).map(([type, { schema }]) => {
    const events = Object.entries(schema['x-events'] ?? {}).map(([name, data]) => `<code>${name}</code> ${typeOf(data, '')}`)
    const shown = type === 'application/json' ? typeOf(schema, '') : [`<code>${type}</code>`, ...events].join(' · ')
    return `<span class="soft">${shown}</span>`
  })
  return [prose(description), ...bodies].join(' · ')
}

function schemaPart (schema: object): string {
  return `<pre><code>${typeOf(schema, '')}</code></pre>`
}

/** A schema as a type, with what is said of each field beside it; a schema that has a name is a link to it. */
function typeOf (schema: any, indent: string): string {
  if (schema.$ref !== undefined) {
    const name = schema.$ref.split('/').at(-1)
    return `<a href="#schema-${name}">${name}</a>`
  }
  if (schema.anyOf !== undefined) return schema.anyOf.map((one: object) => typeOf(one, indent)).join(' | ')
  const words = schema.enum ?? ('const' in schema ? [schema.const] : null)
  if (words !== null) return words.map((word: unknown) => escaped(JSON.stringify(word))).join(' | ')
  if (schema.type === 'array') return `Array&lt;${typeOf(schema.items, indent)}&gt;`
  if (schema.properties !== undefined) return fieldsOf(schema, indent)
  const values = Object.values(schema.patternProperties ?? {})
  if (values.length > 0) return `{ [name]: ${typeOf(values[0], indent)} }`
  return schema.type ?? 'any'
}

function fieldsOf ({ properties, required = [], additionalProperties }: any, indent: string): string {
  const inner = `${indent}  `
  const lines = Object.entries<any>(properties).map(([name, schema]) => {
    const note = schema.description === undefined ? '' : ` <i>// ${prose(schema.description)}</i>`
    return `${inner}${escaped(name)}${required.includes(name) ? '' : '?'}: ${typeOf(schema, inner)}${note}`
  })
  if (additionalProperties === true) lines.push(`${inner}…`)
  return lines.length === 0 ? '{}' : `{\n${lines.join('\n')}\n${indent}}`
}

function escaped (text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;')
}

/** Of Markdown there is code in a line, and nothing else. */
function prose (text: string): string {
  return escaped(text).replaceAll(/`([^`]+)`/g, '<code>$1</code>')
}
