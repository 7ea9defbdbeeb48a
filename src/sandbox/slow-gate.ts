/** Where slow answers wait. */
export interface SlowGate {
  /** How many wait. */
  readonly waiting: number
  hold (goOn: () => void): void
  /** Lets all go on. */
  release (): void
}

export function slowGate (): SlowGate {
  const held: Array<() => void> = []
  return {
    get waiting () { return held.length },
    hold (goOn) {
      held.push(goOn)
    },
    release () {
      for (const goOn of held.splice(0)) goOn()
    }
  }
}
