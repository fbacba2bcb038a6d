import { ErrorCode, sessionIdFrom } from '@quorate/protocol';
import { Packr } from 'msgpackr';
import { expect, test } from 'vitest';
import { decodeTxn, encodeTxn, TXN_FORMAT, type Txn, type TxnBody } from './index.ts';
import { ALICE, aclFor, BOB, bytesOf, OPEN } from './leader.test-data.ts';

const origin = { server: 3, incarnation: 0xffffffff, sequence: 2 ** 48 };

function txnOf(body: TxnBody, fields: Partial<Txn> = {}): Txn {
  return { origin, sessionId: sessionIdFrom(-2n), cxid: -5, timeMs: 1_764_000_000_123, body, ...fields };
}

// Buffers and plain arrays compare by content.
function plain(txn: Txn): unknown {
  return JSON.parse(
    JSON.stringify(txn, (_key, value) => {
      if (typeof value === 'bigint') return `${value}n`;
      if (value?.type === 'Buffer') return [...value.data];
      return value instanceof Uint8Array ? [...value] : value;
    }),
  );
}

const bodies: TxnBody[] = [
  { kind: 'create', path: '/a/größe', data: bytesOf('data'), acl: OPEN, owner: 0n, parentCVersion: 1 },
  {
    kind: 'create',
    path: '/a',
    data: null,
    acl: [...aclFor(ALICE), ...aclFor(BOB, 0)],
    owner: -1n << 63n,
    parentCVersion: -1,
  },
  {
    kind: 'create',
    path: '/big',
    data: new Uint8Array(100_000).fill(7),
    acl: OPEN,
    owner: 0x7fffffffffffffffn,
    parentCVersion: 0x7fffffff,
  },
  { kind: 'delete', path: '/a' },
  { kind: 'setData', path: '/a', data: new Uint8Array(0), version: 1 },
  { kind: 'setData', path: '/a', data: null, version: -0x80000000 },
  { kind: 'setACL', path: '/a', acl: aclFor(ALICE, -1), aversion: 2 },
  { kind: 'createSession', timeoutMs: 10_000, password: new Uint8Array(16).fill(9) },
  { kind: 'closeSession', paths: ['/a', '/b'] },
  { kind: 'closeSession', paths: [] },
  { kind: 'multi', operations: [] },
  {
    kind: 'multi',
    operations: [
      { kind: 'check', path: '/a' },
      { kind: 'setData', path: '/a', data: bytesOf('x'), version: 1 },
      { kind: 'create', path: '/b', data: null, acl: OPEN, owner: 5n, parentCVersion: 2 },
      { kind: 'delete', path: '/b' },
      { kind: 'error', code: ErrorCode.badVersion },
    ],
  },
  { kind: 'multiError', codes: [0, ErrorCode.noNode, ErrorCode.runtimeInconsistency] },
  { kind: 'error', code: ErrorCode.quotaExceeded },
];

test('every kind of txn comes back as it was', () => {
  for (const body of bodies) expect(plain(decodeTxn(encodeTxn(txnOf(body))))).toEqual(plain(txnOf(body)));
  expect(new Set(bodies.map(({ kind }) => kind)).size).toBe(9);
});

test('the same txn has the same bytes', () => {
  for (const body of bodies) expect(encodeTxn(txnOf(body))).toEqual(encodeTxn(txnOf(body)));
});

test('extreme header fields survive', () => {
  for (const sessionId of [0n, 1n, -1n, (1n << 63n) - 1n, -(1n << 63n)].map(sessionIdFrom)) {
    for (const cxid of [0, 1, -1, 0x7fffffff, -0x80000000]) {
      for (const timeMs of [0, 1, 2 ** 31, 2 ** 32, 2 ** 41]) {
        const txn = txnOf({ kind: 'delete', path: '/' }, { sessionId, cxid, timeMs });
        expect(decodeTxn(encodeTxn(txn))).toEqual(txn);
      }
    }
  }
});

test("encoded bytes are the txn's own: a later one does not overwrite them", () => {
  const first = encodeTxn(txnOf({ kind: 'delete', path: '/first' }));
  for (let index = 0; index < 1000; index += 1) encodeTxn(txnOf({ kind: 'delete', path: `/other${index}` }));
  expect(decodeTxn(first).body).toEqual({ kind: 'delete', path: '/first' });
});

test('bytes that are no txn are our fault: each field is checked', () => {
  const packr = new Packr({ useRecords: false });
  const good = [TXN_FORMAT, 1, 1, 1, 5n, 1, 1, 2, '/a'];
  expect(decodeTxn(packr.pack(good)).body).toEqual({ kind: 'delete', path: '/a' });
  const wrong = (index: number, value: unknown) => packr.pack(good.map((field, at) => (at === index ? value : field)));
  for (const [index, value] of [
    [0, 2],
    [1, -1],
    [2, 1.5],
    [3, null],
    [4, 'x'],
    [5, 2 ** 31],
    [6, -5],
    [7, 99],
    [7, 1],
    [8, 'a'],
    [8, 7],
  ] as const) {
    expect(() => decodeTxn(wrong(index, value)), `field ${index} = ${value}`).toThrow();
  }
  for (const bytes of [
    new Uint8Array(0),
    packr.pack({ kind: 'delete' }),
    packr.pack([]),
    packr.pack([...good, 1]),
    bytesOf('x'),
  ]) {
    expect(() => decodeTxn(bytes)).toThrow();
  }
  const multi = (own: unknown) => packr.pack([TXN_FORMAT, 1, 1, 1, 5n, 1, 1, 8, [own]]);
  expect(decodeTxn(multi([5, '/a'])).body).toEqual({ kind: 'multi', operations: [{ kind: 'check', path: '/a' }] });
  for (const own of [[8, []], [6, 1, new Uint8Array(16)], [7, []], 5, [0, 5], [0, 'x']]) {
    expect(() => decodeTxn(multi(own))).toThrow();
  }
});

test('a txn cut anywhere does not decode', () => {
  const bytes = encodeTxn(
    txnOf({ kind: 'create', path: '/a', data: bytesOf('data'), acl: OPEN, owner: 0n, parentCVersion: 1 }),
  );
  for (let length = 0; length < bytes.length; length += 1) expect(() => decodeTxn(bytes.subarray(0, length))).toThrow();
});
