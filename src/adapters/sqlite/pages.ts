import type { Page } from '../../domain/ledger/records.ts'

/** The row that a cursor or a reservation's name stands for: `null` for none, `NaN`, which no row has, for anything else. */
export function rowAt (name: string): number
export function rowAt (name: string | null): number | null
export function rowAt (name: string | null): number | null {
  if (name === null) return null
  return /^[1-9]\d{0,15}$/.test(name) ? Number(name) : NaN
}

/** A page of rows, of which one more than the page holds was asked for. */
export function pageOf<Row extends { readonly id: number }, Item> (
  rows: readonly Row[], limit: number, itemFrom: (row: Row) => Item
): Page<Item> {
  const shown = rows.slice(0, limit)
  return { items: shown.map(itemFrom), next: rows.length > limit ? String(shown.at(-1)!.id) : null }
}
