// Assertions stay on in production: a wrong coordinator is worse than none.
// A broken one throws AssertionError; the server's driver turns that into an orderly end of the process.

export class AssertionError extends Error {
  readonly detail: unknown;
  constructor(message: string, detail?: unknown) {
    super(message);
    this.name = 'AssertionError';
    this.detail = detail;
  }
}

/** `message` is a constant string that says what must hold; numbers go into `detail`, which is only read on failure. */
export function assert(condition: boolean, message: string, detail?: unknown): asserts condition {
  if (!condition) throw new AssertionError(message, detail);
}

/** For the `default:` of an exhaustive switch: a new variant fails to compile here. */
export function unreachable(value: never): never {
  throw new AssertionError('this variant does not exist', value);
}
