import { zxidFrom } from '@quorate/protocol';
import { expect, test } from 'vitest';
import { WatchOverflowError, ZkError } from './errors.ts';
import { type OneShotKind, type WatchedEvent, WatchStream, WatchTables, type ZnodeEventKind } from './watches.ts';

const ZXID = zxidFrom(7n);

function makeTables() {
  const overflown: WatchStream[] = [];
  const tables = new WatchTables(
    (path) => path,
    (stream) => overflown.push(stream),
  );
  const addStream = (path: string, isRecursive: boolean, eventsMax = 10): WatchStream => {
    const stream = new WatchStream(path, path, isRecursive, eventsMax, async () => {});
    stream.arm();
    tables.addStream(stream);
    return stream;
  };
  return { tables, overflown, addStream };
}

async function read(stream: WatchStream, count: number): Promise<string[]> {
  const texts: string[] = [];
  for (let i = 0; i < count; i++) {
    const { value } = await stream.next();
    texts.push(value.kind === 'session' ? value.state : `${value.kind} ${value.path}`);
  }
  return texts;
}

test.each<[ZnodeEventKind, OneShotKind[]]>([
  ['nodeCreated', ['data', 'exist']],
  ['nodeDataChanged', ['data', 'exist']],
  ['nodeChildrenChanged', ['child']],
  ['nodeDeleted', ['data', 'exist', 'child']],
])('%s uses up the one-shot watches %j and no others', async (kind, expected) => {
  const { tables } = makeTables();
  const told: OneShotKind[] = [];
  for (const table of ['data', 'exist', 'child'] as const) tables.addOneShot(table, '/a', () => told.push(table));
  tables.fire(kind, '/a', ZXID);
  tables.fire(kind, '/a', ZXID);
  tables.fire(kind, '/other', ZXID);
  await Promise.resolve();
  expect(told).toEqual(expected);
});

test('a watcher in several tables is told once per event', async () => {
  const { tables } = makeTables();
  const events: WatchedEvent[] = [];
  const watcher = (event: WatchedEvent) => void events.push(event);
  for (const table of ['data', 'exist', 'child'] as const) tables.addOneShot(table, '/a', watcher);
  tables.fire('nodeDeleted', '/a', ZXID);
  await Promise.resolve();
  expect(events).toEqual([{ kind: 'nodeDeleted', path: '/a', zxid: ZXID }]);
});

test('a persistent watch hears its own path, a recursive one everything below except children events', async () => {
  const { tables, addStream } = makeTables();
  const persistent = addStream('/a', false);
  const recursive = addStream('/a', true);
  const root = addStream('/', true);
  tables.fire('nodeChildrenChanged', '/a', ZXID);
  tables.fire('nodeCreated', '/a/b', ZXID);
  tables.fire('nodeDataChanged', '/a', ZXID);
  tables.fire('nodeCreated', '/ab', ZXID);
  expect(await read(persistent, 2)).toEqual(['nodeChildrenChanged /a', 'nodeDataChanged /a']);
  expect(await read(recursive, 2)).toEqual(['nodeCreated /a/b', 'nodeDataChanged /a']);
  expect(await read(root, 3)).toEqual(['nodeCreated /a/b', 'nodeDataChanged /a', 'nodeCreated /ab']);
});

test('a stream that is not armed yet hears nothing', async () => {
  const { tables, addStream } = makeTables();
  const early = new WatchStream('/a', '/a', false, 10, async () => {});
  tables.addStream(early);
  const armed = addStream('/a', false);
  tables.fire('nodeCreated', '/a', ZXID);
  early.arm();
  tables.fire('nodeDeleted', '/a', ZXID);
  expect(await read(early, 1)).toEqual(['nodeDeleted /a']);
  expect(await read(armed, 2)).toEqual(['nodeCreated /a', 'nodeDeleted /a']);
});

test('a reader that is too slow gets what fitted, then a WatchOverflowError, then the end', async () => {
  const { tables, overflown, addStream } = makeTables();
  const stream = addStream('/a', false, 2);
  for (let i = 0; i < 4; i++) tables.fire('nodeDataChanged', '/a', ZXID);
  expect(overflown).toEqual([stream]);
  expect(await read(stream, 2)).toHaveLength(2);
  await expect(stream.next()).rejects.toBeInstanceOf(WatchOverflowError);
  expect((await stream.next()).done).toBe(true);
});

test('the end of the session reaches waiting readers, buffered streams and one-shot watchers', async () => {
  const { tables, addStream } = makeTables();
  const waiting = addStream('/a', false).next();
  const buffered = addStream('/b', true);
  tables.fire('nodeCreated', '/b', ZXID);
  const told: WatchedEvent[] = [];
  tables.addOneShot('exist', '/c', (event) => told.push(event));
  const event = { kind: 'session', state: 'expired', isReadOnly: false } as const;
  tables.endAll(event, new ZkError('sessionExpired', 'gone'));
  await expect(waiting).rejects.toMatchObject({ code: 'sessionExpired' });
  expect(await read(buffered, 1)).toEqual(['nodeCreated /b']);
  await expect(buffered.next()).rejects.toMatchObject({ code: 'sessionExpired' });
  expect(told).toEqual([event]);
  expect(tables.rearmRequests(ZXID)).toEqual([]);
});

test('removing watches of a kind tells and ends only that kind', async () => {
  const { tables, addStream } = makeTables();
  const told: string[] = [];
  tables.addOneShot('data', '/a', (event) => told.push(`data ${event.kind}`));
  tables.addOneShot('child', '/a', (event) => told.push(`child ${event.kind}`));
  const persistent = addStream('/a', false);
  const recursive = addStream('/a', true);
  tables.remove('children', '/a');
  tables.remove('persistent', '/a');
  tables.fire('nodeDataChanged', '/a', ZXID);
  await Promise.resolve();
  expect(told).toEqual(['child watchRemoved', 'data nodeDataChanged']);
  expect((await persistent.next()).done).toBe(true);
  expect(await read(recursive, 1)).toEqual(['nodeDataChanged /a']);
  tables.remove('any', '/a');
  expect((await recursive.next()).done).toBe(true);
});

test('arming again names each path in its list, and needs setWatches2 only where a persistent watch is', () => {
  const { tables, addStream } = makeTables();
  tables.addOneShot('data', '/d', () => {});
  tables.addOneShot('exist', '/e', () => {});
  tables.addOneShot('child', '/c', () => {});
  expect(tables.rearmRequests(ZXID)).toEqual([
    {
      kind: 'setWatches',
      relativeZxid: ZXID,
      dataWatches: ['/d'],
      existWatches: ['/e'],
      childWatches: ['/c'],
      persistentWatches: [],
      persistentRecursiveWatches: [],
    },
  ]);
  addStream('/p', false);
  addStream('/p', false);
  addStream('/r', true);
  expect(tables.rearmRequests(ZXID)).toMatchObject([
    { kind: 'setWatches2', persistentWatches: ['/p'], persistentRecursiveWatches: ['/r'] },
  ]);
});

test('arming again is split below 128 KiB of path text and forgets no path', () => {
  const { tables } = makeTables();
  const paths = Array.from({ length: 3_000 }, (_, index) => `/${'ü'.repeat(60)}${index}`);
  for (const path of paths) tables.addOneShot('data', path, () => {});
  const requests = tables.rearmRequests(ZXID);
  expect(requests.length).toBeGreaterThan(2);
  for (const { dataWatches } of requests) {
    expect(Buffer.byteLength(dataWatches.join(''))).toBeLessThanOrEqual(128 * 1024);
  }
  expect(requests.flatMap((request) => request.dataWatches)).toEqual(paths);
});

test('only the last stream on a path gives up the entry of the server', () => {
  const { tables, addStream } = makeTables();
  const [first, second] = [addStream('/a', true), addStream('/a', true)];
  expect(tables.deleteStream(first)).toBe(false);
  expect(tables.deleteStream(second)).toBe(true);
  expect(tables.deleteStream(second)).toBe(false);
});
