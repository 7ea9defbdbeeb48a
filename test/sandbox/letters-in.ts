import font from 'oled-font-5x7'
import { PNG } from 'pngjs'

const letters = new Map(font.lookup.map((letter, index) =>
  [font.fontData.slice(index * font.width, (index + 1) * font.width).join(), letter]))

/** Reads the white letters of a picture back, as a person would: every line of this scale that starts at `left`. */
export function lettersIn (bytes: Buffer, scale: number, left = 40): string[] {
  const { width, height, data } = PNG.sync.read(bytes)
  const white = Array.from({ length: width * height }, (_, at) => data.readUInt32BE(at * 4) >>> 8 === 0xFFFFFF)
  const columnAt = (x: number, top: number): number => {
    let bits = 0
    for (let row = 0; row < font.height; row++) {
      if (white[(top + row * scale) * width + x]) bits |= 1 << row
    }
    return bits
  }
  const letterAt = (x: number, top: number): string | undefined =>
    letters.get(Array.from({ length: font.width }, (_, column) => columnAt(x + column * scale, top)).join())
  const lineAt = (top: number): string => {
    let line = ''
    for (let x = left; x + font.width * scale <= width; x += (font.width + 1) * scale) {
      const letter = letterAt(x, top)
      if (letter === undefined) return ''
      line += letter
    }
    return line.trimEnd()
  }
  const lines: string[] = []
  for (let top = 0; top < height; top++) {
    const line = lineAt(top)
    if (!line) continue
    lines.push(line)
    top += font.height * scale
  }
  return lines
}
