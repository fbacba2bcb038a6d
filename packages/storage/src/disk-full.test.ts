// a disk that fills up, on a small file system of its own. Needs the right to mount; without it the test is skipped
// loudly, and fails where CI=true promises that right.

import { execFileSync } from 'node:child_process';
import {
  closeSync,
  cpSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  rmSync,
  statfsSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { makeZxid, NO_ZXID, serverIdFrom, type Zxid } from '@quorate/protocol/zxid';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { ask, entriesOf, epochs, WIDE_WINDOW, write } from './disk-suite.ts';
import { openDisk } from './open-disk.ts';

vi.setConfig({ testTimeout: 60_000 });

const REAL = {};
const SIZE_BYTES = 12 * 1024 * 1024;
const options = { serverId: serverIdFrom(1), ...WIDE_WINDOW, writeBufferSize: 4 * 1024 * 1024 };
const root = mkdtempSync(join(tmpdir(), 'quorate-full-'));
const mounted = join(root, 'mounted');
const at = (counter: number): Zxid => makeZxid(1, counter);
let reasonToSkip: string | null = null;

beforeAll(() => {
  mkdirSync(mounted);
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${SIZE_BYTES}`, 'tmpfs', mounted], { stdio: 'pipe' });
  } catch (error) {
    reasonToSkip = `no small file system can be mounted here: ${error instanceof Error ? error.message.trim() : error}`;
  }
});

afterAll(() => {
  if (reasonToSkip === null) execFileSync('umount', ['-l', mounted], { stdio: 'pipe' });
  rmSync(root, { recursive: true, force: true });
});

function canRun(): boolean {
  if (reasonToSkip === null) return true;
  if (process.env['CI'] === 'true') expect.fail(reasonToSkip);
  console.warn(`SKIPPED: ${reasonToSkip}`);
  return false;
}

function fill(path: string, leaveBytes: number): void {
  const fd = openSync(path, 'w');
  const piece = Buffer.alloc(64 * 1024, 1);
  for (;;) {
    const { bavail, bsize } = statfsSync(mounted);
    const room = bavail * bsize - leaveBytes;
    if (room < bsize) break;
    writeSync(fd, piece.subarray(0, Math.min(piece.byteLength, room)));
  }
  fsyncSync(fd);
  closeSync(fd);
}

test('a full disk is the final error, even when space comes back, and nothing answered before is lost', async () => {
  if (!canRun()) return;
  const store = join(mounted, 'store');
  const filler = join(mounted, 'filler');
  const { disk } = await openDisk(store, { ...options, ballastBytes: 0 });
  await write(REAL, disk, { entries: [], clusterId: 'c', mark: 'clean', epochs: epochs(1) });
  let answered = 0;
  for (; answered < 50; answered++) {
    await write(REAL, disk, {
      entries: [{ zxid: at(answered + 1), prev: answered === 0 ? NO_ZXID : at(answered), txn: Buffer.alloc(3000) }],
    });
  }
  fill(filler, 64 * 1024);
  let failure: unknown = null;
  while (failure === null) {
    const entry = { zxid: at(answered + 1), prev: at(answered), txn: Buffer.alloc(3000) };
    await write(REAL, disk, { entries: [entry] }).then(
      () => answered++,
      (error: unknown) => {
        failure = error;
      },
    );
    expect(answered).toBeLessThan(100);
  }
  expect(failure).toMatchObject({ code: 'STORE_FULL' });
  rmSync(filler);
  await expect(write(REAL, disk, { entries: entriesOf(1, answered + 1, answered + 1, at(answered)) })).rejects.toBe(
    failure,
  );
  const writer = disk.beginSnapshot(at(answered));
  await expect(ask(REAL, (done) => writer.finish(done))).rejects.toBe(failure);
  const copy = join(root, 'copy');
  cpSync(store, copy, { recursive: true });
  await ask(REAL, (done) => disk.close(done));
  rmSync(store, { recursive: true });
  const again = await openDisk(copy, { ...options, ballastBytes: 0 });
  // The write that failed may be there (F8): whole, and never acknowledged.
  expect(again.restored.entries.length - answered).toBeOneOf([0, 1]);
  expect(again.restored.classification).toBe('clean');
  await ask(REAL, (done) => again.disk.close(done));
});

test('a snapshot that does not fit fails the store and leaves no file that looks valid (R-095)', async () => {
  if (!canRun()) return;
  const store = join(mounted, 'store');
  const { disk } = await openDisk(store, { ...options, ballastBytes: 0 });
  await write(REAL, disk, { entries: entriesOf(1, 1, 9, NO_ZXID), clusterId: 'c', mark: 'clean', epochs: epochs(1) });
  const writer = disk.beginSnapshot(at(9));
  let failure: unknown = null;
  for (let count = 0; failure === null && count < 40; count++) {
    await ask(REAL, (done) => writer.write(Buffer.alloc(1024 * 1024, count), done)).catch((error: unknown) => {
      failure = error;
    });
  }
  expect(failure).toMatchObject({ code: 'STORE_FULL' });
  await expect(write(REAL, disk, { entries: entriesOf(1, 10, 10, at(9)) })).rejects.toMatchObject({
    code: 'STORE_FULL',
  });
  await ask(REAL, (done) => disk.close(done));
  const copy = join(root, 'copy-2');
  cpSync(store, copy, { recursive: true });
  rmSync(store, { recursive: true });
  const again = await openDisk(copy, { ...options, ballastBytes: 0 });
  expect(again.restored).toMatchObject({ classification: 'clean', snapshot: NO_ZXID });
  expect(again.disk.snapshots()).toEqual([]);
  await ask(REAL, (done) => again.disk.close(done));
});

test('a start on a full disk gives up the ballast and succeeds', async () => {
  if (!canRun()) return;
  const store = join(mounted, 'store');
  const ballastBytes = 4 * 1024 * 1024;
  const first = await openDisk(store, { ...options, ballastBytes, softLimitBytes: 0 });
  await write(REAL, first.disk, {
    entries: entriesOf(1, 1, 9, NO_ZXID),
    clusterId: 'c',
    mark: 'clean',
    epochs: epochs(1),
  });
  await expect.poll(() => existsSync(join(store, 'ballast')), { timeout: 10_000 }).toBe(true);
  await ask(REAL, (done) => first.disk.close(done));
  fill(join(mounted, 'filler'), 0);
  const lines: string[] = [];
  const again = await openDisk(store, {
    ...options,
    ballastBytes,
    softLimitBytes: SIZE_BYTES,
    log: (_level, text) => lines.push(text),
  });
  expect(again.restored.classification).toBe('clean');
  expect(again.restored.entries.length).toBe(9);
  expect(lines).toEqual([
    'the disk is nearly full: the ballast file was given up to start',
    'there is too little free space for the ballast file',
  ]);
  expect(again.disk.freeBytes()).toBeLessThan(SIZE_BYTES);
  await ask(REAL, (done) => again.disk.close(done));
});
