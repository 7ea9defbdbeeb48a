/** A value, or the promise of one: what is known at once has nothing to wait for. */
export type Awaitable<Value> = Value | Promise<Value>

/** Goes on with a value, at once when it is there. What `next` throws then is thrown at once too. */
export function after<Value, Next> (
  value: Awaitable<Value>, next: (value: Value) => Awaitable<Next>
): Awaitable<Next> {
  return value instanceof Promise ? value.then(next) : next(value)
}
