// Which zxids the log holds above its base, in order, and how many bytes lie behind each: what truncation, purging and
// logBytes() need without asking LevelDB. Plain typed arrays, 16 bytes per record. It describes the log as it will be when
// all that is queued is written; it never says that anything is durable.

import { assert } from '@quorate/protocol/assert';
import { type Zxid, zxidFrom } from '@quorate/protocol/zxid';

const INITIAL_CAPACITY = 1024;

export class LogIndex {
  #zxids = new BigUint64Array(INITIAL_CAPACITY);
  /** Sum of the bytes of all records ever pushed, up to and including this one. */
  #ends = new Float64Array(INITIAL_CAPACITY);
  #first = 0;
  #end = 0;
  #base: Zxid;
  #pushedBytes = 0;
  /** The sum as it was before the record at array position 0. */
  #bytesBeforeArray = 0;

  constructor(base: Zxid) {
    this.#base = base;
  }

  get base(): Zxid {
    return this.#base;
  }

  get count(): number {
    return this.#end - this.#first;
  }

  get tail(): Zxid {
    return this.#end === this.#first ? this.#base : this.#at(this.#end - 1);
  }

  push(zxid: Zxid, bytes: number): void {
    assert(zxid > this.tail, 'records are pushed in the order of their zxids');
    if (this.#end === this.#zxids.length) this.#makeRoom();
    this.#pushedBytes += bytes;
    this.#zxids[this.#end] = zxid;
    this.#ends[this.#end] = this.#pushedBytes;
    this.#end++;
  }

  /** True for every record and for the base itself. */
  has(zxid: Zxid): boolean {
    if (zxid === this.#base) return true;
    const at = this.#above(zxid) - 1;
    return at >= this.#first && this.#at(at) === zxid;
  }

  /** The newest record at or below `zxid`, else the base. */
  floor(zxid: Zxid): Zxid {
    const at = this.#above(zxid) - 1;
    return at >= this.#first ? this.#at(at) : this.#base;
  }

  /** Forgets all above `zxid` and answers with what it forgot, ascending. */
  truncateAfter(zxid: Zxid): Zxid[] {
    assert(this.has(zxid), 'a log is truncated to a record it holds, or to its base');
    const from = this.#above(zxid);
    const removed: Zxid[] = [];
    for (let at = from; at < this.#end; at++) removed.push(this.#at(at));
    this.#end = from;
    this.#pushedBytes = from === 0 ? this.#bytesBeforeArray : (this.#ends[from - 1] ?? 0);
    return removed;
  }

  /** The head moves up: records at or below `zxid` are dead. */
  advanceBase(zxid: Zxid): void {
    assert(this.has(zxid), 'the base moves to a record that the log holds');
    this.#first = this.#above(zxid);
    this.#base = zxid;
  }

  /** A new generation, empty. */
  reset(base: Zxid): void {
    this.#first = 0;
    this.#end = 0;
    this.#base = base;
    this.#bytesBeforeArray = this.#pushedBytes;
  }

  bytesAfter(zxid: Zxid): number {
    const from = this.#above(zxid);
    return this.#pushedBytes - (from === 0 ? this.#bytesBeforeArray : (this.#ends[from - 1] ?? 0));
  }

  #at(position: number): Zxid {
    const value = this.#zxids[position];
    assert(value !== undefined, 'the position is inside the index');
    return zxidFrom(value);
  }

  /** Position of the first record above `zxid`. */
  #above(zxid: Zxid): number {
    let low = this.#first;
    let high = this.#end;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#at(middle) <= zxid) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** Moves the live part to the front, into arrays twice its size when it is more than half of them. */
  #makeRoom(): void {
    const live = this.count;
    const capacity = Math.max(
      INITIAL_CAPACITY,
      live * 2 > this.#zxids.length ? this.#zxids.length * 2 : this.#zxids.length,
    );
    const zxids = new BigUint64Array(capacity);
    const ends = new Float64Array(capacity);
    zxids.set(this.#zxids.subarray(this.#first, this.#end));
    ends.set(this.#ends.subarray(this.#first, this.#end));
    if (this.#first > 0) this.#bytesBeforeArray = this.#ends[this.#first - 1] ?? 0;
    this.#zxids = zxids;
    this.#ends = ends;
    this.#first = 0;
    this.#end = live;
  }
}

export function earlier(one: Zxid, other: Zxid): Zxid {
  if (one < other) return one;
  return other;
}

export function later(one: Zxid, other: Zxid): Zxid {
  if (one > other) return one;
  return other;
}
