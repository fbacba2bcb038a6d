// Bytes of keys, records and the state: what is encoded comes back, and no flipped bit does.

import { makeZxid, serverIdFrom, type Zxid, zxidFrom } from '@quorate/protocol/zxid';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import {
  decodeLogKey,
  decodeRecord,
  decodeState,
  encodeState,
  logKey,
  RecordEncoder,
  type StoreState,
} from './log-record.ts';

const zxid: fc.Arbitrary<Zxid> = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }).map(zxidFrom);
const u32 = fc.integer({ min: 0, max: 2 ** 32 - 1 });

const state: fc.Arbitrary<StoreState> = fc.record({
  serverId: fc.integer({ min: 0, max: 255 }).map(serverIdFrom),
  sequence: fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER }),
  generation: u32,
  base: zxid,
  tail: zxid,
  committed: zxid,
  epochs: fc.record({
    acceptedEpoch: u32,
    currentEpoch: u32,
    acceptedFrom: fc.integer({ min: -1, max: 255 }).map(serverIdFrom),
  }),
  mark: fc.constantFrom('blank', 'clean', 'suspect'),
  clusterId: fc.string({ unit: 'grapheme', maxLength: 40 }),
});

test('the byte order of keys is the order of generations, then of zxids', () => {
  fc.assert(
    fc.property(u32, zxid, u32, zxid, (oneGeneration, one, otherGeneration, other) => {
      const expected = oneGeneration - otherGeneration || (one < other ? -1 : one > other ? 1 : 0);
      const actual = Buffer.compare(logKey(oneGeneration, one), logKey(otherGeneration, other));
      expect(Math.sign(actual)).toBe(Math.sign(expected));
      expect(decodeLogKey(logKey(oneGeneration, one), oneGeneration)).toBe(one);
    }),
  );
});

test('a record comes back under its own key only', () => {
  const encoder = new RecordEncoder();
  fc.assert(
    fc.property(zxid, zxid, fc.uint8Array({ maxLength: 300 }), (own, prev, txn) => {
      const key = logKey(1, own);
      const value = Buffer.from(encoder.encode(key, prev, txn));
      const record = decodeRecord(key, value);
      expect(record?.prev).toBe(prev);
      expect(Buffer.from(record?.txn ?? []).equals(txn)).toBe(true);
      expect(decodeRecord(logKey(2, own), value)).toBeNull();
    }),
  );
});

test('the encoder grows for a record larger than any before', () => {
  const key = logKey(1, makeZxid(1, 1));
  const txn = Buffer.alloc(1_000_000, 9);
  const value = new RecordEncoder().encode(key, makeZxid(1, 0), txn);
  expect(txn.equals(decodeRecord(key, value)?.txn ?? Buffer.alloc(0))).toBe(true);
});

test('a flipped bit anywhere in a record or a state is noticed, and so is every shorter piece', () => {
  const key = logKey(3, makeZxid(2, 1));
  const record = Buffer.from(new RecordEncoder().encode(key, makeZxid(1, 9), Buffer.from('a txn')));
  const encoded = Buffer.from(encodeState(fc.sample(state, { numRuns: 1, seed: 7 })[0] ?? expect.fail('no sample')));
  for (const [bytes, decode] of [
    [record, (value: Uint8Array) => decodeRecord(key, value)],
    [encoded, decodeState],
  ] as const) {
    expect(decode(bytes)).not.toBeNull();
    for (let bit = 0; bit < bytes.byteLength * 8; bit++) {
      const flipped = Buffer.from(bytes);
      flipped[bit >> 3] = (flipped[bit >> 3] ?? 0) ^ (1 << (bit & 7));
      expect(decode(flipped)).toBeNull();
    }
    for (let length = 0; length < bytes.byteLength; length++) expect(decode(bytes.subarray(0, length))).toBeNull();
  }
});

test('a state comes back as it was', () => {
  fc.assert(
    fc.property(state, (value) => {
      expect(decodeState(encodeState(value))).toEqual(value);
    }),
  );
});
