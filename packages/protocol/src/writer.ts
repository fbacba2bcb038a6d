// JuteWriter appends jute fields to one growing buffer. It owns that buffer until detach(); it allocates only when it
// grows, never per field. Lengths that are known late (frames) are patched in afterwards.

import { assert } from './assert.ts';

const CAPACITY_BYTES_DEFAULT = 1024;
// Up to here a loop over ASCII characters is faster than the call into the native encoder.
const ASCII_LOOP_CHARS_MAX = 40;
const TWO_TO_32 = 4294967296;

export class JuteWriter {
  readonly #initialBytes: number;
  #buffer: Buffer;
  #view: DataView;
  #position = 0;
  // Where the length of the open frame stands; -1 when none is open.
  #frameStart = -1;

  constructor(capacityBytes: number = CAPACITY_BYTES_DEFAULT) {
    assert(capacityBytes > 0, 'a writer starts with room for something', capacityBytes);
    this.#initialBytes = capacityBytes;
    this.#buffer = Buffer.allocUnsafeSlow(capacityBytes);
    this.#view = new DataView(this.#buffer.buffer, this.#buffer.byteOffset, capacityBytes);
  }

  /** Bytes written so far. */
  get position(): number {
    return this.#position;
  }

  get capacity(): number {
    return this.#buffer.length;
  }

  writeInt(value: number): void {
    const at = this.#reserve(4);
    this.#view.setInt32(at, value);
  }

  writeLong(value: bigint): void {
    const at = this.#reserve(8);
    this.#view.setBigInt64(at, value);
  }

  /** The same bytes as writeLong; zxids are non-negative, so the unsigned setter does. */
  writeZxid(zxid: bigint): void {
    const at = this.#reserve(8);
    this.#view.setBigInt64(at, zxid);
  }

  /** Milliseconds as a long, through two 32-bit halves: about ten times cheaper than by way of bigint. */
  writeTime(timeMs: number): void {
    const at = this.#reserve(8);
    const high = Math.floor(timeMs / TWO_TO_32);
    this.#view.setInt32(at, high);
    this.#view.setUint32(at + 4, timeMs - high * TWO_TO_32);
  }

  writeBool(value: boolean): void {
    const at = this.#reserve(1);
    this.#view.setUint8(at, value ? 1 : 0);
  }

  /** buffer: int n, n bytes; null is -1. */
  writeBuffer(value: Uint8Array | null): void {
    if (value === null) {
      this.writeInt(-1);
      return;
    }
    const length = value.length;
    const at = this.#reserve(4 + length);
    this.#view.setInt32(at, length);
    this.#buffer.set(value, at + 4);
  }

  /** ustring: int n, n bytes of UTF-8; null is -1. */
  writeString(value: string | null): void {
    if (value === null) {
      this.writeInt(-1);
      return;
    }
    const length = value.length;
    // UTF-8 needs at most three bytes for a UTF-16 code unit.
    const at = this.#reserve(4 + length * 3);
    let written = -1;
    if (length <= ASCII_LOOP_CHARS_MAX) written = this.#writeAscii(value, at + 4);
    if (written < 0) written = this.#buffer.write(value, at + 4, 'utf8');
    this.#view.setInt32(at, written);
    this.#position = at + 4 + written;
  }

  /** vector: int count, then the elements; -1 is the null vector. */
  writeVectorCount(count: number): void {
    this.writeInt(count);
  }

  /** vector<ustring> */
  writeStrings(values: readonly string[]): void {
    this.writeInt(values.length);
    for (const value of values) this.writeString(value);
  }

  /** Bytes that are encoded already, without a length. */
  writeRaw(bytes: Uint8Array): void {
    const at = this.#reserve(bytes.length);
    this.#buffer.set(bytes, at);
  }

  /** Opens a frame: leaves room for its length. */
  beginFrame(): void {
    assert(this.#frameStart < 0, 'one frame is open at a time');
    this.#frameStart = this.#reserve(4);
  }

  /** Closes the frame: its length is everything written since beginFrame. */
  endFrame(): void {
    assert(this.#frameStart >= 0, 'a frame is open');
    this.#view.setInt32(this.#frameStart, this.#position - this.#frameStart - 4);
    this.#frameStart = -1;
  }

  /** Drops the open frame, as if beginFrame had not been called. */
  abortFrame(): void {
    assert(this.#frameStart >= 0, 'a frame is open');
    this.#position = this.#frameStart;
    this.#frameStart = -1;
  }

  /** A view of what is written. It is valid until the next write or reset. */
  bytes(): Uint8Array {
    assert(this.#frameStart < 0, 'no frame is open');
    return this.#buffer.subarray(0, this.#position);
  }

  /** Forgets what is written and keeps the buffer. */
  reset(): void {
    this.#position = 0;
    this.#frameStart = -1;
  }

  /** Hands over what is written, memory included, and goes on with a new buffer of the first size. */
  detach(): Uint8Array {
    const bytes = this.bytes();
    this.#replace(Buffer.allocUnsafeSlow(this.#initialBytes));
    this.#position = 0;
    return bytes;
  }

  #writeAscii(value: string, at: number): number {
    const buffer = this.#buffer;
    const length = value.length;
    for (let index = 0; index < length; index += 1) {
      const code = value.charCodeAt(index);
      if (code >= 0x80) return -1;
      buffer[at + index] = code;
    }
    return length;
  }

  #reserve(length: number): number {
    const at = this.#position;
    const needed = at + length;
    if (needed > this.#buffer.length) this.#grow(needed);
    this.#position = needed;
    return at;
  }

  #grow(needed: number): void {
    const capacity = this.#buffer.length;
    const grown = Buffer.allocUnsafeSlow(Math.max(needed, capacity + (capacity >> 1)));
    grown.set(this.#buffer.subarray(0, this.#position));
    this.#replace(grown);
  }

  #replace(buffer: Buffer): void {
    this.#buffer = buffer;
    this.#view = new DataView(buffer.buffer, buffer.byteOffset, buffer.length);
  }
}
