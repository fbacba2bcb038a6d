// The one error class of this package. Codes are compared, texts are read by people; README.md has a line for each code.
// Every one of them is final: nothing here is retried, and no store is ever repaired in place.

export type StorageErrorCode =
  | 'STORE_LOCKED'
  | 'STORE_REFUSED'
  | 'STORE_FORMAT'
  | 'STORE_FOREIGN'
  | 'STORE_WRONG_SERVER'
  | 'STORE_ACCESS'
  | 'STORE_WRITE_FAILED'
  | 'STORE_FULL'
  | 'STORE_CLOSED'
  | 'SNAPSHOT_FAILED'
  | 'SNAPSHOT_DAMAGED'
  | 'SNAPSHOT_MISSING'
  | 'SNAPSHOT_ABORTED';

export class StorageError extends Error {
  readonly code: StorageErrorCode;

  constructor(code: StorageErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'StorageError';
    this.code = code;
  }
}

/** The `code` of an Error of Node or LevelDB, looking through its causes for the first that `wanted` knows. */
export function hasCode(error: unknown, wanted: readonly string[]): boolean {
  for (let current: unknown = error; current instanceof Error; current = current.cause) {
    if ('code' in current && typeof current.code === 'string' && wanted.includes(current.code)) return true;
  }
  return false;
}

/** Texts of an error and its causes in one line: LevelDB puts what matters into the cause. */
export function describe(error: unknown): string {
  const parts: string[] = [];
  for (let current: unknown = error; current instanceof Error; current = current.cause) parts.push(current.message);
  return parts.length > 0 ? parts.join(': ') : String(error);
}

/** LevelDB reports a full disk only in words (strerror), Node by code. */
export function isDiskFull(error: unknown): boolean {
  return hasCode(error, ['ENOSPC', 'EDQUOT']) || /no space left|quota exceeded/i.test(describe(error));
}

export function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error));
}
