// Runs seeds, one or many, and adds up what they reached.

import { type Mutations, NO_MUTATIONS } from '@quorate/protocol/mutations';
import { Clients } from './clients.ts';
import { Proposals } from './proposals.ts';
import { ReplicaMachine } from './replica-machine.ts';
import { drawScenario, type ProfileName } from './scenario.ts';
import { type RunResult, Simulation } from './simulation.ts';
import { ZabMachine } from './zab-machine.ts';

export type MutationName = keyof Mutations;

export function withMutation(name: MutationName | null): Mutations {
  return name === null ? NO_MUTATIONS : Object.freeze({ ...NO_MUTATIONS, [name]: true });
}

export function runSeed(
  seed: number,
  profile: ProfileName,
  mutation: MutationName | null,
  isVerbose = false,
): RunResult {
  const scenario = drawScenario(seed, profile);
  const mutations = withMutation(mutation);
  const simulation = scenario.hasClients
    ? new Simulation(scenario, (env) => new ReplicaMachine(env), new Clients(), mutations, isVerbose)
    : new Simulation(scenario, (env) => new ZabMachine(env), new Proposals(), mutations, isVerbose);
  return simulation.run();
}

/** What must be reached at least once in any batch worth the name. */
export const WITNESSES_ZAB = [
  'leader established',
  'DIFF',
  'TRUNC',
  'SNAP',
  'commit by minimal quorum',
  'two self-believed leaders',
  'crash before durable',
  'crash after durable',
  'crash after answer',
  'disk wiped',
  'tail lost',
] as const;

export type Totals = {
  runs: number;
  events: number;
  virtualMs: number;
  committed: number;
  readonly witnesses: Map<string, number>;
};

export function emptyTotals(): Totals {
  return { runs: 0, events: 0, virtualMs: 0, committed: 0, witnesses: new Map() };
}

export function addToTotals(totals: Totals, result: RunResult): void {
  totals.runs++;
  totals.events += result.events;
  totals.virtualMs += result.virtualMs;
  totals.committed += result.committed;
  for (const [name, count] of result.witnesses) totals.witnesses.set(name, (totals.witnesses.get(name) ?? 0) + count);
}

const WITNESSES_CLIENTS = [
  ...WITNESSES_ZAB,
  'watch fired',
  'session expired',
  'session re-attached',
  'session found expired',
  'wrong password refused',
  'setWatches2',
  'snapshot taken',
] as const;

export function witnessesFor(profile: ProfileName): readonly string[] {
  return profile === 'replica-tiny' || profile === 'replica-long' ? WITNESSES_CLIENTS : WITNESSES_ZAB;
}

export function isMutationName(text: string): text is MutationName {
  return Object.keys(NO_MUTATIONS).includes(text);
}
