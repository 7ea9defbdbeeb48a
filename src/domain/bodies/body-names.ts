import { badBody, gatewayError } from '../../errors.ts'
import { fold, quoted } from './json.ts'

/** Who asks for a callback makes the upstream post results anywhere, unsigned: a leak, and a way round ownership. */
const callbackNames: ReadonlySet<string> = new Set(['callback_url', 'webhook_url', 'webhook'])

/**
 * Whether an optional field says that it is not asked for: many clients write out what they leave open, as `null`, and an
 * empty callback too.
 */
export function isLeftOpen (name: string, value: unknown): boolean {
  return value === null || (value === '' && callbackNames.has(name))
}

/**
 * Lets a name of one level of a body pass or throws: `GW_CALLBACK_DENIED`, or `GW_BAD_REQUEST` for one that is not
 * known, or only folds to one that is. `at` is where the level stands: empty, or `items.3.`. `extra` are names that the
 * operator lets pass; no name of a callback ever does, unless its `value` says that none is asked for.
 */
export type NameCheck = (name: string, at: string, value: unknown, extra?: ReadonlySet<string>) => void

export function nameCheck (names: readonly string[]): NameCheck {
  const known = new Map([...names, ...callbackNames].map(name => [fold(name), name]))
  return (name, at, value, extra) => {
    const meant = known.get(fold(name))
    if (meant !== undefined && meant !== name) throw badBody(`write ${at}${meant} instead of ${quoted(at + name)}`)
    if (callbackNames.has(name) && !isLeftOpen(name, value)) throw gatewayError('GW_CALLBACK_DENIED', { about: at + name })
    if (meant === undefined && extra?.has(name) !== true) {
      throw badBody(`the field ${quoted(at + name)} is not known; put the model's own fields into input`)
    }
  }
}
