// The bytes of one snapshot file: header, chunks, footer, each with a CRC; whole or not a snapshot. The chunks are opaque.
//   header  'QSNP' | version u32 | zxid u64 | crc u32
//   chunk   length u32 (never 0) | crc u32 | bytes
//   footer  0 u32 | chunk count u32 | payload bytes u64 | crc over the chunk crcs u32 | zxid u64 | crc u32 | 'QEND'
// Reading trusts no length: a chunk is allocated only when the file is long enough to hold it.

import { close, closeSync, fstatSync, fsync, open, openSync, read, readSync, unlink } from 'node:fs';
import { crc32 } from 'node:zlib';
import { assert } from '@quorate/protocol/assert';
import { hex64, makeZxid, type Zxid } from '@quorate/protocol/zxid';
import type { Done, SnapshotReader } from './disk.ts';
import { writeAll } from './files.ts';
import { StorageError } from './storage-error.ts';

const MAGIC = 0x51534e50;
const END_MAGIC = 0x51454e44;
const VERSION = 1;
const HEADER_BYTES = 20;
const CHUNK_HEADER_BYTES = 8;
const FOOTER_BYTES = 36;
/** A writer that exceeds it is a bug; a reader that meets more has met damage. */
export const CHUNK_BYTES_MAX = 64 * 1024 * 1024;

function encodeHeader(zxid: Zxid): Buffer {
  const bytes = Buffer.allocUnsafe(HEADER_BYTES);
  bytes.writeUInt32BE(MAGIC, 0);
  bytes.writeUInt32BE(VERSION, 4);
  writeZxid(bytes, 8, zxid);
  bytes.writeUInt32BE(crc32(bytes.subarray(0, 16)), 16);
  return bytes;
}

function encodeFooter(zxid: Zxid, totals: Totals): Buffer {
  const bytes = Buffer.allocUnsafe(FOOTER_BYTES);
  bytes.writeUInt32BE(0, 0);
  bytes.writeUInt32BE(totals.chunkCount, 4);
  bytes.writeUInt32BE(Math.floor(totals.payloadBytes / 2 ** 32), 8);
  bytes.writeUInt32BE(totals.payloadBytes % 2 ** 32, 12);
  bytes.writeUInt32BE(totals.crcOfCrcs, 16);
  writeZxid(bytes, 20, zxid);
  bytes.writeUInt32BE(crc32(bytes.subarray(0, 28)), 28);
  bytes.writeUInt32BE(END_MAGIC, 32);
  return bytes;
}

type Totals = { chunkCount: number; payloadBytes: number; crcOfCrcs: number };

function addChunk(totals: Totals, chunkHeader: Uint8Array, bytes: number): void {
  totals.chunkCount++;
  totals.payloadBytes += bytes;
  totals.crcOfCrcs = crc32(chunkHeader.subarray(4, 8), totals.crcOfCrcs);
}

/** What the header and the footer say, checked against each other and the file's size, but not the chunks between. */
export type SnapshotOutline = { readonly zxid: Zxid; readonly sizeBytes: number };

/** null: damaged. Throws only when the file cannot be read at all. */
export function readOutlineSync(path: string): SnapshotOutline | null {
  const fd = openSync(path, 'r');
  try {
    return outlineOf(fd);
  } finally {
    closeSync(fd);
  }
}

function outlineOf(fd: number): SnapshotOutline | null {
  const size = fstatSync(fd).size;
  if (size < HEADER_BYTES + FOOTER_BYTES) return null;
  const header = Buffer.alloc(HEADER_BYTES);
  const footer = Buffer.alloc(FOOTER_BYTES);
  if (readSync(fd, header, 0, HEADER_BYTES, 0) !== HEADER_BYTES) return null;
  if (readSync(fd, footer, 0, FOOTER_BYTES, size - FOOTER_BYTES) !== FOOTER_BYTES) return null;
  if (header.readUInt32BE(0) !== MAGIC || header.readUInt32BE(4) !== VERSION) return null;
  if (header.readUInt32BE(16) !== crc32(header.subarray(0, 16))) return null;
  if (footer.readUInt32BE(32) !== END_MAGIC || footer.readUInt32BE(28) !== crc32(footer.subarray(0, 28))) return null;
  const zxid = readZxid(header, 8);
  const payloadBytes = footer.readUInt32BE(8) * 2 ** 32 + footer.readUInt32BE(12);
  const expected = HEADER_BYTES + footer.readUInt32BE(4) * CHUNK_HEADER_BYTES + payloadBytes + FOOTER_BYTES;
  if (zxid !== readZxid(footer, 20) || size !== expected) return null;
  return { zxid, sizeBytes: payloadBytes };
}

/** Reads chunk by chunk and checks everything on the way: a reader that comes to its end has verified the file. */
export class SnapshotFileReader implements SnapshotReader {
  readonly zxid: Zxid;
  readonly sizeBytes: number;
  readonly #fd: number;
  readonly #fileBytes: number;
  readonly #totals: Totals = { chunkCount: 0, payloadBytes: 0, crcOfCrcs: 0 };
  #position = HEADER_BYTES;
  #isClosed = false;
  #isReading = false;
  #isAtEnd = false;

  private constructor(fd: number, outline: SnapshotOutline) {
    this.#fd = fd;
    this.zxid = outline.zxid;
    this.sizeBytes = outline.sizeBytes;
    this.#fileBytes = fstatSync(fd).size;
  }

  /** The descriptor is open at once: the file may be removed from now on without harm to this reader. */
  static open(path: string, zxid: Zxid): SnapshotFileReader {
    const fd = openSync(path, 'r');
    const outline = outlineOf(fd);
    if (outline === null || outline.zxid !== zxid) {
      closeSync(fd);
      throw new StorageError('SNAPSHOT_DAMAGED', `the snapshot at ${hex64(zxid)} is damaged: header or footer`);
    }
    return new SnapshotFileReader(fd, outline);
  }

  next(done: (error: Error | null, chunk: Uint8Array | null) => void): void {
    assert(!this.#isClosed, 'a closed reader is not read from');
    assert(!this.#isReading, 'a reader has one read under way');
    if (this.#isAtEnd) {
      queueMicrotask(() => done(null, null));
      return;
    }
    this.#isReading = true;
    const answer = (error: Error | null, chunk: Uint8Array | null): void => {
      this.#isReading = false;
      if (this.#isClosed) {
        this.#release();
        return;
      }
      done(error, chunk);
    };
    this.#readExactly(CHUNK_HEADER_BYTES, (error, header) => {
      if (header === null) return answer(error, null);
      const length = header.readUInt32BE(0);
      if (length === 0) return this.#readFooter(answer);
      if (length > CHUNK_BYTES_MAX || this.#position + length + FOOTER_BYTES > this.#fileBytes) {
        return answer(this.#damaged('a chunk length'), null);
      }
      this.#readExactly(length, (readError, chunk) => {
        if (chunk === null) return answer(readError, null);
        if (crc32(chunk) !== header.readUInt32BE(4)) return answer(this.#damaged('a chunk'), null);
        addChunk(this.#totals, header, length);
        answer(null, chunk);
      });
    });
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    if (!this.#isReading) this.#release();
  }

  #release(): void {
    close(this.#fd, () => {});
  }

  #readFooter(answer: (error: Error | null, chunk: Uint8Array | null) => void): void {
    this.#position -= CHUNK_HEADER_BYTES;
    if (this.#position !== this.#fileBytes - FOOTER_BYTES) {
      answer(this.#damaged('its length'), null);
      return;
    }
    this.#readExactly(FOOTER_BYTES, (error, footer) => {
      if (footer === null) return answer(error, null);
      if (!footer.equals(encodeFooter(this.zxid, this.#totals))) return answer(this.#damaged('the footer'), null);
      this.#isAtEnd = true;
      answer(null, null);
    });
  }

  #readExactly(length: number, done: (error: Error | null, bytes: Buffer | null) => void): void {
    const bytes = Buffer.allocUnsafeSlow(length);
    const readOn = (filled: number): void => {
      read(this.#fd, bytes, filled, length - filled, this.#position, (error, count) => {
        if (error !== null) {
          return done(new StorageError('SNAPSHOT_FAILED', 'a snapshot cannot be read', { cause: error }), null);
        }
        if (count === 0) return done(this.#damaged('its end is missing'), null);
        this.#position += count;
        if (filled + count === length) return done(null, bytes);
        readOn(filled + count);
      });
    };
    readOn(0);
  }

  #damaged(what: string): StorageError {
    return new StorageError('SNAPSHOT_DAMAGED', `the snapshot at ${hex64(this.zxid)} is damaged: ${what}`);
  }
}

/** Reads the whole file, one chunk per turn of the event loop. */
export function verifySnapshot(path: string, zxid: Zxid, done: (error: Error | null, sizeBytes: number) => void): void {
  let reader: SnapshotFileReader;
  try {
    reader = SnapshotFileReader.open(path, zxid);
  } catch (error) {
    const cause = error instanceof Error ? error : new Error(String(error));
    queueMicrotask(() => done(cause, 0));
    return;
  }
  const readOn = (): void => {
    reader.next((error, chunk) => {
      if (error === null && chunk !== null) return readOn();
      reader.close();
      done(error, reader.sizeBytes);
    });
  };
  readOn();
}

/** Writes one file, in the order of its calls. Every callback comes later, never inside the call. */
export class SnapshotFileWriter {
  readonly path: string;
  readonly #zxid: Zxid;
  readonly #totals: Totals = { chunkCount: 0, payloadBytes: 0, crcOfCrcs: 0 };
  readonly #steps: { readonly run: (done: Done) => void; readonly done: Done }[] = [];
  #fd: number | null = null;
  #position = 0;
  #isRunning = false;
  #failure: Error | null = null;
  #isAborted = false;
  #isFinished = false;

  constructor(path: string, zxid: Zxid) {
    this.path = path;
    this.#zxid = zxid;
    this.#push(
      (next) =>
        open(path, 'wx', 0o640, (error, fd) => {
          if (error !== null) return next(error);
          this.#fd = fd;
          this.#append(encodeHeader(zxid), next);
        }),
      () => {},
    );
  }

  get isAborted(): boolean {
    return this.#isAborted;
  }

  write(chunk: Uint8Array, done: Done): void {
    assert(chunk.byteLength <= CHUNK_BYTES_MAX, 'a chunk is at most CHUNK_BYTES_MAX long');
    // An empty chunk would read as the footer.
    if (chunk.byteLength === 0) {
      this.#push((next) => next(null), done);
      return;
    }
    this.#push((next) => {
      const header = Buffer.allocUnsafe(CHUNK_HEADER_BYTES);
      header.writeUInt32BE(chunk.byteLength, 0);
      header.writeUInt32BE(crc32(chunk), 4);
      addChunk(this.#totals, header, chunk.byteLength);
      this.#append(header, (error) => (error === null ? this.#append(chunk, next) : next(error)));
    }, done);
  }

  /** After done(null) the file is whole, fsynced and closed under its temporary name, and was read back without a fault. */
  finish(done: (error: Error | null, sizeBytes: number) => void): void {
    this.#push(
      (next) =>
        this.#append(encodeFooter(this.#zxid, this.#totals), (error) => {
          if (error !== null || this.#fd === null) return next(error);
          fsync(this.#fd, (syncError) => {
            if (syncError !== null) return next(syncError);
            this.#closeFd(() => verifySnapshot(this.path, this.#zxid, next));
          });
        }),
      (error) => {
        this.#isFinished = error === null;
        done(error, this.#totals.payloadBytes);
      },
    );
  }

  /** Steps that have not begun are answered with SNAPSHOT_ABORTED; the file goes away. Too late after finish: nothing happens. */
  abort(): void {
    if (this.#isAborted || this.#isFinished) return;
    this.#isAborted = true;
    if (!this.#isRunning) this.#runNext();
  }

  #append(bytes: Uint8Array, done: Done): void {
    assert(this.#fd !== null, 'the file is open');
    const position = this.#position;
    this.#position += bytes.byteLength;
    writeAll(this.#fd, bytes, position, done);
  }

  #push(run: (done: Done) => void, done: Done): void {
    this.#steps.push({ run, done });
    if (!this.#isRunning) {
      this.#isRunning = true;
      queueMicrotask(() => this.#runNext());
    }
  }

  #runNext(): void {
    if (this.#isAborted) {
      this.#discard();
      return;
    }
    const step = this.#steps.shift();
    this.#isRunning = step !== undefined;
    if (step === undefined) return;
    if (this.#failure !== null) {
      this.#ended(step.done, this.#failure);
      return;
    }
    step.run((error) => this.#ended(step.done, error));
  }

  #ended(done: Done, error: Error | null): void {
    if (error !== null && this.#failure === null) {
      this.#failure = error;
      // Nobody will use this file any more, and it may hold the last free space.
      this.#closeFd(() => unlink(this.path, () => {}));
    }
    if (this.#isAborted && error === null) error = abortedError();
    done(error);
    this.#runNext();
  }

  #discard(): void {
    this.#isRunning = false;
    const waiting = this.#steps.splice(0);
    this.#closeFd(() => unlink(this.path, () => {}));
    for (const { done } of waiting) done(abortedError());
  }

  #closeFd(then: () => void): void {
    const fd = this.#fd;
    this.#fd = null;
    if (fd === null) {
      then();
      return;
    }
    close(fd, () => then());
  }
}

function abortedError(): StorageError {
  return new StorageError('SNAPSHOT_ABORTED', 'the snapshot was given up by its writer');
}

function writeZxid(into: Buffer, offset: number, zxid: Zxid): void {
  into.writeUInt32BE(Number(zxid >> 32n), offset);
  into.writeUInt32BE(Number(zxid & 0xffffffffn), offset + 4);
}

function readZxid(from: Buffer, offset: number): Zxid {
  return makeZxid(from.readUInt32BE(offset), from.readUInt32BE(offset + 4));
}
