// The simulator's command line: one seed, or many until a number or a time is reached. It prints what it reached, and for a failure
// the first broken invariant, what led to it, and the command that repeats it. The wall clock is used here only, to report speed.

import { parseArgs } from 'node:util';
import { printMutants, runMutants } from './mutants.ts';
import {
  addToTotals,
  emptyTotals,
  isMutationName,
  type MutationName,
  runSeed,
  type Totals,
  witnessesFor,
} from './run.ts';
import { PROFILE_NAMES, type ProfileName } from './scenario.ts';
import type { RunResult } from './simulation.ts';

const USAGE = `quorate simulate: whole ensembles in virtual time, driven by seeds

  --seed S         run this seed alone, with a timeline if it fails
  --seeds N        run N seeds (default 100)
  --first F        the first of them (default 1)
  --minutes M      stop after M minutes of real time
  --profile P      ${PROFILE_NAMES.join(', ')} (default mixed)
  --mutation NAME  with a deliberate fault switched on
  --mutants        every mutant, until it is found or its budget is spent
  --timeline       with --seed: print the timeline also when nothing is wrong
`;

const LINES_SHOWN = 120;

type Options = {
  readonly seed: number | null;
  readonly seeds: number;
  readonly first: number;
  readonly minutes: number;
  readonly profile: ProfileName;
  readonly mutation: MutationName | null;
  readonly isTimelineWanted: boolean;
};

function integer(name: string, text: string | undefined, fallback: number): number {
  if (text === undefined) return fallback;
  const value = Number(text);
  if (!Number.isFinite(value) || value < 0)
    throw new RangeError(`--${name} ${text}: a number of at least 0 is expected`);
  return value;
}

function isProfileName(text: string): text is ProfileName {
  return PROFILE_NAMES.some((name) => name === text);
}

export async function runSimulation(args: string[]): Promise<number> {
  const { values } = parseArgs({
    args,
    options: {
      seed: { type: 'string' },
      seeds: { type: 'string' },
      first: { type: 'string' },
      minutes: { type: 'string' },
      profile: { type: 'string' },
      mutation: { type: 'string' },
      mutants: { type: 'boolean' },
      timeline: { type: 'boolean' },
      help: { type: 'boolean' },
    },
  });
  if (values.help) {
    print(USAGE);
    return 0;
  }
  const profile = values.profile ?? 'mixed';
  if (!isProfileName(profile))
    throw new RangeError(`--profile ${profile}: one of ${PROFILE_NAMES.join(', ')} is expected`);
  const mutation = values.mutation ?? null;
  if (mutation !== null && !isMutationName(mutation)) throw new RangeError(`--mutation ${mutation}: no such mutation`);
  const minutes = integer('minutes', values.minutes, Number.POSITIVE_INFINITY);
  if (values.mutants) {
    const endMs = Date.now() + minutes * 60_000;
    const report = runMutants({ isTimeUp: () => Date.now() >= endMs, print });
    printMutants(report, print);
    return report.every((row) => row.foundAfter !== null) ? 0 : 1;
  }
  const options: Options = {
    seed: values.seed === undefined ? null : integer('seed', values.seed, 1),
    seeds: integer('seeds', values.seeds, values.minutes === undefined ? 100 : Number.POSITIVE_INFINITY),
    first: integer('first', values.first, 1),
    minutes,
    profile,
    mutation,
    isTimelineWanted: values.timeline ?? false,
  };
  return options.seed === null ? runMany(options) : runOne(options.seed, options);
}

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}

function runOne(seed: number, options: Options): number {
  const result = runSeed(seed, options.profile, options.mutation, true);
  if (options.isTimelineWanted && result.violation === null) for (const line of result.lines) print(line);
  if (result.violation !== null) {
    printFailure(result, options);
    return 1;
  }
  print(
    `seed ${seed}: nothing wrong. ${result.events} events, ${result.virtualMs} virtual ms, ${result.committed} txns committed, trace ${result.traceHash}`,
  );
  return 0;
}

function printFailure(result: RunResult, options: Options): void {
  // The same seed again, this time telling what happens: a run is a function of its seed.
  const told = result.lines.length > 0 ? result : runSeed(result.seed, options.profile, options.mutation, true);
  const hidden = told.lines.length - LINES_SHOWN;
  if (hidden > 0 && !options.isTimelineWanted) print(`... ${hidden} earlier lines (all of them with --timeline)`);
  for (const line of options.isTimelineWanted ? told.lines : told.lines.slice(-LINES_SHOWN)) print(line);
  print('');
  print(`seed ${result.seed}: ${result.violation?.invariant} is broken at step ${result.step}`);
  print(`  ${result.violation?.detail}`);
  print(`  repeat it: ${repeatCommand(result.seed, options.profile, options.mutation)}`);
}

export function repeatCommand(seed: number, profile: ProfileName, mutation: MutationName | null): string {
  return `npx quorate simulate --seed ${seed} --profile ${profile}${mutation === null ? '' : ` --mutation ${mutation}`}`;
}

function runMany(options: Options): number {
  const totals = emptyTotals();
  const startMs = Date.now();
  const endMs = startMs + options.minutes * 60_000;
  let nextReportMs = startMs + 10_000;
  for (let i = 0; i < options.seeds && Date.now() < endMs; i++) {
    const result = runSeed(options.first + i, options.profile, options.mutation);
    addToTotals(totals, result);
    if (result.violation !== null) {
      printFailure(result, options);
      printTotals(totals, startMs);
      return 1;
    }
    if (Date.now() >= nextReportMs) {
      nextReportMs = Date.now() + 10_000;
      printTotals(totals, startMs);
    }
  }
  printTotals(totals, startMs);
  const missed = witnessesFor(options.profile).filter((name) => !totals.witnesses.has(name));
  for (const [name, count] of [...totals.witnesses].sort()) print(`  ${String(count).padStart(9)}  ${name}`);
  if (missed.length > 0) print(`never reached: ${missed.join(', ')}`);
  // A small batch need not reach everything; one of the size that CI runs must.
  return missed.length > 0 && totals.runs >= 500 ? 1 : 0;
}

function printTotals(totals: Totals, startMs: number): void {
  const seconds = Math.max(0.001, (Date.now() - startMs) / 1000);
  print(
    `${totals.runs} seeds, ${totals.events} events, ${Math.round(totals.events / seconds)} events/s, ` +
      `${Math.round(totals.virtualMs / 1000)} virtual s in ${seconds.toFixed(1)} s, ${totals.committed} txns committed`,
  );
}
