import { sessionIdFrom } from '@quorate/protocol';
import { expect, test } from 'vitest';
import { SessionTable } from './sessions.ts';

const ONE = sessionIdFrom(0x0100000000000001n);
const TWO = sessionIdFrom(0xff00000000000002n);
const password = (value: number) => new Uint8Array(16).fill(value);
const digestOf = (table: SessionTable) => [table.digestLow, table.digestHigh];

test('a session is there from its creation to its close', () => {
  const table = new SessionTable();
  table.create(ONE, 5000, password(1));
  expect(table.get(ONE)).toEqual({ id: ONE, agreedTimeoutMs: 5000, timeoutMs: 5000, password: password(1) });
  expect(table.close(ONE)).toBe(true);
  expect(table.close(ONE)).toBe(false);
  expect(table.has(ONE)).toBe(false);
  expect(table.count).toBe(0);
});

test('the password is a copy, also of a Buffer', () => {
  const table = new SessionTable();
  const bytes = Buffer.alloc(16, 1);
  table.create(ONE, 5000, bytes);
  bytes.fill(9);
  expect(table.get(ONE)?.password[0]).toBe(1);
});

test('the digest depends on what the log agreed on, not on its order nor on what is local', () => {
  const table = new SessionTable();
  table.create(ONE, 5000, password(1));
  table.create(TWO, 7000, password(2));
  const other = new SessionTable();
  other.create(TWO, 7000, password(2));
  other.create(ONE, 5000, password(1));
  expect(digestOf(other)).toEqual(digestOf(table));
  other.touch(ONE, 30_000);
  other.markClosing(TWO);
  expect(other.get(ONE)?.timeoutMs).toBe(30_000);
  expect(digestOf(other)).toEqual(digestOf(table));
  other.create(ONE, 5001, password(1));
  expect(digestOf(other)).not.toEqual(digestOf(table));
  other.create(ONE, 5000, password(3));
  expect(digestOf(other)).not.toEqual(digestOf(table));
  other.create(ONE, 5000, password(1));
  expect(digestOf(other)).toEqual(digestOf(table));
  other.close(ONE);
  other.close(TWO);
  expect(digestOf(other)).toEqual([0, 0]);
});

test('closing flags are given up together, and a closed session has none', () => {
  const table = new SessionTable();
  table.create(ONE, 5000, password(1));
  table.markClosing(ONE);
  expect(table.isClosing(ONE)).toBe(true);
  table.clearClosing();
  expect(table.isClosing(ONE)).toBe(false);
  table.markClosing(ONE);
  table.close(ONE);
  expect(table.isClosing(ONE)).toBe(false);
  expect(table.touch(ONE, 1)).toBe(false);
});
