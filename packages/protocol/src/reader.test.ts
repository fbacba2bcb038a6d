// What JuteReader promises: values as jute means them, and never a byte beyond the frame.

import { describe, expect, test } from 'vitest';
import { JuteReader } from './reader.ts';
import { codeOf, fromHex, readerOf, toHex, written } from './test-bytes.test-data.ts';

describe('JuteReader', () => {
  test('integers are big-endian two’s complement', () => {
    const reader = readerOf('fffffffe 7fffffff 8000000000000000 7fffffffffffffff');
    expect(reader.readInt()).toBe(-2);
    expect(reader.readInt()).toBe(2_147_483_647);
    expect(reader.readLong()).toBe(-(2n ** 63n));
    expect(reader.readLong()).toBe(2n ** 63n - 1n);
    expect(reader.remaining).toBe(0);
  });

  test('any non-zero byte is true', () => {
    const reader = readerOf('00 01 ff');
    expect([reader.readBool(), reader.readBool(), reader.readBool()]).toEqual([false, true, true]);
  });

  test('null, empty and filled buffers stay apart', () => {
    const reader = readerOf('ffffffff 00000000 00000002 0aff');
    expect(reader.readBuffer()).toBeNull();
    expect(reader.readBuffer()).toEqual(new Uint8Array(0));
    expect(reader.readBuffer()).toEqual(new Uint8Array([0x0a, 0xff]));
  });

  test('readBuffer is a view of the chunk and readBufferCopy is not', () => {
    const chunk = fromHex('00000001 05 00000001 06');
    const reader = new JuteReader(chunk);
    const view = reader.readBuffer();
    const copy = reader.readBufferCopy();
    chunk.fill(9);
    expect(view).toEqual(new Uint8Array([9]));
    expect(copy).toEqual(new Uint8Array([6]));
  });

  test('a copy of a slice of a pooled Buffer has memory of its own', () => {
    const pooled = Buffer.from(fromHex('00000002 0102'));
    const copy = new JuteReader(pooled).readBufferCopy();
    expect(copy?.buffer.byteLength).toBe(2);
  });

  test('strings of every length and alphabet come back', () => {
    const texts = [
      '',
      'a',
      'x'.repeat(24),
      'x'.repeat(25),
      'x'.repeat(300),
      'grüße',
      '日本語',
      '😀',
      `${'y'.repeat(30)}é`,
    ];
    for (const text of texts) {
      expect(readerOf(written((writer) => writer.writeString(text))).readString()).toBe(text);
    }
  });

  test('a byte order mark is text like any other', () => {
    expect(readerOf('00000004 efbbbf61').readString()).toBe('\ufeffa');
  });

  test('broken UTF-8 becomes replacement characters', () => {
    expect(readerOf('00000003 61ff62').readString()).toBe('a\ufffdb');
    expect(readerOf('00000001 80').readString()).toBe('\ufffd');
  });

  test('a null string is refused where one is needed and told where not', () => {
    expect(codeOf(() => readerOf('ffffffff').readString())).toBe('nullString');
    expect(readerOf('ffffffff').readStringOrNull()).toBeNull();
  });

  test('lengths and counts below -1 are refused', () => {
    expect(codeOf(() => readerOf('fffffffe').readBuffer())).toBe('badLength');
    expect(codeOf(() => readerOf('80000000').readString())).toBe('badLength');
    expect(codeOf(() => readerOf('fffffffe').readVectorCount(4))).toBe('badLength');
  });

  test('a count is believed only when its elements can be there', () => {
    expect(readerOf('ffffffff').readVectorCount(4)).toBe(-1);
    expect(readerOf('00000002 0000000000000000').readVectorCount(4)).toBe(2);
    expect(codeOf(() => readerOf('00000003 0000000000000000').readVectorCount(4))).toBe('overrun');
    expect(codeOf(() => readerOf('7fffffff 0000000000000000').readStrings())).toBe('overrun');
  });

  test('every read beyond the end is an overrun, even where the chunk goes on', () => {
    const chunk = new Uint8Array(64);
    const short = new JuteReader(chunk, 8, 10);
    expect(codeOf(() => short.readInt())).toBe('overrun');
    expect(codeOf(() => short.readLong())).toBe('overrun');
    expect(codeOf(() => short.readTime())).toBe('overrun');
    expect(codeOf(() => new JuteReader(chunk, 8, 8).readBool())).toBe('overrun');
    expect(codeOf(() => readerOf('00000005 61626364').readString())).toBe('overrun');
    expect(codeOf(() => readerOf('7fffffff 61626364').readBuffer())).toBe('overrun');
  });

  test('a failed read leaves the reader usable after reset', () => {
    const reader = readerOf('00');
    expect(codeOf(() => reader.readInt())).toBe('overrun');
    reader.reset(fromHex('00000007'));
    expect(reader.readInt()).toBe(7);
  });

  test('reset turns to another frame of the same chunk, and to another chunk', () => {
    const chunk = fromHex('00000001 00000002');
    const reader = new JuteReader(chunk, 4, 8);
    expect(reader.readInt()).toBe(2);
    reader.reset(chunk, 0, 4);
    expect(reader.readInt()).toBe(1);
    reader.reset(Buffer.from(fromHex('ffffffff')));
    expect(reader.readInt()).toBe(-1);
    reader.release();
    expect(reader.remaining).toBe(0);
  });

  test('a long text is decoded from the chunk that is set, not from an earlier one', () => {
    const first = written((writer) => writer.writeString('a'.repeat(100)));
    const second = written((writer) => writer.writeString('b'.repeat(100)));
    const reader = new JuteReader(first);
    expect(reader.readString()).toBe('a'.repeat(100));
    reader.reset(second);
    expect(reader.readString()).toBe('b'.repeat(100));
  });

  test('times before and after 1970 are exact', () => {
    for (const timeMs of [0, 1, -1, 1_700_000_000_123, -86_400_000, 2 ** 52, -(2 ** 52)]) {
      const bytes = written((writer) => writer.writeTime(timeMs));
      expect(readerOf(bytes).readTime()).toBe(timeMs);
      expect(readerOf(bytes).readLong()).toBe(BigInt(timeMs));
      expect(toHex(bytes)).toBe(toHex(written((writer) => writer.writeLong(BigInt(timeMs)))));
    }
  });
});
