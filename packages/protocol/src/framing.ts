// FrameDecoder cuts a byte stream into frames: {length: int, payload}. It owns the unfinished frame at the end of the
// stream and nothing else. A length is checked before it is believed, and memory grows with the bytes that have
// arrived, not with the length that was announced: a peer cannot make us allocate by sending four bytes.

import { assert } from './assert.ts';
import { ProtocolError } from './protocol-error.ts';

/** `jute.maxbuffer`: the longest payload a ZooKeeper server accepts unless it is configured otherwise. */
export const MAX_FRAME_BYTES_DEFAULT = 0xfffff;

const LENGTH_BYTES = 4;
const ASSEMBLY_BYTES_MIN = 1024;

/** Gets one payload as bytes[start, end). Returns false to stop: push then leaves the rest of its chunk unread. */
export type FrameHandler = (bytes: Uint8Array, start: number, end: number) => boolean;

export class FrameDecoder {
  readonly #frameBytesMax: number;
  // The length bytes as far as they have arrived; the next four push the old ones out.
  #partialLength = 0;
  #partialLengthBytes = 0;
  // The unfinished payload. It is never reused, so views into a frame stay valid for as long as somebody holds them.
  #assembly: Uint8Array | null = null;
  #assembledBytes = 0;
  // The announced length of the unfinished payload; -1 between frames.
  #expectedBytes = -1;

  constructor(frameBytesMax: number = MAX_FRAME_BYTES_DEFAULT) {
    assert(frameBytesMax > 0, 'a frame may hold something', frameBytesMax);
    this.#frameBytesMax = frameBytesMax;
  }

  /** Memory held for the unfinished frame. */
  get assemblyCapacity(): number {
    return this.#assembly === null ? 0 : this.#assembly.length;
  }

  /** True when the stream may end here: no frame is half read. */
  get isBetweenFrames(): boolean {
    return this.#expectedBytes < 0 && this.#partialLengthBytes === 0;
  }

  /**
   * Takes the next chunk and hands out every frame that it completes. A frame that lies inside the chunk is handed out
   * in place. Answers how many bytes of the chunk were taken: all, unless the handler stopped. After a ProtocolError
   * the stream cannot be resumed.
   */
  push(chunk: Uint8Array, onFrame: FrameHandler): number {
    let at = 0;
    const chunkEnd = chunk.length;
    while (at < chunkEnd) {
      if (this.#expectedBytes < 0) {
        at = this.#readLength(chunk, at);
        if (this.#expectedBytes < 0) return at;
        // An empty payload is complete although the chunk may hold nothing more.
        if (this.#expectedBytes === 0) {
          this.#expectedBytes = -1;
          if (!onFrame(chunk, at, at)) return at;
          continue;
        }
      }
      const expected = this.#expectedBytes;
      if (this.#assembledBytes === 0 && expected <= chunkEnd - at) {
        const start = at;
        at += expected;
        this.#expectedBytes = -1;
        if (!onFrame(chunk, start, at)) return at;
        continue;
      }
      at = this.#assemble(chunk, at);
      if (this.#assembledBytes === expected && this.#assembly !== null) {
        const frame = this.#assembly;
        this.#assembly = null;
        this.#assembledBytes = 0;
        this.#expectedBytes = -1;
        if (!onFrame(frame, 0, expected)) return at;
      }
    }
    return at;
  }

  // {length: int}
  #readLength(chunk: Uint8Array, start: number): number {
    let at = start;
    while (at < chunk.length && this.#partialLengthBytes < LENGTH_BYTES) {
      this.#partialLength = (this.#partialLength << 8) | (chunk[at] ?? 0);
      this.#partialLengthBytes += 1;
      at += 1;
    }
    if (this.#partialLengthBytes < LENGTH_BYTES) return at;
    const length = this.#partialLength;
    this.#partialLengthBytes = 0;
    if (length < 0) throw new ProtocolError('frameNegative', 'a frame length is not negative');
    if (length > this.#frameBytesMax) throw new ProtocolError('frameTooLarge', 'a frame is within the limit');
    this.#expectedBytes = length;
    return at;
  }

  #assemble(chunk: Uint8Array, start: number): number {
    const taken = Math.min(this.#expectedBytes - this.#assembledBytes, chunk.length - start);
    const needed = this.#assembledBytes + taken;
    const room = this.#assembly;
    let assembly = room;
    if (assembly === null || needed > assembly.length) {
      const grown = Math.max(needed, needed + (needed >> 1), ASSEMBLY_BYTES_MIN);
      assembly = new Uint8Array(Math.min(this.#expectedBytes, grown));
      if (room !== null) assembly.set(room.subarray(0, this.#assembledBytes));
      this.#assembly = assembly;
    }
    assembly.set(chunk.subarray(start, start + taken), this.#assembledBytes);
    this.#assembledBytes = needed;
    return start + taken;
  }
}
