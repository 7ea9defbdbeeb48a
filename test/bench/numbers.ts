/** The middle value; of an even number of values the mean of the two in the middle. Throws on none. */
export function median (values: readonly number[]): number {
  if (values.length === 0) throw new RangeError('no values')
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
}

/** The value below which this share of them lies (nearest rank). Expects ascending order; throws on none. */
export function percentile (ascending: ArrayLike<number>, share: number): number {
  if (ascending.length === 0) throw new RangeError('no values')
  const rank = Math.ceil(share * ascending.length)
  return ascending[Math.min(Math.max(rank, 1), ascending.length) - 1]!
}

/** How many times b is a: rounds are divided before their median is taken, so that what slowed both cancels out. */
export function medianRatio (a: readonly number[], b: readonly number[]): number {
  if (a.length !== b.length) throw new RangeError('rounds do not pair')
  return median(a.map((value, round) => value / b[round]!))
}

/** The total of a process's processor time, user and system, in clock ticks: fields 14 and 15 of proc_pid_stat(5). */
export function processorTicks (stat: string): number {
  // The second field is the command in brackets, and may hold spaces and brackets itself: count from the last one.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return Number(fields[11]) + Number(fields[12])
}

/** What a thread has run, user and system: the first field of /proc/<pid>/task/<tid>/schedstat, in nanoseconds. */
export function scheduledNanos (schedstat: string): number {
  return Number(schedstat.split(' ', 1)[0])
}

/** The least and the most of them. Throws on none. */
export function range (values: readonly number[]): readonly [least: number, most: number] {
  if (values.length === 0) throw new RangeError('no values')
  return [Math.min(...values), Math.max(...values)]
}

/** Lines of text in columns: the first to the left, numbers to the right. */
export function table (head: readonly string[], rows: ReadonlyArray<readonly string[]>): string {
  const widths = head.map((_, column) => Math.max(...[head, ...rows].map(row => (row[column] ?? '').length)))
  const line = (row: readonly string[]) =>
    widths
      .map((width, column) => (column === 0 ? (row[0] ?? '').padEnd(width) : (row[column] ?? '').padStart(width)))
      .join('  ')
      .trimEnd()
  return [line(head), widths.map(width => '-'.repeat(width)).join('  '), ...rows.map(line)].join('\n')
}
