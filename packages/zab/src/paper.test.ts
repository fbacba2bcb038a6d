// One test per claim: the properties of atomic broadcast and the clauses of the phases in Junqueira, Reed, Serafini,
// "Zab: High-performance broadcast for primary-backup systems" (DSN 2011), and ZooKeeper's ordering guarantees.
// scenarios/cluster.ts checks agreement, total order, durability and one leader per epoch after every step of all of them.

import { makeZxid, NO_ZXID, serverIdFrom } from '@quorate/protocol/zxid';
import { expect, test } from 'vitest';
import { Cluster, type ClusterOptions, show } from '../scenarios/cluster.ts';
import type { ZabMessage } from './messages.ts';

function formed(options: ClusterOptions, ...texts: string[]): Cluster {
  const cluster = new Cluster({ record: true, ...options });
  cluster.startAll();
  cluster.converge(50);
  for (const text of texts) {
    cluster.propose(cluster.leader() ?? 0, text);
    cluster.settle();
  }
  cluster.run(2);
  cluster.transcript.length = 0;
  return cluster;
}

/** Lets messages between `a` and `b`, and disk writes of both, happen one at a time until `isReached`; time passes when nothing else can. */
function stepUntil(cluster: Cluster, a: number, b: number, isReached: () => boolean): void {
  const moves = [
    () => cluster.deliver(a, b, 'vote'),
    () => cluster.deliver(b, a, 'vote'),
    () => cluster.deliver(a, b, 'stream'),
    () => cluster.deliver(b, a, 'stream'),
    () => cluster.finishWrites(a, 1),
    () => cluster.finishWrites(b, 1),
  ];
  for (let turn = 0; turn < 500; turn += 1) {
    for (const move of moves) {
      if (isReached()) return;
      move();
    }
    if (turn % 10 === 9) for (const id of [a, b]) cluster.tick(id);
  }
  expect.fail('the state the test needs is not reached');
}

const texts = (cluster: Cluster, id: number): string[] => cluster.server(id).applied.map((entry) => entry.text);
const receive = (cluster: Cluster, to: number, from: number, message: ZabMessage): void =>
  cluster.step(to, { kind: 'received', from: serverIdFrom(from), message });

// --- the six properties

test('integrity: what is delivered was broadcast, and is delivered once', () => {
  const cluster = formed({ voters: 3 }, 'a', 'b');
  cluster.crash(3);
  cluster.converge(60);
  cluster.start(3);
  cluster.converge(60);
  cluster.propose(cluster.leader() ?? 0, 'c');
  cluster.settle();
  for (const id of [1, 2, 3]) expect(texts(cluster, id)).toEqual(['a', 'b', 'c']);
});

test('total order and agreement: all servers deliver the same sequence, one of them perhaps a shorter one', () => {
  const cluster = formed({ voters: 5 }, 'a');
  cluster.disconnect(1, 5);
  cluster.server(2).isDiskHeld = true;
  for (const text of ['b', 'c', 'd']) cluster.propose(5, text);
  cluster.settle();
  const longest = texts(cluster, 5);
  for (const id of [1, 2, 3, 4]) expect(longest.slice(0, texts(cluster, id).length)).toEqual(texts(cluster, id));
  cluster.server(2).isDiskHeld = false;
  cluster.converge(60);
  for (const id of [1, 2, 3, 4, 5]) expect(texts(cluster, id)).toEqual(longest);
});

test('local primary order: what a primary broadcasts is delivered in its order', () => {
  const cluster = formed({ voters: 3 });
  const sent = Array.from({ length: 50 }, (_, i) => `t${i}`);
  for (const text of sent) cluster.propose(3, text);
  cluster.settle();
  for (const id of [1, 2, 3]) expect(texts(cluster, id)).toEqual(sent);
});

test('global primary order: what a later primary broadcasts is delivered after all of the earlier ones', () => {
  const cluster = formed({ voters: 3 }, 'a');
  for (const text of ['b', 'c', 'd']) {
    cluster.crash(cluster.leader() ?? 0);
    cluster.converge(60);
    for (const id of [1, 2, 3]) if (!cluster.isUp(id)) cluster.start(id);
    cluster.converge(60);
    cluster.propose(cluster.leader() ?? 0, text);
    cluster.settle();
  }
  const epochs = cluster.committed.map((entry) => Number(entry.zxid >> 32n));
  expect(epochs).toEqual([...epochs].sort((a, b) => a - b));
  expect(new Set(epochs).size).toBe(4);
});

test('primary integrity: a primary delivers everything earlier before it broadcasts', () => {
  const cluster = formed({ voters: 3 }, 'a');
  cluster.server(3).isDiskHeld = true;
  cluster.propose(3, 'b');
  cluster.deliver(3, 2, 'stream');
  cluster.finishWrites(2, 1);
  cluster.crash(3);
  cluster.converge(60);
  const serving = cluster.transcript.findIndex((line) => line.startsWith('2 leading') && line.includes('SERVING'));
  const applies = cluster.transcript.findIndex((line) => line.startsWith('2 applies') && line.includes('1.2'));
  expect(applies).toBeGreaterThanOrEqual(0);
  expect(applies).toBeLessThan(serving);
});

test('an uncommitted proposal of a dead primary is dropped when the next one did not have it', () => {
  const cluster = formed({ voters: 3 }, 'a');
  cluster.propose(3, 'lost');
  cluster.finishWrites(3, 1);
  cluster.crash(3);
  cluster.converge(60);
  cluster.propose(2, 'b');
  cluster.settle();
  cluster.start(3);
  cluster.converge(60);
  for (const id of [1, 2, 3]) expect(texts(cluster, id)).toEqual(['a', 'b']);
});

// --- phase 1, discovery

test('a leader proposes an epoch higher than all that its quorum has promised, after its own promise is durable', () => {
  const cluster = formed({ voters: 3 }, 'a');
  cluster.server(2).isDiskHeld = true;
  cluster.crash(3);
  cluster.settle();
  expect(cluster.status(2)).toMatchObject({ role: 'leading', serving: false, acceptedEpoch: 2 });
  expect(cluster.transcript.filter((line) => line.includes('LEADERINFO'))).toEqual([]);
  cluster.finishWrites(2, 1);
  cluster.settle();
  expect(cluster.transcript.filter((line) => line.includes('LEADERINFO'))).toEqual(['2 -> 1 LEADERINFO epoch 2']);
});

test('a follower promises an epoch once: another server that comes to the same number does not count it', () => {
  const cluster = formed({ voters: 3 }, 'a');
  cluster.crash(1);
  // 1 promised epoch 2 to server 2, which never came to lead it. 3 leads epoch 2 meanwhile, by the promise of 2.
  const { disk } = cluster.server(1);
  disk.epochs = { ...disk.epochs, acceptedEpoch: 2, acceptedFrom: serverIdFrom(2) };
  cluster.crash(3);
  cluster.start(3);
  cluster.connect(2, 3);
  cluster.settle();
  expect(cluster.status(3)).toMatchObject({ role: 'leading', serving: true, epoch: 2 });
  cluster.start(1);
  cluster.connect(1, 3);
  cluster.settle();
  expect(cluster.transcript).toContain('1 -> 3 ACKEPOCH 2 current 1 last 1.1 not counted');
  // The epoch is established without its promise, so it may follow, and belongs to 3 from then on.
  expect(cluster.status(1)).toMatchObject({ serving: true, epoch: 2 });
  expect(cluster.server(1).disk.epochs).toEqual({ acceptedEpoch: 2, acceptedFrom: 3, currentEpoch: 2 });
});

test('a leader gives up when a follower of its quorum has a more recent history', () => {
  const cluster = formed({ voters: 3 }, 'a');
  cluster.crash(3);
  stepUntil(cluster, 1, 2, () => cluster.status(2)?.epoch === 2 && cluster.queue(2, 1, 'stream').length > 0);
  // 1 was asked for its promise and reveals what its vote did not tell.
  expect(cluster.status(2)).toMatchObject({ role: 'leading', phase: 'discovery', serving: false });
  receive(cluster, 2, 1, { kind: 'ackEpoch', epoch: 2, currentEpoch: 1, lastZxid: makeZxid(1, 9), counted: true });
  expect(cluster.transcript).toContain('2 looking: server 1 holds a more recent history');
  expect(cluster.established.has(2)).toBe(false);
});

// --- phase 2, synchronization

test('a follower acknowledges NEWLEADER only when history and epoch are durable, in one write', () => {
  const cluster = formed({ voters: 3 }, 'a');
  cluster.crash(1);
  cluster.propose(3, 'b');
  cluster.settle();
  cluster.start(1);
  cluster.server(1).isDiskHeld = true;
  cluster.connect(1, 3);
  cluster.settle();
  cluster.finishWrites(1, 1);
  cluster.settle();
  expect(cluster.transcript.filter((line) => line.includes('ACK NEWLEADER'))).toEqual([]);
  expect(cluster.transcript.at(-1)).toBe('1 writes entries 1.2 epochs 1/1');
  cluster.finishWrites(1, 1);
  cluster.settle();
  expect(cluster.transcript).toContain('1 -> 3 ACK NEWLEADER 1 last 1.2');
});

test('a leader is established, and its history committed, when a quorum acknowledged NEWLEADER, itself included', () => {
  const cluster = formed({ voters: 3 }, 'a');
  cluster.server(2).isDiskHeld = true;
  cluster.crash(3);
  cluster.settle();
  cluster.finishWrites(2, 1);
  cluster.settle();
  // 1 has acknowledged; the own epoch of 2 is not on its disk yet.
  expect(cluster.transcript).toContain('1 -> 2 ACK NEWLEADER 2 last 1.1');
  expect(cluster.leader()).toBeNull();
  cluster.finishWrites(2, 1);
  expect(cluster.leader()).toBe(2);
});

test('a history with a gap is refused, and nothing of it reaches the disk', () => {
  const cluster = formed({ voters: 3 }, 'a');
  cluster.crash(1);
  cluster.start(1);
  cluster.connect(1, 3);
  stepUntil(cluster, 1, 3, () => cluster.transcript.some((line) => line.includes('DIFF')));
  const entry = { zxid: makeZxid(1, 5), prev: makeZxid(1, 4), txn: new Uint8Array(1) };
  receive(cluster, 1, 3, { kind: 'history', epoch: 1, entries: [entry] });
  expect(cluster.transcript).toContain('1 drops 3: sends a history with a gap');
  expect(cluster.server(1).writes).toEqual([]);
  expect(cluster.status(1)?.last).toBe(makeZxid(1, 1));
});

// --- phase 3, broadcast

test('a proposal is committed when a quorum has it on disk, whether or not the leader is among them', () => {
  const cluster = formed({ voters: 3 }, 'a');
  cluster.server(3).isDiskHeld = true;
  cluster.propose(3, 'b');
  cluster.settle();
  expect(texts(cluster, 3)).toEqual(['a', 'b']);
  expect(cluster.status(3)).toMatchObject({ committed: makeZxid(1, 2), durable: makeZxid(1, 1) });
  // The tree of 3 is ahead of its disk. It crashes, and gets back what it had shown.
  cluster.crash(3);
  cluster.converge(60);
  cluster.server(3).isDiskHeld = false;
  cluster.start(3);
  cluster.converge(60);
  expect(texts(cluster, 3)).toEqual(['a', 'b']);
});

test('without a quorum nothing is committed', () => {
  const cluster = formed({ voters: 5 }, 'a');
  for (const id of [2, 3, 4]) cluster.server(id).isDiskHeld = true;
  cluster.propose(5, 'b');
  cluster.settle();
  expect(cluster.status(5)?.committed).toBe(makeZxid(1, 1));
  cluster.finishWrites(2, 1);
  cluster.settle();
  expect(cluster.status(5)?.committed).toBe(makeZxid(1, 2));
});

test('M42: the ack of an observer counts for nothing', () => {
  const cluster = formed({ voters: 3, observers: 2 }, 'a');
  cluster.server(1).isDiskHeld = true;
  cluster.server(2).isDiskHeld = true;
  cluster.propose(3, 'b');
  cluster.settle();
  receive(cluster, 3, 4, { kind: 'ack', epoch: 1, zxid: makeZxid(1, 2) });
  expect(cluster.status(3)?.committed).toBe(makeZxid(1, 1));
});

test('acks are cumulative: one disk write of many proposals is one ack', () => {
  const cluster = formed({ voters: 3 });
  cluster.server(1).isDiskHeld = true;
  cluster.server(2).isDiskHeld = true;
  for (let i = 0; i < 10; i += 1) cluster.propose(3, `t${i}`);
  cluster.settle();
  cluster.finishWrites(1, 10);
  cluster.settle();
  expect(cluster.transcript.filter((line) => line.startsWith('1 -> 3 ACK'))).toEqual(['1 -> 3 ACK 1.10']);
  expect(cluster.status(3)?.committed).toBe(makeZxid(1, 10));
});

test('a proposal with a gap breaks the link, and the follower catches up by synchronising again', () => {
  const cluster = formed({ voters: 3 }, 'a');
  const entry = { zxid: makeZxid(1, 3), prev: makeZxid(1, 2), txn: new Uint8Array(1) };
  receive(cluster, 1, 3, { kind: 'propose', epoch: 1, entries: [entry], committed: makeZxid(1, 1) });
  expect(cluster.transcript).toContain('1 drops 3: proposes with a gap');
  cluster.converge(60);
  cluster.propose(3, 'b');
  cluster.settle();
  expect(texts(cluster, 1)).toEqual(['a', 'b']);
});

test('a follower is never cut below what it knows to be committed: it stops instead', () => {
  const cluster = formed({ voters: 3 }, 'a', 'b');
  cluster.disconnect(1, 3);
  cluster.connect(1, 3);
  stepUntil(cluster, 1, 3, () => cluster.transcript.some((line) => line.includes('ACKEPOCH')));
  expect(() => receive(cluster, 1, 3, { kind: 'synchronize', epoch: 1, mode: 'trunc', keep: makeZxid(1, 1) })).toThrow(
    'keeps everything that is committed',
  );
});

// --- beyond the paper

test('a barrier passes only by a quorum that answers after it was asked for', () => {
  const cluster = formed({ voters: 3 }, 'a');
  cluster.step(3, { kind: 'barrier', id: 1 });
  cluster.step(3, { kind: 'barrier', id: 2 });
  expect(cluster.barriers).toEqual([]);
  // Old answers are no answers.
  receive(cluster, 3, 1, { kind: 'heartbeatAck', epoch: 1, sequence: 1 });
  expect(cluster.barriers).toEqual([]);
  cluster.settle();
  expect(cluster.barriers.map((barrier) => barrier.id)).toEqual([1, 2]);
});

test('a barrier of a leader that lost its quorum fails', () => {
  const cluster = formed({ voters: 3 }, 'a');
  cluster.disconnect(1, 3);
  cluster.disconnect(2, 3);
  cluster.step(3, { kind: 'barrier', id: 1 });
  cluster.run(15);
  expect(cluster.barriers).toEqual([{ server: 3, id: -1, passed: false }]);
});

test('messages no leader of this epoch would send change nothing', () => {
  const cluster = formed({ voters: 3, observers: 1 }, 'a');
  const before = cluster.summary();
  const zxid = makeZxid(9, 9);
  const strange: ZabMessage[] = [
    { kind: 'commit', epoch: 9, zxid },
    { kind: 'propose', epoch: 9, entries: [{ zxid, prev: NO_ZXID, txn: new Uint8Array(0) }], committed: zxid },
    { kind: 'ack', epoch: 9, zxid },
    { kind: 'ackNewLeader', epoch: 9, last: zxid },
    { kind: 'leaderInfo', session: 99, epoch: 9, clusterId: 'x' },
    { kind: 'readmit', epoch: 9 },
    { kind: 'readmitted', epoch: 9 },
    { kind: 'takeOver', epoch: 9, last: zxid },
    { kind: 'heartbeat', epoch: 9, sequence: 9 },
    { kind: 'heartbeatAck', epoch: 9, sequence: 9 },
    { kind: 'ackEpoch', epoch: 9, currentEpoch: 9, lastZxid: zxid, counted: true },
  ];
  for (const to of [1, 2, 3, 4]) {
    for (const from of [1, 2, 3, 4]) {
      if (from !== to) for (const message of strange) receive(cluster, to, from, message);
    }
  }
  expect(cluster.summary()).toEqual(before);
  expect(cluster.status(3)?.committed, show(zxid)).toBe(makeZxid(1, 1));
});

test('an acknowledgement of what was never proposed breaks the link', () => {
  const cluster = formed({ voters: 3 }, 'a');
  receive(cluster, 3, 1, { kind: 'ack', epoch: 1, zxid: makeZxid(1, 7) });
  expect(cluster.transcript).toContain('3 drops 1: acknowledged what was not proposed');
  expect(cluster.status(3)?.committed).toBe(makeZxid(1, 1));
});

test('ten thousand reconnects leave nothing behind', () => {
  const cluster = formed({ voters: 3 }, 'a');
  for (let i = 0; i < 2_500; i += 1) {
    for (const id of [1, 2]) {
      cluster.disconnect(id, 3);
      cluster.connect(id, 3);
    }
    if (i % 50 === 0) cluster.settle();
  }
  // No time has passed so far; a leader that was left behind learns of it by the next ticks.
  cluster.run(15);
  cluster.converge(60);
  expect(cluster.status(cluster.leader() ?? 0)?.followers.length).toBe(2);
});
