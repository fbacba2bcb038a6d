// The index against a plain array of records that does the same slowly.

import { type Zxid, zxidFrom } from '@quorate/protocol/zxid';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { LogIndex } from './log-index.ts';

type Step =
  | { readonly kind: 'push'; readonly count: number; readonly gap: number; readonly bytes: number }
  | { readonly kind: 'truncate' | 'advance'; readonly part: number }
  | { readonly kind: 'reset' };

const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({
    kind: fc.constant('push' as const),
    count: fc.integer({ min: 1, max: 700 }),
    gap: fc.integer({ min: 1, max: 5 }),
    bytes: fc.integer({ min: 1, max: 300 }),
  }),
  fc.record({
    kind: fc.constantFrom('truncate' as const, 'advance' as const),
    part: fc.double({ min: 0, max: 1, noNaN: true }),
  }),
  fc.record({ kind: fc.constant('reset' as const) }),
);

test('whatever is pushed, truncated, purged and reset, the index answers as a plain array does', () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
      let base: Zxid = zxidFrom(10n);
      let records: { zxid: Zxid; bytes: number }[] = [];
      const index = new LogIndex(base);
      for (const action of steps) {
        const at =
          action.kind === 'truncate' || action.kind === 'advance' ? Math.floor(action.part * records.length) : 0;
        const chosen = at === 0 ? base : (records[at - 1]?.zxid ?? base);
        switch (action.kind) {
          case 'push':
            for (let n = 0; n < action.count; n++) {
              const zxid = zxidFrom(index.tail + BigInt(action.gap));
              index.push(zxid, action.bytes);
              records.push({ zxid, bytes: action.bytes });
            }
            break;
          case 'truncate':
            expect(index.truncateAfter(chosen)).toEqual(records.slice(at).map(({ zxid }) => zxid));
            records = records.slice(0, at);
            break;
          case 'advance':
            index.advanceBase(chosen);
            records = records.slice(at);
            base = chosen;
            break;
          case 'reset':
            base = zxidFrom(index.tail + 100n);
            index.reset(base);
            records = [];
            break;
        }
        const tail = records.at(-1)?.zxid ?? base;
        expect([index.base, index.count, index.tail]).toEqual([base, records.length, tail]);
        const middle = records[records.length >> 1]?.zxid ?? base;
        for (const probe of [base, tail, middle, zxidFrom(middle + 1n), zxidFrom(tail + 1n)]) {
          expect(index.has(probe)).toBe(probe === base || records.some(({ zxid }) => zxid === probe));
          expect(index.floor(probe)).toBe(records.findLast(({ zxid }) => zxid <= probe)?.zxid ?? base);
          const behind = records.filter(({ zxid }) => zxid > probe);
          expect(index.bytesAfter(probe)).toBe(behind.reduce((sum, { bytes }) => sum + bytes, 0));
        }
      }
    }),
    { numRuns: 60 },
  );
});

test('a record out of order and a truncation to an unknown zxid break an assertion', () => {
  const index = new LogIndex(zxidFrom(0n));
  index.push(zxidFrom(5n), 1);
  expect(() => index.push(zxidFrom(5n), 1)).toThrow('order');
  expect(() => index.truncateAfter(zxidFrom(4n))).toThrow('holds');
});
