// What opening makes of a store that something has happened to: never clean with other content than was answered.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { makeZxid, NO_ZXID, serverIdFrom, type Zxid } from '@quorate/protocol/zxid';
import { Level } from 'level';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import type { Disk, RestoredStore } from './disk.ts';
import {
  ask,
  entriesOf,
  epochs,
  fillSnapshot,
  type OpenedDisk,
  readSnapshot,
  WIDE_WINDOW,
  write,
  zxidsOf,
} from './disk-suite.ts';
import { type OpenDiskOptions, openDisk } from './open-disk.ts';
import { StorageError } from './storage-error.ts';

const SERVER = serverIdFrom(1);
vi.setConfig({ testTimeout: 60_000 });

const REAL = {};
const at = (counter: number): Zxid => makeZxid(1, counter);

let root: string;
let store: string;
let opened: Disk[] = [];

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'quorate-open-'));
  store = join(root, 'store');
});

afterEach(async () => {
  for (const disk of opened) await close(disk).catch(() => {});
  opened = [];
  rmSync(root, { recursive: true, force: true });
});

function close(disk: Disk): Promise<void> {
  return ask(REAL, (done) => disk.close(done));
}

async function openAt(directory: string, more: Partial<OpenDiskOptions> = {}): Promise<OpenedDisk> {
  const result = await openDisk(directory, { serverId: SERVER, ...WIDE_WINDOW, ballastBytes: 0, ...more });
  opened.push(result.disk);
  return result;
}

async function codeOf(opening: Promise<unknown>): Promise<string> {
  try {
    await opening;
  } catch (error) {
    if (error instanceof StorageError) return error.code;
    throw error;
  }
  return 'opened';
}

/** Formed, records 1..count, closed. Half of the records are in a table, half in the newest log file. */
async function makeStore(count: number, snapshotsAt: readonly number[] = []): Promise<void> {
  const half = count >> 1;
  const first = await openAt(store);
  await write(REAL, first.disk, { entries: [], clusterId: 'c', mark: 'clean', epochs: epochs(1) });
  await write(REAL, first.disk, { entries: entriesOf(1, 1, half, NO_ZXID) });
  await close(first.disk);
  const second = await openAt(store);
  for (let counter = half + 1; counter <= count; counter++) {
    await write(REAL, second.disk, {
      entries: entriesOf(1, counter, counter, at(counter - 1)),
      committed: at(counter - 1),
    });
  }
  for (const counter of snapshotsAt) {
    await fillSnapshot(REAL, second.disk.beginSnapshot(at(counter)), [`tree at ${counter}`, 'x'.repeat(300)]);
  }
  await close(second.disk);
  opened = [];
}

function filesOf(directory: string): string[] {
  return readdirSync(directory, { withFileTypes: true, recursive: true })
    .filter((entry) => entry.isFile() && !/^LOG|^LOCK$/.test(entry.name))
    .map((entry) => join(entry.parentPath, entry.name));
}

function newestLog(): string {
  const names = readdirSync(join(store, 'log'))
    .filter((name) => name.endsWith('.log'))
    .sort();
  return join(store, 'log', names.at(-1) ?? expect.fail('there is no .log file'));
}

/** The whole history, as far as a restored store tells it: complete and unchanged, or not. */
async function isIdentical({ disk, restored }: OpenedDisk, count: number): Promise<boolean> {
  const all = entriesOf(1, 1, count, NO_ZXID).filter(({ zxid }) => zxid > restored.base);
  const isSame =
    restored.entries.length === all.length &&
    restored.entries.every((entry, position) => {
      const expected = all[position];
      return (
        entry.zxid === expected?.zxid && entry.prev === expected.prev && Buffer.compare(entry.txn, expected.txn) === 0
      );
    });
  if (!isSame || restored.clusterId !== 'c' || restored.epochs.currentEpoch !== 1) return false;
  if (restored.snapshot === NO_ZXID) return restored.base === NO_ZXID;
  const chunks = await readSnapshot(REAL, disk, restored.snapshot);
  return restored.base <= restored.snapshot && chunks[0] === `tree at ${Number(restored.snapshot & 0xffffffffn)}`;
}

type Outcome = 'identical' | 'suspect' | 'refused' | 'WRONG';

async function outcomeOf(directory: string, count: number): Promise<Outcome> {
  try {
    const result = await openAt(directory);
    const isSame = await isIdentical(result, count).catch(() => false);
    await close(result.disk);
    if (result.restored.classification === 'suspect') return 'suspect';
    return result.restored.classification === 'clean' && isSame ? 'identical' : 'WRONG';
  } catch (error) {
    if (error instanceof StorageError) return 'refused';
    throw error;
  }
}

test('C8: a flipped byte anywhere ends in the same content, suspicion or refusal', { timeout: 3_600_000 }, async () => {
  const count = 60;
  await makeStore(count, [20, 40]);
  const isFull = process.env['QUORATE_FLIP_ALL'] === '1';
  const outcomes: Record<Outcome, number> = { identical: 0, suspect: 0, refused: 0, WRONG: 0 };
  const wrong: string[] = [];
  for (const file of filesOf(store)) {
    const size = statSync(file).size;
    const stride = isFull ? 1 : Math.max(1, Math.ceil(size / 40));
    for (let position = 0; position < size; position += stride) {
      const copy = join(root, 'copy');
      rmSync(copy, { recursive: true, force: true });
      cpSync(store, copy, { recursive: true });
      const damaged = file.replace(store, copy);
      const bytes = readFileSync(damaged);
      bytes[position] = (bytes[position] ?? 0) ^ (1 << (position % 8));
      writeFileSync(damaged, bytes);
      const outcome = await outcomeOf(copy, count);
      outcomes[outcome]++;
      if (outcome === 'WRONG') wrong.push(`${file.slice(store.length)} at ${position}`);
    }
  }
  expect(wrong).toEqual([]);
  expect(outcomes.suspect).toBeGreaterThan(0);
  expect(outcomes.refused).toBeGreaterThan(0);
  expect(outcomes.identical).toBeGreaterThan(0);
});

test('C9: a log that lost its end in any place is suspect, because the witness remembers more', async () => {
  const count = 30;
  await makeStore(count);
  const log = newestLog();
  const size = statSync(log).size;
  for (let length = size - 1; length >= 0; length -= 97) {
    const copy = join(root, 'copy');
    rmSync(copy, { recursive: true, force: true });
    cpSync(store, copy, { recursive: true });
    truncateSync(log.replace(store, copy), length);
    expect(await outcomeOf(copy, count)).toBe('suspect');
  }
});

test('records behind an unresolved last batch are no reason for suspicion', async () => {
  await makeStore(10);
  const witness = readFileSync(join(store, 'witness'));
  const again = await openAt(store);
  await write(REAL, again.disk, { entries: entriesOf(1, 11, 12, at(10)) });
  await close(again.disk);
  writeFileSync(join(store, 'witness'), witness);
  expect(await outcomeOf(store, 12)).toBe('identical');
});

test.each([
  ['log/CURRENT', 'refused'],
  ['log', 'refused'],
  ['format', 'refused'],
  ['snapshots', 'refused'],
  ['witness', 'suspect'],
  ['newest .log', 'suspect'],
  ['MANIFEST', 'refused'],
  ['table', 'refused'],
  ['newest snapshot', 'identical'],
] as const)('without %s a store is %s', async (what, expected) => {
  await makeStore(20, [5, 15]);
  const inLog = (pattern: RegExp): string =>
    join('log', readdirSync(join(store, 'log')).find((name) => pattern.test(name)) ?? expect.fail('no such file'));
  let name: string = what;
  if (what === 'newest .log') name = newestLog().slice(store.length + 1);
  if (what === 'MANIFEST') name = inLog(/^MANIFEST/);
  if (what === 'table') name = inLog(/\.ldb$/);
  if (what === 'newest snapshot') name = join('snapshots', readdirSync(join(store, 'snapshots')).sort().at(-1) ?? '');
  rmSync(join(store, name), { recursive: true });
  expect(await outcomeOf(store, 20)).toBe(expected);
});

test('what LevelDB drops at one opening is remembered although the next one finds a neat log', async () => {
  await makeStore(40);
  const log = newestLog();
  const bytes = readFileSync(log);
  const middle = bytes.byteLength >> 1;
  bytes[middle] = (bytes[middle] ?? 0) ^ 1;
  writeFileSync(log, bytes);
  const first = await openAt(store);
  expect(first.restored.classification).toBe('suspect');
  await close(first.disk);
  const second = await openAt(store);
  expect(second.restored.classification).toBe('suspect');
  expect(second.restored.reasons).toContain('it was marked as suspect before');
});

test('it is remembered even when the process ends between LevelDB opening and the verdict', async () => {
  await makeStore(40);
  const log = newestLog();
  const bytes = readFileSync(log);
  const middle = bytes.byteLength >> 1;
  bytes[middle] = (bytes[middle] ?? 0) ^ 1;
  writeFileSync(log, bytes);
  rmSync(join(store, 'witness'));
  cpSync(join(store, 'format'), join(store, 'opening'));
  writeFileSync(join(store, 'opening'), '');
  const bare = new Level(join(store, 'log'), { createIfMissing: false });
  await bare.open();
  await bare.close();
  const { restored } = await openAt(store);
  expect(restored.classification).toBe('suspect');
  expect(restored.reasons.some((reason) => reason.startsWith('LevelDB reported: '))).toBe(true);
  expect(existsSync(join(store, 'opening'))).toBe(false);
});

async function bareLog(change: (db: Level<Uint8Array, Uint8Array>) => Promise<void>): Promise<void> {
  const db = new Level<Uint8Array, Uint8Array>(join(store, 'log'), {
    createIfMissing: false,
    compression: false,
    keyEncoding: 'view',
    valueEncoding: 'view',
  });
  await db.open();
  await change(db);
  await db.close();
}

function logKeysOf(db: Level<Uint8Array, Uint8Array>): Promise<Uint8Array[]> {
  return db.keys({ gte: Uint8Array.of(0x10), lt: Uint8Array.of(0x11) }).all();
}

async function logKeys(): Promise<Uint8Array[]> {
  let keys: Uint8Array[] = [];
  await bareLog(async (db) => {
    keys = await logKeysOf(db);
  });
  return keys;
}

test('a hole leaves the records before it, and a suspect store gets clean through a fresh snapshot', async () => {
  await makeStore(40);
  const holed = (await logKeys()).slice(20, 25);
  await bareLog(async (db) => {
    for (const key of holed) await db.del(key);
  });
  const { disk, restored } = await openAt(store);
  expect(restored.classification).toBe('suspect');
  expect(restored.reasons.join()).toContain('records are missing between 0x100000014 and 0x10000001a');
  expect(zxidsOf(restored.entries)).toEqual(Array.from({ length: 20 }, (_, n) => at(n + 1)));
  const base = makeZxid(2, 7);
  await fillSnapshot(REAL, disk.stageSnapshot(base), ['from a leader elected by others']);
  await write(REAL, disk, { base, entries: entriesOf(2, 8, 9, base), epochs: epochs(2) });
  await write(REAL, disk, { entries: [], mark: 'clean' });
  await close(disk);
  const last = await openAt(store);
  expect(last.restored).toMatchObject({ classification: 'clean', snapshot: base, base });
  expect(zxidsOf(last.restored.entries)).toEqual([makeZxid(2, 8), makeZxid(2, 9)]);
});

test('records that vanished from the end alone are missed, because the state names the last one', async () => {
  await makeStore(40);
  await bareLog(async (db) => {
    for (const key of (await logKeysOf(db)).slice(-3)) await db.del(key);
  });
  const { restored } = await openAt(store);
  expect(restored.classification).toBe('suspect');
  expect(restored.reasons).toEqual(['the log ends at 0x100000025, and should end at 0x100000028']);
  expect(restored.entries.length).toBe(37);
});

test('what lies behind a hole never comes back, whatever is written after it', async () => {
  await makeStore(40);
  const holed = (await logKeys()).slice(20, 25);
  await bareLog(async (db) => {
    for (const key of holed) await db.del(key);
  });
  const { disk } = await openAt(store);
  await write(REAL, disk, { entries: entriesOf(1, 21, 22, at(20)), mark: 'clean' });
  await close(disk);
  const { restored } = await openAt(store);
  expect(restored.classification).toBe('clean');
  expect(zxidsOf(restored.entries)).toEqual(Array.from({ length: 22 }, (_, n) => at(n + 1)));
});

test('without any snapshot that covers the log a store is suspect and empty, and takes a fresh one', async () => {
  await makeStore(40, [20, 30]);
  const first = await openAt(store);
  await ask(REAL, (done) => first.disk.purge(2, at(40), done));
  await close(first.disk);
  for (const name of readdirSync(join(store, 'snapshots'))) {
    const path = join(store, 'snapshots', name);
    truncateSync(path, statSync(path).size - 1);
  }
  const { disk, restored } = await openAt(store);
  expect(restored).toMatchObject({ classification: 'suspect', snapshot: NO_ZXID, base: NO_ZXID, entries: [] });
  expect(restored.reasons.join()).toContain('no snapshot covers the log');
  expect(readdirSync(join(store, 'snapshots')).filter((name) => name.endsWith('.damaged')).length).toBe(2);
  const base = makeZxid(2, 7);
  await fillSnapshot(REAL, disk.stageSnapshot(base), ['fresh']);
  await write(REAL, disk, { base, entries: [], epochs: epochs(2), mark: 'clean' });
  await close(disk);
  expect((await openAt(store)).restored).toMatchObject({ classification: 'clean', snapshot: base });
});

test('a damaged newest snapshot is set aside and the one before it is used, with the log behind it', async () => {
  await makeStore(40, [10, 30]);
  const newest = join(store, 'snapshots', readdirSync(join(store, 'snapshots')).sort().at(-1) ?? '');
  const bytes = readFileSync(newest);
  bytes[60] = (bytes[60] ?? 0) ^ 1;
  writeFileSync(newest, bytes);
  const { disk, restored } = await openAt(store, { windowCount: 0 });
  expect(restored).toMatchObject({ classification: 'clean', snapshot: at(10), base: at(10) });
  expect(restored.entries.length).toBe(30);
  expect(existsSync(`${newest}.damaged`)).toBe(true);
  expect(await readSnapshot(REAL, disk, at(10))).toEqual(['tree at 10', 'x'.repeat(300)]);
});

test('R-096: a purge counts only snapshots that it has read from end to end', async () => {
  await makeStore(40, [10, 20, 30]);
  const second = join(store, 'snapshots', readdirSync(join(store, 'snapshots')).sort().at(-2) ?? '');
  const bytes = readFileSync(second);
  bytes[60] = (bytes[60] ?? 0) ^ 1;
  writeFileSync(second, bytes);
  const { disk } = await openAt(store);
  await ask(REAL, (done) => disk.purge(2, at(40), done));
  expect(disk.snapshots()).toMatchObject([{ zxid: at(30) }, { zxid: at(10) }]);
  await close(disk);
  expect((await openAt(store)).restored).toMatchObject({ classification: 'clean', base: at(10), snapshot: at(30) });
});

test('a purge and a new base leave no dead record behind', async () => {
  await makeStore(40, [30]);
  const { disk } = await openAt(store);
  await ask(REAL, (done) => disk.purge(1, at(40), done));
  await close(disk);
  expect((await logKeys()).length).toBe(10);
  const again = await openAt(store);
  const base = makeZxid(2, 7);
  await fillSnapshot(REAL, again.disk.stageSnapshot(base), ['fresh']);
  await write(REAL, again.disk, { base, entries: entriesOf(2, 8, 9, base), epochs: epochs(2) });
  await ask(REAL, (done) => again.disk.purge(1, base, done));
  await close(again.disk);
  expect((await logKeys()).length).toBe(2);
});

test('a purge of many records goes on in slices while writes are answered', async () => {
  const { disk } = await openAt(store);
  await write(REAL, disk, {
    entries: entriesOf(1, 1, 3500, NO_ZXID),
    clusterId: 'c',
    mark: 'clean',
    epochs: epochs(1),
  });
  await fillSnapshot(REAL, disk.beginSnapshot(at(3400)), ['tree']);
  const order: string[] = [];
  const purged = ask(REAL, (done) => disk.purge(1, at(3500), done)).then(() => order.push('purged'));
  await write(REAL, disk, { entries: entriesOf(1, 3501, 3510, at(3500)) }).then(() => order.push('written'));
  await purged;
  expect(order).toEqual(['written', 'purged']);
  await close(disk);
  expect((await logKeys()).length).toBe(110);
  expect((await openAt(store)).restored).toMatchObject({ classification: 'clean', base: at(3400) });
});

test('a snapshot is finished only when the log up to it is durable', async () => {
  const { disk } = await openAt(store);
  await write(REAL, disk, { entries: entriesOf(1, 1, 1, NO_ZXID), clusterId: 'c', mark: 'clean', epochs: epochs(1) });
  const early = fillSnapshot(REAL, disk.beginSnapshot(at(2)), ['early']);
  // Two whole snapshots begun after it: it would be long finished if it did not wait.
  for (const tree of ['first', 'second']) await fillSnapshot(REAL, disk.beginSnapshot(at(1)), [tree]);
  expect(disk.snapshots()).toMatchObject([{ zxid: at(1) }]);
  await write(REAL, disk, { entries: entriesOf(1, 2, 2, at(1)) });
  await early;
  expect(disk.snapshots()).toMatchObject([{ zxid: at(2) }, { zxid: at(1) }]);
  expect(await readSnapshot(REAL, disk, at(1))).toEqual(['second']);
  await close(disk);
  expect((await openAt(store)).restored).toMatchObject({ classification: 'clean', snapshot: at(2) });
});

test('a snapshot that is newer than the log is a reason for suspicion', async () => {
  await makeStore(20, [10]);
  const [name] = readdirSync(join(store, 'snapshots'));
  await bareLog(async (db) => {
    for (const key of (await logKeysOf(db)).slice(5)) await db.del(key);
  });
  const { restored } = await openAt(store);
  expect(name).toBe('00000001-000000010000000a.snap');
  expect(restored).toMatchObject({ classification: 'suspect', snapshot: NO_ZXID, entries: [] });
  expect(restored.reasons.join()).toContain('newer than the log');
});

test('closing while a snapshot and a purge are under way is an ordered end', async () => {
  await makeStore(40, [10, 20]);
  const lines: string[] = [];
  const { disk } = await openAt(store, { log: (_level, message) => lines.push(message) });
  const writer = disk.beginSnapshot(at(30));
  const answers = [
    ask(REAL, (done) => writer.write(Buffer.from('tree at 30'), done)).catch(() => {}),
    ask(REAL, (done) => writer.finish(done)).catch(() => {}),
    ask(REAL, (done) => disk.purge(1, at(40), done)).catch(() => {}),
    ask(REAL, (done) => disk.write({ entries: entriesOf(1, 41, 41, at(40)) }, done)),
  ];
  await close(disk);
  await Promise.all(answers);
  expect(lines).toEqual([]);
  expect(await outcomeOf(store, 41)).toBe('identical');
});

test('a creation that never ended begins again, and is blank', async () => {
  mkdirSync(join(store, 'log'), { recursive: true });
  writeFileSync(join(store, 'creating'), '');
  const bare = new Level(join(store, 'log'));
  await bare.open();
  await bare.close();
  expect((await openAt(store)).restored.classification).toBe('blank');
  expect(existsSync(join(store, 'creating'))).toBe(false);
});

test('a folder that holds something else is refused and left as it is', async () => {
  mkdirSync(store);
  writeFileSync(join(store, 'precious.txt'), 'x');
  expect(await codeOf(openAt(store))).toBe('STORE_FOREIGN');
  expect(readdirSync(store)).toEqual(['precious.txt']);
  const file = join(root, 'a-file');
  writeFileSync(file, '');
  expect(await codeOf(openAt(file))).toBe('STORE_ACCESS');
});

test('a store of another server, another format or with a damaged format file is refused', async () => {
  await makeStore(4);
  expect(await codeOf(openAt(store, { serverId: serverIdFrom(2) }))).toBe('STORE_WRONG_SERVER');
  writeFileSync(join(store, 'format'), 'quorate-store 2\n');
  expect(await codeOf(openAt(store))).toBe('STORE_FORMAT');
  writeFileSync(join(store, 'format'), 'quorate-stor');
  expect(await codeOf(openAt(store))).toBe('STORE_REFUSED');
  writeFileSync(join(store, 'format'), 'quorate-store 1\n');
  expect(await outcomeOf(store, 4)).toBe('identical');
});

test('C10: a store that is open is refused a second time in this process', async () => {
  const { disk } = await openAt(store);
  expect(await codeOf(openAt(store))).toBe('STORE_LOCKED');
  await write(REAL, disk, { entries: [], clusterId: 'c', mark: 'clean', epochs: epochs(1) });
});

test('C10: a store that another process has open is refused, and usable once that process was killed', async () => {
  await makeStore(6);
  const level = createRequire(import.meta.url).resolve('level');
  const program = `const { Level } = require(${JSON.stringify(level)});
    const db = new Level(process.argv[1], { createIfMissing: false });
    db.open().then(() => { console.log('open'); setInterval(() => {}, 1000); });`;
  const child = spawn(process.execPath, ['-e', program, join(store, 'log')], { stdio: ['ignore', 'pipe', 'inherit'] });
  try {
    await once(child.stdout, 'data');
    expect(await codeOf(openAt(store))).toBe('STORE_LOCKED');
  } finally {
    child.kill('SIGKILL');
    await once(child, 'exit');
  }
  expect(await outcomeOf(store, 6)).toBe('identical');
});

test('the ballast is written when there is room for it', async () => {
  await openAt(store, { ballastBytes: 3_000_000, softLimitBytes: 0 });
  const path = join(store, 'ballast');
  await expect.poll(() => (existsSync(path) ? statSync(path).size : 0), { timeout: 10_000 }).toBe(3_000_000);
});

test('every reason for suspicion is logged', async () => {
  await makeStore(6);
  renameSync(join(store, 'witness'), join(root, 'witness'));
  const lines: string[] = [];
  const log: OpenDiskOptions['log'] = (level, message, fields) => {
    lines.push(`${level} ${message}: ${String(fields?.['reason'])}`);
  };
  const { restored }: { restored: RestoredStore } = await openAt(store, { log });
  expect(restored.reasons).toEqual(['the witness is missing or damaged']);
  expect(lines).toEqual(['error the store is suspect: the witness is missing or damaged']);
});
