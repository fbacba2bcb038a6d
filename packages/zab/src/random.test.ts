// Random walks over small ensembles: deliveries, disk writes, crashes, partitions, one-way links and frozen servers in any order,
// with the checks of scenarios/cluster.ts after every step. Afterwards everything is healed and must converge in bounded time.

import type { Mutations } from '@quorate/protocol/mutations';
import { expect, test } from 'vitest';
import { Cluster, type ClusterOptions } from '../scenarios/cluster.ts';

/** mulberry32: small, seedable, good enough to choose what happens next. */
function generator(seed: number): (bound: number) => number {
  let state = seed >>> 0;
  return (bound) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) % bound;
  };
}

export function optionsFor(seed: number, mutations: Partial<Mutations> = {}): ClusterOptions {
  const shapes = [
    { voters: 3 },
    { voters: 3, observers: 1 },
    { voters: 5 },
    { voters: 3, historyCountMax: 4 },
    { voters: 3, counterMax: 6 },
    { voters: 1, observers: 1 },
    { voters: 2 },
    { voters: 4, historyCountMax: 2 },
  ];
  return { ...shapes[seed % shapes.length], voters: shapes[seed % shapes.length]?.voters ?? 3, seed, mutations };
}

/** One walk. Throws when a check fails. */
export function walk(seed: number, steps: number, options: ClusterOptions): Cluster {
  const random = generator(seed);
  const cluster = new Cluster(options);
  const ids = cluster.ids.map(Number);
  const pick = (): number => ids[random(ids.length)] ?? 1;
  cluster.startAll();
  if (random(2) === 0) cluster.converge(100);
  let count = 0;
  let wiped = 0;
  for (let i = 0; i < steps; i += 1) {
    const id = pick();
    const other = pick();
    const dice = random(1000);
    if (dice < 480) {
      if (id !== other) for (let n = random(4); n >= 0; n -= 1) cluster.deliver(id, other, dice % 2 === 0 ? 'vote' : 'stream');
    } else if (dice < 640) {
      const server = cluster.server(id);
      cluster.finishWrites(id, 1 + random(Math.max(server.writes.length, 1)));
    } else if (dice < 660) {
      cluster.finishTransfer(id);
    } else if (dice < 790) {
      for (const each of ids) if (cluster.isUp(each) && random(8) > 0) cluster.tick(each);
    } else if (dice < 800) {
      if (cluster.isUp(id)) cluster.tick(id, 1 + random(25));
    } else if (dice < 880) {
      const leader = cluster.leader();
      if (leader !== null) {
        const texts = Array.from({ length: 1 + random(3) }, () => `t${(count += 1)}`);
        cluster.propose(leader, ...texts);
      }
    } else if (dice < 900) {
      const leader = cluster.leader();
      if (leader !== null) cluster.step(leader, { kind: 'barrier', id: i });
    } else if (dice < 925) {
      if (id !== other) cluster.disconnect(id, other);
    } else if (dice < 960) {
      if (id !== other && random(3) > 0) cluster.connect(id, other);
      else cluster.connectAll();
    } else if (dice < 970) {
      if (cluster.isUp(id)) cluster.crash(id, random(3));
    } else if (dice < 983) {
      if (!cluster.isUp(id)) cluster.start(id);
    } else if (dice < 990) {
      cluster.takeSnapshot(id);
    } else if (dice < 993) {
      const leader = cluster.leader();
      if (leader !== null && leader !== id) cluster.step(leader, { kind: 'transfer', to: cluster.server(id).id });
    } else if (dice < 996) {
      if (id !== other) cluster.deaf.add(`${id}>${other}`);
    } else if (dice < 998) {
      heal(cluster);
    } else if (wiped === 0 && cluster.voters.length >= 3) {
      // One disk is lost, while all the others are well: nothing more is promised.
      wiped += 1;
      heal(cluster);
      cluster.converge(400);
      cluster.crash(id);
      if (random(2) === 0) cluster.wipe(id);
      else cluster.suspect(id);
      heal(cluster);
      cluster.converge(400);
      cluster.run(30);
      expect(cluster.status(id)?.store).toBe('used');
    }
  }
  heal(cluster);
  cluster.converge(400);
  const leader = cluster.leader() ?? 0;
  cluster.propose(leader, 'last');
  cluster.settle();
  cluster.converge(100);
  cluster.run(5);
  for (const id of ids) expect(cluster.server(id).applied).toEqual(cluster.committed);
  return cluster;
}

function heal(cluster: Cluster): void {
  for (const pair of cluster.deaf) {
    const [from, to] = pair.split('>').map(Number);
    // What was lost is lost: a link that has lost messages is a broken link.
    cluster.disconnect(from ?? 0, to ?? 0);
  }
  cluster.deaf.clear();
  for (const id of cluster.ids) if (!cluster.isUp(id)) cluster.start(id);
  cluster.connectAll();
}

test('random walks keep every promise, and the ensemble heals', { timeout: 60_000 }, () => {
  for (let seed = 1; seed <= 240; seed += 1) {
    try {
      walk(seed, 700, optionsFor(seed));
    } catch (error) {
      throw new Error(`seed ${seed} of the random walk fails`, { cause: error });
    }
  }
});
