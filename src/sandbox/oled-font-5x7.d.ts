/** The package ships no types: five columns a character, one byte a column, its lowest bit the topmost dot. */
declare module 'oled-font-5x7' {
  const font: {
    readonly width: number
    readonly height: number
    readonly fontData: readonly number[]
    readonly lookup: readonly string[]
  }
  export default font
}
