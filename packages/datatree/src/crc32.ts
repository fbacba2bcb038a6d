// CRC32 (IEEE, as in java.util.zip.CRC32 and node:zlib) over what a znode consists of: strings, bytes, and 32-bit words.
// It exists beside node:zlib because most znodes are small and a native call costs more than the sum itself: 60 bytes of
// Stat are 15 table steps without touching a buffer. It must stay bit for bit equal to zlib's, or replicas disagree.

import { crc32 as nativeCrc32 } from 'node:zlib';

// From here on the native routine is faster, its call included (measured: break-even near 200 bytes).
const NATIVE_BYTES_MIN = 192;

const T0 = new Int32Array(256);
const T1 = new Int32Array(256);
const T2 = new Int32Array(256);
const T3 = new Int32Array(256);
for (let index = 0; index < 256; index += 1) {
  let value = index;
  for (let bit = 0; bit < 8; bit += 1) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
  T0[index] = value;
}
for (let index = 0; index < 256; index += 1) {
  const first = T0[index] ?? 0;
  const second = (first >>> 8) ^ (T0[first & 255] ?? 0);
  const third = (second >>> 8) ^ (T0[second & 255] ?? 0);
  T1[index] = second;
  T2[index] = third;
  T3[index] = (third >>> 8) ^ (T0[third & 255] ?? 0);
}

function byteStep(state: number, byte: number): number {
  return (state >>> 8) ^ (T0[(state ^ byte) & 255] ?? 0);
}

/** Continues `crc` over the UTF-8 form of `text` from `start` on. A lone surrogate counts as its three-byte form: total, and the same everywhere. */
export function crcOfText(crc: number, text: string, start = 0): number {
  let state = ~crc;
  for (let index = start; index < text.length; index += 1) {
    const code = text.charCodeAt(index);
    if (code < 0x80) {
      state = byteStep(state, code);
    } else if (code < 0x800) {
      state = byteStep(state, 0xc0 | (code >> 6));
      state = byteStep(state, 0x80 | (code & 63));
    } else {
      state = byteStep(state, 0xe0 | (code >> 12));
      state = byteStep(state, 0x80 | ((code >> 6) & 63));
      state = byteStep(state, 0x80 | (code & 63));
    }
  }
  return ~state;
}

/** Continues `crc` over `bytes`. */
export function crcOfBytes(crc: number, bytes: Uint8Array): number {
  const length = bytes.length;
  if (length >= NATIVE_BYTES_MIN) return nativeCrc32(bytes, crc >>> 0) | 0;
  let state = ~crc;
  let index = 0;
  for (; index + 4 <= length; index += 4) {
    state ^=
      (bytes[index] ?? 0) |
      ((bytes[index + 1] ?? 0) << 8) |
      ((bytes[index + 2] ?? 0) << 16) |
      ((bytes[index + 3] ?? 0) << 24);
    state =
      (T3[state & 255] ?? 0) ^
      (T2[(state >>> 8) & 255] ?? 0) ^
      (T1[(state >>> 16) & 255] ?? 0) ^
      (T0[state >>> 24] ?? 0);
  }
  for (; index < length; index += 1) state = byteStep(state, bytes[index] ?? 0);
  return ~state;
}

/** Continues `crc` over one 32-bit word in big-endian order. */
export function crcOfWord(crc: number, word: number): number {
  // Slicing reads four bytes as a little-endian number, and the word's bytes stand the other way round.
  const state = ~crc ^ ((word << 24) | ((word & 0xff00) << 8) | ((word >>> 8) & 0xff00) | (word >>> 24));
  return ~(
    (T3[state & 255] ?? 0) ^
    (T2[(state >>> 8) & 255] ?? 0) ^
    (T1[(state >>> 16) & 255] ?? 0) ^
    (T0[state >>> 24] ?? 0)
  );
}

/** Spreads two 32-bit values over one (the finaliser of MurmurHash3): for the high half of the digest. */
export function mix32(first: number, second: number): number {
  let value = Math.imul(first ^ 0x9e3779b9, 0x85ebca6b) ^ second;
  value = Math.imul(value ^ (value >>> 16), 0x85ebca6b);
  value = Math.imul(value ^ (value >>> 13), 0xc2b2ae35);
  return value ^ (value >>> 16);
}
