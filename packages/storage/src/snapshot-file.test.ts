// One snapshot file on a real file system: what was written comes back, and damage anywhere is an error.

import { existsSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { makeZxid } from '@quorate/protocol/zxid';
import { afterAll, expect, test } from 'vitest';
import { readOutlineSync, SnapshotFileReader, SnapshotFileWriter, verifySnapshot } from './snapshot-file.ts';

const root = mkdtempSync(join(tmpdir(), 'quorate-snapshot-'));
const zxid = makeZxid(2 ** 21 + 7, 2 ** 32 - 1);
let fileCount = 0;

afterAll(() => rmSync(root, { recursive: true, force: true }));

async function writeFile(chunks: readonly Uint8Array[]): Promise<string> {
  const path = join(root, `file-${fileCount++}.tmp`);
  const writer = new SnapshotFileWriter(path, zxid);
  for (const chunk of chunks) writer.write(chunk, () => {});
  await new Promise<void>((resolve, reject) => writer.finish((error) => (error === null ? resolve() : reject(error))));
  return path;
}

async function readFile(path: string): Promise<Uint8Array[]> {
  const reader = SnapshotFileReader.open(path, zxid);
  const chunks: Uint8Array[] = [];
  try {
    for (;;) {
      const chunk = await new Promise<Uint8Array | null>((resolve, reject) => {
        reader.next((error, bytes) => (error === null ? resolve(bytes) : reject(error)));
      });
      if (chunk === null) return chunks;
      chunks.push(chunk);
    }
  } finally {
    reader.close();
  }
}

function verify(path: string): Promise<Error | null> {
  return new Promise((resolve) => verifySnapshot(path, zxid, resolve));
}

test('chunks come back one by one, empty ones are left out, and the outline tells their size', async () => {
  const chunks = [Buffer.from('first'), Buffer.alloc(0), Buffer.alloc(300_000, 3), Buffer.from('last')];
  const path = await writeFile(chunks);
  const read = await readFile(path);
  expect(read.map((chunk) => Buffer.from(chunk))).toEqual(chunks.filter((chunk) => chunk.byteLength > 0));
  expect(readOutlineSync(path)).toEqual({ zxid, sizeBytes: 300_009 });
});

test('a snapshot without a chunk is a snapshot', async () => {
  expect(await readFile(await writeFile([]))).toEqual([]);
});

test('every flipped byte and every missing end is noticed', async () => {
  const path = await writeFile([Buffer.from('some bytes'), Buffer.from('more of them')]);
  const whole = readFileSync(path);
  const damaged = join(root, 'damaged');
  for (let at = 0; at < whole.byteLength; at++) {
    const flipped = Buffer.from(whole);
    flipped[at] = (flipped[at] ?? 0) ^ 0x10;
    writeFileSync(damaged, flipped);
    expect(await verify(damaged)).toMatchObject({ code: 'SNAPSHOT_DAMAGED' });
  }
  writeFileSync(damaged, whole);
  for (let length = whole.byteLength - 1; length >= 0; length--) {
    truncateSync(damaged, length);
    expect(await verify(damaged)).toMatchObject({ code: 'SNAPSHOT_DAMAGED' });
  }
  writeFileSync(damaged, Buffer.concat([whole, whole]));
  expect(await verify(damaged)).toMatchObject({ code: 'SNAPSHOT_DAMAGED' });
  expect(await verify(path)).toBeNull();
});

test('a length that points beyond the file allocates nothing and is damage', async () => {
  const path = await writeFile([Buffer.from('some bytes')]);
  const bytes = readFileSync(path);
  bytes.writeUInt32BE(0x7fffffff, 20);
  writeFileSync(path, bytes);
  expect(await verify(path)).toMatchObject({ code: 'SNAPSHOT_DAMAGED' });
});

test('an abandoned snapshot answers what is waiting and removes its file', async () => {
  const path = join(root, 'abandoned.tmp');
  const writer = new SnapshotFileWriter(path, zxid);
  await new Promise<void>((resolve) => writer.write(Buffer.from('x'), () => resolve()));
  expect(existsSync(path)).toBe(true);
  const waiting = new Promise<Error | null>((resolve) => writer.write(Buffer.from('y'), resolve));
  writer.abort();
  expect(await waiting).toMatchObject({ code: 'SNAPSHOT_ABORTED' });
  expect(await new Promise((resolve) => writer.finish(resolve))).toMatchObject({ code: 'SNAPSHOT_ABORTED' });
  await expect.poll(() => existsSync(path)).toBe(false);
});

test('a file that cannot be created fails every step', async () => {
  const writer = new SnapshotFileWriter(join(root, 'no', 'such', 'directory'), zxid);
  expect(await new Promise((resolve) => writer.write(Buffer.from('y'), resolve))).toMatchObject({ code: 'ENOENT' });
  expect(await new Promise((resolve) => writer.finish(resolve))).toMatchObject({ code: 'ENOENT' });
});
