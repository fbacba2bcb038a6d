// The leader's view of sessions: when each expires, and which attachment owns it.
// It counts its own milliseconds, fed by the driver's ticks, so that a stall of this process or a time without a leader is never
// held against a session (reliability programme S1, R-071, R-105). Expiry is in buckets of one tick: never early, up to a tick late.

import { assert, type ServerId, type SessionId } from '@quorate/protocol';

type Tracked = {
  timeoutMs: number;
  /** Start of the bucket in which it expires, in tracker milliseconds. */
  deadlineMs: number;
  owner: ServerId | -1;
  attachment: bigint;
  isClosing: boolean;
};

export class SessionTracker {
  readonly #bucketMs: number;
  readonly #sessions = new Map<SessionId, Tracked>();
  readonly #buckets = new Map<number, Set<SessionId>>();
  #nowMs = 0;
  #nextBucketMs: number;
  #attachments = 0n;

  constructor(bucketMs: number) {
    assert(bucketMs > 0, 'a bucket has a length');
    this.#bucketMs = bucketMs;
    this.#nextBucketMs = bucketMs;
  }

  get size(): number {
    return this.#sessions.size;
  }

  /** Starts to track, with a full timeout from now. Tracking a session twice only moves its deadline. */
  add(id: SessionId, timeoutMs: number, owner: ServerId | -1, attachment: bigint): void {
    const known = this.#sessions.get(id);
    if (known !== undefined) {
      known.timeoutMs = timeoutMs;
      if (attachment > known.attachment) {
        known.owner = owner;
        known.attachment = attachment;
      }
      this.#move(id, known);
      return;
    }
    const tracked: Tracked = { timeoutMs, deadlineMs: -1, owner, attachment, isClosing: false };
    this.#sessions.set(id, tracked);
    this.#move(id, tracked);
  }

  remove(id: SessionId): void {
    const tracked = this.#sessions.get(id);
    if (tracked === undefined) return;
    this.#sessions.delete(id);
    this.#leaveBucket(id, tracked.deadlineMs);
  }

  /** The session was heard of. False: it is not tracked. */
  touch(id: SessionId): boolean {
    const tracked = this.#sessions.get(id);
    if (tracked === undefined) return false;
    this.#move(id, tracked);
    return true;
  }

  /** A close of this session has been decided: it can neither be touched nor re-attached any more. */
  markClosing(id: SessionId): void {
    const tracked = this.#sessions.get(id);
    if (tracked === undefined || tracked.isClosing) return;
    this.#leaveBucket(id, tracked.deadlineMs);
    tracked.deadlineMs = -1;
    tracked.isClosing = true;
  }

  /** Whether a request of this attachment may be decided. A newer attachment takes over; an older one has been moved. */
  admits(id: SessionId, owner: ServerId, attachment: bigint): boolean {
    const tracked = this.#sessions.get(id);
    if (tracked === undefined) return true;
    if (attachment < tracked.attachment) return false;
    tracked.owner = owner;
    tracked.attachment = attachment;
    this.#move(id, tracked);
    return true;
  }

  /**
   * A client re-attaches through `owner`. Returns the new attachment, greater than every earlier one of any leader, and who
   * owned the session before (-1: nobody known); or null if the session is not tracked or is being closed.
   */
  reattach(
    id: SessionId,
    owner: ServerId,
    timeoutMs: number,
    epoch: number,
  ): { readonly attachment: bigint; readonly previousOwner: ServerId | -1 } | null {
    const tracked = this.#sessions.get(id);
    if (tracked === undefined || tracked.isClosing) return null;
    const previousOwner = tracked.owner;
    this.#attachments += 1n;
    tracked.attachment = firstAttachment(epoch) + this.#attachments;
    tracked.owner = owner;
    tracked.timeoutMs = timeoutMs;
    this.#move(id, tracked);
    return { attachment: tracked.attachment, previousOwner };
  }

  /** Advances the tracker's own clock and returns the sessions whose time is over; each is returned once and stays tracked until removed. */
  advance(elapsedMs: number): SessionId[] {
    assert(elapsedMs >= 0, 'the tracker runs forward');
    this.#nowMs += elapsedMs;
    const expired: SessionId[] = [];
    while (this.#nextBucketMs <= this.#nowMs) {
      const bucket = this.#buckets.get(this.#nextBucketMs);
      if (bucket !== undefined) {
        this.#buckets.delete(this.#nextBucketMs);
        for (const id of bucket) {
          const tracked = this.#sessions.get(id);
          assert(
            tracked !== undefined && tracked.deadlineMs === this.#nextBucketMs,
            'a bucket holds what expires in it',
          );
          tracked.deadlineMs = -1;
          tracked.isClosing = true;
          expired.push(id);
        }
      }
      this.#nextBucketMs += this.#bucketMs;
    }
    return expired;
  }

  /** A new leader gives every session its full timeout. */
  clear(): void {
    this.#sessions.clear();
    this.#buckets.clear();
  }

  #move(id: SessionId, tracked: Tracked): void {
    const deadlineMs = (Math.floor((this.#nowMs + tracked.timeoutMs) / this.#bucketMs) + 1) * this.#bucketMs;
    if (deadlineMs === tracked.deadlineMs) return;
    // Expired: the close is on its way, a late sign of life does not bring the session back.
    if (tracked.isClosing) return;
    this.#leaveBucket(id, tracked.deadlineMs);
    tracked.deadlineMs = deadlineMs;
    let bucket = this.#buckets.get(deadlineMs);
    if (bucket === undefined) {
      bucket = new Set();
      this.#buckets.set(deadlineMs, bucket);
    }
    bucket.add(id);
  }

  #leaveBucket(id: SessionId, deadlineMs: number): void {
    const bucket = this.#buckets.get(deadlineMs);
    if (bucket === undefined) return;
    bucket.delete(id);
    if (bucket.size === 0) this.#buckets.delete(deadlineMs);
  }
}

/** The attachment of the connection that created a session in `epoch`; re-attachments in the same epoch are greater. */
export function firstAttachment(epoch: number): bigint {
  return BigInt(epoch) << 40n;
}
