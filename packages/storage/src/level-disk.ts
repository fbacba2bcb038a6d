// The Disk of production: puts the log, the snapshots, the witness and the ballast of one open store together.
// Opening and classifying is open-disk.ts; here everything is checked and running. Callbacks only, no promises.

import type { Zxid } from '@quorate/protocol/zxid';
import type { Disk, DiskWrite, Done, SnapshotReader, SnapshotWriter } from './disk.ts';
import { readFreeBytes } from './files.ts';
import { earlier, type LogIndex } from './log-index.ts';
import type { StoreState } from './log-record.ts';
import { type SnapshotEntry, SnapshotStore } from './snapshot-store.ts';
import { StorageError } from './storage-error.ts';
import type { StoreLog } from './store-log.ts';
import { type LogDatabase, storageErrorFrom, TxnLog } from './txn-log.ts';
import type { Witness } from './witness.ts';

const FREE_BYTES_INTERVAL_MS = 1000;

export type LevelDiskParts = {
  readonly directory: string;
  readonly logDirectory: string;
  readonly snapshotDirectory: string;
  readonly db: LogDatabase;
  readonly state: StoreState;
  readonly index: LogIndex;
  readonly junk: readonly Uint8Array[];
  readonly witness: Witness;
  readonly snapshots: SnapshotEntry[];
  readonly freeBytes: number;
  readonly log: StoreLog;
};

export class LevelDisk implements Disk {
  readonly #directory: string;
  readonly #index: LogIndex;
  readonly #witness: Witness;
  readonly #log: StoreLog;
  readonly #txnLog: TxnLog;
  readonly #snapshots: SnapshotStore;
  readonly #durableWaiters: { readonly zxid: Zxid; readonly done: Done }[] = [];
  readonly #purgeQueue: { readonly retain: number; readonly keepFrom: Zxid; readonly done: Done }[] = [];
  #freeBytes: number;
  #freeBytesAtMs = 0;
  #isClosed = false;

  constructor(parts: LevelDiskParts) {
    this.#directory = parts.directory;
    this.#index = parts.index;
    this.#witness = parts.witness;
    this.#log = parts.log;
    this.#freeBytes = parts.freeBytes;
    this.#snapshots = new SnapshotStore({
      directory: parts.snapshotDirectory,
      generation: parts.state.generation,
      found: parts.snapshots,
      log: parts.log,
      whenDurable: (zxid, done) => this.#whenDurable(zxid, done),
      onFailure: (error) => this.fail(error),
    });
    this.#txnLog = new TxnLog({
      db: parts.db,
      directory: parts.logDirectory,
      state: parts.state,
      index: parts.index,
      witness: parts.witness,
      junk: parts.junk,
      activateStaged: (zxid, generation, done) => this.#snapshots.activateStaged(zxid, generation, done),
      onSwitched: (zxid, generation) => this.#snapshots.onSwitched(zxid, generation),
      onDurable: (tail) => this.#onDurable(tail),
      onDead: (error) => this.#onDead(error),
      onSlow: (tookMs, groupCount) => this.#log('warn', 'a write took long to become durable', { tookMs, groupCount }),
    });
  }

  get isOver(): boolean {
    return this.#isClosed || this.#txnLog.dead !== null;
  }

  write(group: DiskWrite, done: Done): void {
    if (group.base !== undefined && !this.isOver) this.#snapshots.claimStaged(group.base);
    this.#txnLog.write(group, done);
  }

  beginSnapshot(zxid: Zxid): SnapshotWriter {
    return this.isOver ? this.#overWriter() : this.#snapshots.begin(zxid);
  }

  stageSnapshot(zxid: Zxid): SnapshotWriter {
    return this.isOver ? this.#overWriter() : this.#snapshots.stage(zxid);
  }

  discardStaged(): void {
    this.#snapshots.discardStaged();
  }

  snapshots(): readonly { readonly zxid: Zxid; readonly sizeBytes: number }[] {
    return this.#snapshots.verified;
  }

  openSnapshot(zxid: Zxid): SnapshotReader {
    return this.#snapshots.open(zxid);
  }

  purge(retain: number, keepFrom: Zxid, done: Done): void {
    this.#purgeQueue.push({ retain: Math.max(1, retain), keepFrom, done });
    if (this.#purgeQueue.length === 1) this.#runPurge();
  }

  logBytes(): number {
    return this.#index.bytesAfter(this.#snapshots.newest?.zxid ?? this.#index.base);
  }

  freeBytes(): number {
    return this.#freeBytes;
  }

  /** Every storage error anywhere in the store ends all of it. */
  fail(error: StorageError): void {
    // A snapshot that was under way when the store was closed fails without harm: its file is removed at the next start.
    if (this.#isClosed) return;
    this.#txnLog.fail(error);
  }

  close(done: Done): void {
    if (this.#isClosed) {
      queueMicrotask(() => done(closedError()));
      return;
    }
    this.#isClosed = true;
    this.#txnLog.close((logError) => {
      this.#answerWaiters(this.#durableWaiters.splice(0), closedError());
      this.#snapshots.closeSync();
      this.#witness.close((witnessError) => {
        const error = logError ?? witnessError;
        done(error === null ? null : storageErrorFrom(error));
      });
    });
  }

  #onDurable(tail: Zxid): void {
    if (this.#durableWaiters.length > 0) {
      const ready = this.#durableWaiters.filter(({ zxid }) => zxid <= tail);
      const waiting = this.#durableWaiters.filter(({ zxid }) => zxid > tail);
      this.#durableWaiters.splice(0, this.#durableWaiters.length, ...waiting);
      this.#answerWaiters(ready, null);
    }
    const nowMs = performance.now();
    if (nowMs - this.#freeBytesAtMs < FREE_BYTES_INTERVAL_MS) return;
    this.#freeBytesAtMs = nowMs;
    readFreeBytes(this.#directory, (error, bytes) => {
      if (error === null) this.#freeBytes = bytes;
    });
  }

  #onDead(error: StorageError): void {
    this.#log('error', 'the store failed and takes no more writes', { code: error.code, reason: error.message });
    this.#answerWaiters(this.#durableWaiters.splice(0), error);
  }

  #answerWaiters(waiters: readonly { readonly done: Done }[], error: Error | null): void {
    for (const { done } of waiters) done(error);
  }

  #whenDurable(zxid: Zxid, done: Done): void {
    if (this.#txnLog.dead !== null) {
      done(this.#txnLog.dead);
      return;
    }
    if (zxid <= this.#txnLog.durableTail) {
      done(null);
      return;
    }
    this.#durableWaiters.push({ zxid, done });
  }

  #runPurge(): void {
    const job = this.#purgeQueue[0];
    if (job === undefined) return;
    const finish = (error: Error | null): void => {
      this.#purgeQueue.shift();
      job.done(error);
      this.#runPurge();
    };
    if (this.isOver) {
      queueMicrotask(() => finish(this.#txnLog.dead));
      return;
    }
    // What counts as kept has been read from end to end: a purge behind a damaged snapshot loses the history it stands for.
    this.#snapshots.verify(job.retain, (error) => {
      if (error !== null) {
        this.fail(storageErrorFrom(error));
        return finish(error);
      }
      const oldestKept = this.#snapshots.verified.slice(0, job.retain).at(-1);
      const isSwitching = this.#txnLog.plannedGeneration !== this.#txnLog.generation;
      if (oldestKept === undefined || isSwitching || this.isOver)
        return queueMicrotask(() => finish(this.#txnLog.dead));
      const base = this.#index.floor(earlier(oldestKept.zxid, job.keepFrom));
      // First the base, durably: an interrupted sweep then leaves dead records only.
      this.#advanceBase(base, (advanceError) => {
        if (advanceError !== null) return finish(advanceError);
        this.#snapshots.keepNewest(job.retain);
        this.#txnLog.sweep();
        this.#txnLog.whenSwept(() => finish(this.#txnLog.dead));
      });
    });
  }

  #advanceBase(base: Zxid, done: Done): void {
    if (base <= this.#index.base) {
      done(null);
      return;
    }
    this.#txnLog.advanceBase(base, done);
  }

  #overWriter(): SnapshotWriter {
    const answer = (done: Done): void => {
      const error = this.#txnLog.dead ?? closedError();
      queueMicrotask(() => done(error));
    };
    return { write: (_chunk, done) => answer(done), finish: answer, abort: () => {} };
  }
}

function closedError(): StorageError {
  return new StorageError('STORE_CLOSED', 'the store is closed');
}
