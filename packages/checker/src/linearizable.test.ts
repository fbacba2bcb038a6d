import { ErrorCode } from '@quorate/protocol';
import { expect, test } from 'vitest';
import { checkIntervals, type Interval, type Register, type RegisterOp, registerModel } from './linearizable.ts';

/** The definition itself: some order of all answered and some unanswered operations respects time and explains every answer. */
function isLinearizableByBruteForce(intervals: readonly Interval<RegisterOp>[]): boolean {
  const search = (left: readonly Interval<RegisterOp>[], state: Register): boolean => {
    if (left.every(({ ret }) => ret === Number.POSITIVE_INFINITY)) return true;
    return left.some((candidate) => {
      if (left.some((other) => other !== candidate && other.ret < candidate.call)) return false;
      const after = registerModel.step(state, candidate.op);
      return (
        after !== null &&
        search(
          left.filter((other) => other !== candidate),
          after,
        )
      );
    });
  };
  return search(intervals, registerModel.initial);
}

const ANSWERS: readonly RegisterOp[] = [
  { kind: 'create', data: 'a', version: -1, answer: { code: 0 } },
  { kind: 'create', data: 'b', version: -1, answer: { code: ErrorCode.nodeExists } },
  { kind: 'setData', data: 'c', version: -1, answer: { code: 0 } },
  { kind: 'setData', data: 'd', version: 0, answer: { code: ErrorCode.badVersion } },
  { kind: 'setData', data: 'e', version: 1, answer: { code: 0, version: 2 } },
  { kind: 'delete', data: null, version: -1, answer: { code: 0 } },
  { kind: 'read', data: null, version: -1, answer: { code: ErrorCode.noNode } },
  { kind: 'read', data: null, version: -1, answer: { code: 0, data: 'a', version: 0 } },
  { kind: 'read', data: null, version: -1, answer: { code: 0, data: 'c', version: 1 } },
];

function randomIntervals(next: (count: number) => number): Interval<RegisterOp>[] {
  const intervals: Interval<RegisterOp>[] = [];
  for (let i = 1 + next(6); i > 0; i--) {
    const op = ANSWERS[next(ANSWERS.length)];
    if (op === undefined) continue;
    const call = next(10);
    const isUnknown = op.kind !== 'read' && next(6) === 0;
    intervals.push({
      call,
      ret: isUnknown ? Number.POSITIVE_INFINITY : call + 1 + next(6),
      op: isUnknown ? { ...op, answer: null } : op,
    });
  }
  return intervals;
}

test('the search agrees with the definition on 20,000 small histories of both kinds', () => {
  let state = 12345;
  const next = (count: number): number => {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    return (state >>> 16) % count;
  };
  const seen = { linearizable: 0, illegal: 0 };
  for (let i = 0; i < 20_000; i++) {
    const intervals = randomIntervals(next);
    const expected = isLinearizableByBruteForce(intervals) ? 'linearizable' : 'illegal';
    expect(checkIntervals(registerModel, intervals, 1_000_000), JSON.stringify(intervals)).toBe(expected);
    seen[expected]++;
  }
  expect(seen.linearizable).toBeGreaterThan(1000);
  expect(seen.illegal).toBeGreaterThan(1000);
});

test('a search that is cut short is undecided, not correct', () => {
  const read: RegisterOp = { kind: 'read', data: null, version: -1, answer: { code: 0, data: 'never written' } };
  const create: RegisterOp = { kind: 'create', data: 'a', version: -1, answer: { code: 0 } };
  const intervals = [
    { call: 0, ret: 10, op: create },
    { call: 0, ret: 10, op: read },
  ];
  expect(checkIntervals(registerModel, intervals, 1)).toBe('undecided');
  expect(checkIntervals(registerModel, intervals, 1000)).toBe('illegal');
});
