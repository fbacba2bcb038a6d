// What every Disk must do, as tests: LevelDisk here and the simulator's disk run the same ones (C1 to C7, C11, C12 of the
// store contract). A factory says how to get a place on a disk, and how a process dies there.

import type { ServerId, Zxid } from '@quorate/protocol/zxid';
import { makeZxid, NO_ZXID, serverIdFrom } from '@quorate/protocol/zxid';
import { expect, test } from 'vitest';
import type { Disk, DiskWrite, Done, LogEntry, RestoredStore, SnapshotWriter, StoredEpochs } from './disk.ts';

export type OpenedDisk = { readonly disk: Disk; readonly restored: RestoredStore };

export type WindowLimits = { readonly windowCount: number; readonly windowBytes: number };

/** One place where one server keeps its store. */
export type DiskPlace = {
  open(window: WindowLimits): Promise<OpenedDisk>;
  /** The process dies now: what was answered as durable is there at the next open, what was not may be. */
  crash(): Promise<void>;
  /** Runs virtual time until nothing is under way; a disk that works by itself has none. */
  readonly settle?: () => void;
  /** Makes the next write of the open disk fail. */
  readonly breakDisk?: () => void;
  remove(): Promise<void>;
};

export type DiskFactory = { create(serverId: ServerId): Promise<DiskPlace> };

/** Real disks of busy machines are slow now and then; a test that waits for something never waits longer. */
const TEST_MS_MAX = 30_000;

export const WIDE_WINDOW: WindowLimits = { windowCount: 1_000_000, windowBytes: 1_000_000_000 };

export function epochs(acceptedEpoch: number, currentEpoch = acceptedEpoch): StoredEpochs {
  return { acceptedEpoch, currentEpoch, acceptedFrom: serverIdFrom(2) };
}

/** Records (epoch, first..last) behind `prev`; their bytes tell them apart. */
export function entriesOf(epoch: number, first: number, last: number, prev: Zxid, label = 'txn'): LogEntry[] {
  const entries: LogEntry[] = [];
  let before = prev;
  for (let counter = first; counter <= last; counter++) {
    const zxid = makeZxid(epoch, counter);
    entries.push({ zxid, prev: before, txn: Buffer.from(`${label} ${epoch}/${counter} ${'x'.repeat(counter % 50)}`) });
    before = zxid;
  }
  return entries;
}

/** What a store holds, comparable. */
export function contentOf(restored: RestoredStore): unknown {
  return {
    snapshot: restored.snapshot,
    base: restored.base,
    epochs: restored.epochs,
    clusterId: restored.clusterId,
    entries: restored.entries.map(({ zxid, prev, txn }) => [zxid, prev, Buffer.from(txn).toString()]),
  };
}

export function zxidsOf(entries: readonly LogEntry[]): Zxid[] {
  return entries.map(({ zxid }) => zxid);
}

export async function ask(place: Pick<DiskPlace, 'settle'>, start: (done: Done) => void): Promise<void> {
  const answered = new Promise<void>((resolve, reject) => {
    start((error) => (error === null ? resolve() : reject(error)));
  });
  place.settle?.();
  await answered;
}

export function write(place: Pick<DiskPlace, 'settle'>, disk: Disk, group: DiskWrite): Promise<void> {
  return ask(place, (done) => disk.write(group, done));
}

export async function fillSnapshot(
  place: Pick<DiskPlace, 'settle'>,
  writer: SnapshotWriter,
  chunks: readonly string[],
): Promise<void> {
  for (const chunk of chunks) await ask(place, (done) => writer.write(Buffer.from(chunk), done));
  await ask(place, (done) => writer.finish(done));
}

export async function readSnapshot(place: Pick<DiskPlace, 'settle'>, disk: Disk, zxid: Zxid): Promise<string[]> {
  const reader = disk.openSnapshot(zxid);
  const chunks: string[] = [];
  for (;;) {
    let chunk: Uint8Array | null = null;
    await ask(place, (done) =>
      reader.next((error, bytes) => {
        chunk = bytes;
        done(error);
      }),
    );
    if (chunk === null) break;
    chunks.push(Buffer.from(chunk).toString());
  }
  reader.close();
  return chunks;
}

/** A store that took part in an ensemble: formed, marked, with records 1..`last` of epoch 1. */
export async function formedStore(place: DiskPlace, last: number, window = WIDE_WINDOW): Promise<OpenedDisk> {
  const opened = await place.open(window);
  await write(place, opened.disk, { entries: [], clusterId: 'cluster-1', mark: 'clean', epochs: epochs(1) });
  if (last > 0) await write(place, opened.disk, { entries: entriesOf(1, 1, last, NO_ZXID) });
  return opened;
}

export function diskSuite(name: string, factory: DiskFactory): void {
  const at = (counter: number): Zxid => makeZxid(1, counter);

  const on = (sentence: string, run: (place: DiskPlace) => Promise<void>): void => {
    test(`${name}: ${sentence}`, { timeout: TEST_MS_MAX }, async () => {
      const place = await factory.create(serverIdFrom(1));
      try {
        await run(place);
      } finally {
        await place.remove();
      }
    });
  };

  on('an empty place is a blank store, and stays blank until something but epochs is written', async (place) => {
    const first = await place.open(WIDE_WINDOW);
    expect(first.restored).toMatchObject({
      classification: 'blank',
      reasons: [],
      clusterId: '',
      snapshot: 0n,
      base: 0n,
    });
    expect(first.restored.entries).toEqual([]);
    expect(first.restored.epochs).toMatchObject({ acceptedEpoch: 0, currentEpoch: 0 });
    await write(place, first.disk, { entries: [], epochs: epochs(3, 0) });
    await place.crash();
    const second = await place.open(WIDE_WINDOW);
    expect(second.restored).toMatchObject({ classification: 'blank', epochs: epochs(3, 0) });
  });

  on('what was answered is there after a crash', async (place) => {
    const { disk } = await formedStore(place, 40);
    await write(place, disk, { entries: entriesOf(1, 41, 60, at(40)), epochs: epochs(2, 1), committed: at(50) });
    await place.crash();
    const { restored } = await place.open(WIDE_WINDOW);
    expect(restored.classification).toBe('clean');
    expect(contentOf(restored)).toEqual({
      snapshot: 0n,
      base: 0n,
      epochs: epochs(2, 1),
      clusterId: 'cluster-1',
      entries: entriesOf(1, 1, 60, NO_ZXID).map(({ zxid, prev, txn }) => [zxid, prev, txn.toString()]),
    });
    expect(restored.committed).toBe(at(50));
  });

  on('an ordered close keeps everything', async (place) => {
    const { disk } = await formedStore(place, 5);
    await ask(place, (done) => disk.close(done));
    const { restored } = await place.open(WIDE_WINDOW);
    expect(restored.classification).toBe('clean');
    expect(zxidsOf(restored.entries)).toEqual([1, 2, 3, 4, 5].map(at));
  });

  on('C1: writes are answered in the order they were given', async (place) => {
    const { disk } = await formedStore(place, 0);
    const answers: number[] = [];
    const all: Promise<void>[] = [];
    for (let counter = 1; counter <= 300; counter++) {
      const answered = new Promise<void>((resolve, reject) => {
        disk.write({ entries: entriesOf(1, counter, counter, counter === 1 ? NO_ZXID : at(counter - 1)) }, (error) => {
          answers.push(counter);
          if (error === null) resolve();
          else reject(error);
        });
      });
      all.push(answered);
    }
    expect(answers).toEqual([]);
    place.settle?.();
    await Promise.all(all);
    expect(answers).toEqual(Array.from({ length: 300 }, (_, at0) => at0 + 1));
  });

  on('C2: a crash in the middle leaves every answered group and of the others whole ones, in order', async (place) => {
    const { disk } = await formedStore(place, 0);
    let answeredCount = 0;
    await ask(place, (done) => {
      for (let group = 0; group < 20; group++) {
        const first = group * 5 + 1;
        const entries = entriesOf(1, first, first + 4, group === 0 ? NO_ZXID : at(first - 1));
        disk.write({ entries }, (error) => {
          if (error === null) answeredCount++;
          if (group === 0) done(error);
        });
      }
    });
    const survivorsMin = answeredCount;
    await place.crash();
    const { restored } = await place.open(WIDE_WINDOW);
    expect(restored.classification).toBe('clean');
    expect(restored.entries.length % 5).toBe(0);
    expect(restored.entries.length).toBeGreaterThanOrEqual(survivorsMin * 5);
    expect(zxidsOf(restored.entries)).toEqual(restored.entries.map((_, position) => at(position + 1)));
  });

  on('C3: truncation and the records that follow it are one write', async (place) => {
    const { disk } = await formedStore(place, 30);
    const replaced = entriesOf(2, 1, 3, at(20));
    await write(place, disk, { truncateAfter: at(20), entries: replaced, epochs: epochs(2) });
    await place.crash();
    const { restored, disk: again } = await place.open(WIDE_WINDOW);
    expect(restored.classification).toBe('clean');
    expect(zxidsOf(restored.entries)).toEqual([
      ...Array.from({ length: 20 }, (_, n) => at(n + 1)),
      ...zxidsOf(replaced),
    ]);
    await write(place, again, { truncateAfter: NO_ZXID, entries: [] });
    await place.crash();
    const emptied = await place.open(WIDE_WINDOW);
    expect(emptied.restored.classification).toBe('clean');
    expect(emptied.restored.entries).toEqual([]);
  });

  on('C3: a truncated record comes back neither in the same batch nor after', async (place) => {
    const { disk } = await formedStore(place, 0);
    const answers = [
      write(place, disk, { entries: entriesOf(1, 1, 10, NO_ZXID) }),
      write(place, disk, { truncateAfter: at(4), entries: entriesOf(1, 5, 6, at(4), 'other') }),
      write(place, disk, { truncateAfter: at(5), entries: [] }),
    ];
    await Promise.all(answers);
    await place.crash();
    const { restored } = await place.open(WIDE_WINDOW);
    expect(restored.classification).toBe('clean');
    expect(restored.entries.map(({ txn }) => Buffer.from(txn).toString().split(' ')[0])).toEqual([
      ...Array(4).fill('txn'),
      'other',
    ]);
  });

  on('C4: epochs, mark, identity and records of one write are durable together', async (place) => {
    const { disk } = await place.open(WIDE_WINDOW);
    disk.write(
      { entries: entriesOf(7, 1, 2, NO_ZXID), epochs: epochs(7), clusterId: 'together', mark: 'clean' },
      () => {},
    );
    await place.crash();
    const { restored } = await place.open(WIDE_WINDOW);
    const isThere = restored.entries.length > 0;
    expect(restored.clusterId).toBe(isThere ? 'together' : '');
    expect(restored.epochs.currentEpoch).toBe(isThere ? 7 : 0);
    expect(restored.classification).toBe(isThere ? 'clean' : 'blank');
  });

  on('C5: a staged snapshot changes nothing until a write switches to it', async (place) => {
    const { disk } = await formedStore(place, 10);
    const before = contentOf({ ...(await reopened(place)).restored });
    const opened = await place.open(WIDE_WINDOW);
    await fillSnapshot(place, opened.disk.stageSnapshot(makeZxid(3, 99)), ['from the leader']);
    expect(opened.disk.snapshots()).toEqual([]);
    await place.crash();
    const { restored, disk: again } = await place.open(WIDE_WINDOW);
    expect(restored.classification).toBe('clean');
    expect(contentOf(restored)).toEqual(before);
    expect(again.snapshots()).toEqual([]);
    expect(disk).not.toBe(again);
  });

  on('C5: the switch to a staged snapshot replaces log and snapshots in one write', async (place) => {
    const { disk } = await formedStore(place, 10);
    await fillSnapshot(place, disk.beginSnapshot(at(10)), ['mine']);
    const base = makeZxid(3, 99);
    await fillSnapshot(place, disk.stageSnapshot(base), ['from ', 'the leader']);
    await write(place, disk, { base, entries: entriesOf(3, 100, 102, base), epochs: epochs(4, 4), committed: base });
    expect(disk.snapshots().map(({ zxid }) => zxid)).toEqual([base]);
    expect(await readSnapshot(place, disk, base)).toEqual(['from ', 'the leader']);
    await write(place, disk, { entries: entriesOf(4, 1, 1, makeZxid(3, 102)) });
    await place.crash();
    const { restored, disk: again } = await place.open(WIDE_WINDOW);
    expect(restored.classification).toBe('clean');
    expect(restored).toMatchObject({ snapshot: base, base, committed: base, epochs: epochs(4) });
    expect(zxidsOf(restored.entries)).toEqual([100, 101, 102].map((n) => makeZxid(3, n)).concat([makeZxid(4, 1)]));
    expect(again.snapshots().map(({ zxid }) => zxid)).toEqual([base]);
    expect(await readSnapshot(place, again, base)).toEqual(['from ', 'the leader']);
  });

  on('C5: a crash during the switch leaves the old store or the new one', async (place) => {
    const { disk } = await formedStore(place, 10);
    const base = makeZxid(3, 99);
    await fillSnapshot(place, disk.stageSnapshot(base), ['from the leader']);
    disk.write({ base, entries: entriesOf(3, 100, 101, base), epochs: epochs(3) }, () => {});
    await place.crash();
    const { restored, disk: again } = await place.open(WIDE_WINDOW);
    expect(restored.classification).toBe('clean');
    if (restored.snapshot === base) expect(zxidsOf(restored.entries)).toEqual([makeZxid(3, 100), makeZxid(3, 101)]);
    else expect(zxidsOf(restored.entries)).toEqual(Array.from({ length: 10 }, (_, n) => at(n + 1)));
    expect(again.snapshots().length).toBe(restored.snapshot === base ? 1 : 0);
  });

  on('a discarded staged snapshot is gone, and staging again replaces what was staged', async (place) => {
    const { disk } = await formedStore(place, 3);
    await fillSnapshot(place, disk.stageSnapshot(makeZxid(2, 5)), ['first']);
    disk.discardStaged();
    disk.stageSnapshot(makeZxid(2, 6));
    const base = makeZxid(2, 7);
    await fillSnapshot(place, disk.stageSnapshot(base), ['third']);
    await write(place, disk, { base, entries: [], epochs: epochs(2) });
    expect(await readSnapshot(place, disk, base)).toEqual(['third']);
  });

  on('snapshots are listed newest first once they are finished, and read back as they were written', async (place) => {
    const { disk } = await formedStore(place, 30);
    await fillSnapshot(place, disk.beginSnapshot(at(10)), ['a', 'bb', 'ccc']);
    const unfinished = disk.beginSnapshot(at(20));
    await ask(place, (done) => unfinished.write(Buffer.from('half'), done));
    expect(disk.snapshots()).toMatchObject([{ zxid: at(10), sizeBytes: 6 }]);
    unfinished.abort();
    await fillSnapshot(place, disk.beginSnapshot(at(30)), ['d']);
    expect(disk.snapshots()).toMatchObject([{ zxid: at(30) }, { zxid: at(10) }]);
    await place.crash();
    const { restored, disk: again } = await place.open({ windowCount: 0, windowBytes: 0 });
    expect(restored).toMatchObject({ classification: 'clean', snapshot: at(30), base: at(30), entries: [] });
    expect(await readSnapshot(place, again, at(30))).toEqual(['d']);
  });

  on('an unfinished snapshot leaves nothing behind after a crash', async (place) => {
    const { disk } = await formedStore(place, 30);
    const unfinished = disk.beginSnapshot(at(20));
    await ask(place, (done) => unfinished.write(Buffer.from('half'), done));
    await place.crash();
    const { restored, disk: again } = await place.open(WIDE_WINDOW);
    expect(restored).toMatchObject({ classification: 'clean', snapshot: 0n });
    expect(again.snapshots()).toEqual([]);
  });

  on('the log below the newest snapshot is loaded as far as the window reaches', async (place) => {
    const { disk } = await formedStore(place, 30);
    await fillSnapshot(place, disk.beginSnapshot(at(20)), ['tree']);
    await place.crash();
    const { restored } = await place.open({ windowCount: 5, windowBytes: 1_000_000 });
    expect(restored).toMatchObject({ snapshot: at(20), base: at(15), committed: at(20) });
    expect(zxidsOf(restored.entries)).toEqual(Array.from({ length: 15 }, (_, n) => at(n + 16)));
    await place.crash();
    const narrow = await place.open({ windowCount: 5, windowBytes: 0 });
    expect(narrow.restored).toMatchObject({ snapshot: at(20), base: at(20) });
    expect(narrow.restored.entries.length).toBe(10);
  });

  on('C6: a purge keeps the newest snapshots and the log behind the oldest of them', async (place) => {
    const { disk } = await formedStore(place, 50);
    for (const counter of [10, 20, 30, 40]) {
      await fillSnapshot(place, disk.beginSnapshot(at(counter)), [`tree ${counter}`]);
    }
    await ask(place, (done) => disk.purge(2, at(50), done));
    expect(disk.snapshots()).toMatchObject([{ zxid: at(40) }, { zxid: at(30) }]);
    await write(place, disk, { entries: entriesOf(1, 51, 52, at(50)) });
    await place.crash();
    const { restored } = await place.open(WIDE_WINDOW);
    expect(restored).toMatchObject({ classification: 'clean', snapshot: at(40), base: at(30) });
    expect(zxidsOf(restored.entries)).toEqual(Array.from({ length: 22 }, (_, n) => at(n + 31)));
  });

  on('C6: a purge keeps the log above keepFrom, and at least one snapshot', async (place) => {
    const { disk } = await formedStore(place, 50);
    for (const counter of [20, 40]) await fillSnapshot(place, disk.beginSnapshot(at(counter)), ['tree']);
    await ask(place, (done) => disk.purge(0, at(15), done));
    expect(disk.snapshots()).toMatchObject([{ zxid: at(40) }]);
    await place.crash();
    const { restored, disk: again } = await place.open(WIDE_WINDOW);
    expect(restored).toMatchObject({ classification: 'clean', snapshot: at(40), base: at(15) });
    await write(place, again, { truncateAfter: at(45), entries: [] });
    await ask(place, (done) => again.purge(3, at(50), done));
    await place.crash();
    const last = await place.open(WIDE_WINDOW);
    expect(last.restored).toMatchObject({ classification: 'clean', snapshot: at(40), base: at(40) });
    expect(zxidsOf(last.restored.entries)).toEqual([41, 42, 43, 44, 45].map(at));
  });

  on('C6: a purge without a snapshot removes nothing', async (place) => {
    const { disk } = await formedStore(place, 10);
    await ask(place, (done) => disk.purge(3, at(10), done));
    await place.crash();
    const { restored } = await place.open(WIDE_WINDOW);
    expect(zxidsOf(restored.entries).length).toBe(10);
  });

  on('C6: a crash during a purge leaves a contiguous log that a snapshot covers', async (place) => {
    const { disk } = await formedStore(place, 50);
    for (const counter of [20, 40]) await fillSnapshot(place, disk.beginSnapshot(at(counter)), ['tree']);
    disk.purge(1, at(50), () => {});
    await place.crash();
    const { restored } = await place.open(WIDE_WINDOW);
    expect(restored).toMatchObject({ classification: 'clean', snapshot: at(40) });
    expect([0n, at(40)]).toContain(restored.base);
    expect(restored.entries.at(-1)?.zxid).toBe(at(50));
  });

  on('a snapshot that is being read survives its purge', async (place) => {
    const { disk } = await formedStore(place, 50);
    await fillSnapshot(place, disk.beginSnapshot(at(20)), ['one', 'two']);
    await fillSnapshot(place, disk.beginSnapshot(at(40)), ['newer']);
    const reader = disk.openSnapshot(at(20));
    await ask(place, (done) => disk.purge(1, at(50), done));
    const chunks: string[] = [];
    for (let isMore = true; isMore; ) {
      await ask(place, (done) =>
        reader.next((error, chunk) => {
          isMore = chunk !== null;
          if (chunk !== null) chunks.push(Buffer.from(chunk).toString());
          done(error);
        }),
      );
    }
    reader.close();
    expect(chunks).toEqual(['one', 'two']);
    expect(() => disk.openSnapshot(at(20))).toThrow();
  });

  on('a store marked as suspect stays so until it is marked as clean', async (place) => {
    const { disk } = await formedStore(place, 3);
    await write(place, disk, { entries: [], mark: 'suspect' });
    const second = await reopened(place);
    expect(second.restored.classification).toBe('suspect');
    expect(second.restored.reasons.length).toBeGreaterThan(0);
    const third = await place.open(WIDE_WINDOW);
    const base = makeZxid(2, 1);
    await fillSnapshot(place, third.disk.stageSnapshot(base), ['fresh']);
    await write(place, third.disk, { base, entries: [], epochs: epochs(2) });
    expect((await reopened(place)).restored.classification).toBe('suspect');
    const fourth = await place.open(WIDE_WINDOW);
    await write(place, fourth.disk, { entries: [], mark: 'clean' });
    const last = await reopened(place);
    expect(last.restored).toMatchObject({ classification: 'clean', snapshot: base, reasons: [] });
  });

  on('a blank store that joined an ensemble but was never marked as clean is suspect', async (place) => {
    const { disk } = await place.open(WIDE_WINDOW);
    await write(place, disk, { entries: entriesOf(1, 1, 2, NO_ZXID), epochs: epochs(1), clusterId: 'joined' });
    expect((await reopened(place)).restored.classification).toBe('suspect');
  });

  on('C11, C12: epochs beyond 2^21 and counters up to 2^32 - 1 keep their order', async (place) => {
    const { disk } = await place.open(WIDE_WINDOW);
    const high = 2 ** 31 + 5;
    const first = entriesOf(2 ** 21 + 1, 2 ** 32 - 3, 2 ** 32 - 1, NO_ZXID);
    const second = entriesOf(2 ** 21 + 2, 1, 2, makeZxid(2 ** 21 + 1, 2 ** 32 - 1));
    const third = entriesOf(high, 1, 1, makeZxid(2 ** 21 + 2, 2));
    const entries = [...first, ...second, ...third];
    await write(place, disk, { entries, epochs: epochs(2 ** 32 - 1, high), clusterId: 'c', mark: 'clean' });
    await place.crash();
    const { restored, disk: again } = await place.open(WIDE_WINDOW);
    expect(restored).toMatchObject({ classification: 'clean', epochs: epochs(2 ** 32 - 1, high) });
    expect(zxidsOf(restored.entries)).toEqual(zxidsOf(entries));
    await write(place, again, { truncateAfter: makeZxid(2 ** 21 + 1, 2 ** 32 - 1), entries: [] });
    await place.crash();
    expect(zxidsOf((await place.open(WIDE_WINDOW)).restored.entries)).toEqual(zxidsOf(first));
  });

  on('logBytes counts the log behind the newest snapshot', async (place) => {
    const { disk } = await formedStore(place, 20);
    const all = disk.logBytes();
    expect(all).toBeGreaterThan(20 * 10);
    await write(place, disk, { truncateAfter: at(10), entries: [] });
    const half = disk.logBytes();
    expect(half).toBeLessThan(all);
    await fillSnapshot(place, disk.beginSnapshot(at(10)), ['tree']);
    expect(disk.logBytes()).toBe(0);
    await write(place, disk, { entries: entriesOf(1, 11, 20, at(10)) });
    expect(disk.logBytes()).toBe(all - half);
    expect(disk.freeBytes()).toBeGreaterThan(0);
  });

  on('a record may be empty or large', async (place) => {
    const { disk } = await formedStore(place, 0);
    const large = Buffer.alloc(3_000_000, 7);
    await write(place, disk, {
      entries: [
        { zxid: at(1), prev: NO_ZXID, txn: new Uint8Array(0) },
        { zxid: at(2), prev: at(1), txn: large },
      ],
    });
    await place.crash();
    const { restored } = await place.open(WIDE_WINDOW);
    expect(restored.entries.map(({ txn }) => txn.byteLength)).toEqual([0, large.byteLength]);
    expect(large.equals(restored.entries[1]?.txn ?? Buffer.alloc(0))).toBe(true);
  });

  on('a write that does not continue the log breaks an assertion', async (place) => {
    const { disk } = await formedStore(place, 3);
    const never: Done = () => {};
    expect(() => disk.write({ entries: entriesOf(1, 5, 5, at(4)) }, never)).toThrow();
    expect(() => disk.write({ entries: [], epochs: epochs(1, 2) }, never)).toThrow();
    expect(() => disk.write({ entries: [], truncateAfter: makeZxid(1, 9) }, never)).toThrow();
  });

  on('after close every call is answered with an error', async (place) => {
    const { disk } = await formedStore(place, 3);
    await ask(place, (done) => disk.close(done));
    await expect(write(place, disk, { entries: entriesOf(1, 4, 4, at(3)) })).rejects.toThrow();
    const writer = disk.beginSnapshot(at(3));
    await expect(ask(place, (done) => writer.finish(done))).rejects.toThrow();
  });

  on('C7: the first error is final, and what was answered before it is kept', async (place) => {
    if (place.breakDisk === undefined) return;
    const { disk } = await formedStore(place, 3);
    place.breakDisk();
    const answers: (Error | null)[] = [];
    const groups = [4, 5, 6].map((counter) =>
      ask(place, (done) =>
        disk.write({ entries: entriesOf(1, counter, counter, at(counter - 1)) }, (error) => {
          answers.push(error);
          done(error);
        }),
      ).catch(() => {}),
    );
    await Promise.all(groups);
    expect(answers.length).toBe(3);
    expect(answers.every((error) => error instanceof Error)).toBe(true);
    await expect(write(place, disk, { entries: entriesOf(1, 7, 7, at(6)) })).rejects.toThrow();
    await place.crash();
    const { restored } = await place.open(WIDE_WINDOW);
    expect(restored.classification).toBe('clean');
    expect(restored.entries.length).toBeGreaterThanOrEqual(3);
  });

  for (let seed = 1; seed <= 8; seed++) {
    on(`whatever is answered in whatever order is there after each crash (seed ${seed})`, async (place) => {
      const model = new StoreModel(seed);
      let { disk } = await formedStore(place, 0);
      for (let step = 0; step < 40; step++) {
        if (model.below(5) === 0) {
          await place.crash();
          const opened = await place.open(WIDE_WINDOW);
          expect(opened.restored.classification).toBe('clean');
          expect(modelOf(opened.restored)).toEqual(model.expected());
          disk = opened.disk;
        }
        await model.step(place, disk);
      }
    });
  }

  async function reopened(place: DiskPlace): Promise<OpenedDisk> {
    await place.crash();
    const opened = await place.open(WIDE_WINDOW);
    await place.crash();
    return opened;
  }
}

function modelOf(restored: RestoredStore): unknown {
  return {
    base: restored.base,
    records: restored.entries.map(({ zxid, txn }) => `${zxid} ${Buffer.from(txn).toString()}`),
    currentEpoch: restored.epochs.currentEpoch,
    committed: restored.committed,
    snapshot: restored.snapshot,
  };
}

/** The same store as plain arrays, driven by one seed. */
class StoreModel {
  #random: number;
  #base = NO_ZXID;
  #entries: LogEntry[] = [];
  #epoch = 1;
  #committed = NO_ZXID;
  #snapshots: Zxid[] = [];

  constructor(seed: number) {
    this.#random = seed;
  }

  below(limit: number): number {
    this.#random = (Math.imul(this.#random, 1664525) + 1013904223) >>> 0;
    return Math.floor((this.#random / 2 ** 32) * limit);
  }

  expected(): unknown {
    return {
      base: this.#base,
      records: this.#entries.map(({ zxid, txn }) => `${zxid} ${Buffer.from(txn).toString()}`),
      currentEpoch: this.#epoch,
      committed: this.#committed,
      snapshot: this.#snapshots[0] ?? NO_ZXID,
    };
  }

  async step(place: DiskPlace, disk: Disk): Promise<void> {
    switch (this.below(8)) {
      case 0:
        return this.#truncate(place, disk);
      case 1:
        return this.#snapshot(place, disk);
      case 2:
        return this.#purge(place, disk);
      case 3:
        return this.#switch(place, disk);
      default:
        return this.#append(place, disk);
    }
  }

  get #tail(): Zxid {
    return this.#entries.at(-1)?.zxid ?? this.#base;
  }

  /** Also commits something, and sometimes begins a new epoch. */
  async #append(place: DiskPlace, disk: Disk): Promise<void> {
    if (this.below(4) === 0) this.#epoch++;
    const added = this.#next(1 + this.below(20));
    this.#entries.push(...added);
    this.#commit(this.#entries[this.below(this.#entries.length)]?.zxid ?? this.#base);
    await write(place, disk, { entries: added, epochs: epochs(this.#epoch), committed: this.#committed });
  }

  async #truncate(place: DiskPlace, disk: Disk): Promise<void> {
    const kept = this.#entries.filter(({ zxid }) => zxid <= this.#committed || this.below(2) === 0);
    const keep = kept.findLast(({ prev }, at) => prev === (kept[at - 1]?.zxid ?? this.#base))?.zxid ?? this.#base;
    const truncateAfter = keep < this.#committed ? this.#committed : keep;
    this.#entries = this.#entries.filter(({ zxid }) => zxid <= truncateAfter);
    this.#epoch++;
    const added = this.#next(this.below(3));
    this.#entries.push(...added);
    await write(place, disk, { truncateAfter, entries: added, epochs: epochs(this.#epoch) });
  }

  async #snapshot(place: DiskPlace, disk: Disk): Promise<void> {
    const zxid = this.#committed < this.#base ? this.#base : this.#committed;
    await fillSnapshot(place, disk.beginSnapshot(zxid), ['tree', `${zxid}`]);
    this.#snapshots = [zxid, ...this.#snapshots.filter((other) => other !== zxid)];
    expect(await readSnapshot(place, disk, zxid)).toEqual(['tree', `${zxid}`]);
  }

  async #purge(place: DiskPlace, disk: Disk): Promise<void> {
    const retain = 1 + this.below(3);
    const keepFrom = this.#entries[this.below(this.#entries.length)]?.zxid ?? this.#base;
    await ask(place, (done) => disk.purge(retain, keepFrom, done));
    this.#snapshots = this.#snapshots.slice(0, retain);
    expect(disk.snapshots().map(({ zxid }) => zxid)).toEqual(this.#snapshots);
    const oldest = this.#snapshots.at(-1);
    if (oldest === undefined) return;
    const limit = oldest < keepFrom ? oldest : keepFrom;
    this.#base = this.#entries.findLast(({ zxid }) => zxid <= limit)?.zxid ?? this.#base;
    this.#entries = this.#entries.filter(({ zxid }) => zxid > this.#base);
  }

  async #switch(place: DiskPlace, disk: Disk): Promise<void> {
    const epoch = this.#epoch + 1;
    const base = makeZxid(epoch, 1000);
    await fillSnapshot(place, disk.stageSnapshot(base), ['tree', `${base}`]);
    if (this.below(3) === 0) return disk.discardStaged();
    this.#epoch = epoch;
    this.#base = base;
    this.#committed = base;
    this.#snapshots = [base];
    this.#entries = [];
    this.#entries = this.#next(this.below(4));
    await write(place, disk, { base, entries: this.#entries, epochs: epochs(this.#epoch) });
  }

  #next(count: number): LogEntry[] {
    const tail = this.#tail;
    const first = tail >> 32n === BigInt(this.#epoch) ? Number(tail & 0xffffffffn) + 1 : 1;
    return entriesOf(this.#epoch, first, first + count - 1, tail, `try ${this.below(1000)}`);
  }

  #commit(zxid: Zxid): void {
    if (zxid > this.#committed) this.#committed = zxid;
  }
}
