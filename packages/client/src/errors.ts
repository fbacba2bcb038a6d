// What a rejected promise carries. Programs compare `code`, people read `message`.
// Flat on purpose: a MultiError is thrown only when the ensemble answered and one operation failed; a lost connection is a ZkError also there.

import { type ErrorName, errorNameOf } from '@quorate/protocol';

/** One clause per error that a caller of this client can see. README.md holds the same list with what to do. */
const EXPLANATIONS: Partial<Record<ErrorName, string>> = {
  noNode: 'does not exist',
  nodeExists: 'already exists',
  notEmpty: 'has children',
  badVersion: 'has another version',
  noAuth: 'may not be accessed with the credentials of this session',
  noChildrenForEphemerals: 'cannot have children: its parent is ephemeral',
  invalidAcl: 'was given an ACL that is empty or names nobody',
  noWatcher: 'has no such watch',
  badArguments: 'was refused as not valid',
  quotaExceeded: 'would exceed its quota',
  notReadOnly: 'cannot be written: this server is read-only while it has no quorum',
};

export class ZkError extends Error {
  readonly code: ErrorName;
  readonly path: string | undefined;

  constructor(code: ErrorName, message: string, options?: ErrorOptions & { readonly path?: string | undefined }) {
    super(message, options);
    this.name = 'ZkError';
    this.code = code;
    this.path = options?.path;
  }
}

/** The error for an answer of the ensemble: `noNode: /a does not exist`. */
export function answeredError(code: number, path: string | undefined): ZkError {
  const name = errorNameOf(code) ?? 'systemError';
  const explanation = EXPLANATIONS[name];
  let text = `the server answered ${code}`;
  if (path !== undefined) text = explanation === undefined ? `${text} for ${path}` : `${path} ${explanation}`;
  return new ZkError(name, `${name}: ${text}`, { path });
}

/** A multi of which one operation failed: nothing of it took place. */
export class MultiError extends Error {
  readonly code: ErrorName;
  /** The position of the operation that failed. */
  readonly index: number;
  readonly path: string | undefined;

  constructor(code: number, index: number, path: string | undefined) {
    const cause = answeredError(code, path);
    super(`operation ${index} of the multi failed: ${cause.message}`, { cause });
    this.name = 'MultiError';
    this.code = cause.code;
    this.index = index;
    this.path = path;
  }
}

/** Ends the iteration of a persistent watch whose reader was too slow: what happened after the last event read is not known. */
export class WatchOverflowError extends Error {
  readonly path: string;
  readonly eventsMax: number;

  constructor(path: string, eventsMax: number) {
    super(`the watch on ${path} was dropped: more than ${eventsMax} events waited to be read`);
    this.name = 'WatchOverflowError';
    this.path = path;
    this.eventsMax = eventsMax;
  }
}
