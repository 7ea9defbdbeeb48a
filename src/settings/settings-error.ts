/** One thing that is wrong with the settings. No text in it ever holds the value of a secret. */
export interface SettingsProblem {
  /** An environment variable, or a key path of the config file such as `plans.default.models`. */
  readonly setting: string
  /** `environment`, or the path of a file, for the config file with the line: `/app/config/gateway.yaml:12`. */
  readonly source: string
  readonly problem: string
  readonly expected: string
}

/** The settings can not be used. Holds every problem at once, so that an operator corrects them in one go. */
export class SettingsError extends Error {
  readonly code = 'GW_SETTINGS'
  readonly problems: readonly SettingsProblem[]

  constructor (problems: readonly SettingsProblem[]) {
    super([
      `${problems.length === 1 ? 'One setting is' : `${problems.length} settings are`} wrong:`,
      ...problems.map(({ setting, source, problem, expected }) =>
        `- ${setting} (${source}): ${problem}; expected: ${expected}`)
    ].join('\n'))
    this.name = 'SettingsError'
    this.problems = problems
  }
}

/** Thrown by the parser of one value, which knows neither the name of its setting nor where the text came from. */
export class Refusal extends Error {
  readonly expected: string | undefined

  constructor (problem: string, expected?: string) {
    super(problem)
    this.expected = expected
  }
}

/** Shows a value that is no secret: short, on one line, without control characters and without what may be a secret. */
export function shown (text: string): string {
  const line = JSON.stringify(maskedUrl(text).replace(/^\w+:(?!\/\/).*@/s, '***@'))
  return line.length > 80 ? `${line.slice(0, 79)}…` : line
}

/** Hides the credentials of a URL, also those with a slash in them, which no parser takes for any, and its query. */
export function maskedUrl (text: string): string {
  return text
    .replace(/\/\/.*@/s, '//***@')
    .replace(/(:\/\/[^?#]*[?#]).+$/s, '$1***')
    .replace(/([?&][^=&\s]*=)[^&\s*]+/g, '$1***')
}
