import { expect, test } from 'vitest';
import { repeatCommand } from './main.ts';
import { huntMutant, MUTANTS } from './mutants.ts';
import { addToTotals, emptyTotals, runSeed, witnessesFor } from './run.ts';
import type { ProfileName } from './scenario.ts';

/** Runs the seeds and says for the first failure how to see it again. */
function runAll(profile: ProfileName, first: number, count: number) {
  const totals = emptyTotals();
  for (let seed = first; seed < first + count; seed++) {
    const result = runSeed(seed, profile, null);
    const { violation } = result;
    expect(
      violation,
      `${violation?.invariant}: ${violation?.detail}\n${repeatCommand(seed, profile, null)}`,
    ).toBeNull();
    addToTotals(totals, result);
  }
  return totals;
}

test('1,000 tiny dense runs and 60 long ones of the bare core break no invariant and reach every witness', {
  timeout: 120_000,
}, () => {
  const tiny = runAll('tiny', 1, 1000);
  for (const name of witnessesFor('tiny')) expect(tiny.witnesses.get(name) ?? 0, name).toBeGreaterThan(0);
  runAll('long', 1, 60);
});

test('80 runs of whole replicas with clients break no rule and reach every witness', { timeout: 120_000 }, () => {
  const tiny = runAll('replica-tiny', 1, 80);
  for (const name of witnessesFor('replica-tiny')) expect(tiny.witnesses.get(name) ?? 0, name).toBeGreaterThan(0);
});

test.each(MUTANTS)(
  'generic random runs find mutant $id ($mutation) within $seedsMax seeds',
  { timeout: 60_000 },
  (mutant) => {
    const row = huntMutant(mutant, () => false);
    expect(row.foundAfter, `${mutant.id} survived ${row.seedsRun} seeds`).not.toBeNull();
  },
);

test.each(['tiny', 'long', 'replica-tiny'] as const)(
  'a seed of profile %s has one trace',
  { timeout: 60_000 },
  (profile) => {
    for (let seed = 1; seed <= 10; seed++) {
      const once = runSeed(seed, profile, null);
      const again = runSeed(seed, profile, null, true);
      expect(again.traceHash, `seed ${seed}`).toBe(once.traceHash);
      expect(again.events).toBe(once.events);
    }
    expect(runSeed(1, profile, null).traceHash).not.toBe(runSeed(2, profile, null).traceHash);
  },
);
