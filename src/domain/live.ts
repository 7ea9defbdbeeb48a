/** A value that may be another one the next time it is looked at. One that stays is live too: `{ current: value }`. */
export interface Live<Value> {
  readonly current: Value
}

/** What is made of a live value: made once, and anew when that has become another one. */
export function derived<From, To> (live: Live<From>, make: (from: From) => To): Live<To> {
  let from = live.current
  let made = make(from)
  return {
    get current () {
      if (live.current !== from) {
        from = live.current
        made = make(from)
      }
      return made
    }
  }
}
