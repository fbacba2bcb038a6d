// One run: N servers, their disks and the network between them, driven by one seed in virtual time.
// First a phase of faults, then a phase of calm in which a random quorum must recover and make progress.
// It knows when things happen; what must hold is in invariants.ts, what clients do is in the workload.

import type { Mutations } from '@quorate/protocol/mutations';
import type { ServerId } from '@quorate/protocol/zxid';
import { serverIdFrom } from '@quorate/protocol/zxid';
import { type LogImage, Platter, SimDisk } from './disk.ts';
import { Invariants, type Violation } from './invariants.ts';
import type { EnsembleShape, Machine, MachineFactory, ServerView } from './machine.ts';
import { describeMessage, SimNetwork } from './network.ts';
import { Random } from './random.ts';
import { type Scenario, TIMED_FAULTS, type TimedFault } from './scenario.ts';
import { Timeline } from './timeline.ts';

export type Workload = {
  start(simulation: Simulation): void;
  onServerDied(id: ServerId): void;
  /** Faults are over; only these servers can be counted on. */
  onCalm(core: readonly ServerId[]): void;
  /** What is still missing in the calm phase; null when clients have made progress since it began. */
  missing(): string | null;
  /** Called for each txn when it is applied for the first time anywhere. */
  onCommitted(zxid: bigint, txn: Uint8Array): void;
  /** After each step of a server. */
  afterStep(): void;
  /** The last word: what only the whole history shows. */
  verdict(): Violation | null;
};

export type RunResult = {
  readonly seed: number;
  readonly violation: Violation | null;
  readonly step: number;
  readonly events: number;
  readonly virtualMs: number;
  readonly traceHash: string;
  readonly committed: number;
  readonly witnesses: ReadonlyMap<string, number>;
  readonly lines: readonly string[];
};

const EVENTS_MAX = 3_000_000;
const CALM_US = 60_000_000;
const START_WALL_MS = 1_700_000_000_000;

/** One server: its disk for ever, its process while it lives. */
export class Host {
  readonly id: ServerId;
  readonly isVoter: boolean;
  readonly platter = new Platter();
  machine: Machine | null = null;
  disk: SimDisk | null = null;
  /** Changes with every process start; 0 while dead. */
  life = 0;
  incarnation = 0;
  pausedUntil = 0;
  deferred: (() => void)[] = [];
  isWaking = false;
  /** Its state is loaded and its peer port is open. */
  isListening = false;
  isKeptDown = false;
  readonly clockRate: number;

  constructor(id: ServerId, isVoter: boolean, clockRate: number) {
    this.id = id;
    this.isVoter = isVoter;
    this.clockRate = clockRate;
  }
}

export class Simulation {
  readonly scenario: Scenario;
  readonly timeline = new Timeline();
  readonly network: SimNetwork;
  readonly invariants: Invariants;
  readonly hosts: Host[] = [];
  readonly voters: readonly ServerId[];
  readonly witnesses = new Map<string, number>();
  readonly lines: string[] = [];
  violation: Violation | null = null;
  readonly #shape: EnsembleShape;
  readonly #factory: MachineFactory;
  readonly #workload: Workload;
  readonly #mutations: Mutations;
  readonly #faults: Random;
  readonly #isVerbose: boolean;
  #isCalm = false;
  #crashCount = 0;
  #violationStep = 0;

  constructor(
    scenario: Scenario,
    factory: MachineFactory,
    workload: Workload,
    mutations: Mutations,
    isVerbose: boolean,
  ) {
    this.scenario = scenario;
    this.#factory = factory;
    this.#workload = workload;
    this.#mutations = mutations;
    this.#isVerbose = isVerbose;
    const { seed, voterCount, observerCount } = scenario;
    this.#faults = new Random(seed, 'faults');
    const voters: ServerId[] = [];
    const observers: ServerId[] = [];
    for (let i = 1; i <= voterCount; i++) voters.push(serverIdFrom(i));
    for (let i = 1; i <= observerCount; i++) observers.push(serverIdFrom(voterCount + i));
    this.voters = voters;
    this.#shape = { voters, observers };
    this.network = new SimNetwork(this.timeline, new Random(seed, 'network'), scenario.network, {
      onSend: (from, to, message) => this.invariants.onSend(from, to, message),
      describe: (line) => this.say(line),
    });
    this.invariants = new Invariants(
      voterCount,
      (violation) => this.fail(violation),
      (name) => this.witness(name),
    );
    const clocks = new Random(seed, 'clocks');
    for (const id of [...voters, ...observers]) {
      const drift = scenario.faults.clockDrift * (2 * clocks.unit() - 1);
      const host = new Host(id, id <= voterCount, 1 + drift);
      this.hosts.push(host);
      this.network.add(id, {
        life: () => (host.isListening ? host.life : 0),
        incarnation: () => host.incarnation,
        connected: (peer, incarnation) => this.#input(host, (machine) => machine.onPeerConnected(peer, incarnation)),
        disconnected: (peer) => this.#input(host, (machine) => machine.onPeerDisconnected(peer)),
        message: (from, message) => this.#input(host, (machine) => machine.onPeerMessage(from, message)),
      });
      this.invariants.add({
        id,
        isVoter: host.isVoter,
        platter: host.platter,
        logical: () => host.disk?.logical ?? null,
        view: () => host.machine?.view() ?? null,
      });
    }
  }

  say(line: () => string): void {
    if (this.#isVerbose) this.lines.push(`${(this.timeline.now / 1000).toFixed(3).padStart(10)} ms  ${line()}`);
  }

  witness(name: string): void {
    this.witnesses.set(name, (this.witnesses.get(name) ?? 0) + 1);
  }

  fail(violation: Violation): void {
    if (this.violation !== null) return;
    this.violation = violation;
    this.#violationStep = this.timeline.events;
    this.say(() => `VIOLATION ${violation.invariant}: ${violation.detail}`);
  }

  host(id: ServerId): Host {
    const host = this.hosts.find((candidate) => candidate.id === id);
    if (host === undefined) throw new RangeError('unknown server');
    return host;
  }

  /** Runs `work` in the process of this host: not at all if it died since, later if it is paused. */
  deliver(host: Host, life: number, work: () => void): void {
    if (host.life !== life) return;
    // What waited comes first: a woken process sees its inputs in the order in which they came.
    if (host.pausedUntil > this.timeline.now || (host.deferred.length > 0 && !host.isWaking)) {
      host.deferred.push(() => this.deliver(host, life, work));
      return;
    }
    try {
      work();
    } catch (error) {
      this.fail({ invariant: 'NoCrash', detail: `server ${host.id}: ${describeError(error)}` });
      return;
    }
    this.invariants.afterStep(host.id);
    this.#workload.afterStep();
  }

  #input(host: Host, give: (machine: Machine) => void): void {
    this.deliver(host, host.life, () => {
      if (host.machine !== null) give(host.machine);
    });
  }

  startServer(host: Host): void {
    if (host.life !== 0) return;
    host.incarnation++;
    const life = host.incarnation;
    host.life = life;
    host.pausedUntil = 0;
    host.deferred = [];
    const { scenario } = this;
    this.say(() => `server ${host.id} starts (life ${life})`);
    const restored = host.platter.restore();
    const timer = (delayUs: number, work: () => void): void => {
      this.timeline.after(delayUs, () => {
        if (host.life === life) work();
      });
    };
    const answer = (work: () => void): void => this.deliver(host, life, work);
    const disk = new SimDisk(
      host.platter,
      timer,
      answer,
      new Random(scenario.seed, 'disk', host.id * 1000 + life),
      scenario.disk,
      this.#diskHooks(host),
    );
    disk.isCalm = this.#isCalm;
    host.disk = disk;
    const luck = new Random(scenario.seed, 'server', host.id * 1000 + life);
    this.deliver(host, life, () => {
      host.machine = this.#factory({
        id: host.id,
        incarnation: life,
        seed: luck.u32(),
        shape: this.#shape,
        timing: scenario.timing,
        limits: scenario.limits,
        mutations: this.#mutations,
        disk,
        network: {
          send: (to, message) => {
            if (host.life === life) this.network.send(host.id, to, message, null);
          },
          sendBulk: (to, message, onSent) => {
            if (host.life === life)
              this.network.send(host.id, to, message, (isOk) => this.deliver(host, life, () => onSent(isOk)));
          },
          drop: (peer, reason) => {
            if (host.life === life) this.network.breakLink(host.id, peer, `dropped by ${host.id}: ${reason}`);
          },
        },
        clock: {
          nowMs: () => (this.timeline.now * host.clockRate) / 1000 + 1000,
          wallMs: () => START_WALL_MS + Math.floor(this.timeline.now / 1000),
        },
        restored,
        schedule: (work) => {
          this.timeline.after(1 + luck.below(20), () => this.deliver(host, life, work));
        },
        randomBytes: (count) => luck.bytes(count),
        log: (level, message, fields) => {
          this.say(
            () => `server ${host.id} ${level}: ${message} ${fields === undefined ? '' : describeMessage(fields)}`,
          );
        },
        fatal: (error) => this.fail({ invariant: 'NoCrash', detail: `server ${host.id}: ${describeError(error)}` }),
        onStarted: (zxid) => this.invariants.onStarted(host.id, zxid),
        onListening: () => {
          host.isListening = true;
          this.network.started(host.id);
        },
        onApplied: (zxid, txn, digest) => {
          this.say(() => `server ${host.id} applies ${zxid >> 32n}:${zxid & 0xffffffffn}`);
          const isNew = this.invariants.onApplied(host.id, zxid, txn, digest);
          if (isNew) this.#workload.onCommitted(zxid, txn ?? this.invariants.proposalOf(zxid) ?? new Uint8Array(0));
        },
        onInstalled: (zxid) => this.invariants.onInstalled(host.id, zxid),
        onAcknowledged: (zxid) => this.invariants.onAcknowledged(zxid),
        witness: (name) => this.witness(name),
      });
    });
    this.#tick(host, life);
  }

  #tick(host: Host, life: number): void {
    const periodUs = (this.scenario.timing.zabTickMs * 1000) / host.clockRate;
    this.timeline.after(periodUs, () => {
      if (host.life !== life) return;
      // A paused process does not queue up ticks; it sees the time when it wakes.
      if (host.pausedUntil <= this.timeline.now) this.deliver(host, life, () => host.machine?.onTick());
      this.#tick(host, life);
    });
  }

  #diskHooks(host: Host) {
    const { faults } = this.scenario;
    const crashes = (probability: number, name: string): boolean => {
      if (this.#isCalm || this.#crashCount >= faults.crashesMax || !this.#faults.chance(probability)) return false;
      this.witness(name);
      this.crashServer(host, name);
      return true;
    };
    return {
      onWrite: (write: Parameters<Invariants['onWrite']>[1], logical: LogImage) => {
        this.say(() => `server ${host.id} writes ${describeMessage(write)}`);
        this.invariants.onWrite(host.id, write, logical);
      },
      onBatchStart: () => this.invariants.beforeBatch(host.id),
      onBatchDurable: (writes: Parameters<Invariants['onBatchDurable']>[1]) => {
        this.say(() => `server ${host.id} durable up to ${describeMessage({ zxid: host.platter.durable.last })}`);
        this.invariants.onBatchDurable(host.id, writes);
      },
      crashesBeforeDurable: () => crashes(faults.crashBeforeDurable, 'crash before durable'),
      crashesAfterDurable: () => crashes(faults.crashAfterDurable, 'crash after durable'),
      onBatchAnswered: () => {
        crashes(faults.crashAfterAnswer, 'crash after answer');
      },
      broken: (what: string) => this.fail({ invariant: 'DiskContract', detail: `server ${host.id}: ${what}` }),
    };
  }

  crashServer(host: Host, why: string): void {
    if (host.life === 0) return;
    this.#crashCount++;
    this.say(() => `server ${host.id} crashes: ${why}`);
    host.life = 0;
    host.isListening = false;
    host.machine = null;
    host.disk?.crash(this.#faults.chance(this.scenario.faults.keepBatchChance));
    host.disk = null;
    host.deferred = [];
    this.network.died(host.id);
    this.#workload.onServerDied(host.id);
    if (host.isKeptDown) return;
    this.timeline.after(this.#faults.wait(this.scenario.faults.restartUs), () => {
      if (host.life !== 0 || host.isKeptDown) return;
      this.#maybeDamage(host);
      this.startServer(host);
    });
  }

  /** Fault atlas: a disk is only damaged while a quorum of other voters is clean, so every committed txn keeps a copy that counts. */
  #maybeDamage(host: Host): void {
    const { faults } = this.scenario;
    if (this.#isCalm || !this.#faults.chance(faults.damageChance)) return;
    const cleanOthers = this.hosts.filter((other) => other !== host && other.isVoter && isClean(other)).length;
    if (cleanOthers < Math.floor(this.voters.length / 2) + 1 || !host.platter.durable.touched) return;
    if (this.#faults.chance(0.5)) {
      this.say(() => `server ${host.id}: disk wiped`);
      this.witness('disk wiped');
      host.platter.wipe();
    } else {
      this.say(() => `server ${host.id}: tail lost`);
      this.witness('tail lost');
      host.platter.loseTail(this.#faults.between(0, 3));
    }
    this.invariants.onDamaged(host.id);
  }

  pause(host: Host, durationUs: number): void {
    if (host.life === 0) return;
    const life = host.life;
    this.say(() => `server ${host.id} paused for ${Math.round(durationUs / 1000)} ms`);
    host.pausedUntil = Math.max(host.pausedUntil, this.timeline.now + durationUs);
    this.timeline.at(host.pausedUntil, () => this.#wake(host, life));
  }

  #wake(host: Host, life: number): void {
    if (host.life !== life || host.pausedUntil > this.timeline.now) return;
    host.isWaking = true;
    for (let work = host.deferred.shift(); work !== undefined && host.life === life; work = host.deferred.shift())
      work();
    host.isWaking = false;
  }

  get leaders(): readonly Host[] {
    return this.hosts.filter((host) => {
      const view = host.machine?.view();
      return view?.role === 'leading' && view.serving;
    });
  }

  view(host: Host): ServerView | null {
    return host.machine?.view() ?? null;
  }

  #scheduleFault(): void {
    const { faults } = this.scenario;
    const total = TIMED_FAULTS.reduce((sum, name) => sum + faults.weights[name], 0);
    if (total === 0) return;
    this.timeline.after(this.#faults.wait(faults.gapUs), () => {
      if (this.#isCalm) return;
      let dice = this.#faults.unit() * total;
      const chosen = TIMED_FAULTS.find((name) => {
        dice -= faults.weights[name];
        return dice < 0;
      });
      if (chosen !== undefined) this.#strike(chosen);
      this.#scheduleFault();
    });
  }

  #strike(fault: TimedFault): void {
    const random = this.#faults;
    const { faults } = this.scenario;
    const victim = random.pick(this.hosts);
    const other = random.pick(this.hosts);
    const lastsUs = random.wait(random.pick([50_000, 300_000, 1_500_000]));
    const canCrash = this.#crashCount < faults.crashesMax;
    switch (fault) {
      case 'crash':
        if (canCrash) this.crashServer(victim, 'killed');
        return;
      case 'crashLeader': {
        const leader = this.leaders[0];
        if (canCrash && leader !== undefined) this.crashServer(leader, 'the leader is killed');
        return;
      }
      case 'crashAll':
        if (canCrash) for (const host of this.hosts) this.crashServer(host, 'power cut');
        return;
      case 'pause':
        this.pause(victim, lastsUs);
        return;
      case 'isolate':
        this.#cutBetween(
          [victim],
          this.hosts.filter((host) => host !== victim),
          lastsUs,
        );
        return;
      case 'split': {
        const shuffled = random.shuffle(this.hosts);
        const size = random.between(1, Math.max(1, shuffled.length - 1));
        this.#cutBetween(shuffled.slice(0, size), shuffled.slice(size), lastsUs);
        return;
      }
      case 'oneWay': {
        const peers = random.chance(0.5) ? this.hosts.filter((host) => host !== victim) : [other];
        const isOutgoing = random.chance(0.5);
        for (const peer of peers) {
          if (peer === victim) continue;
          const [from, to] = isOutgoing ? [victim.id, peer.id] : [peer.id, victim.id];
          this.network.block(from, to);
          this.timeline.after(lastsUs, () => {
            if (!this.#isCalm) this.network.unblock(from, to);
          });
        }
        return;
      }
      case 'slowLink':
        if (victim === other) return;
        this.network.setSlowness(victim.id, other.id, random.pick([5, 50, 500]));
        this.timeline.after(lastsUs, () => this.network.setSlowness(victim.id, other.id, 1));
        return;
      case 'slowDisk': {
        const disk = victim.disk;
        if (disk === null) return;
        disk.slowness = random.pick([10, 100, 1000]);
        this.timeline.after(lastsUs, () => {
          disk.slowness = 1;
        });
        return;
      }
      case 'flap':
        if (victim !== other) this.network.breakLink(victim.id, other.id, 'reset');
        return;
      case 'transfer': {
        const leader = this.leaders[0];
        if (leader !== undefined && leader !== other && other.isVoter) {
          this.#input(leader, (machine) => machine.transfer(other.id));
        }
        return;
      }
    }
  }

  #cutBetween(left: readonly Host[], right: readonly Host[], lastsUs: number): void {
    for (const a of left) {
      for (const b of right) {
        this.network.block(a.id, b.id);
        this.network.block(b.id, a.id);
      }
    }
    this.timeline.after(lastsUs, () => {
      if (this.#isCalm) return;
      for (const a of left) {
        for (const b of right) {
          this.network.unblock(a.id, b.id);
          this.network.unblock(b.id, a.id);
        }
      }
    });
  }

  run(): RunResult {
    const starts = new Random(this.scenario.seed, 'starts');
    for (const host of this.hosts) this.timeline.after(starts.below(200_000), () => this.startServer(host));
    this.#workload.start(this);
    this.#scheduleFault();
    this.#runUntil(this.scenario.chaosUs, () => false);
    if (this.violation === null) this.#calm();
    if (this.violation === null) this.invariants.sweep();
    if (this.violation === null) {
      const verdict = this.#workload.verdict();
      if (verdict !== null) this.fail(verdict);
    }
    return {
      seed: this.scenario.seed,
      violation: this.violation,
      step: this.#violationStep,
      events: this.timeline.events,
      virtualMs: Math.round(this.timeline.now / 1000),
      traceHash: this.timeline.traceHash,
      committed: this.invariants.committed.length,
      witnesses: this.witnesses,
      lines: this.lines,
    };
  }

  #runUntil(endUs: number, isDone: () => boolean): boolean {
    let nextCheck = 0;
    while (this.violation === null && this.timeline.now < endUs) {
      if (!this.timeline.step()) return isDone();
      if (this.timeline.events % 1000 === 0) this.invariants.sweep();
      if (this.timeline.now >= nextCheck) {
        nextCheck = this.timeline.now + 50_000;
        if (isDone()) return true;
      }
      if (this.timeline.events > EVENTS_MAX) {
        this.fail({ invariant: 'Runaway', detail: `${EVENTS_MAX} events without an end` });
      }
    }
    return false;
  }

  /** The liveness phase: a random core is healed and must recover, whatever the others do; then all of them. */
  #calm(): void {
    this.#isCalm = true;
    const random = new Random(this.scenario.seed, 'core');
    const quorum = Math.floor(this.voters.length / 2) + 1;
    const clean = random.shuffle(this.hosts.filter((host) => host.isVoter && isClean(host)));
    const isFormed = clean.length >= quorum;
    const size = isFormed ? random.between(quorum, this.hosts.length) : this.hosts.length;
    const chosen = [...clean.slice(0, Math.min(size, clean.length))];
    for (const host of random.shuffle(this.hosts))
      if (chosen.length < size && !chosen.includes(host)) chosen.push(host);
    this.#recover(chosen, 'core', random);
    if (this.violation !== null || chosen.length === this.hosts.length) return;
    this.#recover(this.hosts, 'everyone', random);
  }

  #recover(core: readonly Host[], name: string, random: Random): void {
    this.say(() => `calm: ${name} = ${core.map((host) => host.id).join(' ')}`);
    for (const host of this.hosts) {
      host.isKeptDown = false;
      if (host.disk !== null) host.disk.isCalm = true;
    }
    this.network.healAll();
    for (const host of this.hosts) {
      const life = host.life;
      host.pausedUntil = 0;
      if (life !== 0) this.timeline.after(1, () => this.#wake(host, life));
      if (core.includes(host)) {
        if (host.life === 0) this.timeline.after(1, () => this.startServer(host));
      } else this.#lose(host, core, random);
    }
    this.#workload.onCalm(core.map((host) => host.id));
    const isDone = (): boolean => this.#missing(core) === null;
    if (!this.#runUntil(this.timeline.now + CALM_US, isDone) && this.violation === null) {
      this.fail({
        invariant: 'Liveness',
        detail: `after 60 s of calm: ${this.#missing(core) ?? 'nothing'} (${name} ${core.map((host) => host.id).join(' ')}; ${this.#summary()})`,
      });
    }
  }

  /** A server outside the core: dead, cut off, or heard but deaf, for as long as the phase lasts. */
  #lose(host: Host, core: readonly Host[], random: Random): void {
    const fate = random.below(4);
    if (fate === 0) {
      host.isKeptDown = true;
      this.crashServer(host, 'outside the core');
      return;
    }
    for (const member of core) {
      if (fate === 1 || fate === 2) this.network.block(host.id, member.id);
      if (fate === 1 || fate === 3) this.network.block(member.id, host.id);
    }
  }

  #missing(core: readonly Host[]): string | null {
    const leader = core.find((host) => {
      const view = host.machine?.view();
      return view?.role === 'leading' && view.serving;
    });
    if (leader === undefined) return 'no leader is established';
    const epoch = leader.machine?.view()?.epoch;
    for (const host of core) {
      const view = host.machine?.view();
      if (view === undefined || view === null || !view.serving || view.epoch !== epoch)
        return `server ${host.id} does not serve`;
    }
    const progress = this.#workload.missing();
    if (progress !== null) return progress;
    for (const host of core) {
      if (this.invariants.appliedIndex(host.id) !== this.invariants.committed.length - 1)
        return `server ${host.id} lags`;
    }
    return null;
  }

  #summary(): string {
    return this.hosts
      .map((host) => {
        const view = host.machine?.view();
        if (view === undefined || view === null) return `${host.id}: dead`;
        const damage = host.platter.damaged ? ' damaged' : '';
        return `${host.id}: ${view.role} ${view.phase} epoch ${view.epoch} leader ${view.leader}${damage}`;
      })
      .join('; ');
  }
}

function isClean(host: Host): boolean {
  const { durable, damaged } = host.platter;
  return !damaged && durable.clusterId !== '' && durable.mark === 'clean';
}

function describeError(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const detail = 'detail' in error && error.detail !== undefined ? ` ${describeValueOf(error.detail)}` : '';
  const where = (error.stack ?? '')
    .split('\n')
    .slice(1, 9)
    .map((line) => line.trim())
    .join(' < ');
  return `${error.name}: ${error.message}${detail} (${where})`;
}

function describeValueOf(detail: unknown): string {
  return typeof detail === 'object' && detail !== null ? describeMessage(detail) : String(detail);
}
