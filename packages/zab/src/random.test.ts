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

/** What may happen next, with how often it does; each seed stretches some of the weights and shrinks others. */
const ACTIONS = {
  deliver: 400,
  write: 130,
  transferSnapshot: 20,
  tick: 100,
  freeze: 8,
  propose: 90,
  barrier: 15,
  cut: 22,
  link: 40,
  crash: 14,
  start: 24,
  snapshot: 12,
  handOver: 6,
  deafen: 3,
  heal: 2,
  calm: 12,
  loseDisk: 2,
} as const satisfies Record<string, number>;
type Action = keyof typeof ACTIONS;
const isAction = (name: string): name is Action => Object.hasOwn(ACTIONS, name);
const NAMES = Object.keys(ACTIONS).filter(isAction);

/** One walk. Throws when a check fails. */
export function walk(seed: number, steps: number, options: ClusterOptions): Cluster {
  const random = generator(seed);
  const weights = NAMES.map((name) => ACTIONS[name] * ([1, 1, 4, 12][random(4)] ?? 1));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  const cluster = new Cluster(options);
  const walker = new Walker(cluster, random);
  cluster.startAll();
  if (random(2) === 0) cluster.converge(100);
  for (let i = 0; i < steps; i += 1) {
    let dice = random(total);
    const index = weights.findIndex((weight) => {
      dice -= weight;
      return dice < 0;
    });
    walker.act(NAMES[index] ?? 'deliver', i);
  }
  heal(cluster);
  cluster.converge(400);
  cluster.propose(cluster.leader() ?? 0, 'last');
  cluster.settle();
  cluster.converge(100);
  cluster.run(5);
  for (const id of cluster.ids) expect(cluster.server(id).applied).toEqual(cluster.committed);
  return cluster;
}

class Walker {
  readonly #cluster: Cluster;
  readonly #random: (bound: number) => number;
  readonly #ids: readonly number[];
  #proposed = 0;
  #lostDisks = 0;

  constructor(cluster: Cluster, random: (bound: number) => number) {
    this.#cluster = cluster;
    this.#random = random;
    this.#ids = cluster.ids.map(Number);
  }

  act(action: Action, step: number): void {
    const cluster = this.#cluster;
    const random = this.#random;
    const id = this.#ids[random(this.#ids.length)] ?? 1;
    const other = this.#ids[random(this.#ids.length)] ?? 1;
    const leader = cluster.leader();
    switch (action) {
      case 'deliver':
        if (id === other) return;
        for (let n = random(4); n >= 0; n -= 1) cluster.deliver(id, other, random(2) === 0 ? 'vote' : 'stream');
        return;
      case 'write':
        cluster.finishWrites(id, 1 + random(Math.max(cluster.server(id).writes.length, 1)));
        return;
      case 'transferSnapshot':
        cluster.finishTransfer(id);
        return;
      case 'tick':
        for (const each of this.#ids) if (random(8) > 0) cluster.tick(each);
        return;
      case 'freeze':
        cluster.tick(id, 1 + random(25));
        return;
      case 'propose': {
        if (leader === null) return;
        const texts: string[] = [];
        for (let n = random(3); n >= 0; n -= 1) {
          this.#proposed += 1;
          texts.push(`t${this.#proposed}`);
        }
        cluster.propose(leader, ...texts);
        return;
      }
      case 'barrier':
        if (leader !== null) cluster.step(leader, { kind: 'barrier', id: step });
        return;
      case 'cut':
        if (id !== other) cluster.disconnect(id, other);
        return;
      case 'link':
        if (random(3) === 0) cluster.connectAll();
        else if (id !== other) cluster.connect(id, other);
        return;
      case 'crash':
        if (cluster.isUp(id)) cluster.crash(id, random(3));
        return;
      case 'start':
        if (!cluster.isUp(id)) cluster.start(id);
        return;
      case 'snapshot':
        cluster.takeSnapshot(id);
        return;
      case 'handOver':
        if (leader !== null && leader !== id) cluster.step(leader, { kind: 'transfer', to: cluster.server(id).id });
        return;
      case 'deafen':
        if (id !== other) cluster.deaf.add(`${id}>${other}`);
        return;
      case 'heal':
        heal(cluster);
        return;
      case 'calm':
        cluster.run(1 + random(6));
        return;
      case 'loseDisk':
        this.#loseDisk(id);
        return;
    }
  }

  /** One disk is lost while all the others are well; more is not promised, so it is done once in a walk. */
  #loseDisk(id: number): void {
    const cluster = this.#cluster;
    if (this.#lostDisks > 0 || cluster.voters.length < 3) return;
    this.#lostDisks += 1;
    heal(cluster);
    cluster.converge(400);
    cluster.crash(id);
    if (this.#random(2) === 0) cluster.wipe(id);
    else cluster.suspect(id);
    heal(cluster);
    cluster.converge(400);
    cluster.run(30);
    expect(cluster.status(id)?.store).toBe('used');
  }
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

/** Deliberate faults, and within how many seeds the walks notice them. */
const FAULTS = {
  ackBeforeDurable: 10,
  leaderCountsItselfEarly: 40,
  commitBelowQuorum: 10,
  newLeaderAckEarly: 10,
  voteIgnoresEpoch: 40,
  truncRemovesOneTooMany: 200,
  truncKeepsOneTooMany: 200,
} as const satisfies Partial<Record<keyof Mutations, number>>;

for (const [fault, seedMax] of Object.entries(FAULTS)) {
  test(`the walks notice ${fault}`, { timeout: 60_000 }, () => {
    const isNoticed = (seed: number): boolean => {
      try {
        walk(seed, 700, optionsFor(seed, { [fault]: true }));
        return false;
      } catch {
        return true;
      }
    };
    let seed = 1;
    while (seed <= seedMax && !isNoticed(seed)) seed += 1;
    expect(seed).toBeLessThanOrEqual(seedMax);
  });
}
