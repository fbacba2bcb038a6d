// The log writer: one LevelDB database, one batch in flight, always fsynced; what arrives meanwhile is the next batch (group commit).
// Truncation, epochs, base, identity, mark and records of a group are in one batch, in the order the groups were given.
// The first error is final: no retry, no repair, every later write answers with that error, and the process must end (F1, F8).
// It never calls clear(), never writes without sync, and never answers before the batch is durable.

import { closeSync, fsync, openSync, readdirSync } from 'node:fs';
import { assert } from '@quorate/protocol/assert';
import { epochOf, type Zxid, zxidFrom } from '@quorate/protocol/zxid';
import type { Level } from 'level';
import type { DiskWrite, Done } from './disk.ts';
import { earlier, type LogIndex, later } from './log-index.ts';
import {
  encodeState,
  LOG_START,
  logKey,
  RecordEncoder,
  recordBytes,
  STATE_KEY,
  type StoreMark,
  type StoreState,
} from './log-record.ts';
import { asError, describe, isDiskFull, StorageError } from './storage-error.ts';
import type { Witness } from './witness.ts';

export type LogDatabase = Level<Uint8Array, Uint8Array>;

export const DATABASE_ENCODING = { keyEncoding: 'view', valueEncoding: 'view' } as const;

/** A batch takes whole groups until one of these is reached; a single group may be larger, because it is atomic. */
const BATCH_BYTES_MAX = 1024 * 1024;
const BATCH_RECORDS_MAX = 1024;
/** Dead keys removed by one batch of the sweep. Measured: about 2 ms. */
const SWEEP_KEYS_MAX = 1000;
/** A batch that takes longer is worth a line (ZooKeeper's fsync.warningthresholdms). */
const SLOW_BATCH_MS = 1000;

export type TxnLogParts = {
  readonly db: LogDatabase;
  readonly directory: string;
  /** As read at open; `index` describes the same log. */
  readonly state: StoreState;
  readonly index: LogIndex;
  readonly witness: Witness;
  /** Keys of this generation that open found unusable (behind a hole). The first group that keeps the generation removes them. */
  readonly junk: readonly Uint8Array[];
  /** Makes the staged snapshot a file of the generation to come; the batch that switches to it is written after that. */
  readonly activateStaged: (zxid: Zxid, generation: number, done: Done) => void;
  /** The batch that switched is durable. */
  readonly onSwitched: (zxid: Zxid, generation: number) => void;
  /** After each batch, before its groups are answered. */
  readonly onDurable: (tail: Zxid) => void;
  readonly onDead: (error: StorageError) => void;
  readonly onSlow: (tookMs: number, groupCount: number) => void;
};

/** One group waiting for its batch; `after` is the state once it is written. */
type Queued = {
  readonly group: DiskWrite | null;
  readonly after: StoreState;
  readonly removed: readonly Uint8Array[];
  readonly bytes: number;
  readonly done: Done;
};

export class TxnLog {
  readonly #parts: TxnLogParts;
  readonly #db: LogDatabase;
  readonly #index: LogIndex;
  readonly #encoder = new RecordEncoder();
  readonly #directoryFd: number;
  readonly #logFiles: Set<string>;
  #junk: readonly Uint8Array[];
  /** The state after everything queued. */
  #planned: StoreState;
  /** The state after the last batch that resolved. */
  #durable: StoreState;
  #queue: Queued[] = [];
  #isWriting = false;
  #dead: StorageError | null = null;
  #closing: Done | null = null;
  #isFinishing = false;
  #sweepKey: Uint8Array = LOG_START;
  #isSweeping = false;
  #sweepAgain = false;
  #idleWaiters: (() => void)[] = [];

  constructor(parts: TxnLogParts) {
    this.#parts = parts;
    this.#db = parts.db;
    this.#index = parts.index;
    this.#junk = parts.junk;
    this.#planned = parts.state;
    this.#durable = parts.state;
    this.#directoryFd = openSync(parts.directory, 'r');
    this.#logFiles = new Set(logFilesOf(parts.directory));
  }

  get durableTail(): Zxid {
    return this.#durable.tail;
  }

  get generation(): number {
    return this.#durable.generation;
  }

  get plannedGeneration(): number {
    return this.#planned.generation;
  }

  get base(): Zxid {
    return this.#durable.base;
  }

  get dead(): StorageError | null {
    return this.#dead;
  }

  write(group: DiskWrite, done: Done): void {
    if (this.#dead !== null || this.#closing !== null) {
      this.#answerDead(done);
      return;
    }
    let { generation, base, tail, committed } = this.#planned;
    const { epochs, mark, clusterId } = this.#planned;
    let removed: Uint8Array[] = [];
    let bytes = 0;
    if (group.base === undefined && this.#junk.length > 0) {
      removed = [...this.#junk];
      this.#junk = [];
    }
    if (group.truncateAfter !== undefined) {
      assert(group.base !== undefined || group.truncateAfter >= committed, 'what is committed is never truncated');
      for (const zxid of this.#index.truncateAfter(group.truncateAfter)) removed.push(logKey(generation, zxid));
      tail = group.truncateAfter;
    }
    if (group.base !== undefined) {
      // Older records are dead by their generation: nothing has to be deleted for that.
      generation++;
      base = group.base;
      tail = group.base;
      committed = group.base;
      removed = [];
      this.#junk = [];
      this.#index.reset(base);
    }
    for (const entry of group.entries) {
      assert(entry.prev === tail, 'each record follows the one before it');
      const size = recordBytes(entry.txn);
      this.#index.push(entry.zxid, size);
      bytes += size;
      tail = entry.zxid;
    }
    if (group.committed !== undefined) committed = later(committed, earlier(group.committed, tail));
    const after: StoreState = {
      ...this.#planned,
      generation,
      base,
      tail,
      committed,
      epochs: group.epochs ?? epochs,
      mark: group.mark ?? mark,
      clusterId: group.clusterId ?? clusterId,
    };
    assertEpochs(this.#planned, after);
    this.#planned = after;
    this.#enqueue({ group, after, removed, bytes, done });
  }

  /** The head of the log moves up to `zxid`; the records below are dead once this is durable, and swept later. */
  advanceBase(zxid: Zxid, done: Done): void {
    if (this.#dead !== null || this.#closing !== null) {
      this.#answerDead(done);
      return;
    }
    this.#index.advanceBase(zxid);
    this.#planned = { ...this.#planned, base: zxid, committed: later(this.#planned.committed, zxid) };
    this.#enqueue({ group: null, after: this.#planned, removed: [], bytes: 0, done });
  }

  /**
   * Removes dead keys, ascending, in slices that go through the same queue as everything else. An interrupted sweep leaves
   * dead keys only, and the next one starts over. Deletes are fsynced too: mixing kinds of writes is what F9 warns of.
   */
  sweep(): void {
    if (this.#isSweeping) {
      this.#sweepAgain = true;
      return;
    }
    this.#isSweeping = true;
    this.#sweepSlice().then(
      (isMore) => {
        this.#isSweeping = false;
        const again = isMore || this.#sweepAgain;
        this.#sweepAgain = false;
        if (again && this.#dead === null && this.#closing === null) return this.sweep();
        this.#wakeIdle();
      },
      (error: unknown) => {
        this.#isSweeping = false;
        // An iterator that fails because the store is being closed is no storage error.
        if (this.#closing === null) this.fail(storageErrorFrom(asError(error)));
        this.#wakeIdle();
      },
    );
  }

  /** Answers when no sweep is under way. */
  whenSwept(done: () => void): void {
    if (!this.#isSweeping) {
      done();
      return;
    }
    this.#idleWaiters.push(done);
  }

  /** A failure elsewhere in the store (a snapshot, the witness): final for the log as well. */
  fail(error: StorageError): void {
    if (this.#dead !== null) return;
    this.#dead = error;
    this.#parts.onDead(error);
    if (!this.#isWriting) this.#flushDead([]);
  }

  /** Answers when everything queued is durable and the database is closed. */
  close(done: Done): void {
    assert(this.#closing === null, 'a store is closed once');
    this.#closing = done;
    if (!this.#isWriting) this.#finishClose();
  }

  #enqueue(queued: Queued): void {
    this.#queue.push(queued);
    if (!this.#isWriting) this.#startBatch();
  }

  #startBatch(): void {
    const head = this.#queue[0];
    if (head === undefined || this.#dead !== null) return;
    this.#isWriting = true;
    const base = head.group?.base;
    if (base === undefined) {
      this.#writeBatch();
      return;
    }
    // The snapshot has its final name before the batch refers to it: a crash between the two leaves a file of a generation
    // that never came to be, which open removes.
    this.#parts.activateStaged(base, head.after.generation, (error) => {
      if (error !== null) return this.#die(error, []);
      if (this.#dead !== null) return this.#flushDead([]);
      this.#writeBatch();
    });
  }

  #writeBatch(): void {
    const groups = this.#takeGroups();
    const last = groups[groups.length - 1];
    assert(last !== undefined, 'a batch has at least one group');
    const state: StoreState = { ...last.after, sequence: this.#durable.sequence + 1 };
    const batch = this.#db.batch();
    for (const { group, after, removed } of groups) {
      for (const key of removed) batch.del(key);
      if (group === null) continue;
      for (const entry of group.entries) {
        const key = logKey(after.generation, entry.zxid);
        batch.put(key, this.#encoder.encode(key, entry.prev, entry.txn));
      }
    }
    batch.put(STATE_KEY, encodeState(state));
    const startedMs = performance.now();
    batch.write({ sync: true }).then(
      () => {
        const tookMs = performance.now() - startedMs;
        if (tookMs > SLOW_BATCH_MS) this.#parts.onSlow(Math.round(tookMs), groups.length);
        this.#syncNewLogFile((error) => (error === null ? this.#onDurable(groups, state) : this.#die(error, groups)));
      },
      (error: unknown) => this.#die(asError(error), groups),
    );
  }

  /** A group with a base opens a batch, because its snapshot must be renamed first. */
  #takeGroups(): Queued[] {
    let bytes = 0;
    let records = 0;
    let count = 0;
    for (const { group, removed, bytes: size } of this.#queue) {
      if (count > 0 && (group?.base !== undefined || bytes + size > BATCH_BYTES_MAX || records >= BATCH_RECORDS_MAX))
        break;
      bytes += size;
      records += (group?.entries.length ?? 0) + removed.length;
      count++;
    }
    return this.#queue.splice(0, count);
  }

  /** LevelDB starts a new .log file without making its name durable: the records in it would be lost with the name (F9). */
  #syncNewLogFile(done: Done): void {
    let isNew = false;
    let names: string[];
    try {
      names = logFilesOf(this.#parts.directory);
    } catch (error) {
      done(asError(error));
      return;
    }
    for (const name of names) {
      if (this.#logFiles.has(name)) continue;
      isNew = true;
    }
    if (!isNew) {
      done(null);
      return;
    }
    this.#logFiles.clear();
    for (const name of names) this.#logFiles.add(name);
    fsync(this.#directoryFd, (error) => done(error));
  }

  #onDurable(groups: readonly Queued[], state: StoreState): void {
    // The store was declared dead by another part while this batch was on its way: its outcome is not to be relied on.
    if (this.#dead !== null) {
      this.#flushDead(groups);
      return;
    }
    const before = this.#durable;
    this.#durable = state;
    try {
      this.#parts.witness.record(state.sequence, state.generation, state.tail);
    } catch (error) {
      this.#die(asError(error), groups);
      return;
    }
    if (state.generation !== before.generation) {
      assert(state.generation === before.generation + 1, 'a batch switches the base once at most');
      const base = groups[0]?.group?.base;
      assert(base !== undefined, 'a new generation begins with a base');
      this.#parts.onSwitched(base, state.generation);
      this.#sweepKey = LOG_START;
    }
    this.#isWriting = false;
    // The next batch goes to the disk before the answers of this one are worked on.
    if (this.#queue.length > 0) this.#startBatch();
    this.#parts.onDurable(state.tail);
    this.#answerAll(groups, null);
    if (state.generation !== before.generation) this.sweep();
    if (this.#closing !== null && !this.#isWriting) this.#finishClose();
  }

  #answerAll(groups: readonly Queued[], error: Error | null): void {
    for (const { done } of groups) done(error);
  }

  /** A batch ended in an error. */
  #die(cause: Error, inFlight: readonly Queued[]): void {
    const isFirst = this.#dead === null;
    this.#dead ??= storageErrorFrom(cause);
    if (isFirst) this.#parts.onDead(this.#dead);
    this.#flushDead(inFlight);
  }

  /** Answers in order: what was in flight, then what was waiting. */
  #flushDead(inFlight: readonly Queued[]): void {
    const error = this.#dead;
    assert(error !== null, 'the log is dead');
    this.#isWriting = false;
    const waiting = this.#queue;
    this.#queue = [];
    this.#answerAll(inFlight, error);
    this.#answerAll(waiting, error);
    if (this.#closing !== null) this.#finishClose();
  }

  #answerDead(done: Done): void {
    const error = this.#dead ?? new StorageError('STORE_CLOSED', 'the store is closed');
    queueMicrotask(() => done(error));
  }

  async #sweepSlice(): Promise<boolean> {
    const { generation, base } = this.#durable;
    const keys = await this.#db
      .keys({ ...DATABASE_ENCODING, gt: this.#sweepKey, lte: logKey(generation, base), limit: SWEEP_KEYS_MAX })
      .all();
    const last = keys[keys.length - 1];
    if (last === undefined || this.#dead !== null || this.#closing !== null) return false;
    await new Promise<void>((resolve) => {
      this.#enqueue({ group: null, after: this.#planned, removed: keys, bytes: 0, done: () => resolve() });
    });
    if (this.#dead !== null) return false;
    this.#sweepKey = last;
    return keys.length === SWEEP_KEYS_MAX;
  }

  #wakeIdle(): void {
    const waiters = this.#idleWaiters;
    this.#idleWaiters = [];
    for (const done of waiters) done();
  }

  #finishClose(): void {
    const done = this.#closing;
    assert(done !== null, 'close was asked for');
    // Close may be asked for by the very answers that a finished batch gives, so two places may find the log idle.
    if (this.#isFinishing) return;
    this.#isFinishing = true;
    this.#db.close().then(
      () => {
        closeSync(this.#directoryFd);
        done(null);
      },
      (error: unknown) => done(storageErrorFrom(asError(error))),
    );
  }
}

function logFilesOf(directory: string): string[] {
  return readdirSync(directory).filter((name) => name.endsWith('.log'));
}

/** On disk, always: acceptedEpoch >= currentEpoch >= the epoch of the last record; and epochs never go back. */
function assertEpochs(before: StoreState, after: StoreState): void {
  assert(
    after.epochs.acceptedEpoch >= after.epochs.currentEpoch,
    'acceptedEpoch is at least currentEpoch',
    after.epochs,
  );
  assert(after.epochs.acceptedEpoch >= before.epochs.acceptedEpoch, 'acceptedEpoch never goes back', after.epochs);
  assert(after.epochs.currentEpoch >= before.epochs.currentEpoch, 'currentEpoch never goes back', after.epochs);
  assert(epochOf(after.tail) <= after.epochs.currentEpoch, 'no record is of an epoch above currentEpoch', after.epochs);
}

export function storageErrorFrom(error: Error): StorageError {
  if (error instanceof StorageError) return error;
  if (isDiskFull(error)) {
    return new StorageError('STORE_FULL', `the disk is full: ${describe(error)}`, { cause: error });
  }
  return new StorageError('STORE_WRITE_FAILED', `a write to the store failed: ${describe(error)}`, { cause: error });
}

/** The first state of a new store. */
export function blankState(serverId: StoreState['serverId']): StoreState {
  const zero = zxidFrom(0n);
  const mark: StoreMark = 'blank';
  return {
    serverId,
    sequence: 1,
    generation: 1,
    base: zero,
    tail: zero,
    committed: zero,
    epochs: { acceptedEpoch: 0, acceptedFrom: serverId, currentEpoch: 0 },
    mark,
    clusterId: '',
  };
}
