// The workload of the bare core: unique payloads, offered to whoever believes to lead, also to leaders that are deposed already.

import type { ServerId } from '@quorate/protocol/zxid';
import type { Violation } from './invariants.ts';
import { Random } from './random.ts';
import type { Simulation, Workload } from './simulation.ts';

export class Proposals implements Workload {
  #simulation: Simulation | null = null;
  #random = new Random(0, 'proposals');
  #offered = 0;
  #acknowledgedBefore = 0;
  #isCalm = false;

  start(simulation: Simulation): void {
    this.#simulation = simulation;
    this.#random = new Random(simulation.scenario.seed, 'proposals');
    this.#next(simulation);
  }

  #next(simulation: Simulation): void {
    simulation.timeline.after(this.#random.wait(simulation.scenario.txnGapUs), () => {
      if (this.#isCalm) return;
      if (this.#offered < simulation.scenario.txnCount) this.#offer(simulation);
      this.#next(simulation);
    });
  }

  #offer(simulation: Simulation): void {
    for (const host of simulation.leaders) {
      const payloads: Uint8Array[] = [];
      for (let i = this.#random.between(1, 3); i > 0; i--) {
        payloads.push(new TextEncoder().encode(`txn ${this.#offered} from ${host.id}.${host.incarnation}.${i}`));
      }
      simulation.deliver(host, host.life, () => {
        this.#offered += host.machine?.propose(payloads) ?? 0;
      });
    }
  }

  onServerDied(_id: ServerId): void {}

  onCommitted(_zxid: bigint, _txn: Uint8Array): void {}

  onCalm(_core: readonly ServerId[]): void {
    const simulation = this.#simulation;
    if (simulation === null) return;
    const isFirst = !this.#isCalm;
    this.#isCalm = true;
    this.#acknowledgedBefore = simulation.invariants.acknowledged.size;
    if (!isFirst) return;
    const again = (): void => {
      if (simulation.invariants.acknowledged.size === this.#acknowledgedBefore) this.#offer(simulation);
      simulation.timeline.after(300_000, again);
    };
    again();
  }

  missing(): string | null {
    const simulation = this.#simulation;
    if (simulation === null || simulation.invariants.acknowledged.size > this.#acknowledgedBefore) return null;
    return 'no txn was acknowledged';
  }

  afterStep(): void {}

  verdict(): Violation | null {
    return null;
  }
}
