// Opens a store and decides how far it may be trusted: blank, clean, suspect, or refused (a StorageError).
// A store is created only where there is nothing at all; what is damaged is never repaired, because LevelDB's repair brings
// truncated txns back (F13). What this process finds out about a store is durable before anybody acts on it.

import { existsSync, mkdirSync, readdirSync, readFileSync, statfsSync, unlinkSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { epochOf, hex64, NO_ZXID, type ServerId, type Zxid } from '@quorate/protocol/zxid';
import { Level } from 'level';
import { isBallastWhole, releaseBallast, writeBallast } from './ballast.ts';
import type { Disk, RestoredStore, StoreClass } from './disk.ts';
import { replaceFileSync, syncDirectorySync } from './files.ts';
import { LevelDisk } from './level-disk.ts';
import { earlier, LogIndex, later } from './log-index.ts';
import { decodeState, encodeState, FORMAT_VERSION, STATE_KEY, type StoreState } from './log-record.ts';
import { type LogScan, scanLog } from './log-scan.ts';
import { findSnapshots, removeLeftovers, type SnapshotEntry } from './snapshot-store.ts';
import { describe, hasCode, isDiskFull, StorageError } from './storage-error.ts';
import type { StoreLog } from './store-log.ts';
import { findDamagedTable, tablesOf } from './table-check.ts';
import { blankState, DATABASE_ENCODING, type LogDatabase } from './txn-log.ts';
import { Witness, type WitnessValue } from './witness.ts';

export type OpenDiskOptions = {
  /** A store belongs to one server for ever: another one's promises are in it. */
  readonly serverId: ServerId;
  /** How much of the log at or below the newest snapshot is loaded for DIFF: both limits hold. */
  readonly windowCount: number;
  readonly windowBytes: number;
  readonly log?: StoreLog;
  /** LevelDB's memtable; two of them may be in memory. A larger one rotates its log more rarely and opens more slowly. */
  readonly writeBufferSize?: number;
  /** Below so much free space the ballast is not written anew. */
  readonly softLimitBytes?: number;
  /** Reserved so that a start on a full disk succeeds; 0 for none. */
  readonly ballastBytes?: number;
};

const WRITE_BUFFER_BYTES = 16 * 1024 * 1024;
const TABLE_FILE_BYTES = 8 * 1024 * 1024;
const CACHE_BYTES = 1024 * 1024;
const BALLAST_BYTES = 64 * 1024 * 1024;
const SOFT_LIMIT_BYTES = 128 * 1024 * 1024;
/** Beyond two memtables: MANIFEST, CURRENT, table indexes. */
const OPENING_RESERVE_BYTES = 8 * 1024 * 1024;

/** What LevelDB writes into its text log when it drops data at open: the only sign it gives. */
const DROPPED = /dropping|corruption|ignoring error/i;
/** A mounted file system may have it from the start. */
const NEUTRAL_NAMES = new Set(['lost+found']);
const OWN_NAMES = new Set(['log', 'snapshots', 'witness', 'opening']);

type Paths = {
  readonly root: string;
  readonly log: string;
  readonly snapshots: string;
  readonly witness: string;
  readonly format: string;
  readonly creating: string;
  readonly opening: string;
};

export async function openDisk(
  directory: string,
  options: OpenDiskOptions,
): Promise<{ disk: Disk; restored: RestoredStore }> {
  const log: StoreLog = options.log ?? (() => {});
  try {
    const paths = pathsOf(resolve(directory));
    const isNew = prepareDirectory(paths);
    if (!isNew) checkFormat(paths);
    makeRoom(paths, options, log);
    const noted = noteOpening(paths);
    const db = await openDatabase(paths, isNew, options, noted);
    try {
      if (isNew) await create(db, paths, options.serverId);
      return await restore(db, paths, noted.reasons, options, log);
    } catch (error) {
      await db.close();
      throw error;
    }
  } catch (error) {
    throw openingError(error);
  }
}

function pathsOf(root: string): Paths {
  return {
    root,
    log: join(root, 'log'),
    snapshots: join(root, 'snapshots'),
    witness: join(root, 'witness'),
    format: join(root, 'format'),
    creating: join(root, 'creating'),
    opening: join(root, 'opening'),
  };
}

/** True: there is nothing, or the creation of a store began here and never ended, so nothing was ever promised. */
function prepareDirectory(paths: Paths): boolean {
  if (!existsSync(paths.root)) {
    mkdirSync(paths.root, { recursive: true, mode: 0o750 });
    syncDirectorySync(dirname(paths.root));
  }
  if (existsSync(paths.format)) return false;
  const names = readdirSync(paths.root).filter((name) => !NEUTRAL_NAMES.has(name));
  if (names.includes('creating')) return true;
  if (names.length > 0) {
    const own = names.filter((name) => OWN_NAMES.has(name));
    if (own.length > 0) {
      throw new StorageError('STORE_REFUSED', `the store has lost its format file, but holds: ${own.join(', ')}`);
    }
    throw new StorageError(
      'STORE_FOREIGN',
      `the directory is not empty and holds no store: ${names.slice(0, 5).join(', ')}`,
    );
  }
  replaceFileSync(paths.creating, new Uint8Array(0));
  return true;
}

function checkFormat(paths: Paths): void {
  const text = readFileSync(paths.format, 'latin1');
  const match = /^quorate-store (\d{1,9})\n$/.exec(text);
  if (match === null) throw new StorageError('STORE_REFUSED', 'the format file of the store is damaged');
  const version = Number(match[1]);
  if (version === FORMAT_VERSION) return;
  throw new StorageError(
    'STORE_FORMAT',
    `the store has format ${version}; this build knows only format ${FORMAT_VERSION}`,
  );
}

/** LevelDB writes a table and a MANIFEST to open. */
function makeRoom(paths: Paths, options: OpenDiskOptions, log: StoreLog): void {
  const needed = 2 * (options.writeBufferSize ?? WRITE_BUFFER_BYTES) + OPENING_RESERVE_BYTES;
  if (freeBytesSync(paths.root) >= needed) return;
  if (releaseBallast(paths.root)) log('warn', 'the disk is nearly full: the ballast file was given up to start');
}

type Noted = { readonly reasons: readonly string[]; readonly wasThere: boolean };

/**
 * LevelDB's recovery throws damaged pieces away for good, and says so only in the text log of that one open. If this process
 * ends between LevelDB's open and our verdict, the next open would find a neat log with a hole at its end. So the note
 * `opening` stays until the verdict is durable, and carries what earlier unfinished openings were told.
 */
function noteOpening(paths: Paths): Noted {
  const wasThere = existsSync(paths.opening);
  const reasons: string[] = [];
  if (wasThere) {
    reasons.push(
      ...readFileSync(paths.opening, 'utf8')
        .split('\n')
        .filter((line) => line !== ''),
    );
    reasons.push(...droppedLines(paths.log));
  }
  replaceFileSync(paths.opening, Buffer.from(reasons.map((reason) => `${reason}\n`).join(''), 'utf8'));
  return { reasons, wasThere };
}

function droppedLines(logDirectory: string): string[] {
  const path = join(logDirectory, 'LOG');
  if (!existsSync(path)) return [];
  const lines = readFileSync(path, 'utf8')
    .split('\n')
    .filter((line) => DROPPED.test(line));
  return lines.map((line) => `LevelDB reported: ${line.replace(/^\S+ \S+ /, '').trim()}`);
}

async function openDatabase(
  paths: Paths,
  isNew: boolean,
  options: OpenDiskOptions,
  noted: Noted,
): Promise<LogDatabase> {
  if (!isNew && existsSync(paths.log)) {
    const damaged = findDamagedTable(paths.log, tablesOf(paths.log));
    if (damaged !== null) throw new StorageError('STORE_REFUSED', `the log's table ${damaged} is damaged`);
  }
  const db: LogDatabase = new Level<Uint8Array, Uint8Array>(paths.log, {
    ...DATABASE_ENCODING,
    createIfMissing: isNew,
    compression: false,
    writeBufferSize: options.writeBufferSize ?? WRITE_BUFFER_BYTES,
    maxFileSize: TABLE_FILE_BYTES,
    cacheSize: CACHE_BYTES,
  });
  try {
    await db.open();
  } catch (error) {
    if (!hasCode(error, ['LEVEL_LOCKED'])) throw error;
    // The note belongs to the process that holds the store, if it was there before.
    if (!noted.wasThere) unlinkSync(paths.opening);
    throw new StorageError('STORE_LOCKED', 'another process has this store open', { cause: error });
  }
  return db;
}

/** The format file comes last: without it nobody ever relied on this store. */
async function create(db: LogDatabase, paths: Paths, serverId: ServerId): Promise<void> {
  mkdirSync(paths.snapshots, { recursive: true, mode: 0o750 });
  const state = blankState(serverId);
  await writeState(db, state);
  Witness.create(paths.witness);
  syncDirectorySync(paths.log);
  replaceFileSync(paths.format, Buffer.from(`quorate-store ${FORMAT_VERSION}\n`, 'latin1'));
}

async function restore(
  db: LogDatabase,
  paths: Paths,
  earlierReasons: readonly string[],
  options: OpenDiskOptions,
  log: StoreLog,
): Promise<{ disk: Disk; restored: RestoredStore }> {
  syncDirectorySync(paths.log);
  syncDirectorySync(paths.root);
  const stored = await readState(db, options.serverId);
  if (!existsSync(paths.snapshots)) throw new StorageError('STORE_REFUSED', 'the directory of snapshots is missing');
  const found = await findSnapshots(paths.snapshots, stored.generation, log);
  const scan = await scanLog(db, stored, { ...options, snapshot: found[0]?.zxid ?? NO_ZXID });
  const holder: { disk: LevelDisk | null } = { disk: null };
  const opened = openWitness(paths, (error) => holder.disk?.fail(openingError(error)));
  try {
    const snapshot = found[0]?.zxid ?? NO_ZXID;
    // Without a snapshot a log is whole only from the very beginning: base and snapshot are both 0 then.
    const isUsable = stored.base <= snapshot && snapshot <= scan.index.tail;
    const reasons = [...earlierReasons, ...droppedLines(paths.log)];
    reasons.push(...faultsOf(stored, scan, opened.value, snapshot, isUsable));
    const classification = classify(stored, reasons);
    const verdict = await persistVerdict(db, stored, opened.witness, classification);
    if (existsSync(paths.creating)) unlinkSync(paths.creating);
    unlinkSync(paths.opening);
    removeLeftovers(paths.snapshots, stored.generation, classification !== 'suspect');
    for (const reason of reasons) log('error', 'the store is suspect', { reason });
    const usable = isUsable ? usableStore(verdict, scan, found) : emptyStore(verdict);
    const disk = new LevelDisk({
      directory: paths.root,
      logDirectory: paths.log,
      snapshotDirectory: paths.snapshots,
      db,
      state: usable.state,
      index: usable.index,
      junk: usable.junk,
      witness: opened.witness,
      snapshots: usable.snapshots,
      freeBytes: freeBytesSync(paths.root),
      log,
    });
    holder.disk = disk;
    keepBallast(paths, options, disk, log);
    const restored: RestoredStore = {
      classification,
      reasons,
      clusterId: stored.clusterId,
      epochs: stored.epochs,
      snapshot: usable.snapshots[0]?.zxid ?? NO_ZXID,
      base: usable.base,
      entries: usable.entries,
      // What a snapshot holds is committed, whatever the hint says.
      committed: later(usable.state.committed, usable.snapshots[0]?.zxid ?? NO_ZXID),
    };
    return { disk, restored };
  } catch (error) {
    opened.witness.closeSync();
    throw error;
  }
}

async function readState(db: LogDatabase, serverId: ServerId): Promise<StoreState> {
  const bytes = await db.get(STATE_KEY, DATABASE_ENCODING);
  const state = bytes === undefined ? null : decodeState(bytes);
  if (state === null) throw new StorageError('STORE_REFUSED', "the store's state is missing or damaged");
  if (state.serverId !== serverId) {
    throw new StorageError(
      'STORE_WRONG_SERVER',
      `the store belongs to server ${state.serverId}, not to server ${serverId}`,
    );
  }
  return state;
}

async function writeState(db: LogDatabase, state: StoreState): Promise<void> {
  await db.batch().put(STATE_KEY, encodeState(state)).write({ sync: true });
}

function openWitness(paths: Paths, onError: (error: Error) => void): { witness: Witness; value: WitnessValue | null } {
  const isMissing = !existsSync(paths.witness);
  if (isMissing) Witness.create(paths.witness);
  return Witness.open(paths.witness, onError);
}

function faultsOf(
  stored: StoreState,
  scan: LogScan,
  witness: WitnessValue | null,
  snapshot: Zxid,
  isUsable: boolean,
): string[] {
  const faults: string[] = [];
  const { epochs } = stored;
  const tail = scan.index.tail;
  if (stored.mark === 'suspect') faults.push('it was marked as suspect before');
  if (scan.fault !== null) faults.push(scan.fault);
  if (tail !== stored.tail) faults.push(`the log ends at ${hex64(tail)}, and should end at ${hex64(stored.tail)}`);
  if (epochs.acceptedEpoch < epochs.currentEpoch) faults.push('currentEpoch is above acceptedEpoch');
  if (epochOf(stored.tail) > epochs.currentEpoch) faults.push('the last record is of an epoch above currentEpoch');
  if (witness === null) {
    // A store that was just created has an unwritten witness.
    if (stored.sequence > 1) faults.push('the witness is missing or damaged');
  } else if (witness.sequence > stored.sequence) {
    faults.push(
      `${witness.sequence - stored.sequence} acknowledged writes are missing, the log went up to ${hex64(witness.tail)}`,
    );
  } else if (witness.sequence === stored.sequence) {
    const isSame = witness.tail === stored.tail && witness.generation === stored.generation;
    if (!isSame) faults.push('the witness and the log disagree about the last write');
  }
  if (snapshot > tail)
    faults.push(`the snapshot at ${hex64(snapshot)} is newer than the log, which ends at ${hex64(tail)}`);
  else if (!isUsable) faults.push(`no snapshot covers the log, which begins behind ${hex64(stored.base)}`);
  if (stored.mark === 'blank' && hasContent(stored))
    faults.push('it took part in an ensemble, but was never marked as clean');
  return faults;
}

function hasContent(stored: StoreState): boolean {
  return stored.clusterId !== '' || stored.tail !== NO_ZXID || stored.generation > 1;
}

function classify(stored: StoreState, reasons: readonly string[]): StoreClass {
  if (reasons.length > 0) return 'suspect';
  return stored.mark === 'blank' ? 'blank' : 'clean';
}

/** A suspect store stays suspect, whatever the next opening sees of it. */
async function persistVerdict(
  db: LogDatabase,
  stored: StoreState,
  witness: Witness,
  classification: StoreClass,
): Promise<StoreState> {
  let verdict = stored;
  if (classification === 'suspect' && stored.mark !== 'suspect') {
    verdict = { ...stored, mark: 'suspect', sequence: stored.sequence + 1 };
    await writeState(db, verdict);
  }
  witness.record(verdict.sequence, verdict.generation, verdict.tail);
  witness.syncSync();
  return verdict;
}

type Usable = {
  readonly state: StoreState;
  readonly index: LogIndex;
  readonly junk: readonly Uint8Array[];
  readonly snapshots: SnapshotEntry[];
  readonly base: Zxid;
  readonly entries: LogScan['entries'];
};

/** All up to the first fault, which for a clean store is all. */
function usableStore(stored: StoreState, scan: LogScan, snapshots: SnapshotEntry[]): Usable {
  const tail = scan.index.tail;
  const committed = earlier(stored.committed, tail);
  return { ...scan, state: { ...stored, tail, committed }, snapshots };
}

/** What is there does not add up to a tree. The server goes on with nothing, in a generation of its own, and needs a snapshot. */
function emptyStore(stored: StoreState): Usable {
  const state = { ...stored, generation: stored.generation + 1, base: NO_ZXID, tail: NO_ZXID, committed: NO_ZXID };
  return { state, index: new LogIndex(NO_ZXID), junk: [], snapshots: [], base: NO_ZXID, entries: [] };
}

function keepBallast(paths: Paths, options: OpenDiskOptions, disk: LevelDisk, log: StoreLog): void {
  const sizeBytes = options.ballastBytes ?? BALLAST_BYTES;
  if (sizeBytes === 0 || isBallastWhole(paths.root, sizeBytes)) return;
  const softLimitBytes = options.softLimitBytes ?? SOFT_LIMIT_BYTES;
  if (freeBytesSync(paths.root) < softLimitBytes + sizeBytes) {
    log('warn', 'there is too little free space for the ballast file', { sizeBytes });
    return;
  }
  writeBallast(
    paths.root,
    sizeBytes,
    () => disk.isOver,
    (error) => {
      if (error !== null) log('warn', 'the ballast file could not be written', { reason: error.message });
    },
  );
}

function freeBytesSync(directory: string): number {
  const stats = statfsSync(directory);
  return stats.bavail * stats.bsize;
}

function openingError(error: unknown): StorageError {
  if (error instanceof StorageError) return error;
  const reason = describe(error);
  if (isDiskFull(error)) return new StorageError('STORE_FULL', `the disk is full: ${reason}`, { cause: error });
  if (hasCode(error, ['EACCES', 'EPERM', 'EROFS', 'ENOTDIR', 'ENAMETOOLONG'])) {
    return new StorageError('STORE_ACCESS', `the directory of the store cannot be used: ${reason}`, { cause: error });
  }
  return new StorageError('STORE_REFUSED', `the store cannot be opened: ${reason}`, { cause: error });
}
