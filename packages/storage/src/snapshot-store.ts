// The snapshot files of one store: which exist, which are verified, which one is staged. A file has its final name only when it is
// durable and was read back; the name carries the generation of the log it belongs to, so that a snapshot can never be
// combined with a log that it does not fit. It knows nothing of what is inside the chunks, and never touches LevelDB.

import { closeSync, openSync, readdirSync, rename, renameSync, unlink, unlinkSync } from 'node:fs';
import { join } from 'node:path';
import { assert } from '@quorate/protocol/assert';
import { hex64, type Zxid, zxidFrom } from '@quorate/protocol/zxid';
import type { Done, SnapshotReader, SnapshotWriter } from './disk.ts';
import { syncDirectorySync, syncFd } from './files.ts';
import { readOutlineSync, SnapshotFileReader, SnapshotFileWriter, verifySnapshot } from './snapshot-file.ts';
import { describe, hasCode, isDiskFull, StorageError } from './storage-error.ts';
import type { StoreLog } from './store-log.ts';

const NAME = /^([0-9a-f]{8})-([0-9a-f]{16})\.snap$/;

export type SnapshotEntry = {
  readonly zxid: Zxid;
  readonly sizeBytes: number;
  readonly path: string;
  /** Every byte was read and checked by this process. */
  isVerified: boolean;
};

export type SnapshotStoreParts = {
  readonly directory: string;
  readonly generation: number;
  /** Newest first, the first one verified. */
  readonly found: SnapshotEntry[];
  readonly log: StoreLog;
  /** Calls back when every record up to `zxid` is durable: a snapshot never gets ahead of its log. */
  readonly whenDurable: (zxid: Zxid, done: Done) => void;
  readonly onFailure: (error: StorageError) => void;
};

type Staged = { readonly zxid: Zxid; readonly writer: SnapshotFileWriter; sizeBytes: number | null };

export class SnapshotStore {
  readonly #parts: SnapshotStoreParts;
  readonly #directoryFd: number;
  #entries: SnapshotEntry[];
  #generation: number;
  #staged: Staged | null = null;
  /** Staged snapshots that a queued write refers to: no longer to be discarded. */
  readonly #claimed: Staged[] = [];
  /** Renamed for the generation to come; its batch is not durable yet. */
  #activated: SnapshotEntry | null = null;
  #temporaryCount = 0;

  constructor(parts: SnapshotStoreParts) {
    this.#parts = parts;
    this.#entries = parts.found;
    this.#generation = parts.generation;
    this.#directoryFd = openSync(parts.directory, 'r');
  }

  /** Newest first. */
  get verified(): readonly SnapshotEntry[] {
    return this.#entries.filter((entry) => entry.isVerified);
  }

  get newest(): SnapshotEntry | null {
    return this.#entries.find((entry) => entry.isVerified) ?? null;
  }

  begin(zxid: Zxid): SnapshotWriter {
    const generation = this.#generation;
    const writer = new SnapshotFileWriter(this.#temporaryPath('taking', zxid), zxid);
    return this.#guarded(writer, (sizeBytes, done) => {
      this.#parts.whenDurable(zxid, (error) => {
        if (error !== null) return done(error);
        if (generation !== this.#generation) {
          this.#parts.log('info', 'a snapshot was finished after its log was replaced, and is dropped', {
            zxid: hex64(zxid),
          });
          return unlink(writer.path, () => done(null));
        }
        const path = this.#finalPath(generation, zxid);
        this.#moveDurably(writer.path, path, (moveError) => {
          if (moveError !== null) return done(moveError);
          if (generation === this.#generation) this.#add({ zxid, sizeBytes, path, isVerified: true });
          done(null);
        });
      });
    });
  }

  stage(zxid: Zxid): SnapshotWriter {
    this.discardStaged();
    const writer = new SnapshotFileWriter(this.#temporaryPath('staged', zxid), zxid);
    const staged: Staged = { zxid, writer, sizeBytes: null };
    this.#staged = staged;
    return this.#guarded(writer, (sizeBytes, done) => {
      staged.sizeBytes = sizeBytes;
      done(null);
    });
  }

  discardStaged(): void {
    const staged = this.#staged;
    this.#staged = null;
    if (staged === null) return;
    if (staged.sizeBytes === null) staged.writer.abort();
    else unlink(staged.writer.path, () => {});
  }

  /** A write that switches to the staged snapshot was given: from now on it belongs to that write. */
  claimStaged(zxid: Zxid): void {
    const staged = this.#staged;
    assert(staged !== null && staged.zxid === zxid, 'the base of a write is the staged snapshot');
    assert(staged.sizeBytes !== null, 'a staged snapshot is finished before it is used');
    this.#staged = null;
    this.#claimed.push(staged);
  }

  activateStaged(zxid: Zxid, generation: number, done: Done): void {
    const staged = this.#claimed.shift();
    assert(staged !== undefined && staged.zxid === zxid && staged.sizeBytes !== null, 'bases are written in order');
    const path = this.#finalPath(generation, zxid);
    this.#activated = { zxid, sizeBytes: staged.sizeBytes, path, isVerified: true };
    this.#moveDurably(staged.writer.path, path, done);
  }

  /** The batch that refers to the activated snapshot is durable: all others are dead. */
  onSwitched(zxid: Zxid, generation: number): void {
    const activated = this.#activated;
    assert(activated !== null && activated.zxid === zxid, 'the durable base is the activated snapshot');
    const dead = this.#entries;
    this.#activated = null;
    this.#generation = generation;
    this.#entries = [activated];
    for (const entry of dead) this.#remove(entry);
  }

  open(zxid: Zxid): SnapshotReader {
    const entry = this.#entries.find((candidate) => candidate.isVerified && candidate.zxid === zxid);
    if (entry === undefined) throw new StorageError('SNAPSHOT_MISSING', `there is no snapshot at ${hex64(zxid)}`);
    return SnapshotFileReader.open(entry.path, zxid);
  }

  /** Reads those that open did not read, newest first, until `count` are verified; damaged ones are set aside. */
  verify(count: number, done: Done): void {
    const next = this.#entries.slice(0, count).find((entry) => !entry.isVerified);
    if (next === undefined) {
      done(null);
      return;
    }
    verifySnapshot(next.path, next.zxid, (error) => {
      const isListed = this.#entries.includes(next);
      if (error === null) next.isVerified = true;
      else if (isListed && !isDamage(error)) return done(error);
      else if (isListed) {
        this.#entries = this.#entries.filter((entry) => entry !== next);
        setAside(next.path, describe(error), this.#parts.log);
      }
      this.verify(count, done);
    });
  }

  /** Keeps the newest `count` entries, all verified by now, and removes the files of the others. */
  keepNewest(count: number): void {
    const dead = this.#entries.slice(count);
    this.#entries = this.#entries.slice(0, count);
    for (const entry of dead) this.#remove(entry);
  }

  closeSync(): void {
    closeSync(this.#directoryFd);
  }

  #add(added: SnapshotEntry): void {
    const others = this.#entries.filter((entry) => entry.zxid !== added.zxid);
    this.#entries = [...others, added].sort((one, other) => (one.zxid > other.zxid ? -1 : 1));
  }

  /** A name that comes back after a crash is removed or verified again at the next start: no need to wait here. */
  #remove(entry: SnapshotEntry): void {
    unlink(entry.path, (error) => {
      if (error !== null && !hasCode(error, ['ENOENT'])) {
        this.#parts.log('warn', 'an old snapshot could not be removed', { path: entry.path, reason: error.message });
      }
    });
  }

  #moveDurably(from: string, to: string, done: Done): void {
    rename(from, to, (error) => (error === null ? syncFd(this.#directoryFd, done) : done(error)));
  }

  /** Every failure of a snapshot file except giving it up is a storage error, and final for the store. */
  #guarded(writer: SnapshotFileWriter, onWritten: (sizeBytes: number, done: Done) => void): SnapshotWriter {
    const guard =
      (done: Done): Done =>
      (error) => {
        if (error === null || hasCode(error, ['SNAPSHOT_ABORTED'])) return done(error);
        const failure = snapshotFailure(error);
        this.#parts.onFailure(failure);
        done(failure);
      };
    return {
      write: (chunk, done) => writer.write(chunk, guard(done)),
      finish: (done) => {
        const guarded = guard(done);
        writer.finish((error, sizeBytes) => (error === null ? onWritten(sizeBytes, guarded) : guarded(error)));
      },
      abort: () => writer.abort(),
    };
  }

  #temporaryPath(kind: 'taking' | 'staged', zxid: Zxid): string {
    this.#temporaryCount++;
    return join(this.#parts.directory, `${kind}-${hex16(zxid)}-${this.#temporaryCount}.tmp`);
  }

  #finalPath(generation: number, zxid: Zxid): string {
    return join(this.#parts.directory, `${generation.toString(16).padStart(8, '0')}-${hex16(zxid)}.snap`);
  }
}

/** Opening: the snapshots of this generation, newest first, the first one verified. Damaged ones are set aside. */
export async function findSnapshots(directory: string, generation: number, log: StoreLog): Promise<SnapshotEntry[]> {
  const found: SnapshotEntry[] = [];
  for (const name of readdirSync(directory)) {
    const match = NAME.exec(name);
    if (match === null || Number.parseInt(match[1] ?? '', 16) !== generation) continue;
    const path = join(directory, name);
    const zxid = zxidFrom(BigInt(`0x${match[2] ?? '0'}`));
    const outline = readOutlineSync(path);
    if (outline === null || outline.zxid !== zxid) setAside(path, 'header or footer', log);
    else found.push({ zxid, sizeBytes: outline.sizeBytes, path, isVerified: false });
  }
  found.sort((one, other) => (one.zxid > other.zxid ? -1 : 1));
  for (let newest = found[0]; newest !== undefined; newest = found[0]) {
    const { path, zxid } = newest;
    const error = await new Promise<Error | null>((resolve) => verifySnapshot(path, zxid, resolve));
    if (error === null) {
      newest.isVerified = true;
      break;
    }
    if (!isDamage(error)) throw error;
    setAside(path, describe(error), log);
    found.shift();
  }
  return found;
}

/** Opening: what no log refers to. Files of other generations go only when the store is clean: else they are evidence. */
export function removeLeftovers(directory: string, generation: number, isClean: boolean): void {
  for (const name of readdirSync(directory)) {
    const match = NAME.exec(name);
    const isDead = match !== null && isClean && Number.parseInt(match[1] ?? '', 16) !== generation;
    if (isDead || name.endsWith('.tmp')) unlinkSync(join(directory, name));
  }
}

function isDamage(error: Error): boolean {
  return hasCode(error, ['SNAPSHOT_DAMAGED']);
}

/** Kept under another name: the operator may want to look at it, and it must never be tried again. */
function setAside(path: string, reason: string, log: StoreLog): void {
  log('error', 'a damaged snapshot is set aside', { path, reason });
  renameSync(path, `${path}.damaged`);
  syncDirectorySync(join(path, '..'));
}

function snapshotFailure(error: Error): StorageError {
  if (error instanceof StorageError) return error;
  if (isDiskFull(error))
    return new StorageError('STORE_FULL', `the disk is full: ${describe(error)}`, { cause: error });
  return new StorageError('SNAPSHOT_FAILED', `a snapshot could not be written: ${describe(error)}`, { cause: error });
}

function hex16(zxid: Zxid): string {
  return zxid.toString(16).padStart(16, '0');
}
