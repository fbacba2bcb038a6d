// JuteReader reads one frame's jute fields in place. It owns the offset and the bounds: whatever the bytes claim,
// nothing beyond `end` is read, nothing is allocated on the word of a length field, and only ProtocolError is thrown.

import { assert } from './assert.ts';
import { ProtocolError } from './protocol-error.ts';
import type { Zxid } from './zxid.ts';
import { zxidFrom } from './zxid.ts';

const EMPTY = new Uint8Array(0);
// Up to here a loop over ASCII bytes is faster than the call into the native decoder.
const ASCII_LOOP_BYTES_MAX = 12;
const TWO_TO_32 = 4294967296;

export class JuteReader {
  #bytes: Uint8Array = EMPTY;
  // The same memory as #bytes; kept while frames of the same chunk follow each other.
  #view: DataView = new DataView(EMPTY.buffer);
  #text: Buffer | null = null;
  #offset = 0;
  #end = 0;

  constructor(bytes: Uint8Array = EMPTY, start = 0, end: number = bytes.length) {
    this.reset(bytes, start, end);
  }

  /** Turns the reader to another frame. Allocates nothing while `bytes` stays the same chunk. */
  reset(bytes: Uint8Array, start = 0, end: number = bytes.length): void {
    assert(start >= 0 && start <= end && end <= bytes.length, 'the frame lies inside its bytes');
    if (bytes !== this.#bytes) {
      this.#bytes = bytes;
      this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
      this.#text = null;
    }
    this.#offset = start;
    this.#end = end;
  }

  /** Lets go of the chunk, so that an idle connection does not hold its last one. */
  release(): void {
    this.reset(EMPTY, 0, 0);
  }

  get offset(): number {
    return this.#offset;
  }

  get remaining(): number {
    return this.#end - this.#offset;
  }

  /** int: 4 bytes, big-endian, two's complement. */
  readInt(): number {
    const at = this.#take(4);
    return this.#view.getInt32(at);
  }

  /** long: 8 bytes, big-endian, two's complement. */
  readLong(): bigint {
    const at = this.#take(8);
    return this.#view.getBigInt64(at);
  }

  readZxid(): Zxid {
    return zxidFrom(this.readLong());
  }

  /** A long that holds milliseconds since 1970; exact between -2^53 and 2^53. */
  readTime(): number {
    const at = this.#take(8);
    return this.#view.getInt32(at) * TWO_TO_32 + this.#view.getUint32(at + 4);
  }

  /** boolean: one byte, any non-zero is true. */
  readBool(): boolean {
    const at = this.#take(1);
    return this.#bytes[at] !== 0;
  }

  /** buffer: int n, n bytes; -1 is null. The result is a view: it is valid as long as the chunk, and holds it in memory. */
  readBuffer(): Uint8Array | null {
    const length = this.#readLength();
    if (length < 0) return null;
    const at = this.#take(length);
    return new Uint8Array(this.#bytes.buffer, this.#bytes.byteOffset + at, length);
  }

  /** As readBuffer, but with memory of its own: for what outlives the chunk. */
  readBufferCopy(): Uint8Array | null {
    const view = this.readBuffer();
    return view === null ? null : view.slice();
  }

  /** ustring that must be there: a null string is a ProtocolError. */
  readString(): string {
    const length = this.#readLength();
    if (length < 0) throw new ProtocolError('nullString', 'this string is not null');
    return this.#decodeText(this.#take(length), length);
  }

  /** ustring: int n, n bytes of UTF-8; -1 is null. Broken UTF-8 becomes U+FFFD, as in ZooKeeper's reader. */
  readStringOrNull(): string | null {
    const length = this.#readLength();
    if (length < 0) return null;
    return this.#decodeText(this.#take(length), length);
  }

  /**
   * vector: int count, then the elements; -1 is the null vector. The count is compared with the bytes that are left
   * (`elementBytesMin` for each), so that a caller may allocate by it.
   */
  readVectorCount(elementBytesMin: number): number {
    const count = this.readInt();
    if (count < -1) throw new ProtocolError('badLength', 'a vector count is -1 or more');
    if (count * elementBytesMin > this.#end - this.#offset) {
      throw new ProtocolError('overrun', 'the elements of a vector lie inside the frame');
    }
    return count;
  }

  /** vector<ustring>; the null vector is taken for an empty one. */
  readStrings(): string[] {
    const count = this.readVectorCount(4);
    const strings: string[] = [];
    for (let index = 0; index < count; index += 1) strings.push(this.readString());
    return strings;
  }

  #readLength(): number {
    const length = this.readInt();
    if (length < -1) throw new ProtocolError('badLength', 'a length is -1 or more');
    return length;
  }

  #take(length: number): number {
    const at = this.#offset;
    if (length > this.#end - at) throw new ProtocolError('overrun', 'a field lies inside its frame');
    this.#offset = at + length;
    return at;
  }

  #decodeText(at: number, length: number): string {
    const end = at + length;
    if (length <= ASCII_LOOP_BYTES_MAX) {
      const bytes = this.#bytes;
      let text = '';
      let index = at;
      for (; index < end; index += 1) {
        const byte = bytes[index];
        if (byte === undefined || byte >= 0x80) break;
        text += String.fromCharCode(byte);
      }
      if (index === end) return text;
    }
    let source = this.#text;
    if (source === null) {
      source = Buffer.from(this.#bytes.buffer, this.#bytes.byteOffset, this.#bytes.byteLength);
      this.#text = source;
    }
    return source.toString('utf8', at, end);
  }
}
