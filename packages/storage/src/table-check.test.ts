// The checksum against its published vectors; the check itself against tables of a real database.

import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Level } from 'level';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { crc32c, findDamagedTable, tablesOf } from './table-check.ts';

const root = mkdtempSync(join(tmpdir(), 'quorate-table-'));

beforeAll(async () => {
  for (let round = 0; round < 2; round++) {
    const db = new Level(root, { compression: false });
    await db.open();
    for (let n = 0; n < 300; n++) await db.put(`key ${round} ${n}`, 'value '.repeat(n % 30));
    await db.close();
  }
});

afterAll(() => rmSync(root, { recursive: true, force: true }));

test('CRC-32C of the vectors in RFC 3720', () => {
  expect(crc32c(Buffer.from('123456789'))).toBe(0xe3069283);
  expect(crc32c(Buffer.alloc(32))).toBe(0x8a9136aa);
  expect(crc32c(Buffer.alloc(32, 0xff))).toBe(0x62a8ab43);
  expect(crc32c(Buffer.from(Array.from({ length: 32 }, (_, n) => n)))).toBe(0x46dd794e);
});

test('a sound table is sound, and a flipped byte in any of its blocks is found', () => {
  const names = tablesOf(root);
  expect(names.length).toBeGreaterThan(0);
  expect(findDamagedTable(root, names)).toBeNull();
  const name = names[0] ?? expect.fail('there is no table');
  const path = join(root, name);
  const whole = readFileSync(path);
  for (let at = 0; at < whole.byteLength - 48; at += 101) {
    const flipped = Buffer.from(whole);
    flipped[at] = (flipped[at] ?? 0) ^ 4;
    writeFileSync(path, flipped);
    expect(findDamagedTable(root, names)).toBe(name);
  }
  writeFileSync(path, whole);
});

test('an unfinished table is left to LevelDB', () => {
  const name = tablesOf(root)[0] ?? expect.fail('there is no table');
  const path = join(root, name);
  const whole = readFileSync(path);
  truncateSync(path, whole.byteLength >> 1);
  expect(findDamagedTable(root, [name])).toBeNull();
  writeFileSync(path, whole);
});
