// What JuteWriter promises: the bytes of the layout, lengths patched in, and a buffer that only grows when it must.

import { describe, expect, test } from 'vitest';
import { AssertionError } from './assert.ts';
import { toHex, written } from './test-bytes.test-data.ts';
import { JuteWriter } from './writer.ts';

describe('JuteWriter', () => {
  test('fields have the bytes of the jute layout', () => {
    expect(toHex(written((writer) => writer.writeInt(-2)))).toBe('fffffffe');
    expect(toHex(written((writer) => writer.writeLong(-2n)))).toBe('fffffffffffffffe');
    expect(toHex(written((writer) => writer.writeZxid(0x100000002n)))).toBe('0000000100000002');
    expect(toHex(written((writer) => writer.writeBool(true)))).toBe('01');
    expect(toHex(written((writer) => writer.writeBuffer(null)))).toBe('ffffffff');
    expect(toHex(written((writer) => writer.writeBuffer(new Uint8Array(0))))).toBe('00000000');
    expect(toHex(written((writer) => writer.writeString(null)))).toBe('ffffffff');
    expect(toHex(written((writer) => writer.writeString('é')))).toBe('00000002c3a9');
    expect(toHex(written((writer) => writer.writeStrings(['a', ''])))).toBe('00000002000000016100000000');
    expect(toHex(written((writer) => writer.writeRaw(new Uint8Array([1, 2]))))).toBe('0102');
  });

  test('a text that turns out not to be ASCII is written once and whole', () => {
    for (const text of ['abcé', '\u0080', `${'x'.repeat(39)}é`, `${'x'.repeat(60)}日`, '\ud800']) {
      const encoded = Buffer.from(text, 'utf8');
      const bytes = written((writer) => writer.writeString(text));
      expect(toHex(bytes.subarray(4))).toBe(encoded.toString('hex'));
      expect(new DataView(bytes.buffer).getInt32(0)).toBe(encoded.length);
    }
  });

  test('endFrame patches the length of each frame', () => {
    const writer = new JuteWriter(4);
    writer.beginFrame();
    writer.writeInt(1);
    writer.endFrame();
    writer.beginFrame();
    writer.endFrame();
    writer.beginFrame();
    writer.writeString('ab');
    writer.endFrame();
    expect(toHex(writer.bytes())).toBe('00000004000000010000000000000006000000026162');
  });

  test('a length is patched where its frame stands, also after the buffer has moved', () => {
    const writer = new JuteWriter(4);
    writer.beginFrame();
    writer.writeBuffer(new Uint8Array(5000).fill(7));
    writer.endFrame();
    const bytes = writer.bytes();
    expect(bytes.length).toBe(5008);
    expect(toHex(bytes.subarray(0, 9))).toBe('0000138c0000138807');
    expect(bytes[5007]).toBe(7);
  });

  test('abortFrame leaves what stood before', () => {
    const writer = new JuteWriter();
    writer.writeInt(1);
    writer.beginFrame();
    writer.writeInt(2);
    writer.abortFrame();
    expect(toHex(writer.bytes())).toBe('00000001');
  });

  test('frames do not nest, and nothing leaves while one is open', () => {
    const writer = new JuteWriter();
    expect(() => writer.endFrame()).toThrow(AssertionError);
    expect(() => writer.abortFrame()).toThrow(AssertionError);
    writer.beginFrame();
    expect(() => writer.beginFrame()).toThrow(AssertionError);
    expect(() => writer.bytes()).toThrow(AssertionError);
    expect(() => writer.detach()).toThrow(AssertionError);
  });

  test('the buffer grows by half, or to what one field needs', () => {
    const writer = new JuteWriter(100);
    writer.writeRaw(new Uint8Array(100));
    expect(writer.capacity).toBe(100);
    writer.writeBool(true);
    expect(writer.capacity).toBe(150);
    writer.writeRaw(new Uint8Array(1000));
    expect(writer.capacity).toBe(1101);
    expect(writer.position).toBe(1101);
  });

  test('reset keeps the buffer and forgets the bytes', () => {
    const writer = new JuteWriter(8);
    writer.writeLong(1n);
    writer.writeLong(1n);
    const capacity = writer.capacity;
    writer.reset();
    expect(writer.position).toBe(0);
    expect(writer.capacity).toBe(capacity);
    writer.writeInt(3);
    expect(toHex(writer.bytes())).toBe('00000003');
  });

  test('detached bytes are not touched by later writes', () => {
    const writer = new JuteWriter(8);
    writer.writeInt(1);
    const detached = writer.detach();
    writer.writeInt(2);
    expect(toHex(detached)).toBe('00000001');
    expect(toHex(writer.bytes())).toBe('00000002');
  });
});
