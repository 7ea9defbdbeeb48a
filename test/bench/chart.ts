/** Bars of one chart. */
export interface Group {
  readonly title: string
  readonly bars: readonly Bar[]
}

export interface Bar {
  readonly name: string
  readonly value: number
  /** Written at its end. */
  readonly label: string
  /** Drawn in colour; the others are grey. */
  readonly isOurs: boolean
}

const width = 720
const nameWidth = 110
const barWidth = 440
const barHeight = 18
const rowHeight = 24
const titleHeight = 40

/**
 * Groups of horizontal bars as SVG, small enough to be read as text. All have one scale. A bar that is far longer
 * than the others is cut, and says so by a gap: it would leave no room to compare those.
 */
export function barChart (groups: readonly Group[]): string {
  const longest = scaleEnd(groups.flatMap(({ bars }) => bars.map(({ value }) => value)))
  const parts: string[] = []
  let y = 0
  for (const { title, bars } of groups) {
    parts.push(`<text class="title" x="0" y="${y + 26}">${escape(title)}</text>`)
    y += titleHeight
    for (const bar of bars) {
      parts.push(...drawn(bar, y, longest))
      y += rowHeight
    }
  }
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${y + 8}" width="${width}" height="${y + 8}">
<style>
  text { font: 13px system-ui, sans-serif; fill: #1f2328 }
  .title { font-weight: 600 }
  rect { fill: #8c959f }
  .ours { fill: #0969da }
  .gap { fill: #ffffff }
  @media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .ours { fill: #4493f8 } .gap { fill: #0d1117 } }
</style>
${parts.join('\n')}
</svg>
`
}

function drawn ({ name, value, label, isOurs }: Bar, y: number, longest: number): string[] {
  const isCut = value > longest
  const length = Math.max(2, Math.round(Math.min(value / longest, 1) * barWidth))
  const text = y + barHeight - 5
  return [
    `<text x="${nameWidth - 8}" y="${text}" text-anchor="end">${escape(name)}</text>`,
    `<rect ${isOurs ? 'class="ours" ' : ''}x="${nameWidth}" y="${y}" width="${length}" height="${barHeight}"/>`,
    ...isCut ? [`<rect class="gap" x="${nameWidth + length - 24}" y="${y}" width="6" height="${barHeight}"/>`] : [],
    `<text x="${nameWidth + length + 8}" y="${text}">${escape(label)}</text>`
  ]
}

/** The longest bar that is no more than twice as long as the next one; those beyond it are cut to its length. */
function scaleEnd (values: readonly number[]): number {
  const descending = values.toSorted((a, b) => b - a)
  return descending.find((value, index) => value <= 2 * (descending[index + 1] ?? value)) ?? 1
}

function escape (text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;')
}
