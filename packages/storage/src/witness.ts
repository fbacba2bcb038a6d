// Remembers, outside LevelDB, the last batch that was answered as durable: LevelDB can lose such a batch and open without
// a complaint, and only this file tells a torn last write (harmless) from lost data (never harmless).
// Written after every batch without fsync, which survives the process; fsynced every few seconds, which bounds what a power
// cut can hide. After a power cut it may lag behind the log; it must never lead it.

import { closeSync, fdatasync, fsyncSync, openSync, readSync, writeSync } from 'node:fs';
import { crc32 } from 'node:zlib';
import { counterOf, epochOf, makeZxid, type Zxid } from '@quorate/protocol/zxid';
import type { Done } from './disk.ts';
import { replaceFileSync } from './files.ts';

export type WitnessValue = { readonly sequence: number; readonly generation: number; readonly tail: Zxid };

/** A sector each, so that a torn sector takes one slot only. */
const SLOT_BYTES = 512;
const VALUE_BYTES = 32;
const MAGIC = 0x51574954;
const SYNC_INTERVAL_MS = 3000;

export class Witness {
  readonly #fd: number;
  readonly #bytes = Buffer.alloc(VALUE_BYTES);
  readonly #onError: (error: Error) => void;
  #syncTimer: NodeJS.Timeout | null = null;
  #closed = false;

  private constructor(fd: number, onError: (error: Error) => void) {
    this.#fd = fd;
    this.#onError = onError;
  }

  /** An empty, durable file: both slots unwritten. */
  static create(path: string): void {
    replaceFileSync(path, new Uint8Array(2 * SLOT_BYTES));
  }

  /** `value` is the newer of the valid slots, null when there is none. Throws when the file is missing. */
  static open(path: string, onError: (error: Error) => void): { witness: Witness; value: WitnessValue | null } {
    const fd = openSync(path, 'r+');
    const witness = new Witness(fd, onError);
    const first = readSlot(fd, 0);
    const second = readSlot(fd, SLOT_BYTES);
    if (first === null || second === null) return { witness, value: first ?? second };
    return { witness, value: first.sequence > second.sequence ? first : second };
  }

  /** Throws on failure, which ends the store like every other storage error. */
  record(sequence: number, generation: number, tail: Zxid): void {
    const bytes = this.#bytes;
    bytes.writeUInt32BE(MAGIC, 0);
    bytes.writeUInt32BE(Math.floor(sequence / 2 ** 32), 4);
    bytes.writeUInt32BE(sequence % 2 ** 32, 8);
    bytes.writeUInt32BE(generation, 12);
    bytes.writeUInt32BE(epochOf(tail), 16);
    bytes.writeUInt32BE(counterOf(tail), 20);
    bytes.writeUInt32BE(0, 24);
    bytes.writeUInt32BE(crc32(bytes.subarray(0, 28)), 28);
    writeSync(this.#fd, bytes, 0, VALUE_BYTES, (sequence % 2) * SLOT_BYTES);
    if (this.#syncTimer === null) this.#syncTimer = setTimeout(() => this.#sync(), SYNC_INTERVAL_MS).unref();
  }

  close(done: Done): void {
    if (this.#closed) {
      done(null);
      return;
    }
    this.#closed = true;
    if (this.#syncTimer !== null) clearTimeout(this.#syncTimer);
    fdatasync(this.#fd, (error) => {
      closeSync(this.#fd);
      done(error);
    });
  }

  /** For stores whose opening failed half-way. */
  closeSync(): void {
    if (this.#closed) return;
    this.#closed = true;
    if (this.#syncTimer !== null) clearTimeout(this.#syncTimer);
    closeSync(this.#fd);
  }

  /** Opening only: makes what was recorded durable at once. */
  syncSync(): void {
    fsyncSync(this.#fd);
  }

  #sync(): void {
    this.#syncTimer = null;
    fdatasync(this.#fd, (error) => {
      if (error !== null && !this.#closed) this.#onError(error);
    });
  }
}

function readSlot(fd: number, offset: number): WitnessValue | null {
  const bytes = Buffer.alloc(VALUE_BYTES);
  if (readSync(fd, bytes, 0, VALUE_BYTES, offset) !== VALUE_BYTES) return null;
  if (bytes.readUInt32BE(0) !== MAGIC || bytes.readUInt32BE(28) !== crc32(bytes.subarray(0, 28))) return null;
  return {
    sequence: bytes.readUInt32BE(4) * 2 ** 32 + bytes.readUInt32BE(8),
    generation: bytes.readUInt32BE(12),
    tail: makeZxid(bytes.readUInt32BE(16), bytes.readUInt32BE(20)),
  };
}
