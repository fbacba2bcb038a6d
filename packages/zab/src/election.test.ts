import { NO_MUTATIONS } from '@quorate/protocol/mutations';
import { makeZxid, serverIdFrom } from '@quorate/protocol/zxid';
import { expect, test } from 'vitest';
import { Cluster } from '../scenarios/cluster.ts';
import { compareVotes, type Vote } from './election.ts';

/** Few values of each field, so that ties in every prefix of the order occur. */
function allVotes(): Vote[] {
  const votes: Vote[] = [];
  for (const candidateEpoch of [1, 2]) {
    for (const zxid of [makeZxid(1, 1), makeZxid(1, 0xffffffff), makeZxid(2, 1)]) {
      for (const favoured of [false, true]) {
        for (const id of [1, 2, 3]) {
          votes.push({ candidate: serverIdFrom(id), candidateEpoch, candidateZxid: zxid, favoured });
        }
      }
    }
  }
  return votes;
}

const compare = (a: Vote, b: Vote): number => Math.sign(compareVotes(a, b, NO_MUTATIONS));

test('ZOOKEEPER-1419: the order of votes is total, antisymmetric and transitive', () => {
  const votes = allVotes();
  for (const [i, a] of votes.entries()) {
    for (const [j, b] of votes.entries()) {
      expect(compare(a, b) === 0).toBe(i === j);
      expect(compare(a, b)).toBe(-compare(b, a) + 0);
      for (const c of votes) if (compare(a, b) > 0 && compare(b, c) > 0) expect(compare(a, c)).toBe(1);
    }
  }
});

test('the epoch decides before the zxid, the zxid before a favourite, a favourite before the id', () => {
  const vote = (candidateEpoch: number, counter: number, favoured: boolean, id: number): Vote => ({
    candidate: serverIdFrom(id),
    candidateEpoch,
    candidateZxid: makeZxid(1, counter),
    favoured,
  });
  expect(compare(vote(2, 1, false, 1), vote(1, 9, true, 3))).toBe(1);
  expect(compare(vote(1, 2, false, 1), vote(1, 1, true, 3))).toBe(1);
  expect(compare(vote(1, 1, true, 1), vote(1, 1, false, 3))).toBe(1);
  expect(compare(vote(1, 1, false, 3), vote(1, 1, false, 1))).toBe(1);
});

test('R-001: in whatever order five servers come up and meet, one of them leads', () => {
  const orders = permutations([1, 2, 3, 4, 5]);
  expect(orders.length).toBe(120);
  for (const order of orders) {
    const cluster = new Cluster({ voters: 5 });
    for (const id of order) {
      cluster.start(id);
      for (const other of order) if (other !== id) cluster.connect(id, other);
      for (const other of order) if (other !== id) cluster.deliver(other, id, 'vote');
    }
    cluster.converge(20);
    expect(cluster.established.size).toBe(1);
  }
});

function permutations(items: readonly number[]): number[][] {
  if (items.length <= 1) return [[...items]];
  return items.flatMap((item) => permutations(items.filter((other) => other !== item)).map((rest) => [item, ...rest]));
}

test('R-018: equal servers with equal delays settle in at most two rounds', () => {
  for (const voters of [2, 3, 4, 5, 7]) {
    const cluster = new Cluster({ voters, record: true, recordVotes: true });
    cluster.startAll();
    cluster.settle();
    expect(cluster.leader()).toBe(voters);
    expect(cluster.transcript.filter((line) => / round ([3-9]|\d\d)/.test(line))).toEqual([]);
  }
});

test('R-004: a better vote that comes late costs one election, not a timeout', () => {
  const cluster = new Cluster({ voters: 3 });
  cluster.startAll();
  cluster.converge(20);
  cluster.propose(3, 'a');
  cluster.settle();
  // 2 holds an entry more than 1; 3 goes down; 2 and 1 meet late.
  cluster.disconnect(1, 2);
  cluster.disconnect(1, 3);
  cluster.propose(3, 'b');
  cluster.settle();
  cluster.crash(3);
  cluster.run(3);
  cluster.connect(1, 2);
  cluster.settle();
  expect(cluster.leader()).toBe(2);
});

test('R-020: a vote of an earlier life of a peer is forgotten with its link', () => {
  const cluster = new Cluster({ voters: 3 });
  cluster.startAll();
  cluster.converge(20);
  cluster.propose(3, 'a');
  cluster.settle();
  cluster.crash(3);
  cluster.crash(2);
  // 1 alone remembers votes for 3 and 2; none of them makes a quorum.
  cluster.run(60);
  expect(cluster.leader()).toBeNull();
  cluster.start(2);
  cluster.converge(40);
  expect(cluster.leader()).toBe(2);
});
