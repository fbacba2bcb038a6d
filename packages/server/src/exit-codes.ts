// How this process ends, and which error means which end. The README's table is made from this one.

import { AssertionError } from '@quorate/protocol';
import { StorageError } from '@quorate/storage';

export type ExitName =
  | 'ok'
  | 'unexpected'
  | 'badConfiguration'
  | 'dataDirUnusable'
  | 'cannotBind'
  | 'diskError'
  | 'brokenInvariant';

/** ZooKeeper's numbers where it has one; 20 and above are Quorate's. */
export const exitCodes = {
  ok: { code: 0, text: 'stopped in order', action: 'none' },
  unexpected: { code: 1, text: 'an error nobody expected', action: 'restart; report the last log line' },
  badConfiguration: {
    code: 2,
    text: 'a wrong value, an unreadable file, no myid',
    action: 'correct what the line names',
  },
  dataDirUnusable: {
    code: 3,
    text: 'the data folder cannot be used, the store is locked by another process, belongs to another server, or is refused',
    action: 'see the line; a refused store is removed as a whole and the server takes a copy from the ensemble',
  },
  cannotBind: {
    code: 14,
    text: 'the client port or the peer port is taken or no address of this host',
    action: 'free it',
  },
  diskError: {
    code: 20,
    text: 'a write failed or the disk is full: nothing that was not durable was acknowledged',
    action: 'make room or replace the disk, then restart',
  },
  brokenInvariant: {
    code: 21,
    text: 'a broken invariant: a wrong coordinator is worse than none',
    action: 'restart; report the last log line',
  },
} as const satisfies Record<ExitName, { readonly code: number; readonly text: string; readonly action: string }>;

/** The start fails with one readable line. */
export class StartError extends Error {
  readonly exit: ExitName;
  constructor(exit: ExitName, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'StartError';
    this.exit = exit;
  }
}

/** Which end an error of a running server means. */
export function exitOf(error: unknown): ExitName {
  if (error instanceof StartError) return error.exit;
  if (error instanceof AssertionError) return 'brokenInvariant';
  if (error instanceof StorageError) return 'diskError';
  return 'unexpected';
}

export function exitTable(): string {
  const rows = ['| code | meaning | what to do |', '| --- | --- | --- |'];
  for (const { code, text, action } of Object.values(exitCodes)) rows.push(`| ${code} | ${text} | ${action} |`);
  return rows.join('\n');
}
