// The Disk port: what a replica needs of a disk. Two implementations: LevelDB with files (storage), and the simulator's.
// Both pass the suite in disk-suite.ts. Writes are answered in the order they were given; the first error is final:
// after it every further call answers with an error, and the process must end.

import type { ServerId, Zxid } from '@quorate/protocol/zxid';

export type LogEntry = { readonly zxid: Zxid; readonly prev: Zxid; readonly txn: Uint8Array };

export type StoredEpochs = {
  readonly acceptedEpoch: number;
  readonly acceptedFrom: ServerId;
  readonly currentEpoch: number;
};

/** One atomic write. Groups that arrive while one is being written are merged into the next batch: that is group commit. */
export type DiskWrite = {
  readonly truncateAfter?: Zxid;
  readonly entries: readonly LogEntry[];
  readonly epochs?: StoredEpochs;
  /** Switch to the staged snapshot at this zxid: a new generation, all older records are dead. Applied before `entries`. */
  readonly base?: Zxid;
  readonly clusterId?: string;
  /**
   * 'clean' ends a suspect or wiped store's exclusion from votes. A new store has no mark: it stays blank while only epochs are
   * written, and with a cluster id, records or a base but still no mark it reopens as suspect (a wiped server that crashed half-way).
   */
  readonly mark?: 'clean' | 'suspect';
  /** A hint, durable with the rest: everything up to it is known to be committed. Never goes back; beyond the last record it means that record. */
  readonly committed?: Zxid;
};

export type Done = (error: Error | null) => void;

/** Bytes of one snapshot being written: to a temporary name, then made durable, re-read, verified and renamed by finish. */
export type SnapshotWriter = {
  write(chunk: Uint8Array, done: Done): void;
  /**
   * After done(null) the snapshot is durable, verified, and one of `snapshots()` (or staged, if it was opened by stageSnapshot).
   * It waits until the log up to its zxid is durable: a snapshot never gets ahead of its log. If a new base came meanwhile, it is dropped.
   */
  finish(done: Done): void;
  /** What is not answered yet is answered with an error that is not final for the disk; too late after finish. */
  abort(): void;
};

export type SnapshotReader = {
  readonly zxid: Zxid;
  readonly sizeBytes: number;
  /** null: the end. A damaged file answers with an error. */
  next(done: (error: Error | null, chunk: Uint8Array | null) => void): void;
  close(): void;
};

export type Disk = {
  write(group: DiskWrite, done: Done): void;
  /** Starts a snapshot of the live tree at exactly `zxid`. */
  beginSnapshot(zxid: Zxid): SnapshotWriter;
  /** Starts the snapshot that a leader sends; it is used only by a later write with `base`. A second call discards the first. */
  stageSnapshot(zxid: Zxid): SnapshotWriter;
  discardStaged(): void;
  /** Verified snapshots, newest first. Not the staged one. */
  snapshots(): readonly { readonly zxid: Zxid; readonly sizeBytes: number }[];
  /** One of `snapshots()`, else it throws. A purge does not disturb a reader that is open. */
  openSnapshot(zxid: Zxid): SnapshotReader;
  /** Keeps the newest `retain` snapshots and the log behind the oldest of them, but nothing above `keepFrom`; idle work, in slices. */
  purge(retain: number, keepFrom: Zxid, done: Done): void;
  /** Bytes of log behind the newest snapshot. */
  logBytes(): number;
  /** Free bytes of the file system, as of the last write. */
  freeBytes(): number;
  close(done: Done): void;
};

/** blank: nothing there. clean: all checks passed. suspect: something acknowledged may be missing; `reasons` say what. */
export type StoreClass = 'blank' | 'clean' | 'suspect';

/** What opening found. A store that cannot be opened at all is refused: opening throws StorageError. */
export type RestoredStore = {
  readonly classification: StoreClass;
  readonly reasons: readonly string[];
  readonly clusterId: string;
  readonly epochs: StoredEpochs;
  /** The newest valid snapshot's zxid, 0 if none; read it with openSnapshot. */
  readonly snapshot: Zxid;
  /** Zxid just before the first of `entries`. <= snapshot, so that a DIFF window survives a restart. */
  readonly base: Zxid;
  readonly entries: readonly LogEntry[];
  readonly committed: Zxid;
};
