import { createHash } from 'node:crypto'
import font from 'oled-font-5x7'
import { PNG } from 'pngjs'

/** Dots from one letter to the next, and from one line to the next, at scale 1. */
const letterWidth = font.width + 1
const lineHeight = font.height + 3

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
function eachDot (line: string, dot: (x: number, y: number) => void): void {
  Array.from(line, (letter, place) => columnsOf.get(letter)!.forEach((column, x) => {
    for (let y = 0; y < font.height; y++) {
      if ((column >> y) & 1) dot(place * letterWidth + x, y)
    }
  }))
}

type Colour = readonly [red: number, green: number, blue: number]

const side = 512
const margin = 40
/** The lowest strip belongs to the model's name. */
const footer = 44
const smallest = 2
const largest = 7

/** Hue in degrees, saturation and lightness from 0 to 1 (CSS Color 4 section 7.1). */
function hsl (hue: number, saturation: number, lightness: number): Colour {
  const spread = saturation * Math.min(lightness, 1 - lightness)
  const channel = (n: number): number => {
    const k = (n + hue / 30) % 12
    return 255 * (lightness - spread * Math.max(-1, Math.min(k - 3, 9 - k, 1)))
  }
  return [channel(0), channel(8), channel(4)]
}

/** Lays a grey over one dot; `opacity` from 0 to 1. */
function blend (png: PNG, x: number, y: number, grey: number, opacity: number): void {
  const at = (y * side + x) * 4
  for (let n = at; n < at + 3; n++) png.data[n] = grey * opacity + png.data[n]! * (1 - opacity)
}

/**
 * A slanted gradient of two neighbouring hues, dark enough for white letters to stand out. The hues run from green over
 * blue to orange: between yellow and green a dark gradient looks like mud.
 */
function paintGradient (png: PNG, hash: Buffer): void {
  const hue = 190 + hash.readUInt16BE(0) % 160
  const from = hsl(hue, 0.6, 0.5)
  const to = hsl(hue - 50 + hash[2]! % 101, 0.6, 0.27)
  for (let at = 0; at < png.data.length; at += 4) {
    const dot = at / 4
    const share = (dot % side * 0.4 + dot / side) / (side * 1.4)
    for (let n = 0; n < 3; n++) png.data[at + n] = from[n]! + (to[n]! - from[n]!) * share
    png.data[at + 3] = 255
  }
}

/** A pale disc, its place and size taken from three bytes of the hash. */
function paintDisc (png: PNG, [left, top, size]: Buffer): void {
  const [x0, y0, radius] = [left! * 2, top! * 2, 70 + size! / 2]
  for (let y = Math.max(0, Math.ceil(y0 - radius)); y < Math.min(side, y0 + radius); y++) {
    for (let x = Math.max(0, Math.ceil(x0 - radius)); x < Math.min(side, x0 + radius); x++) {
      // One dot of softness, or the rim looks like a saw.
      blend(png, x, y, 255, 0.1 * Math.max(0, Math.min(1, radius - Math.hypot(x - x0, y - y0))))
    }
  }
}

/** The top left corner of a line of letters, and how many dots of the picture one dot of the font is wide. */
interface Place {
  readonly left: number
  readonly top: number
  readonly scale: number
}

function drawLine (png: PNG, line: string, place: Place, grey: number, opacity: number): void {
  const { left, top, scale } = place
  eachDot(line, (dotX, dotY) => {
    for (let n = 0; n < scale * scale; n++) {
      blend(png, left + dotX * scale + n % scale, top + dotY * scale + Math.floor(n / scale), grey, opacity)
    }
  })
}

/** White letters over their own shadow. */
function drawText (png: PNG, line: string, top: number, scale: number): void {
  const shadow = Math.ceil(scale / 3)
  drawLine(png, line, { left: margin + shadow, top: top + shadow, scale }, 0, 0.35)
  drawLine(png, line, { left: margin, top, scale }, 255, 1)
}

/** The largest letters in which the text fits without breaking a word; the smallest ones cut what is too long. */
function fit (text: string): { readonly lines: readonly string[], readonly scale: number } {
  for (let scale = largest; ; scale--) {
    const columns = Math.floor((side - 2 * margin) / (letterWidth * scale))
    const rows = Math.floor((side - 2 * margin - footer) / (lineHeight * scale))
    const lines = wrap(text, columns)
    const whole = text.split(' ').every((word) => word.length <= columns)
    if (whole && lines.length <= rows) return { lines, scale }
    if (scale === smallest) {
      const cut = lines.length > rows ? [...lines.slice(0, rows - 1), '...'] : lines
      return { lines: cut, scale }
    }
  }
}

/**
 * Draws the result of a task: a PNG of 512 x 512 dots whose colours come from a hash of the prompt and `index`, with
 * the prompt in large letters and the model's name in small ones. The same arguments give the same bytes. A video or
 * audio model gets a picture too: the sandbox makes nothing else.
 */
export function picture (prompt: string, model: string, index: number): Buffer {
  const png = new PNG({ width: side, height: side })
  const hash = createHash('sha256').update(`${index} ${prompt}`).digest()
  paintGradient(png, hash)
  paintDisc(png, hash.subarray(3, 6))
  paintDisc(png, hash.subarray(6, 9))
  // No more than 700 letters fit; a prompt of a megabyte shall not be wrapped six times to learn that.
  const { lines, scale } = fit(drawable(prompt.slice(0, 2000)))
  const free = side - 2 * margin - footer - lines.length * lineHeight * scale
  lines.forEach((line, row) => drawText(png, line, margin + (free >> 1) + row * lineHeight * scale, scale))
  drawText(png, drawable(model), side - margin - 14, 2)
  // No fourth channel: the picture is opaque. One filter for all rows: trying all five takes longer and saves nothing.
  return PNG.sync.write(png, { colorType: 2, inputHasAlpha: true, filterType: 4 })
}
