// Counting voters: what a majority is, which stores may stand in it, and how far a quorum has come.
// Must never see an observer or a store that may not vote: callers count only what counts.

import { assert } from '@quorate/protocol/assert';
import type { StoreKind } from './messages.ts';

/** More than half, so that any two quorums share a voter. */
export function majorityOf(voterCount: number): number {
  return (voterCount >> 1) + 1;
}

/**
 * The highest value that at least `need` of the values have reached. Sorts `values` in place: callers give a scratch array,
 * because this runs once per acknowledgement. Ensembles are small, so insertion beats anything clever.
 */
export function highestReachedBy<T extends number | bigint>(values: T[], need: number): T {
  assert(need >= 1, 'a quorum has at least one member');
  assert(need <= values.length, 'a quorum is not larger than the ensemble');
  for (let i = 1; i < values.length; i += 1) {
    const value = values[i];
    if (value === undefined) continue;
    let j = i - 1;
    for (let before = values[j]; j >= 0 && before !== undefined && before < value; before = values[j]) {
      values[j + 1] = before;
      j -= 1;
    }
    values[j + 1] = value;
  }
  const reached = values[need - 1];
  assert(reached !== undefined, 'the sorted values have no hole');
  return reached;
}

/**
 * Voters that agree on something while an epoch is being established, by the kind of their store.
 *
 * Why the kind matters (reliability programme 3.6): a server whose disk was wiped has forgotten what it acknowledged. Three
 * servers, a record committed on A and B, B wiped, A down: B and C must not form a quorum, or the record is gone. A blank store
 * looks exactly like that of a new ensemble, so blank stores count only when every voter is there to say that it holds no
 * record either. A formed store (identity, no record) is trustworthy: had it acknowledged a record it would be used.
 */
export class Tally {
  #usedCount = 0;
  #formedCount = 0;
  #blankCount = 0;

  add(store: StoreKind): void {
    if (store === 'used') this.#usedCount += 1;
    else if (store === 'formed') this.#formedCount += 1;
    else if (store === 'blank') this.#blankCount += 1;
  }

  /** A majority of stores that can be trusted: the ordinary quorum. */
  isMajority(voterCount: number): boolean {
    return this.#usedCount + this.#formedCount >= majorityOf(voterCount);
  }

  /** Every voter is there and none holds a record: the quorum that forms a new ensemble. */
  isFormation(voterCount: number): boolean {
    return this.#usedCount === 0 && this.#formedCount + this.#blankCount === voterCount;
  }

  /** `own`: the store of the server that counts. A blank one is never part of an ordinary quorum. */
  suffices(voterCount: number, own: StoreKind): boolean {
    return (own !== 'blank' && this.isMajority(voterCount)) || this.isFormation(voterCount);
  }
}
