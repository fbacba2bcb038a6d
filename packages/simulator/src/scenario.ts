// Everything a run is made of, drawn from its seed: ensemble, timings, and how likely each fault is. Swarm testing: each fault's
// probability is drawn per run, and often it is zero, because a run full of every fault hides the bugs that need calm.

import type { DiskProfile } from './disk.ts';
import type { LimitProfile, TimingProfile } from './machine.ts';
import type { NetworkProfile } from './network.ts';
import { Random } from './random.ts';

/** tiny: few txns, crashes dense at durability boundaries (where TLA+ found ZooKeeper's bugs). long: everything, for longer. */
export type ProfileName = 'tiny' | 'long' | 'mixed' | 'replica-tiny' | 'replica-long';
export const PROFILE_NAMES: readonly ProfileName[] = ['tiny', 'long', 'mixed', 'replica-tiny', 'replica-long'];

export type FaultProfile = {
  readonly crashBeforeDurable: number;
  readonly crashAfterDurable: number;
  readonly crashAfterAnswer: number;
  readonly crashesMax: number;
  readonly restartUs: number;
  /** Mean time between timed faults. */
  readonly gapUs: number;
  /** Relative weights; zero: never in this run. */
  readonly weights: Readonly<Record<TimedFault, number>>;
  readonly damageChance: number;
  readonly keepBatchChance: number;
  readonly clockDrift: number;
};

export const TIMED_FAULTS = [
  'crash',
  'crashLeader',
  'crashAll',
  'pause',
  'isolate',
  'split',
  'oneWay',
  'slowLink',
  'slowDisk',
  'flap',
  'transfer',
] as const;
export type TimedFault = (typeof TIMED_FAULTS)[number];

export type Scenario = {
  readonly seed: number;
  readonly profile: ProfileName;
  readonly hasClients: boolean;
  readonly voterCount: number;
  readonly observerCount: number;
  readonly timing: TimingProfile;
  readonly limits: LimitProfile;
  readonly network: NetworkProfile;
  readonly disk: DiskProfile;
  readonly faults: FaultProfile;
  readonly chaosUs: number;
  readonly txnCount: number;
  readonly txnGapUs: number;
  readonly clientCount: number;
};

/** `low`..`high`, evenly on a logarithmic scale; zero as often as `zeroChance` says. */
function draw(random: Random, zeroChance: number, low: number, high: number): number {
  const isZero = random.chance(zeroChance);
  const value = low * (high / low) ** random.unit();
  return isZero ? 0 : value;
}

export function drawScenario(seed: number, profile: ProfileName): Scenario {
  const random = new Random(seed, 'scenario');
  const isTiny = profile === 'tiny' || profile === 'replica-tiny' || (profile === 'mixed' && seed % 2 === 0);
  const hasClients = profile === 'replica-tiny' || profile === 'replica-long';
  const dice = random.unit();
  const voterCount = isTiny ? (dice < 0.03 ? 1 : 3) : dice < 0.7 ? 3 : dice < 0.95 ? 5 : 1;
  const weights: Record<TimedFault, number> = {
    crash: draw(random, 0.3, 0.2, 3),
    crashLeader: draw(random, 0.3, 0.2, 3),
    crashAll: draw(random, 0.5, 0.1, 2),
    pause: draw(random, 0.6, 0.1, 2),
    isolate: draw(random, 0.4, 0.2, 3),
    split: draw(random, 0.5, 0.2, 2),
    oneWay: draw(random, 0.5, 0.2, 2),
    slowLink: draw(random, 0.6, 0.2, 2),
    slowDisk: draw(random, 0.6, 0.2, 2),
    flap: draw(random, 0.5, 0.2, 3),
    transfer: draw(random, 0.7, 0.1, 1),
  };
  const boundary = isTiny ? 0.12 : 0.01;
  return {
    seed,
    profile,
    hasClients,
    voterCount,
    observerCount: !isTiny && random.chance(0.3) ? 1 : 0,
    timing: {
      zabTickMs: 20,
      heartbeatTicks: 2,
      syncLimitTicks: 12,
      initLimitTicks: 25,
      finalizeTicks: random.pick([1, 3]),
    },
    limits: {
      historyCountMax: random.pick([1, 2, 4, 1000]),
      // Clients write without end, also in the time of calm: an epoch must last longer than an election and a snapshot together.
      counterMax: random.chance(0.2) ? random.between(3, 12) * (hasClients ? 25 : 1) : 0xffffffff,
      snapshotEvery: random.pick([0, 2, 3, 10]),
      logBytesMin: random.pick([100, 1000, 1e9]),
      chunkBytes: random.pick([64, 1000]),
      outstandingMax: random.pick([3, 1000]),
      waitWithoutLeaderMs: random.pick([200, 1000, 5000]),
      tickMs: 100,
    },
    network: {
      latencyUsMin: random.pick([50, 200, 1000]),
      latencyUsMean: random.pick([20, 500, 5000, 20_000]),
      dialUs: random.pick([1000, 20_000, 200_000]),
      silentUsMax: random.pick([100_000, 2_000_000]),
      resetChance: random.pick([0, 0.5, 0.9, 1]),
    },
    disk: {
      latencyUs: random.pick([50, 500, 3000, 20_000]),
      stallChance: draw(random, 0.5, 0.01, 0.2),
      stallUsMax: random.pick([20_000, 200_000, 1_000_000]),
      groupsMax: random.pick([1, 1, 2, 100]),
    },
    faults: {
      crashBeforeDurable: draw(random, 0.3, boundary / 10, boundary),
      crashAfterDurable: draw(random, 0.3, boundary / 10, boundary),
      crashAfterAnswer: draw(random, 0.3, boundary / 10, boundary),
      crashesMax: isTiny ? random.between(2, 10) : random.between(5, 60),
      restartUs: random.pick([20_000, 200_000, 1_000_000]),
      gapUs: isTiny ? random.pick([100_000, 400_000]) : random.pick([200_000, 1_000_000, 4_000_000]),
      weights,
      damageChance: draw(random, 0.6, 0.05, 0.5),
      keepBatchChance: random.pick([0, 0.5, 1]),
      clockDrift: random.pick([0, 0, 0.02, 0.05]),
    },
    chaosUs: isTiny ? random.between(1_000_000, 4_000_000) : random.between(5_000_000, 25_000_000),
    txnCount: isTiny ? random.between(2, 8) : random.between(50, 400),
    txnGapUs: isTiny ? random.pick([50_000, 300_000]) : random.pick([10_000, 50_000, 100_000]),
    clientCount: isTiny ? random.between(1, 3) : random.between(2, 8),
  };
}
