import { serverIdFrom, sessionIdFrom } from '@quorate/protocol';
import { expect, test } from 'vitest';
import { firstAttachment, SessionTracker } from './session-tracker.ts';

const one = serverIdFrom(1);
const two = serverIdFrom(2);
const session = sessionIdFrom(0x1000n);

test('a silent session expires after its timeout, never earlier, at most a bucket later', () => {
  const tracker = new SessionTracker(100);
  tracker.add(session, 1_000, one, 0n);
  let elapsed = 0;
  let expired: unknown[] = [];
  while (expired.length === 0 && elapsed < 5_000) {
    elapsed += 10;
    expired = tracker.advance(10);
  }
  expect(expired).toEqual([session]);
  expect(elapsed).toBeGreaterThanOrEqual(1_000);
  expect(elapsed).toBeLessThanOrEqual(1_100);
});

test('a touched session lives on', () => {
  const tracker = new SessionTracker(100);
  tracker.add(session, 1_000, one, 0n);
  for (let i = 0; i < 50; i += 1) {
    expect(tracker.advance(500)).toEqual([]);
    expect(tracker.touch(session)).toBe(true);
  }
});

test('an expired session is reported once and neither touched nor re-attached', () => {
  const tracker = new SessionTracker(100);
  tracker.add(session, 1_000, one, 0n);
  expect(tracker.advance(2_000)).toEqual([session]);
  tracker.touch(session);
  expect(tracker.reattach(session, two, 1_000, 1)).toBeNull();
  expect(tracker.advance(10_000)).toEqual([]);
});

test('attachments grow within an epoch and over epochs, and an older one is not admitted', () => {
  const tracker = new SessionTracker(100);
  tracker.add(session, 1_000, one, firstAttachment(3));
  const again = tracker.reattach(session, two, 1_000, 3);
  expect(again?.previousOwner).toBe(one);
  expect(again?.attachment).toBeGreaterThan(firstAttachment(3));
  expect(again?.attachment).toBeLessThan(firstAttachment(4));
  expect(tracker.admits(session, one, firstAttachment(3))).toBe(false);
  expect(tracker.admits(session, two, again?.attachment ?? 0n)).toBe(true);
});

test('a session whose close is decided does not expire a second time', () => {
  const tracker = new SessionTracker(100);
  tracker.add(session, 1_000, one, 0n);
  tracker.markClosing(session);
  expect(tracker.advance(5_000)).toEqual([]);
  tracker.remove(session);
  expect(tracker.size).toBe(0);
});
