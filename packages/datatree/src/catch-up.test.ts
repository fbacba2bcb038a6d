import { EventType, WatcherType, zxidFrom } from '@quorate/protocol';
import { expect, test } from 'vitest';
import { catchUp, type WatchLists, WatchTable } from './index.ts';
import { create, Leader, remove, setData } from './leader.test-data.ts';

const { nodeCreated, nodeDeleted, nodeDataChanged, nodeChildrenChanged } = EventType;
const NONE: WatchLists = {
  dataWatches: [],
  existWatches: [],
  childWatches: [],
  persistentWatches: [],
  persistentRecursiveWatches: [],
};

function caughtUp(leader: Leader, lists: Partial<WatchLists>, relativeZxid: bigint) {
  const table = new WatchTable();
  const events: [EventType, string][] = [];
  catchUp(leader.tree, table, 5, { ...NONE, ...lists }, zxidFrom(relativeZxid), (watcher, type, path) => {
    expect(watcher).toBe(5);
    events.push([type, path]);
  });
  return { table, events };
}

test('a data watch: deleted, changed since, or unchanged', () => {
  const leader = new Leader();
  leader.run(create('/a'));
  const { zxid } = leader.run(setData('/a', 'x'));
  const lists = { dataWatches: ['/a', '/none'] };
  const before = caughtUp(leader, lists, zxid - 1n);
  expect(before.events).toEqual([
    [nodeDataChanged, '/a'],
    [nodeDeleted, '/none'],
  ]);
  expect(before.table.counts.watches).toBe(0);
  // Exactly that zxid was seen.
  const at = caughtUp(leader, lists, zxid);
  expect(at.events).toEqual([[nodeDeleted, '/none']]);
  expect(at.table.has(5, '/a', WatcherType.data)).toBe(true);
  expect(at.table.has(5, '/a', WatcherType.children)).toBe(false);
});

test('an exist watch: created meanwhile, or still missing', () => {
  const leader = new Leader();
  leader.run(create('/a'));
  const { events, table } = caughtUp(leader, { existWatches: ['/a', '/none'] }, leader.zxid);
  expect(events).toEqual([[nodeCreated, '/a']]);
  expect(table.has(5, '/none', WatcherType.data)).toBe(true);
  expect(table.has(5, '/a', WatcherType.any)).toBe(false);
});

test('a child watch: deleted, children changed since, or unchanged; data does not count', () => {
  const leader = new Leader();
  leader.run(create('/a'));
  const { zxid } = leader.run(create('/a/b'));
  leader.run(setData('/a', 'later'));
  const lists = { childWatches: ['/a', '/none'] };
  expect(caughtUp(leader, lists, zxid - 1n).events).toEqual([
    [nodeChildrenChanged, '/a'],
    [nodeDeleted, '/none'],
  ]);
  const at = caughtUp(leader, lists, zxid);
  expect(at.events).toEqual([[nodeDeleted, '/none']]);
  expect(at.table.has(5, '/a', WatcherType.children)).toBe(true);
  const deleted = leader.run(remove('/a/b'));
  expect(caughtUp(leader, lists, deleted.zxid - 1n).events[0]).toEqual([nodeChildrenChanged, '/a']);
});

test('children that a closing session took with it count as changes', () => {
  const leader = new Leader();
  leader.run(create('/a'));
  leader.run(create('/a/e', { flags: 1 }));
  const seen = leader.zxid;
  leader.run({ kind: 'closeSession' });
  expect(caughtUp(leader, { childWatches: ['/a'] }, seen).events).toEqual([[nodeChildrenChanged, '/a']]);
});

test('deleted and made again shows as changed', () => {
  const leader = new Leader();
  leader.run(create('/a'));
  const seen = leader.zxid;
  leader.run(remove('/a'));
  leader.run(create('/a'));
  expect(caughtUp(leader, { dataWatches: ['/a'] }, seen).events).toEqual([[nodeDataChanged, '/a']]);
});

test('persistent watches are registered, whatever happened', () => {
  const leader = new Leader();
  leader.run(create('/a'));
  const { events, table } = caughtUp(
    leader,
    { persistentWatches: ['/a', '/none'], persistentRecursiveWatches: ['/', 'not a path'] },
    0n,
  );
  expect(events).toEqual([]);
  expect(table.has(5, '/a', WatcherType.persistent)).toBe(true);
  expect(table.has(5, '/none', WatcherType.persistent)).toBe(true);
  expect(table.has(5, '/', WatcherType.persistentRecursive)).toBe(true);
  expect(table.has(5, 'not a path', WatcherType.persistentRecursive)).toBe(true);
});

test('list by list, in their order', () => {
  const leader = new Leader();
  leader.run(create('/a'));
  const lists = { childWatches: ['/x'], existWatches: ['/a'], dataWatches: ['/y', '/a'] };
  expect(caughtUp(leader, lists, 0n).events).toEqual([
    [nodeDeleted, '/y'],
    [nodeDataChanged, '/a'],
    [nodeCreated, '/a'],
    [nodeDeleted, '/x'],
  ]);
});
