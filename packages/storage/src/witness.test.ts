// The witness file: two slots, of which the newer valid one counts.

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { makeZxid } from '@quorate/protocol/zxid';
import { afterAll, expect, test } from 'vitest';
import { Witness, type WitnessValue } from './witness.ts';

const root = mkdtempSync(join(tmpdir(), 'quorate-witness-'));
const path = join(root, 'witness');
const never = (error: Error): void => expect.fail(error.message);

afterAll(() => rmSync(root, { recursive: true, force: true }));

function readBack(): WitnessValue | null {
  const { witness, value } = Witness.open(path, never);
  witness.closeSync();
  return value;
}

async function recorded(lastSequence: number): Promise<void> {
  Witness.create(path);
  const { witness } = Witness.open(path, never);
  for (let sequence = 1; sequence <= lastSequence; sequence++) witness.record(sequence, 3, makeZxid(1, sequence));
  await new Promise<void>((resolve, reject) => witness.close((error) => (error === null ? resolve() : reject(error))));
}

test('a new witness says nothing, then the last of what it was told', async () => {
  await recorded(0);
  expect(readBack()).toBeNull();
  await recorded(5);
  expect(readBack()).toEqual({ sequence: 5, generation: 3, tail: makeZxid(1, 5) });
});

test('a damaged slot leaves the one before it, and two leave nothing', async () => {
  await recorded(6);
  const bytes = readFileSync(path);
  for (let at = 0; at < 32; at++) {
    const flipped = Buffer.from(bytes);
    flipped[at] = (flipped[at] ?? 0) ^ 0x40;
    writeFileSync(path, flipped);
    expect(readBack()).toEqual({ sequence: 5, generation: 3, tail: makeZxid(1, 5) });
    flipped[512 + at] = (flipped[512 + at] ?? 0) ^ 0x40;
    writeFileSync(path, flipped);
    expect(readBack()).toBeNull();
  }
});

test('a witness that was cut off says nothing', async () => {
  await recorded(1);
  writeFileSync(path, readFileSync(path).subarray(0, 20));
  expect(readBack()).toBeNull();
});
