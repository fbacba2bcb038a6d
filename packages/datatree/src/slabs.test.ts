import { expect, test } from 'vitest';
import { Random } from './leader.test-data.ts';
import { Slabs } from './slabs.ts';

function filled(length: number, value: number): Uint8Array {
  return new Uint8Array(length).fill(value & 0xff);
}

test('every block keeps its bytes while others come, change and go', () => {
  const slabs = new Slabs();
  const random = new Random(5);
  const lengths = [
    1,
    15,
    16,
    17,
    100,
    1023,
    1024,
    1025,
    1280,
    1281,
    5000,
    65536,
    65537,
    1 << 20,
    (1 << 20) + 1,
    3 << 20,
  ];
  const live = new Map<number, { reference: number; data: Uint8Array }>();
  const freshLength = () => (random.below(20) === 0 ? random.pick(lengths) : 1 + random.below(3000));
  for (let step = 0; step < 30_000; step += 1) {
    const key = random.below(300);
    const known = live.get(key);
    if (known === undefined) {
      const data = filled(freshLength(), step);
      live.set(key, { reference: slabs.store(data), data });
    } else if (random.below(3) === 0) {
      slabs.free(known.reference, known.data.length);
      live.delete(key);
    } else {
      const data = filled(random.below(2) === 0 ? known.data.length : freshLength(), step);
      live.set(key, { reference: slabs.replace(known.reference, known.data.length, data), data });
    }
    if (step % 1000 === 0) {
      for (const { reference, data } of live.values()) {
        expect(Buffer.compare(slabs.view(reference, data.length), data)).toBe(0);
      }
    }
  }
  expect(live.size).toBeGreaterThan(50);
});

test('memory of freed blocks serves other sizes, and most of it is given back', () => {
  const slabs = new Slabs();
  const store = (count: number, length: number) =>
    Array.from({ length: count }, (_, index) => slabs.store(filled(length, index)));
  const small = store(100_000, 100);
  const full = slabs.reservedBytes;
  for (const reference of small) slabs.free(reference, 100);
  expect(slabs.reservedBytes).toBeLessThanOrEqual(full);
  const medium = store(20_000, 500);
  expect(slabs.reservedBytes).toBeLessThanOrEqual(full + (4 << 20));
  for (const reference of medium) slabs.free(reference, 500);
  const large = slabs.store(filled(9 << 20, 1));
  slabs.free(large, 9 << 20);
  expect(slabs.reservedBytes).toBeLessThanOrEqual(5 * (4 << 20));
});

test('a stored value is a copy, also of a large Buffer', () => {
  const slabs = new Slabs();
  for (const length of [10, 2 << 20]) {
    const data = Buffer.alloc(length, 1);
    const reference = slabs.store(data);
    data.fill(2);
    expect(slabs.view(reference, length)[length - 1]).toBe(1);
  }
});

test('freeing with a wrong length or twice is our fault and says so', () => {
  const slabs = new Slabs();
  const first = slabs.store(filled(100, 1));
  slabs.store(filled(100, 2));
  expect(() => slabs.free(first, 200)).toThrow('freed with the length');
  const alone = slabs.store(filled(3000, 1));
  slabs.free(alone, 3000);
  expect(() => slabs.free(alone, 3000)).toThrow('lives in a slab');
});
