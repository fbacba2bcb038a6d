// The audit's own counters, on histories whose faults are known: a check that cannot fail proves nothing. No server is needed for this.
import { type OpArgs, type OpResult, Recorder } from '@quorate/checker';
import type { Stat } from '@quorate/client';
import { zxidFrom } from '@quorate/protocol';
import { expect, test } from 'vitest';
import { checkCounters, type Znode } from '../support/audit.ts';
import { tree } from '../support/traffic.ts';

function znode(path: string, version: number, data: string | null = null): Znode {
  const stat: Stat = {
    czxid: zxidFrom(1n),
    mzxid: zxidFrom(1n),
    ctime: 0,
    mtime: 0,
    version,
    cversion: 0,
    aversion: 0,
    ephemeralOwner: 0n,
    dataLength: 0,
    numChildren: 0,
    pzxid: zxidFrom(1n),
  };
  return { path, data, stat };
}

/** What all servers show when every counted znode was written as often as `versions` says. */
function znodesWith(
  versions: Readonly<Record<string, number>>,
  ledger: Readonly<Record<string, string>> = {},
): Znode[] {
  const counted = [...tree.registers, ...tree.pairs.flatMap(({ guard, value }) => [guard, value])];
  return [
    ...counted.map((path) => znode(path, versions[path] ?? 0)),
    ...Object.entries(ledger).map(([name, data]) => znode(`${tree.ledger}/${name}`, 0, data)),
  ];
}

type Asked = { readonly kind: string; readonly args: OpArgs; readonly result?: OpResult };

function historyOf(acknowledged: readonly Asked[], unanswered: readonly Asked[] = []) {
  let time = 0;
  const recorder = new Recorder(() => ++time);
  const request = { requestedSession: 0n, isPasswordRight: true, lastZxidSeen: 0n, requestedTimeoutMs: 1 };
  const connection = recorder.onConnecting('client', 1, request);
  recorder.onConnected(connection, 7n, 1);
  for (const [index, { kind, args, result }] of acknowledged.entries()) {
    recorder.onReply(connection, recorder.onCall(connection, index, kind, args), BigInt(index + 1), 0, result ?? {});
  }
  for (const { kind, args } of unanswered) recorder.onCall(connection, 99, kind, args);
  recorder.onDisconnected(connection, false);
  return recorder.history();
}

const register = '/t/regs/r0';
const pair = { guard: '/t/pairs/g0', value: '/t/pairs/v0' };
const set: Asked = { kind: 'setData', args: { path: register, data: 'a', version: -1 } };
const entry = (data: string, name: string): Asked => ({
  kind: 'create2',
  args: { path: `${tree.ledger}/e-`, data, flags: 2 },
  result: { path: `${tree.ledger}/${name}` },
});

function rulesOf(history: ReturnType<typeof historyOf>, znodes: readonly Znode[]): string[] {
  return checkCounters(history, znodes).map(({ rule }) => rule);
}

test('a write counts exactly once, one without an answer once or not at all', () => {
  const history = historyOf([set, set], [set]);
  const at = (version: number) => rulesOf(history, znodesWith({ [register]: version }));
  expect([1, 2, 3, 4].map(at)).toEqual([['counter'], [], [], ['counter']]);
  expect(rulesOf(history, znodesWith({}).slice(1))).toEqual(['counter']);
});

test('entries of the ledger are neither lost nor doubled, changed or invented', () => {
  const history = historyOf([entry('one', 'e-0'), entry('two', 'e-1')], [entry('three', '')]);
  expect(rulesOf(history, znodesWith({}, { 'e-0': 'one', 'e-1': 'two' }))).toEqual([]);
  expect(rulesOf(history, znodesWith({}, { 'e-0': 'one', 'e-1': 'two', 'e-2': 'three' }))).toEqual([]);
  expect(rulesOf(history, znodesWith({}, { 'e-0': 'one' }))).toEqual(['lost']);
  expect(rulesOf(history, znodesWith({}, { 'e-0': 'one', 'e-1': 'else' }))).toEqual(['lost']);
  expect(rulesOf(history, znodesWith({}, { 'e-0': 'one', 'e-1': 'two', 'e-2': 'two' }))).toEqual(['twice', 'invented']);
  expect(rulesOf(history, znodesWith({}, { 'e-0': 'one', 'e-1': 'two', 'e-2': 'four' }))).toEqual(['invented']);
});

test('both halves of a multi happened, or none', () => {
  const parts = [pair.guard, pair.value].map((path) => ({ kind: 'setData', path, data: null, version: -1 }));
  const multi: Asked = { kind: 'multi', args: { operations: parts }, result: { results: [] } };
  const history = historyOf([multi], [multi]);
  expect(rulesOf(history, znodesWith({ [pair.guard]: 1, [pair.value]: 1 }))).toEqual([]);
  expect(rulesOf(history, znodesWith({ [pair.guard]: 2, [pair.value]: 2 }))).toEqual([]);
  expect(rulesOf(history, znodesWith({ [pair.guard]: 2, [pair.value]: 1 }))).toEqual(['atomic']);
});
