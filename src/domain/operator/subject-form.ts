import { badRequest } from '../../errors.ts'

/** An issuer's name and the subject's own, without what no store and no terminal should have to show. */
const storedSubject = /^(?=.{3,160}$)[^:\p{Cc}\p{Cs}]+:[^\p{Cc}\p{Cs}]+$/u

/** Throws `GW_BAD_REQUEST` for a subject that does not have its stored form, and says what was probably meant. */
export function checkSubject (subject: string): void {
  if (storedSubject.test(subject)) return
  // `alice` is most likely the app's own.
  const meant = storedSubject.test(`app:${subject}`) && !subject.includes(':') ? `app:${subject}` : 'app:alice'
  throw badRequest(`subject must have its stored form, issuer and name: ${meant}.`)
}
