import type { Zxid } from '@quorate/protocol/zxid';
import { makeZxid, NO_ZXID } from '@quorate/protocol/zxid';
import { expect, test } from 'vitest';
import { History } from './history.ts';

const z = (epoch: number, counter: number): Zxid => makeZxid(epoch, counter);

function historyOf(base: Zxid, ...zxids: Zxid[]): History {
  const history = new History(base);
  let prev = base;
  for (const zxid of zxids) {
    history.append({ zxid, prev, txn: new Uint8Array(10) });
    prev = zxid;
  }
  history.checkInvariants();
  return history;
}

test('an entry that does not follow the last one is refused', () => {
  const history = historyOf(NO_ZXID, z(1, 1));
  expect(() => history.append({ zxid: z(1, 3), prev: z(1, 2), txn: new Uint8Array(0) })).toThrow('follows');
  expect(() => history.append({ zxid: z(1, 1), prev: z(1, 1), txn: new Uint8Array(0) })).toThrow('grow');
});

test('a learner whose last record is here gets a DIFF from there', () => {
  const history = historyOf(z(1, 4), z(1, 5), z(1, 6), z(3, 1));
  for (const last of [z(1, 4), z(1, 5), z(3, 1)]) expect(history.planFor(last)).toEqual({ mode: 'diff', keep: last });
});

test('ZOOKEEPER-1154: a last record inside the range but not in the log is cut back, not taken for known', () => {
  const history = historyOf(z(1, 4), z(1, 5), z(1, 6), z(3, 1));
  expect(history.planFor(z(2, 7))).toEqual({ mode: 'trunc', keep: z(1, 6) });
  expect(history.planFor(z(3, 9))).toEqual({ mode: 'trunc', keep: z(3, 1) });
});

test('ZOOKEEPER-4352: a learner below the window gets a snapshot, also of an empty window', () => {
  expect(historyOf(z(1, 4), z(1, 5)).planFor(z(1, 3))).toEqual({ mode: 'snapshot' });
  expect(historyOf(z(1, 4)).planFor(NO_ZXID)).toEqual({ mode: 'snapshot' });
  expect(historyOf(z(1, 4)).planFor(z(1, 9))).toEqual({ mode: 'trunc', keep: z(1, 4) });
});

test('ZOOKEEPER-1156: a truncation keeps exactly what it says', () => {
  for (const keep of [z(1, 4), z(1, 5), z(1, 6), z(3, 1)]) {
    const history = historyOf(z(1, 4), z(1, 5), z(1, 6), z(3, 1));
    history.truncateAfter(keep);
    history.checkInvariants();
    expect(history.last).toBe(keep);
    expect(history.has(z(3, 1))).toBe(keep === z(3, 1));
  }
  expect(() => historyOf(z(1, 4), z(1, 5)).truncateAfter(z(1, 3))).toThrow('keeps a record of this log');
});

test('trimming obeys the limits and stops at what must stay', () => {
  const all = Array.from({ length: 5000 }, (_, i) => z(1, i + 1));
  const byCount = historyOf(NO_ZXID, ...all);
  byCount.trim(z(1, 5000), 100, 1 << 20);
  expect(byCount.count).toBe(100);
  expect(byCount.base).toBe(z(1, 4900));
  byCount.checkInvariants();

  const byBytes = historyOf(NO_ZXID, ...all);
  byBytes.trim(z(1, 5000), 10_000, 500);
  expect(byBytes.bytes).toBe(500);
  byBytes.checkInvariants();

  const pinned = historyOf(NO_ZXID, ...all);
  pinned.trim(z(1, 10), 0, 0);
  expect(pinned.base).toBe(z(1, 10));
  expect(pinned.between(z(1, 10), z(1, 12)).map((entry) => entry.zxid)).toEqual([z(1, 11), z(1, 12)]);
});
