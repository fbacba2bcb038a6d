// A disk that forgets what was not yet durable. The platter outlives processes; a SimDisk is one process's handle on it.
// Writes are answered in order; groups that arrive while one batch is in flight become the next batch; a crash keeps the
// durable prefix and, by coin, the batch in flight as a whole. It never answers after its process died.

import { assert } from '@quorate/protocol/assert';
import type { Zxid } from '@quorate/protocol/zxid';
import { NO_ZXID, serverIdFrom } from '@quorate/protocol/zxid';
import type {
  Disk,
  DiskWrite,
  Done,
  LogEntry,
  RestoredStore,
  SnapshotReader,
  SnapshotWriter,
  StoredEpochs,
} from '@quorate/storage/disk';
import type { Random } from './random.ts';

const LATENCY_US_MAX = 3_000_000;

export type DiskProfile = {
  /** Mean of one batch's latency, microseconds. */
  readonly latencyUs: number;
  /** Probability that a batch stalls, and for how long at most. */
  readonly stallChance: number;
  readonly stallUsMax: number;
  /** Groups merged into one batch at most; 1 makes every persist a durability boundary. */
  readonly groupsMax: number;
};

/** What a log says at one moment: the durable one, or the one that all accepted writes would give. */
export class LogImage {
  clusterId = '';
  epochs: StoredEpochs = { acceptedEpoch: 0, acceptedFrom: serverIdFrom(0), currentEpoch: 0 };
  base: Zxid = NO_ZXID;
  entries: LogEntry[] = [];
  committed: Zxid = NO_ZXID;
  /** A store that was never marked may have been wiped: it is suspect. */
  mark: 'none' | 'clean' | 'suspect' = 'none';
  /** Anything but epochs was ever written. */
  touched = false;

  get last(): Zxid {
    return this.entries.at(-1)?.zxid ?? this.base;
  }

  find(zxid: Zxid): LogEntry | undefined {
    for (let i = this.entries.length - 1; i >= 0; i--) {
      const entry = this.entries[i];
      if (entry === undefined || entry.zxid < zxid) return undefined;
      if (entry.zxid === zxid) return entry;
    }
    return undefined;
  }

  apply(write: DiskWrite): void {
    if (
      write.entries.length > 0 ||
      write.base !== undefined ||
      write.clusterId !== undefined ||
      write.mark !== undefined
    ) {
      this.touched = true;
    }
    if (write.base !== undefined) {
      this.base = write.base;
      this.entries = [];
    }
    if (write.truncateAfter !== undefined) {
      while (this.entries.length > 0 && this.last > write.truncateAfter) this.entries.pop();
    }
    for (const entry of write.entries) this.entries.push(entry);
    if (write.epochs !== undefined) this.epochs = write.epochs;
    if (write.clusterId !== undefined) this.clusterId = write.clusterId;
    if (write.mark !== undefined) this.mark = write.mark;
    if (write.committed !== undefined && write.committed > this.committed) this.committed = write.committed;
    if (this.committed < this.base) this.committed = this.base;
  }

  purgeTo(zxid: Zxid): void {
    let count = 0;
    while (count < this.entries.length && (this.entries[count]?.zxid ?? zxid) <= zxid) count++;
    if (count === 0) return;
    this.base = this.entries[count - 1]?.zxid ?? this.base;
    this.entries.splice(0, count);
  }

  copy(): LogImage {
    const image = new LogImage();
    image.clusterId = this.clusterId;
    image.epochs = this.epochs;
    image.base = this.base;
    image.entries = [...this.entries];
    image.committed = this.committed;
    image.mark = this.mark;
    image.touched = this.touched;
    return image;
  }
}

function laterOf(left: Zxid, right: Zxid): Zxid {
  return left < right ? right : left;
}

type Snapshot = { readonly zxid: Zxid; readonly chunks: readonly Uint8Array[]; readonly sizeBytes: number };

/** The medium itself: what survives a crash. */
export class Platter {
  durable = new LogImage();
  snapshots: Snapshot[] = [];
  /** Something acknowledged may be gone; true until the store is marked clean again. */
  damaged = false;

  /** The window: how much of the log below the newest snapshot is handed out. */
  restore(windowCount = Number.POSITIVE_INFINITY, windowBytes = Number.POSITIVE_INFINITY): RestoredStore {
    const image = this.durable;
    const newest = this.snapshots[0]?.zxid ?? NO_ZXID;
    // A quorum elsewhere may commit, and this server snapshot, what its own log did not yet hold: the log starts anew there.
    if (newest > image.last) {
      image.base = newest;
      image.entries = [];
    }
    const isBlank = !image.touched && this.snapshots.length === 0;
    const isSuspect = !isBlank && image.mark !== 'clean';
    const entries = [...image.entries];
    let base = image.base;
    const below = entries.filter((entry) => entry.zxid <= newest);
    let count = below.length;
    let bytes = below.reduce((sum, entry) => sum + entry.txn.length, 0);
    while (count > 0 && (count > windowCount || bytes > windowBytes)) {
      const dropped = entries.shift();
      if (dropped === undefined) break;
      base = dropped.zxid;
      bytes -= dropped.txn.length;
      count--;
    }
    return {
      classification: isBlank ? 'blank' : isSuspect ? 'suspect' : 'clean',
      reasons: isSuspect ? ['not marked as clean'] : [],
      clusterId: image.clusterId,
      epochs: image.epochs,
      snapshot: newest,
      base,
      entries,
      committed: laterOf(image.committed, newest),
    };
  }

  wipe(): void {
    this.durable = new LogImage();
    this.snapshots = [];
    this.damaged = true;
  }

  /** Acknowledged records are gone and the store knows it (tail behind the witness). */
  loseTail(count: number): void {
    for (let i = 0; i < count; i++) this.durable.entries.pop();
    this.durable.mark = 'suspect';
    if (this.durable.committed > this.durable.last) this.durable.committed = this.durable.last;
    this.damaged = true;
  }
}

export type DiskHooks = {
  /** A write was accepted: `logical` already contains it. */
  onWrite(write: DiskWrite, logical: LogImage): void;
  /** Called before and after a batch changes the platter. */
  onBatchStart(): void;
  onBatchDurable(writes: readonly DiskWrite[]): void;
  /** A durability boundary: true crashes the process here, its completion is never delivered. */
  crashesBeforeDurable(): boolean;
  crashesAfterDurable(): boolean;
  /** The completion was delivered. */
  onBatchAnswered(): void;
  broken(what: string): void;
};

function continues(image: LogImage, write: DiskWrite): boolean {
  const { acceptedEpoch, currentEpoch } = write.epochs ?? image.epochs;
  if (acceptedEpoch < currentEpoch) return false;
  let last = write.base ?? image.last;
  if (write.truncateAfter !== undefined && write.base === undefined) {
    if (write.truncateAfter > last) return false;
    last = write.truncateAfter;
  }
  return write.entries.every((entry) => {
    const isNext = entry.prev === last && entry.zxid > last;
    last = entry.zxid;
    return isNext;
  });
}

type Group = { readonly write: DiskWrite; readonly done: Done; readonly staged: Snapshot | null };

export type DiskTimer = (delayUs: number, work: () => void) => void;
/** Hands an answer to the process; a paused process gets it when it wakes, though the platter has long turned. */
export type DiskAnswer = (work: () => void) => void;

export class SimDisk implements Disk {
  readonly logical: LogImage;
  /** Multiplies latencies while a slow-disk fault lasts. */
  slowness = 1;
  /** No more stalls, and latencies of a healthy disk. */
  isCalm = false;
  readonly #platter: Platter;
  readonly #timer: DiskTimer;
  readonly #answer: DiskAnswer;
  readonly #random: Random;
  readonly #profile: DiskProfile;
  readonly #hooks: DiskHooks;
  #queued: Group[] = [];
  #inFlight: Group[] = [];
  #isScheduled = false;
  #isClosed = false;
  #isBroken = false;
  #staged: Snapshot | null = null;
  #stagedWriter: MemoryWriter | null = null;

  constructor(
    platter: Platter,
    timer: DiskTimer,
    answer: DiskAnswer,
    random: Random,
    profile: DiskProfile,
    hooks: DiskHooks,
  ) {
    this.#platter = platter;
    this.#timer = timer;
    this.#answer = answer;
    this.#random = random;
    this.#profile = profile;
    this.#hooks = hooks;
    this.logical = platter.durable.copy();
  }

  write(group: DiskWrite, done: Done): void {
    if (this.#isClosed) {
      this.#later(1, () => done(new Error('the disk is closed')));
      return;
    }
    const entries = group.entries.map((entry) => ({ ...entry, txn: new Uint8Array(entry.txn) }));
    const write: DiskWrite = { ...group, entries };
    const isContinuous = continues(this.logical, write);
    let staged: Snapshot | null = null;
    if (write.base !== undefined) {
      staged = this.#staged;
      this.#staged = null;
      if (staged === null || staged.zxid !== write.base) this.#hooks.broken('base without its staged snapshot');
    }
    this.logical.apply(write);
    this.#hooks.onWrite(write, this.logical);
    assert(isContinuous, 'a write continues the log and keeps the epochs in order');
    this.#queued.push({ write, done, staged });
    this.#begin();
  }

  #later(delayUs: number, work: () => void): void {
    this.#timer(delayUs, () => this.#answer(work));
  }

  #begin(): void {
    if (this.#inFlight.length > 0 || this.#isScheduled || this.#queued.length === 0) return;
    if (this.#random.chance(0.5)) {
      this.#launch();
      return;
    }
    this.#isScheduled = true;
    this.#timer(1, () => {
      this.#isScheduled = false;
      if (this.#inFlight.length === 0 && this.#queued.length > 0) this.#launch();
    });
  }

  #latency(): number {
    const profile = this.#profile;
    if (this.isCalm) return this.#random.wait(Math.min(profile.latencyUs, 1000));
    let latency = this.#random.wait(profile.latencyUs);
    if (this.#random.chance(profile.stallChance)) latency += this.#random.below(profile.stallUsMax);
    // Even a stalled disk answers at some time, or its server would never be part of a calm ensemble.
    return Math.min(latency * this.slowness, LATENCY_US_MAX);
  }

  #launch(): void {
    this.#inFlight = this.#queued.splice(0, this.#profile.groupsMax);
    this.#timer(this.#latency(), () => {
      if (this.#hooks.crashesBeforeDurable()) return;
      const groups = this.#inFlight;
      if (this.#isBroken) {
        this.#inFlight = [];
        this.#answer(() => {
          for (const group of groups) group.done(new Error('input/output error'));
        });
        this.#begin();
        return;
      }
      this.#settle(groups);
      this.#inFlight = [];
      if (this.#hooks.crashesAfterDurable()) return;
      this.#answer(() => {
        for (const group of groups) group.done(null);
        this.#hooks.onBatchAnswered();
      });
      this.#begin();
    });
  }

  /** The batch in flight becomes durable, whole. */
  #settle(groups: readonly Group[]): void {
    if (groups.length === 0) return;
    this.#hooks.onBatchStart();
    for (const { write, staged } of groups) {
      this.#platter.durable.apply(write);
      if (staged !== null) this.#platter.snapshots = [staged];
      if (write.mark === 'clean') this.#platter.damaged = false;
    }
    this.#hooks.onBatchDurable(groups.map((group) => group.write));
  }

  /** The process died. The batch in flight was perhaps written, perhaps not; never in part. */
  crash(keepsBatchInFlight: boolean): void {
    if (keepsBatchInFlight) this.#settle(this.#inFlight);
    this.#inFlight = [];
    this.#queued = [];
    this.#isClosed = true;
  }

  /** Every write from now on fails; the first error is final. */
  break(): void {
    this.#isBroken = true;
  }

  beginSnapshot(zxid: Zxid): SnapshotWriter {
    return new MemoryWriter(
      zxid,
      (work) => this.#later(this.#latency(), work),
      (snapshot) => {
        const others = this.#platter.snapshots.filter((other) => other.zxid !== snapshot.zxid);
        // A snapshot that a newer base overtook is of no use, as a file deleted meanwhile.
        if (snapshot.zxid < this.#platter.durable.base) return;
        this.#platter.snapshots = [...others, snapshot].sort((a, b) => (a.zxid < b.zxid ? 1 : -1));
      },
      () => this.#isClosed,
    );
  }

  stageSnapshot(zxid: Zxid): SnapshotWriter {
    this.discardStaged();
    const writer = new MemoryWriter(
      zxid,
      (work) => this.#later(this.#latency(), work),
      (snapshot) => {
        this.#staged = snapshot;
      },
      () => this.#isClosed,
    );
    this.#stagedWriter = writer;
    return writer;
  }

  discardStaged(): void {
    this.#stagedWriter?.abort();
    this.#stagedWriter = null;
    this.#staged = null;
  }

  snapshots(): readonly { readonly zxid: Zxid; readonly sizeBytes: number }[] {
    return this.#platter.snapshots.map(({ zxid, sizeBytes }) => ({ zxid, sizeBytes }));
  }

  openSnapshot(zxid: Zxid): SnapshotReader {
    const snapshot = this.#platter.snapshots.find((candidate) => candidate.zxid === zxid);
    if (snapshot === undefined) throw new RangeError('no such snapshot');
    let index = 0;
    let isClosed = false;
    return {
      zxid,
      sizeBytes: snapshot.sizeBytes,
      next: (done) => {
        this.#later(1 + this.#random.below(50), () => {
          if (isClosed) return;
          const chunk = snapshot.chunks[index++];
          done(null, chunk === undefined ? null : chunk.slice());
        });
      },
      close: () => {
        isClosed = true;
      },
    };
  }

  purge(retain: number, keepFrom: Zxid, done: Done): void {
    this.#later(this.#latency(), () => {
      const kept = this.#platter.snapshots.slice(0, Math.max(1, retain));
      this.#platter.snapshots = kept;
      const oldest = kept.at(-1)?.zxid ?? NO_ZXID;
      const limit = oldest < keepFrom ? oldest : keepFrom;
      this.logical.purgeTo(limit);
      this.#platter.durable.purgeTo(limit);
      done(null);
    });
  }

  logBytes(): number {
    const newest = this.#platter.snapshots[0]?.zxid ?? NO_ZXID;
    let bytes = 0;
    for (let i = this.logical.entries.length - 1; i >= 0; i--) {
      const entry = this.logical.entries[i];
      if (entry === undefined || entry.zxid <= newest) break;
      bytes += entry.txn.length + 40;
    }
    return bytes;
  }

  freeBytes(): number {
    return 1e12;
  }

  close(done: Done): void {
    const wait = (): void => {
      if (this.#inFlight.length > 0 || this.#queued.length > 0) {
        this.#timer(100, wait);
        return;
      }
      this.#isClosed = true;
      this.#answer(() => done(null));
    };
    this.#timer(1, wait);
  }
}

class MemoryWriter implements SnapshotWriter {
  readonly #zxid: Zxid;
  readonly #later: (work: () => void) => void;
  readonly #keep: (snapshot: Snapshot) => void;
  readonly #isClosed: () => boolean;
  #chunks: Uint8Array[] = [];
  #sizeBytes = 0;
  #isAborted = false;
  #pendingCount = 0;
  #onIdle: (() => void) | null = null;

  constructor(
    zxid: Zxid,
    later: (work: () => void) => void,
    keep: (snapshot: Snapshot) => void,
    isClosed: () => boolean,
  ) {
    this.#isClosed = isClosed;
    this.#zxid = zxid;
    this.#later = later;
    this.#keep = keep;
  }

  write(chunk: Uint8Array, done: Done): void {
    const copy = new Uint8Array(chunk);
    this.#pendingCount++;
    this.#chunks.push(copy);
    this.#sizeBytes += copy.length;
    this.#later(() => {
      this.#pendingCount--;
      if (this.#isAborted) return;
      done(null);
      if (this.#pendingCount === 0) this.#onIdle?.();
    });
  }

  finish(done: Done): void {
    const complete = (): void => {
      this.#onIdle = null;
      this.#later(() => {
        if (this.#isAborted) return;
        if (this.#isClosed()) {
          done(new Error('the disk is closed'));
          return;
        }
        this.#keep({ zxid: this.#zxid, chunks: this.#chunks, sizeBytes: this.#sizeBytes });
        done(null);
      });
    };
    if (this.#pendingCount === 0) complete();
    else this.#onIdle = complete;
  }

  abort(): void {
    this.#isAborted = true;
  }
}
