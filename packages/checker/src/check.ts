// The one entry: a history in, violations out. What can be checked depends on what was recorded; a committed log makes all checks exact.

import { type History, txnsOf, type Violation } from './history.ts';
import { checkLinearizability } from './linearizable.ts';
import { checkAgainstLog, checkOrder, checkReads } from './order.ts';
import { type Replay, replay } from './replay.ts';
import { checkSessionRules } from './sessions.ts';
import { checkWatches } from './watches.ts';

export type CheckOptions = {
  /** The history contains every txn of the committed log. */
  readonly hasLog: boolean;
  readonly isSyncQuorum: boolean;
  readonly hasUniqueXids: boolean;
  readonly doEventsCarryZxid: boolean;
  readonly timeoutMsMin: number;
  readonly timeoutMsMax: number;
  /** Bound of the linearizability search per znode; 0 leaves it out. */
  readonly stepsMax: number;
  /** A replay of the same log that the caller has made already. */
  readonly replayed: Replay | null;
};

export const CHECK_OPTIONS_DEFAULT: CheckOptions = {
  hasLog: false,
  isSyncQuorum: true,
  hasUniqueXids: true,
  doEventsCarryZxid: true,
  timeoutMsMin: 0,
  timeoutMsMax: Number.MAX_SAFE_INTEGER,
  stepsMax: 1_000_000,
  replayed: null,
};

export function checkHistory(history: History, given: Partial<CheckOptions> = {}): Violation[] {
  const options = { ...CHECK_OPTIONS_DEFAULT, ...given };
  const replayed = options.replayed ?? (options.hasLog ? replay(history) : null);
  const violations = checkOrder(history, options);
  if (replayed !== null) {
    violations.push(...replayed.violations);
    violations.push(...checkAgainstLog(history, replayed.txns.length > 0 ? replayed.txns : txnsOf(history), options));
    violations.push(...checkReads(history, replayed));
  }
  violations.push(...checkSessionRules(history, replayed, options));
  violations.push(...checkWatches(history, replayed, options));
  if (options.stepsMax > 0) violations.push(...checkLinearizability(history, options.stepsMax).violations);
  return violations;
}
