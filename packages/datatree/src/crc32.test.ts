import { crc32 } from 'node:zlib';
import { expect, test } from 'vitest';
import { crcOfBytes, crcOfText, crcOfWord } from './crc32.ts';
import { Random } from './leader.test-data.ts';

test('bytes of any length have the CRC that zlib gives them', () => {
  const random = new Random(1);
  for (let length = 0; length < 400; length += 1) {
    const bytes = Uint8Array.from({ length }, () => random.below(256));
    const start = random.below(0x7fffffff);
    expect(crcOfBytes(start, bytes) >>> 0).toBe(crc32(bytes, start));
  }
});

test('text counts as its UTF-8 form, from any start', () => {
  for (const text of ['', '/', '/zookeeper/quota', '/größe', '/价格/ελ', '/a/\uffee']) {
    for (let start = 0; start <= text.length; start += 1) {
      expect(crcOfText(77, text, start) >>> 0).toBe(crc32(text.slice(start), 77));
    }
  }
});

test('a word counts as its four bytes in network order', () => {
  for (const word of [0, 1, -1, 0x12345678, -0x12345678, 0x7fffffff, -0x80000000]) {
    const bytes = Buffer.alloc(4);
    bytes.writeInt32BE(word);
    expect(crcOfWord(9, word) >>> 0).toBe(crc32(bytes, 9));
  }
});
