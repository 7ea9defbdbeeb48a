import font from 'oled-font-5x7'

/** Dots from one letter to the next, and from one line to the next, at scale 1. */
export const letterWidth = font.width + 1
export const lineHeight = font.height + 3

const columnsOf = new Map(font.lookup.map((letter, index) =>
  [letter, font.fontData.slice(index * font.width, (index + 1) * font.width)]))

/** A hollow box stands for what the font can not draw. It is one code unit, so that lengths are what is drawn. */
const unknown = '\uFFFD'
columnsOf.set(unknown, [0x7F, 0x41, 0x41, 0x41, 0x7F])

/** Letters that come with a pasted text and have a plain cousin in the font. */
const cousins: Readonly<Record<string, string>> =
  { '‘': "'", '’': "'", '“': '"', '”': '"', '–': '-', '—': '-', '~': '-', '…': '.', ß: 's' }

/** The text in letters the font has: accents are dropped, and what is left over becomes a box. */
export function drawable (text: string): string {
  const letters = Array.from(text.normalize('NFC').trim().split(/\s+/).join(' '), (letter) => {
    const candidates = [letter, cousins[letter], letter.normalize('NFD').charAt(0)]
    return candidates.find((candidate) => candidate !== undefined && columnsOf.has(candidate)) ?? unknown
  })
  return letters.join('')
}

/** Breaks a drawable text into lines of at most `columns` letters: at spaces, and within a word longer than a line. */
export function wrap (text: string, columns: number): string[] {
  const pieces = text.split(' ').flatMap((word) => word.match(new RegExp(`.{1,${columns}}`, 'g')) ?? [])
  const lines: string[] = []
  for (const piece of pieces) {
    const joined = `${lines.at(-1)} ${piece}`
    if (lines.length > 0 && joined.length <= columns) lines[lines.length - 1] = joined
    else lines.push(piece)
  }
  return lines
}

/** Calls `dot` with the place of every dot of a drawable line at scale 1, from its top left corner. */
export function eachDot (line: string, dot: (x: number, y: number) => void): void {
  Array.from(line, (letter, place) => columnsOf.get(letter)!.forEach((column, x) => {
    for (let y = 0; y < font.height; y++) {
      if ((column >> y) & 1) dot(place * letterWidth + x, y)
    }
  }))
}
