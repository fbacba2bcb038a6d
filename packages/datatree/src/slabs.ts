// Bytes outside V8's heap: blocks in slabs of up to 4 MB, one size class per slab, freed blocks chained inside the slab.
// A block is named by a 32-bit reference; whoever allocated it must free it with the same length, exactly once.

import { assert } from '@quorate/protocol/assert';

const UNIT_SHIFT = 4;
const SLAB_SHIFT = 22;
const SLAB_BYTES = 1 << SLAB_SHIFT;
// A class's first slab is small and each further one twice as large, so that a small tree stays small.
const FIRST_SLAB_SHIFT = 16;
const FIRST_SLAB_BLOCKS = 4;
const UNITS_SHIFT = SLAB_SHIFT - UNIT_SHIFT;
const UNITS_MASK = (1 << UNITS_SHIFT) - 1;
// Up to here classes are multiples of 16 bytes; beyond, four per doubling, so that no block wastes more than a quarter.
const FINE_BYTES_MAX = 1024;
const FINE_CLASSES = FINE_BYTES_MAX >> UNIT_SHIFT;
// Larger blocks get a slab of their own, of exactly their length.
const SHARED_BYTES_MAX = SLAB_BYTES >> 2;
// Empty slabs kept for the next class that needs one; more are given back to the operating system.
const SPARE_SLABS_MAX = 4;

const NO_CLASS = -1;
const LARGE = -2;

class Slab {
  bytes: Uint8Array;
  words: Int32Array;
  sizeClass = NO_CLASS;
  blockBytes = 0;
  // Unit number of the first freed block, -1 if none; each freed block holds the next one's in its first word.
  freeHead = -1;
  // Bytes handed out so far by moving forward.
  used = 0;
  live = 0;
  // Stands in its class's list of slabs with room.
  isListed = false;

  constructor(bytes: Uint8Array, isShared: boolean) {
    this.bytes = bytes;
    this.words = isShared ? new Int32Array(bytes.buffer) : EMPTY_WORDS;
  }

  get hasRoom(): boolean {
    return this.freeHead !== -1 || this.used + this.blockBytes <= this.bytes.length;
  }
}

const EMPTY_WORDS = new Int32Array(0);
const EMPTY_BYTES = new Uint8Array(0);

function classOf(length: number): number {
  if (length <= FINE_BYTES_MAX) return (length + 15) >> UNIT_SHIFT;
  const top = 31 - Math.clz32(length - 1);
  return FINE_CLASSES + 1 + ((top - 10) << 2) + (((length - 1) >> (top - 2)) & 3);
}

function blockBytesOf(sizeClass: number): number {
  if (sizeClass <= FINE_CLASSES) return sizeClass << UNIT_SHIFT;
  const coarse = sizeClass - FINE_CLASSES - 1;
  const top = (coarse >> 2) + 10;
  return (1 << top) + (((coarse & 3) + 1) << (top - 2));
}

export class Slabs {
  readonly #slabs: Slab[] = [];
  /** Per size class, the indices of slabs that may have room. */
  readonly #roomy: number[][] = [];
  /** Per size class, the slabs it has. */
  readonly #counts: number[] = [];
  /** Indices whose slab is empty: with bytes, all of full size (spare), or without (vacant). */
  readonly #spare: number[] = [];
  readonly #vacant: number[] = [];
  #reservedBytes = 0;

  /** Bytes of all slabs, used or not; untouched pages of a slab cost no memory. */
  get reservedBytes(): number {
    return this.#reservedBytes;
  }

  /** Copies `data` into a block and names it. `data` is not empty. */
  store(data: Uint8Array): number {
    const length = data.length;
    assert(length > 0, 'an empty value needs no block');
    if (length > SHARED_BYTES_MAX) return this.#storeLarge(data);
    const sizeClass = classOf(length);
    const index = this.#slabWithRoom(sizeClass);
    const slab = this.#slab(index);
    let unit = slab.freeHead;
    if (unit !== -1) {
      slab.freeHead = slab.words[unit << 2] ?? -1;
    } else {
      unit = slab.used >> UNIT_SHIFT;
      slab.used += slab.blockBytes;
    }
    slab.live += 1;
    slab.bytes.set(data, unit << UNIT_SHIFT);
    return (index << UNITS_SHIFT) | unit;
  }

  /** Puts `data` where a value of `oldLength` bytes stood: in place if the class is the same. */
  replace(reference: number, oldLength: number, data: Uint8Array): number {
    if (
      data.length <= SHARED_BYTES_MAX &&
      oldLength <= SHARED_BYTES_MAX &&
      classOf(data.length) === classOf(oldLength)
    ) {
      const slab = this.#slab(reference >>> UNITS_SHIFT);
      slab.bytes.set(data, (reference & UNITS_MASK) << UNIT_SHIFT);
      return reference;
    }
    this.free(reference, oldLength);
    return this.store(data);
  }

  free(reference: number, length: number): void {
    const index = reference >>> UNITS_SHIFT;
    const slab = this.#slab(index);
    assert(slab.live > 0, 'a freed block lives in a slab that has one');
    slab.live -= 1;
    if (length > SHARED_BYTES_MAX) {
      assert(slab.sizeClass === LARGE, 'a large block has its own slab');
      this.#drop(index, slab);
      return;
    }
    assert(slab.sizeClass === classOf(length), 'a block is freed with the length it was stored with');
    if (slab.live === 0) {
      this.#retire(index, slab);
      return;
    }
    const unit = reference & UNITS_MASK;
    slab.words[unit << 2] = slab.freeHead;
    slab.freeHead = unit;
    if (!slab.isListed) this.#list(index, slab);
  }

  /** A view of the block; valid until the block is replaced or freed. */
  view(reference: number, length: number): Uint8Array {
    const start = (reference & UNITS_MASK) << UNIT_SHIFT;
    return this.#slab(reference >>> UNITS_SHIFT).bytes.subarray(start, start + length);
  }

  #slab(index: number): Slab {
    const slab = this.#slabs[index];
    assert(slab !== undefined, 'a reference names a slab that exists');
    return slab;
  }

  #slabWithRoom(sizeClass: number): number {
    let roomy = this.#roomy[sizeClass];
    if (roomy === undefined) {
      roomy = [];
      this.#roomy[sizeClass] = roomy;
    }
    while (roomy.length > 0) {
      const index = roomy[roomy.length - 1] ?? 0;
      const slab = this.#slab(index);
      if (slab.sizeClass === sizeClass && slab.hasRoom) return index;
      // Full, or retired and perhaps serving another class: its listing here is history.
      roomy.pop();
      if (slab.sizeClass === sizeClass) slab.isListed = false;
    }
    const blockBytes = blockBytesOf(sizeClass);
    const count = this.#counts[sizeClass] ?? 0;
    this.#counts[sizeClass] = count + 1;
    const wanted = Math.max(blockBytes * FIRST_SLAB_BLOCKS, 1 << Math.min(FIRST_SLAB_SHIFT + count, SLAB_SHIFT));
    const slabBytes = Math.min(wanted, SLAB_BYTES);
    const spare = slabBytes === SLAB_BYTES ? this.#spare.pop() : undefined;
    const index = spare ?? this.#addSlab(new Uint8Array(slabBytes), true);
    const slab = this.#slab(index);
    slab.sizeClass = sizeClass;
    slab.blockBytes = blockBytes;
    this.#list(index, slab);
    return index;
  }

  #list(index: number, slab: Slab): void {
    slab.isListed = true;
    this.#roomy[slab.sizeClass]?.push(index);
  }

  #storeLarge(data: Uint8Array): number {
    // Not slice(): on a Buffer that is a view of the caller's memory.
    const index = this.#addSlab(new Uint8Array(data), false);
    const slab = this.#slab(index);
    slab.sizeClass = LARGE;
    slab.live = 1;
    return index << UNITS_SHIFT;
  }

  #addSlab(bytes: Uint8Array, isShared: boolean): number {
    this.#reservedBytes += bytes.length;
    const slab = new Slab(bytes, isShared);
    const index = this.#vacant.pop();
    if (index !== undefined) {
      this.#slabs[index] = slab;
      return index;
    }
    assert(this.#slabs.length < 1 << (31 - UNITS_SHIFT), 'references have room for another slab');
    this.#slabs.push(slab);
    return this.#slabs.length - 1;
  }

  #retire(index: number, slab: Slab): void {
    const roomy = this.#roomy[slab.sizeClass];
    if (slab.isListed && roomy !== undefined) {
      // Rare (a whole slab emptied) and short (slabs of one class that have room).
      const at = roomy.indexOf(index);
      if (at !== -1) roomy.splice(at, 1);
    }
    this.#counts[slab.sizeClass] = (this.#counts[slab.sizeClass] ?? 1) - 1;
    if (this.#spare.length >= SPARE_SLABS_MAX || slab.bytes.length < SLAB_BYTES) {
      this.#drop(index, slab);
      return;
    }
    slab.sizeClass = NO_CLASS;
    slab.blockBytes = 0;
    slab.freeHead = -1;
    slab.used = 0;
    slab.isListed = false;
    this.#spare.push(index);
  }

  #drop(index: number, slab: Slab): void {
    this.#reservedBytes -= slab.bytes.length;
    this.#slabs[index] = new Slab(EMPTY_BYTES, false);
    this.#vacant.push(index);
  }
}
