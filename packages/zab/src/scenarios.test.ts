// Each scenario is a short story; its transcript in ../scenarios/*.txt is reviewed as prose (`vitest -u` rewrites them).
// The assertions name what the story is about, so that a rewritten transcript cannot hide a broken one.

import { expect, test } from 'vitest';
import { Cluster, type ClusterOptions } from '../scenarios/cluster.ts';

function scenario(name: string, options: ClusterOptions, story: (cluster: Cluster) => void): void {
  test(name, async () => {
    const cluster = new Cluster({ record: true, ...options });
    story(cluster);
    const file = `../scenarios/${name.replaceAll(/[^a-z0-9]+/gi, '-').toLowerCase()}.txt`;
    await expect(`${name}\n\n${cluster.transcript.join('\n')}\n`).toMatchFileSnapshot(file);
  });
}

/** Three servers with a leader, each entry committed everywhere; what led there is left out of the transcript. */
function formed(cluster: Cluster, ...texts: string[]): number {
  cluster.startAll();
  cluster.converge(50);
  const leader = cluster.leader() ?? 0;
  for (const text of texts) {
    cluster.propose(leader, text);
    cluster.settle();
  }
  cluster.run(2);
  cluster.transcript.length = 0;
  return leader;
}

const applied = (cluster: Cluster, id: number): string[] => cluster.server(id).applied.map((entry) => entry.text);

scenario('three blank servers form an ensemble', { voters: 3, recordVotes: true }, (cluster) => {
  cluster.startAll();
  cluster.settle();
  expect(cluster.leader()).toBe(3);
  cluster.propose(3, 'a', 'b');
  cluster.settle();
  for (const id of [1, 2, 3]) expect(applied(cluster, id)).toEqual(['a', 'b']);
});

scenario('two of three blank servers do not form an ensemble', { voters: 3 }, (cluster) => {
  cluster.start(1);
  cluster.start(2);
  cluster.connect(1, 2);
  cluster.run(60);
  expect(cluster.leader()).toBeNull();
  cluster.start(3);
  cluster.converge(60);
  expect(cluster.leader()).toBe(3);
});

scenario('a single voter serves alone', { voters: 1 }, (cluster) => {
  cluster.startAll();
  cluster.settle();
  cluster.propose(1, 'a');
  cluster.step(1, { kind: 'barrier', id: 7 });
  cluster.settle();
  expect(applied(cluster, 1)).toEqual(['a']);
  expect(cluster.barriers).toEqual([{ server: 1, id: 7, passed: true }]);
  cluster.crash(1);
  cluster.start(1);
  cluster.settle();
  expect(applied(cluster, 1)).toEqual(['a']);
});

scenario('five voters lose two and go on', { voters: 5 }, (cluster) => {
  const leader = formed(cluster, 'a');
  cluster.crash(leader);
  cluster.crash(1);
  cluster.converge(60);
  expect(cluster.leader()).toBe(4);
  cluster.propose(4, 'b');
  cluster.settle();
  expect(applied(cluster, 2)).toEqual(['a', 'b']);
});

scenario('the leader crashes and a follower takes its place', { voters: 3 }, (cluster) => {
  formed(cluster, 'a');
  cluster.crash(3);
  cluster.settle();
  expect(cluster.leader()).toBe(2);
  cluster.propose(2, 'b');
  cluster.settle();
  cluster.start(3);
  cluster.converge(60);
  expect(cluster.leader()).toBe(2);
  expect(applied(cluster, 3)).toEqual(['a', 'b']);
});

scenario('a proposal that reached one follower is committed by the next leader', { voters: 3 }, (cluster) => {
  formed(cluster, 'a');
  // it was proposed, nobody was answered; the follower that holds it wins.
  cluster.server(3).isDiskHeld = true;
  cluster.propose(3, 'b');
  cluster.deliver(3, 2, 'stream');
  cluster.finishWrites(2, 1);
  cluster.crash(3);
  cluster.converge(60);
  expect(cluster.leader()).toBe(2);
  expect(applied(cluster, 1)).toEqual(['a', 'b']);
});

scenario('a returning server is cut back to what the others agreed on', { voters: 3 }, (cluster) => {
  formed(cluster, 'a');
  // ZOOKEEPER-1154: the tail is only on 3, and inside the range of what the others write meanwhile.
  cluster.disconnect(3, 1);
  cluster.disconnect(3, 2);
  cluster.propose(3, 'lost');
  cluster.finishWrites(3, 9);
  cluster.crash(3);
  cluster.converge(60);
  cluster.propose(2, 'b', 'c');
  cluster.settle();
  cluster.start(3);
  cluster.converge(60);
  expect(applied(cluster, 3)).toEqual(['a', 'b', 'c']);
  expect(cluster.transcript.some((line) => line.includes('TRUNC keep 1.1'))).toBe(true);
});

scenario('a server far behind gets a snapshot', { voters: 3, historyCountMax: 2 }, (cluster) => {
  formed(cluster, 'a');
  cluster.crash(1);
  for (const text of ['b', 'c', 'd', 'e', 'f']) {
    cluster.propose(3, text);
    cluster.settle();
  }
  cluster.takeSnapshot(3);
  cluster.propose(3, 'g');
  cluster.settle();
  cluster.start(1);
  cluster.connect(1, 3);
  cluster.settle();
  expect(applied(cluster, 1)).toEqual(['a', 'b', 'c', 'd', 'e', 'f', 'g']);
  expect(cluster.transcript.some((line) => line.includes('installs the snapshot'))).toBe(true);
});

scenario('a snapshot that is cut off leaves the learner as it was', { voters: 3, historyCountMax: 2 }, (cluster) => {
  formed(cluster, 'a');
  cluster.crash(1);
  for (const text of ['b', 'c', 'd', 'e', 'f']) {
    cluster.propose(3, text);
    cluster.settle();
  }
  cluster.takeSnapshot(3);
  cluster.start(1);
  cluster.connect(1, 3);
  // As far as the staged snapshot, not as far as NEWLEADER.
  while (cluster.server(1).staged === null) {
    cluster.deliver(1, 3, 'vote');
    cluster.deliver(3, 1, 'vote');
    cluster.deliver(1, 3, 'stream');
    if (cluster.server(3).transfers.length > 0) cluster.finishTransfer(3);
    cluster.deliver(3, 1, 'stream');
    cluster.finishWrites(1, 1);
  }
  cluster.crash(1);
  expect(cluster.server(1).disk.entries.length).toBe(1);
  cluster.start(1);
  cluster.converge(60);
  expect(applied(cluster, 1)).toEqual(['a', 'b', 'c', 'd', 'e', 'f']);
});

scenario('a server joins while others commit', { voters: 3 }, (cluster) => {
  formed(cluster, 'a');
  cluster.crash(1);
  cluster.propose(3, 'b');
  cluster.settle();
  cluster.server(2).isDiskHeld = true;
  cluster.propose(3, 'c');
  cluster.start(1);
  cluster.connect(1, 3);
  cluster.server(1).isDiskHeld = true;
  cluster.settle();
  // Its epoch is promised; its synchronisation is cut with c uncommitted, and d comes behind the cut.
  cluster.finishWrites(1, 1);
  cluster.settle();
  cluster.propose(3, 'd');
  cluster.settle();
  expect(cluster.status(1)?.serving).toBe(false);
  expect(applied(cluster, 3)).toEqual(['a', 'b']);
  cluster.server(1).isDiskHeld = false;
  cluster.settle();
  expect(cluster.status(1)?.serving).toBe(true);
  expect(applied(cluster, 1)).toEqual(['a', 'b', 'c', 'd']);
});

scenario('a crash in the middle of a synchronisation loses nothing and gains nothing', { voters: 3 }, (cluster) => {
  formed(cluster, 'a');
  cluster.crash(1);
  cluster.propose(3, 'b');
  cluster.settle();
  cluster.start(1);
  cluster.server(1).isDiskHeld = true;
  cluster.connect(1, 3);
  cluster.settle();
  cluster.finishWrites(1, 1);
  cluster.settle();
  // ZOOKEEPER-4643: the write of history and epoch is one; it is asked for and not done.
  expect(cluster.server(1).writes).toMatchObject([{ entries: [{}], epochs: { currentEpoch: 1 } }]);
  cluster.crash(1);
  expect(cluster.server(1).disk.entries.length).toBe(1);
  cluster.server(1).isDiskHeld = false;
  cluster.start(1);
  cluster.converge(60);
  expect(applied(cluster, 1)).toEqual(['a', 'b']);
});

scenario('a wiped server is readmitted when something was committed without it', { voters: 3 }, (cluster) => {
  formed(cluster, 'a');
  cluster.crash(1);
  cluster.wipe(1);
  cluster.start(1);
  cluster.connectAll();
  cluster.settle();
  expect(cluster.status(1)).toMatchObject({ store: 'suspect', serving: true });
  cluster.run(8);
  expect(cluster.status(1)?.store).toBe('used');
  expect(applied(cluster, 1)).toEqual(['a', '']);
});

scenario('a wiped server and a stale one are no quorum', { voters: 3 }, (cluster) => {
  formed(cluster);
  // a is committed on 2 and 3; 2 is wiped, 3 is down; 1 never had it.
  cluster.crash(1);
  cluster.propose(3, 'a');
  cluster.settle();
  cluster.crash(3);
  cluster.crash(2);
  cluster.wipe(2);
  cluster.start(1);
  cluster.start(2);
  cluster.connect(1, 2);
  cluster.run(100);
  expect(cluster.leader()).toBeNull();
  cluster.start(3);
  cluster.converge(60);
  cluster.run(10);
  for (const id of [1, 2, 3]) expect(applied(cluster, id)[0]).toBe('a');
});

scenario('a suspect store takes a snapshot before it counts again', { voters: 3 }, (cluster) => {
  formed(cluster, 'a', 'b');
  cluster.crash(2);
  cluster.suspect(2);
  cluster.start(2);
  cluster.connectAll();
  cluster.run(10);
  expect(cluster.status(2)?.store).toBe('used');
  expect(cluster.transcript.some((line) => line.includes('2 installs the snapshot'))).toBe(true);
});

scenario('a server that hears nobody disturbs nobody', { voters: 3 }, (cluster) => {
  formed(cluster, 'a');
  // 1 can be heard and hears nothing.
  cluster.deaf.add('2>1').add('3>1');
  cluster.run(60);
  expect(cluster.leader()).toBe(3);
  expect(cluster.established.size).toBe(1);
  cluster.propose(3, 'b');
  cluster.settle();
  expect(applied(cluster, 2)).toEqual(['a', 'b']);
});

scenario('a leader that nobody hears is replaced', { voters: 3 }, (cluster) => {
  formed(cluster, 'a');
  cluster.deaf.add('3>1').add('3>2');
  cluster.run(60);
  expect(cluster.leader()).toBe(2);
  expect(cluster.status(3)?.role).toBe('looking');
});

scenario('a leader that was frozen steps down before it answers', { voters: 3 }, (cluster) => {
  formed(cluster, 'a');
  for (let i = 0; i < 15; i += 1) {
    for (const id of [1, 2]) {
      cluster.tick(id);
      cluster.finishWrites(id, 9);
      for (const other of [1, 2]) {
        if (other === id) continue;
        for (const channel of ['vote', 'vote', 'vote', 'stream', 'stream'] as const)
          cluster.deliver(id, other, channel);
      }
    }
  }
  expect(cluster.leader()).toBe(2);
  cluster.propose(2, 'b');
  // 3 wakes: the tick comes first, then the barrier that a client of it asked for.
  cluster.tick(3, 15);
  cluster.step(3, { kind: 'barrier', id: 1 });
  expect(cluster.barriers).toEqual([{ server: 3, id: -1, passed: false }]);
  cluster.converge(60);
  for (const id of [1, 2, 3]) expect(applied(cluster, id)).toEqual(['a', 'b']);
});

scenario('a follower that was frozen accuses nobody', { voters: 3 }, (cluster) => {
  formed(cluster, 'a');
  cluster.tick(1, 100);
  cluster.settle();
  cluster.run(3);
  expect(cluster.status(1)).toMatchObject({ role: 'following', serving: true, epoch: 1 });
});

scenario('leadership is handed over in one round', { voters: 3, recordVotes: true }, (cluster) => {
  formed(cluster, 'a');
  cluster.propose(3, 'b');
  cluster.step(3, { kind: 'transfer', to: cluster.server(1).id });
  expect(cluster.status(3)?.serving).toBe(false);
  cluster.settle();
  expect(cluster.leader()).toBe(1);
  for (const id of [1, 2, 3]) expect(applied(cluster, id)).toEqual(['a', 'b']);
});

scenario('an observer follows and has no say', { voters: 3, observers: 1 }, (cluster) => {
  formed(cluster, 'a');
  expect(cluster.status(4)).toMatchObject({ role: 'observing', serving: true });
  cluster.crash(1);
  cluster.crash(2);
  cluster.propose(3, 'b');
  cluster.run(15);
  // leader and observer are no quorum.
  expect(cluster.leader()).toBeNull();
  cluster.start(1);
  cluster.converge(60);
  expect(applied(cluster, 4)).toEqual(['a', 'b']);
});

scenario('the counter of an epoch is used up', { voters: 3, counterMax: 3 }, (cluster) => {
  formed(cluster, 'a', 'b');
  cluster.propose(3, 'c');
  cluster.converge(60);
  expect(cluster.leader()).toBe(3);
  expect(cluster.status(3)?.epoch).toBe(2);
  cluster.propose(3, 'd', 'e');
  cluster.settle();
  // Two do not fit: none is taken.
  cluster.propose(3, 'x', 'y');
  cluster.converge(60);
  expect(cluster.status(3)?.epoch).toBe(3);
  for (const id of [1, 2, 3]) expect(applied(cluster, id)).toEqual(['a', 'b', 'c', 'd', 'e']);
});

scenario('a server that promised a later epoch gets one', { voters: 3 }, (cluster) => {
  formed(cluster, 'a');
  // 2 proposes epoch 2 to 1, and goes down; 3 leads epoch 1 meanwhile with nobody, and 1 comes back to it.
  cluster.disconnect(1, 3);
  cluster.disconnect(2, 3);
  for (let i = 0; i < 12; i += 1) {
    cluster.deliver(1, 2, 'vote');
    cluster.deliver(2, 1, 'vote');
    cluster.deliver(1, 2, 'stream');
    if (cluster.server(2).writes.length > 0 && cluster.status(2)?.acceptedEpoch === 2) cluster.finishWrites(2, 1);
    if (cluster.status(1)?.acceptedEpoch === 2) break;
    cluster.deliver(2, 1, 'stream');
  }
  cluster.finishWrites(1, 1);
  expect(cluster.status(1)?.acceptedEpoch).toBe(2);
  cluster.crash(2);
  cluster.converge(60);
  expect(cluster.status(3)?.epoch).toBe(3);
  cluster.propose(3, 'b');
  cluster.settle();
  expect(applied(cluster, 1)).toEqual(['a', 'b']);
});

scenario('a write of an earlier role promises nothing to a later leader', { voters: 3 }, (cluster) => {
  formed(cluster, 'a');
  // the disk of 1 is slow; what the old leader asked for is done when 1 follows another one already.
  cluster.server(1).isDiskHeld = true;
  cluster.propose(3, 'b');
  cluster.settle();
  cluster.crash(3);
  cluster.settle();
  const sentBefore = cluster.transcript.length;
  cluster.finishWrites(1, 1);
  cluster.settle();
  expect(cluster.transcript.slice(sentBefore).filter((line) => line.startsWith('1 -> 2 ACK'))).toEqual([]);
  cluster.server(1).isDiskHeld = false;
  cluster.converge(60);
  expect(applied(cluster, 1)).toEqual(['a', 'b']);
});

scenario('with some links broken a server that reaches a quorum leads', { voters: 5 }, (cluster) => {
  formed(cluster, 'a');
  // 5 and 4 reach only 3; everybody reaches 3. Neither 4 nor 5 can lead, whatever their ids are.
  for (const lonely of [4, 5]) {
    for (const other of [1, 2, 4]) if (other !== lonely) cluster.disconnect(lonely, other);
  }
  cluster.run(60);
  expect(cluster.leader()).toBe(3);
  cluster.propose(3, 'b');
  cluster.settle();
  for (const id of [1, 2, 3, 4, 5]) expect(applied(cluster, id)).toEqual(['a', 'b']);
});
