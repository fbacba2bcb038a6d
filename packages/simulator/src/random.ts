// Seeded randomness: one independent xoshiro128** stream per (seed, purpose, entity).
// Separate streams keep runs comparable: one fault more in one place must not shift every other draw.
// Nothing in this package may use any other source of luck.

function mix32(value: number): number {
  let z = (value + 0x9e3779b9) >>> 0;
  z = Math.imul(z ^ (z >>> 16), 0x85ebca6b) >>> 0;
  z = Math.imul(z ^ (z >>> 13), 0xc2b2ae35) >>> 0;
  return (z ^ (z >>> 16)) >>> 0;
}

/** 32 bits that depend on all three parts. */
export function hashSeed(seed: number, purpose: string, entity: number): number {
  let hash = mix32(seed >>> 0) ^ mix32(Math.floor(seed / 0x1_0000_0000));
  for (let i = 0; i < purpose.length; i++) hash = mix32(hash ^ purpose.charCodeAt(i));
  return mix32(hash ^ mix32(entity));
}

export class Random {
  #a: number;
  #b: number;
  #c: number;
  #d: number;

  constructor(seed: number, purpose: string, entity = 0) {
    const start = hashSeed(seed, purpose, entity);
    this.#a = mix32(start ^ 1);
    this.#b = mix32(start ^ 2);
    this.#c = mix32(start ^ 3);
    this.#d = mix32(start ^ 4) | 1;
  }

  u32(): number {
    const product = Math.imul(this.#b, 5);
    const result = Math.imul((product << 7) | (product >>> 25), 9) >>> 0;
    const shifted = this.#b << 9;
    this.#c ^= this.#a;
    this.#d ^= this.#b;
    this.#b ^= this.#c;
    this.#a ^= this.#d;
    this.#c ^= shifted;
    this.#d = (this.#d << 11) | (this.#d >>> 21);
    return result;
  }

  /** 0 <= result < 1. */
  unit(): number {
    return this.u32() / 0x1_0000_0000;
  }

  /** An integer in 0..count-1. */
  below(count: number): number {
    return Math.floor(this.unit() * count);
  }

  /** An integer in low..high, both included. */
  between(low: number, high: number): number {
    return low + this.below(high - low + 1);
  }

  chance(probability: number): boolean {
    return probability > 0 && this.unit() < probability;
  }

  pick<T>(list: readonly T[]): T {
    const item = list[this.below(list.length)];
    if (item === undefined) throw new RangeError('nothing to pick from');
    return item;
  }

  /** Mostly small, sometimes up to ten times the mean: waiting times. Integer, at least 1. */
  wait(mean: number): number {
    return 1 + Math.floor(Math.min(10, -Math.log(1 - this.unit())) * mean);
  }

  bytes(count: number): Uint8Array {
    const bytes = new Uint8Array(count);
    for (let i = 0; i < count; i++) bytes[i] = this.u32() & 0xff;
    return bytes;
  }

  shuffle<T>(list: readonly T[]): T[] {
    const copy = [...list];
    for (let i = copy.length - 1; i > 0; i--) {
      const j = this.below(i + 1);
      const left = copy[i];
      const right = copy[j];
      if (left === undefined || right === undefined) continue;
      copy[i] = right;
      copy[j] = left;
    }
    return copy;
  }
}
