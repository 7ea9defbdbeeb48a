/** Each door that a session opens, as a method and a path. */
export const doors = (taskId: string) =>
  [
    ['POST', '/api/v1/generateTask/nano-banana'],
    ['GET', `/api/v1/statusTask/nano-banana?taskId=${taskId}`],
    ['GET', '/api/v1/apikeys/current-balance'],
    ['GET', '/gateway/session'],
    ['DELETE', '/gateway/session'],
    ['POST', '/gateway/sessions/cookie'],
    ['GET', '/gateway/models'],
    ['POST', '/gateway/quote/nano-banana'],
    ['GET', '/gateway/tasks'],
    ['GET', `/gateway/tasks/${taskId}/results/0`],
    ['GET', '/gateway/events'],
    ['GET', `/gateway/tasks/${taskId}/events`]
  ] as const
