import { expect, test } from 'vitest';
import type { StoreKind } from './messages.ts';
import { highestReachedBy, majorityOf, Tally } from './quorum.ts';

/** xorshift, seeded: the same inputs in every run. */
function generator(seed: number): (bound: number) => number {
  let x = seed | 1;
  return (bound) => {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return (x >>> 0) % bound;
  };
}

test('two majorities of the same voters always share one', () => {
  for (let voters = 1; voters <= 9; voters += 1) {
    expect(2 * majorityOf(voters)).toBeGreaterThan(voters);
    expect(2 * (majorityOf(voters) - 1)).toBeLessThanOrEqual(voters);
  }
});

test('the highest value a quorum has reached is what counting by hand finds, in 20,000 random ensembles', () => {
  const random = generator(7);
  for (let i = 0; i < 20_000; i += 1) {
    const voters = 1 + random(7);
    const values = Array.from({ length: voters }, () => BigInt(random(6)));
    const need = 1 + random(voters);
    // Deliberately dumb: try every value, count who has reached it.
    let naive = -1n;
    for (const candidate of values) {
      if (values.filter((value) => value >= candidate).length >= need && candidate > naive) naive = candidate;
    }
    expect(highestReachedBy([...values], need)).toBe(naive);
    expect(highestReachedBy(values.map(Number), need)).toBe(Number(naive));
  }
});

test('blank stores stand in a quorum only when every voter is there and none holds a record', () => {
  const kinds: StoreKind[] = ['blank', 'formed', 'used', 'suspect'];
  const random = generator(3);
  for (let i = 0; i < 5_000; i += 1) {
    const voters = 1 + random(5);
    const present = Array.from({ length: 1 + random(voters) }, () => kinds[random(4)] ?? 'blank');
    const own = present[0] ?? 'blank';
    const tally = new Tally();
    for (const store of present) tally.add(store);
    const trusted = present.filter((store) => store === 'used' || store === 'formed').length;
    const isOrdinary = own !== 'blank' && trusted > voters / 2;
    const isNew = present.length === voters && present.every((store) => store === 'blank' || store === 'formed');
    expect(tally.suffices(voters, own)).toBe(isOrdinary || isNew);
  }
});
