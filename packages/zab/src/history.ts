// The tail of the log in memory, durable or on its way to the disk, and how a learner's log is brought in line with it.
// It is what this server's log will be once every write in flight is done. Must never drop an entry that is not committed.

import { assert } from '@quorate/protocol/assert';
import type { Zxid } from '@quorate/protocol/zxid';
import type { Entry } from './messages.ts';

/** How a learner with a given last zxid is synchronised: keep its log up to `keep`, or replace it by a snapshot. */
export type SyncPlan = { readonly mode: 'diff' | 'trunc'; readonly keep: Zxid } | { readonly mode: 'snapshot' };

/** The array is compacted when at least so many dropped entries lead it, and they are half of it. */
const COMPACT_COUNT_MIN = 1024;

export class History {
  /** Zxid just before the first entry held. */
  #base: Zxid;
  /** Entries from index #head on are held; those before it were dropped and wait for compaction. */
  #entries: Entry[] = [];
  #head = 0;
  #last: Zxid;
  #bytes = 0;

  constructor(base: Zxid) {
    this.#base = base;
    this.#last = base;
  }

  get base(): Zxid {
    return this.#base;
  }

  get last(): Zxid {
    return this.#last;
  }

  get count(): number {
    return this.#entries.length - this.#head;
  }

  get bytes(): number {
    return this.#bytes;
  }

  append(entry: Entry): void {
    assert(entry.prev === this.#last, 'an entry follows the last one', entry);
    assert(entry.zxid > this.#last, 'zxids grow along the log', entry);
    this.#entries.push(entry);
    this.#last = entry.zxid;
    this.#bytes += entry.txn.length;
  }

  /** The base or an entry of the window. */
  has(zxid: Zxid): boolean {
    if (zxid === this.#base || zxid === this.#last) return true;
    const index = this.#firstAfter(zxid) - 1;
    return index >= this.#head && this.#entries[index]?.zxid === zxid;
  }

  /** Removes what is behind `keep`, which must be held. */
  truncateAfter(keep: Zxid): void {
    assert(this.has(keep), 'a truncation keeps a record of this log', keep);
    const from = this.#firstAfter(keep);
    for (let i = from; i < this.#entries.length; i += 1) this.#bytes -= this.#entries[i]?.txn.length ?? 0;
    this.#entries.length = from;
    this.#last = keep;
  }

  /** Everything before is replaced by a snapshot at `base`. */
  reset(base: Zxid): void {
    this.#base = base;
    this.#last = base;
    this.#entries = [];
    this.#head = 0;
    this.#bytes = 0;
  }

  /** The zxid held just before `zxid`, which is in the window and not its base. */
  before(zxid: Zxid): Zxid {
    return this.#entries[this.#firstAfter(zxid) - 1]?.prev ?? this.#base;
  }

  /** The zxid held just behind `zxid`, or `zxid` itself at the end. */
  after(zxid: Zxid): Zxid {
    return this.#entries[this.#firstAfter(zxid)]?.zxid ?? zxid;
  }

  /** Entries with `after` < zxid <= `upTo`. */
  between(after: Zxid, upTo: Zxid): Entry[] {
    assert(after >= this.#base, 'what is asked for lies in the window', after);
    const from = this.#firstAfter(after);
    // The usual case, one or a few entries at the end, needs no second search.
    const to = upTo >= this.#last ? this.#entries.length : this.#firstAfter(upTo);
    return this.#entries.slice(from, to);
  }

  /**
   * ZOOKEEPER-1154: a zxid may lie inside the range of a log and not be in it (a proposal that only its holder knows, from an
   * epoch whose successor went on without it). DIFF is right only for a zxid that is really here; anything else is cut back to
   * the largest zxid below it. Whether the learner holds that one it finds out itself: if not, it asks for a snapshot.
   */
  planFor(learnerLast: Zxid): SyncPlan {
    if (learnerLast < this.#base) return { mode: 'snapshot' };
    if (this.has(learnerLast)) return { mode: 'diff', keep: learnerLast };
    const index = this.#firstAfter(learnerLast) - 1;
    const below = index >= this.#head ? this.#entries[index]?.zxid : undefined;
    return { mode: 'trunc', keep: below ?? this.#base };
  }

  /** Drops entries up to `limit` as long as there are more than the limits allow. */
  trim(limit: Zxid, countMax: number, bytesMax: number): void {
    let first = this.#entries[this.#head];
    while (first !== undefined && first.zxid <= limit && (this.count > countMax || this.#bytes > bytesMax)) {
      this.#base = first.zxid;
      this.#bytes -= first.txn.length;
      this.#head += 1;
      first = this.#entries[this.#head];
    }
    // Dropped entries keep their bytes alive until here; moving the rest is paid for by the entries dropped since the last time.
    if (this.#head >= COMPACT_COUNT_MIN && this.#head * 2 >= this.#entries.length) {
      this.#entries = this.#entries.slice(this.#head);
      this.#head = 0;
    }
  }

  /** Walks the whole window; for tests and the simulator. */
  checkInvariants(): void {
    let prev = this.#base;
    let bytes = 0;
    for (let i = this.#head; i < this.#entries.length; i += 1) {
      const entry = this.#entries[i];
      assert(entry !== undefined, 'the window has no hole');
      assert(entry.prev === prev, 'each entry names the one before it', entry);
      assert(entry.zxid > prev, 'zxids grow along the window', entry);
      prev = entry.zxid;
      bytes += entry.txn.length;
    }
    assert(prev === this.#last, 'the last zxid is that of the last entry');
    assert(bytes === this.#bytes, 'the bytes of the window are counted');
  }

  /** Index of the first held entry above `zxid`. Searched from the end first: most questions are about the newest entries. */
  #firstAfter(zxid: Zxid): number {
    let low = this.#head;
    let high = this.#entries.length;
    if (zxid >= this.#last) return high;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const entry = this.#entries[middle];
      if (entry !== undefined && entry.zxid <= zxid) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
