// Self-tests: a correct history passes, and each kind of semantically illegal edit of it is refused. The history is made by a tiny
// sequential server on the reference tree; the edits are what broken servers would do.

import { ErrorCode, EventType, zxidFrom } from '@quorate/protocol';
import { expect, test } from 'vitest';
import { checkHistory } from './check.ts';
import {
  fromJsonLines,
  type History,
  type HistoryRecord,
  type OpArgs,
  type OpRecord,
  Recorder,
  toJsonLines,
} from './history.ts';
import { ReferenceTree, statOf } from './reference-tree.ts';

const OPTIONS = { hasLog: true, timeoutMsMin: 100, timeoutMsMax: 10_000 };

function makeHistory(): History {
  let now = 0;
  const recorder = new Recorder(() => now++);
  const tree = new ReferenceTree();
  let zxid = 0x100000000n;
  const connections = [1, 2].map((index) => {
    const connection = recorder.onConnecting(`client ${index}`, index, {
      requestedSession: 0n,
      isPasswordRight: true,
      lastZxidSeen: 0n,
      requestedTimeoutMs: 1000,
    });
    const session = BigInt(index);
    zxid++;
    recorder.add({ type: 'txn', zxid, session, xid: 0, timeMs: now, body: { kind: 'createSession', timeoutMs: 1000 } });
    tree.openSession(session);
    recorder.onConnected(connection, session, 1000);
    return { connection, session, xid: 1, watches: new Set<string>() };
  });
  type Client = (typeof connections)[number];
  const write = (client: Client, kind: string, args: OpArgs): void => {
    const xid = client.xid++;
    const op = recorder.onCall(client.connection, xid, kind, args);
    zxid++;
    const { code, result, triggers } = tree.request(zxid, now, client.session, kind, args);
    const path = result?.path ?? args.path ?? '';
    const data = args.data ?? null;
    const body =
      code !== 0
        ? ({ kind: 'error', code } as const)
        : kind === 'delete'
          ? ({ kind: 'delete', path } as const)
          : kind === 'setData'
            ? ({ kind: 'setData', path, data, version: result?.stat?.version ?? 0 } as const)
            : ({ kind: 'create', path, data, owner: 0n } as const);
    recorder.add({ type: 'txn', zxid, session: client.session, xid, timeMs: now, body });
    for (const other of connections) {
      for (const trigger of triggers) {
        if (trigger.table !== 'data' || !other.watches.delete(trigger.path)) continue;
        recorder.onEvent(other.connection, trigger.event, trigger.path, zxid);
      }
    }
    recorder.onReply(client.connection, op, zxid, code, result);
  };
  const read = (client: Client, path: string, watch: boolean): void => {
    const xid = client.xid++;
    const op = recorder.onCall(client.connection, xid, 'getData', { path, watch });
    const znode = tree.at(zxid, path);
    if (znode === null) recorder.onReply(client.connection, op, zxid, ErrorCode.noNode, null);
    else {
      if (watch) client.watches.add(path);
      recorder.onReply(client.connection, op, zxid, 0, { data: znode.data, stat: statOf(znode) });
    }
  };
  const sync = (client: Client, path: string): void => {
    const op = recorder.onCall(client.connection, client.xid++, 'sync', { path });
    recorder.onReply(client.connection, op, zxid, 0, { path });
  };
  const [first, second] = connections;
  if (first === undefined || second === undefined) throw new Error('two clients');
  write(first, 'create', { path: '/a', data: 'v0' });
  read(second, '/a', true);
  write(first, 'setData', { path: '/a', data: 'v1', version: -1 });
  read(second, '/a', false);
  write(second, 'create2', { path: '/b', data: 'w0' });
  write(second, 'setData', { path: '/b', data: 'w1', version: 7 });
  read(first, '/b', true);
  write(second, 'setData', { path: '/b', data: 'w2', version: 0 });
  sync(first, '/b');
  read(first, '/b', false);
  write(first, 'delete', { path: '/a', version: -1 });
  read(second, '/a', false);
  return recorder.history();
}

function edited(edit: (records: HistoryRecord[]) => void): string[] {
  const records = [...makeHistory()];
  edit(records);
  return checkHistory(records, OPTIONS).map(({ rule }) => rule);
}

function find(records: readonly HistoryRecord[], isIt: (op: OpRecord) => boolean): { index: number; op: OpRecord } {
  for (const [index, record] of records.entries())
    if (record.type === 'op' && isIt(record)) return { index, op: record };
  throw new Error('the history lacks the operation to edit');
}

test('a correct history passes, also after a round trip through its file format', () => {
  const history = makeHistory();
  expect(checkHistory(history, OPTIONS)).toEqual([]);
  expect(checkHistory(fromJsonLines(toJsonLines(history)), OPTIONS)).toEqual([]);
  expect(
    checkHistory(
      history.filter((record) => record.type !== 'txn'),
      {},
    ),
  ).toEqual([]);
});

test('a dropped event is a lost watch', () => {
  const rules = edited((records) =>
    records.splice(
      records.findIndex(({ type }) => type === 'event'),
      1,
    ),
  );
  expect(rules).toContain('W3');
});

test('an event told twice is refused', () => {
  const rules = edited((records) => {
    const index = records.findIndex(({ type }) => type === 'event');
    const event = records[index];
    if (event?.type === 'event') records.splice(index + 1, 0, { ...event, position: event.position + 0.5 });
  });
  expect(rules).toContain('W1');
});

test('an event after the reply that reveals its change is refused', () => {
  const rules = edited((records) => {
    const index = records.findIndex(({ type }) => type === 'event');
    const event = records[index];
    if (event?.type === 'event') records[index] = { ...event, position: event.position + 1.5 };
  });
  expect(rules).toContain('W3');
});

test('an event of another kind than its txn gives is refused', () => {
  const rules = edited((records) => {
    const index = records.findIndex(({ type }) => type === 'event');
    const event = records[index];
    if (event?.type === 'event') records[index] = { ...event, event: EventType.nodeDeleted };
  });
  expect(rules).toContain('W1');
});

test('a read that is one version old is stale, with and without the log', () => {
  const age = (records: HistoryRecord[]): void => {
    const { index, op } = find(records, ({ kind, result }) => kind === 'getData' && result?.data === 'v1');
    const older = find(records, ({ kind, result }) => kind === 'getData' && result?.data === 'v0').op;
    records[index] = { ...op, result: older.result };
  };
  expect(edited(age)).toContain('R1');
  const records = makeHistory().filter((record) => record.type !== 'txn');
  age(records);
  expect(checkHistory(records).map(({ rule }) => rule)).toContain('R1');
});

test('two replies that change places are refused', () => {
  const rules = edited((records) => {
    const one = find(records, ({ kind, args }) => kind === 'create2' && args.path === '/b');
    const two = find(records, ({ kind, args, code }) => kind === 'setData' && args.path === '/b' && code !== 0);
    records[one.index] = { ...one.op, position: two.op.position };
    records[two.index] = { ...two.op, position: one.op.position };
  });
  expect(rules).toContain('R4');
});

test('a forged zxid is refused: before the past, or of another write', () => {
  const past = edited((records) => {
    const { index, op } = find(records, ({ kind }) => kind === 'delete');
    records[index] = { ...op, zxid: 0x100000003n };
  });
  expect(past).toEqual(expect.arrayContaining(['L1', 'L2', 'L4']));
  const future = edited((records) => {
    const { index, op } = find(records, ({ kind, code }) => kind === 'setData' && code === 0);
    records[index] = { ...op, zxid: zxidFrom(0x1000000ffn) };
  });
  expect(future).toContain('L4');
});

test('an acknowledged write that the log lacks is lost', () => {
  const rules = edited((records) => {
    const { op } = find(records, ({ kind }) => kind === 'delete');
    records.splice(
      records.findIndex((record) => record.type === 'txn' && record.zxid === op.zxid),
      1,
    );
  });
  expect(rules).toContain('L4');
});

test('a request that the log holds twice was executed twice', () => {
  const rules = edited((records) => {
    const txn = records.find((record) => record.type === 'txn' && record.body.kind === 'setData');
    if (txn?.type === 'txn') records.push({ ...txn, zxid: 0x1000000f0n });
  });
  expect(rules).toContain('L5');
});

test('a wrong result is refused: success for failure, and another version in a Stat', () => {
  const success = edited((records) => {
    const { index, op } = find(records, ({ kind, code }) => kind === 'setData' && code === ErrorCode.badVersion);
    records[index] = { ...op, code: 0, outcome: 'ok', result: {} };
  });
  expect(success).toContain('L3');
  const stat = edited((records) => {
    const { index, op } = find(records, ({ kind, code }) => kind === 'setData' && code === 0);
    const old = op.result?.stat;
    if (old !== undefined) records[index] = { ...op, result: { stat: { ...old, version: old.version + 1 } } };
  });
  expect(stat).toContain('L3');
});

test('a sync that misses a write which had returned is refused', () => {
  const rules = edited((records) => {
    const { index, op } = find(records, ({ kind }) => kind === 'sync');
    records[index] = { ...op, zxid: (op.zxid ?? 0n) - 1n };
  });
  expect(rules).toContain('R5');
});

test('connections: a wrong password, another session, a timeout out of bounds', () => {
  const edit = (change: object) =>
    edited((records) => {
      const index = records.findIndex(({ type }) => type === 'connect');
      const connect = records[index];
      if (connect?.type === 'connect') records[index] = { ...connect, ...change };
    });
  expect(edit({ requestedSession: 1n, isPasswordRight: false })).toContain('S6');
  expect(edit({ requestedSession: 99n })).toContain('S9');
  expect(edit({ timeoutMs: 99_999 })).toContain('S10');
});

test('a session that is closed with an ephemeral left over is refused', () => {
  const recorder = new Recorder(() => 0);
  const connection = recorder.onConnecting('client', 1, {
    requestedSession: 0n,
    isPasswordRight: true,
    lastZxidSeen: 0n,
    requestedTimeoutMs: 1000,
  });
  recorder.add({
    type: 'txn',
    zxid: 1n,
    session: 5n,
    xid: 0,
    timeMs: 0,
    body: { kind: 'createSession', timeoutMs: 1000 },
  });
  recorder.onConnected(connection, 5n, 1000);
  const op = recorder.onCall(connection, 1, 'create', { path: '/e', data: null, flags: 1 });
  recorder.add({
    type: 'txn',
    zxid: 2n,
    session: 5n,
    xid: 1,
    timeMs: 0,
    body: { kind: 'create', path: '/e', data: null, owner: 5n },
  });
  recorder.onReply(connection, op, 2n, 0, { path: '/e' });
  recorder.add({ type: 'txn', zxid: 3n, session: 5n, xid: 0, timeMs: 0, body: { kind: 'closeSession', paths: [] } });
  expect(checkHistory(recorder.history(), OPTIONS).map(({ rule }) => rule)).toContain('S3');
});
