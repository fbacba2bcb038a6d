// The one door of the simulator package: explicit names, no logic.

export type { Violation } from './invariants.ts';
export { runSimulation } from './main.ts';
export type { Mutant, MutantRow } from './mutants.ts';
export { huntMutant, MUTANTS, printMutants, runMutants } from './mutants.ts';
export type { MutationName, Totals } from './run.ts';
export { addToTotals, emptyTotals, runSeed, witnessesFor } from './run.ts';
export type { ProfileName, Scenario } from './scenario.ts';
export { drawScenario, PROFILE_NAMES } from './scenario.ts';
export type { RunResult } from './simulation.ts';
