// Opening: checks LevelDB's tables before LevelDB sees them. It reads them without verifying a checksum (F3), and its build has C
// assertions on: one flipped bit in a table can end the whole process by SIGABRT before anybody could say why.
// Reads only; knows the table format (footer, index block, data blocks, each block with a masked CRC-32C) and nothing else.

import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

const FOOTER_BYTES = 48;
const MAGIC = Buffer.from([0x57, 0xfb, 0x80, 0x8b, 0x24, 0x75, 0x47, 0xdb]);
/** Behind each block: a type byte and the CRC. */
const TRAILER_BYTES = 5;
const UNCOMPRESSED = 0;
const CASTAGNOLI = 0x82f63b78;
const MASK_DELTA = 0xa282ead8;

/** The first damaged table's name, or null. A table without its end is none: LevelDB reports it, or removes it as unfinished. */
export function findDamagedTable(logDirectory: string, names: readonly string[]): string | null {
  for (const name of names) {
    const bytes = readFileSync(join(logDirectory, name));
    const isFinished = bytes.byteLength >= FOOTER_BYTES && bytes.subarray(-MAGIC.byteLength).equals(MAGIC);
    if (isFinished && !isTableSound(bytes)) return name;
  }
  return null;
}

export function tablesOf(logDirectory: string): string[] {
  return readdirSync(logDirectory).filter((name) => name.endsWith('.ldb'));
}

type Handle = { readonly offset: number; readonly size: number };

function isTableSound(bytes: Buffer): boolean {
  const footer = new VarintReader(bytes.subarray(bytes.byteLength - FOOTER_BYTES));
  const metaIndex = footer.handle();
  const index = footer.handle();
  if (!isBlockSound(bytes, metaIndex) || !isBlockSound(bytes, index)) return false;
  // This store never compresses; what another tool compressed cannot be looked into here.
  if (bytes[index.offset + index.size] !== UNCOMPRESSED || bytes[metaIndex.offset + metaIndex.size] !== UNCOMPRESSED)
    return true;
  // The meta index names the filter, the index the data.
  return [...handlesIn(bytes, metaIndex), ...handlesIn(bytes, index)].every((handle) => isBlockSound(bytes, handle));
}

function isBlockSound(bytes: Buffer, { offset, size }: Handle): boolean {
  const end = offset + size + 1;
  if (!(end + TRAILER_BYTES - 1 <= bytes.byteLength - FOOTER_BYTES)) return false;
  const crc = crc32c(bytes.subarray(offset, end));
  const masked = (((crc >>> 15) | (crc << 17)) + MASK_DELTA) >>> 0;
  return bytes.readUInt32LE(end) === masked;
}

/** The values of an index block, whose checksum was good: entries with shared key prefixes, then restart points. */
function handlesIn(bytes: Buffer, { offset, size }: Handle): Handle[] {
  const block = bytes.subarray(offset, offset + size);
  const restarts = block.readUInt32LE(block.byteLength - 4);
  const entries = new VarintReader(block.subarray(0, block.byteLength - 4 * (restarts + 1)));
  const handles: Handle[] = [];
  while (!entries.isAtEnd) {
    entries.number();
    const keyBytes = entries.number();
    entries.number();
    entries.skip(keyBytes);
    handles.push(entries.handle());
  }
  return handles;
}

class VarintReader {
  readonly #bytes: Buffer;
  #position = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  get isAtEnd(): boolean {
    return this.#position >= this.#bytes.byteLength;
  }

  number(): number {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      const byte = this.#bytes[this.#position++];
      if (byte === undefined) return Number.NaN;
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) return value;
    }
  }

  skip(count: number): void {
    this.#position += count;
  }

  handle(): Handle {
    return { offset: this.number(), size: this.number() };
  }
}

/** Four tables: measured about three times as fast as one, and a start must not wait for this. */
const TABLES: readonly Uint32Array[] = makeTables();

function makeTables(): Uint32Array[] {
  const first = new Uint32Array(256);
  for (let byte = 0; byte < 256; byte++) {
    let crc = byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ CASTAGNOLI : crc >>> 1;
    first[byte] = crc;
  }
  const tables = [first];
  for (let at = 1; at < 4; at++) {
    const before = tables[at - 1] ?? first;
    tables.push(before.map((crc) => (crc >>> 8) ^ (first[crc & 0xff] ?? 0)));
  }
  return tables;
}

export function crc32c(bytes: Uint8Array): number {
  const [one, two, three, four] = TABLES;
  if (one === undefined || two === undefined || three === undefined || four === undefined) return 0;
  let crc = 0xffffffff;
  let at = 0;
  for (const end = bytes.byteLength - 3; at < end; at += 4) {
    crc ^= (bytes[at] ?? 0) | ((bytes[at + 1] ?? 0) << 8) | ((bytes[at + 2] ?? 0) << 16) | ((bytes[at + 3] ?? 0) << 24);
    crc =
      (four[crc & 0xff] ?? 0) ^
      (three[(crc >>> 8) & 0xff] ?? 0) ^
      (two[(crc >>> 16) & 0xff] ?? 0) ^
      (one[crc >>> 24] ?? 0);
  }
  for (; at < bytes.byteLength; at++) crc = (crc >>> 8) ^ (one[(crc ^ (bytes[at] ?? 0)) & 0xff] ?? 0);
  return (crc ^ 0xffffffff) >>> 0;
}
