// Proof that the simulator can see: each mutant is switched on alone, and generic random runs must find it within its budget.
// No run knows which mutant it carries.

import { type MutationName, runSeed } from './run.ts';
import type { ProfileName } from './scenario.ts';

export type Mutant = {
  readonly id: string;
  readonly mutation: MutationName;
  /** Budget in seeds (reliability programme, 4.a'). */
  readonly seedsMax: number;
  readonly profile: ProfileName;
};

export const MUTANTS: readonly Mutant[] = [
  { id: 'M01', mutation: 'ackBeforeDurable', seedsMax: 100, profile: 'tiny' },
  { id: 'M02', mutation: 'leaderCountsItselfEarly', seedsMax: 300, profile: 'tiny' },
  { id: 'M03', mutation: 'commitBelowQuorum', seedsMax: 50, profile: 'tiny' },
  { id: 'M06', mutation: 'epochBeforeHistory', seedsMax: 2000, profile: 'tiny' },
  { id: 'M07', mutation: 'newLeaderAckEarly', seedsMax: 1000, profile: 'tiny' },
  { id: 'M09', mutation: 'voteIgnoresEpoch', seedsMax: 500, profile: 'tiny' },
  { id: 'M11', mutation: 'truncRemovesOneTooMany', seedsMax: 500, profile: 'tiny' },
  { id: 'M12', mutation: 'truncKeepsOneTooMany', seedsMax: 500, profile: 'tiny' },
  { id: 'M17', mutation: 'acceptStaleCompletion', seedsMax: 1000, profile: 'tiny' },
  { id: 'M18', mutation: 'watchFiresBeforeCommit', seedsMax: 100, profile: 'replica-tiny' },
  { id: 'M19', mutation: 'replyBeforeWatchEvent', seedsMax: 100, profile: 'replica-tiny' },
  { id: 'M33', mutation: 'multiNotAtomic', seedsMax: 300, profile: 'replica-tiny' },
];

export type MutantRow = {
  readonly mutant: Mutant;
  /** Seeds until it was found; null: it survived what was run. */
  readonly foundAfter: number | null;
  readonly seedsRun: number;
  readonly invariant: string;
  readonly detail: string;
};

export function huntMutant(mutant: Mutant, isTimeUp: () => boolean): MutantRow {
  let seedsRun = 0;
  for (let seed = 1; seed <= mutant.seedsMax && !isTimeUp(); seed++) {
    seedsRun = seed;
    const { violation } = runSeed(seed, mutant.profile, mutant.mutation);
    if (violation !== null) {
      return { mutant, foundAfter: seed, seedsRun, invariant: violation.invariant, detail: violation.detail };
    }
  }
  return { mutant, foundAfter: null, seedsRun, invariant: '', detail: '' };
}

export function runMutants(options: {
  readonly isTimeUp: () => boolean;
  readonly print: (line: string) => void;
}): MutantRow[] {
  return MUTANTS.map((mutant) => {
    const row = huntMutant(mutant, options.isTimeUp);
    options.print(describeRow(row));
    return row;
  });
}

function describeRow({ mutant, foundAfter, seedsRun, invariant, detail }: MutantRow): string {
  const name = `${mutant.id} ${mutant.mutation}`.padEnd(30);
  if (foundAfter === null) return `${name} SURVIVED ${seedsRun} of ${mutant.seedsMax} seeds`;
  return `${name} found by seed ${foundAfter} of ${mutant.seedsMax}: ${invariant} (${detail.slice(0, 100)})`;
}

export function printMutants(rows: readonly MutantRow[], print: (line: string) => void): void {
  print('');
  print('| mutant | mutation | found by | seeds to detection | budget |');
  print('|---|---|---|---|---|');
  for (const { mutant, foundAfter, invariant } of rows) {
    print(
      `| ${mutant.id} | ${mutant.mutation} | ${invariant || 'nothing'} | ${foundAfter ?? 'survived'} | ${mutant.seedsMax} |`,
    );
  }
}
