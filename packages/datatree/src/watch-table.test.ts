import { EventType, WatcherType } from '@quorate/protocol';
import { expect, test } from 'vitest';
import { Random } from './leader.test-data.ts';
import { type WatchKind, WatchTable } from './watch-table.ts';

const { nodeCreated, nodeDeleted, nodeDataChanged, nodeChildrenChanged } = EventType;
type Fired = [watcher: number, type: EventType, path: string];

function fire(table: WatchTable, type: EventType, path: string): Fired[] {
  const fired: Fired[] = [];
  table.trigger({ type, path }, (watcher, firedType, firedPath) => fired.push([watcher, firedType, firedPath]));
  return fired;
}

function isEmpty(table: WatchTable): boolean {
  const { watches, paths, watchers } = table.counts;
  return watches === 0 && paths === 0 && watchers === 0;
}

test('a data watch fires once, for each kind of event it is there for', () => {
  for (const type of [nodeCreated, nodeDataChanged, nodeDeleted]) {
    const table = new WatchTable();
    table.add(1, '/a', 'data');
    expect(fire(table, nodeChildrenChanged, '/a')).toEqual([]);
    expect(fire(table, type, '/a/b')).toEqual([]);
    expect(fire(table, type, '/a')).toEqual([[1, type, '/a']]);
    expect(fire(table, type, '/a')).toEqual([]);
    expect(isEmpty(table)).toBe(true);
  }
});

test('a child watch fires once, for children and for the deletion of its znode', () => {
  const table = new WatchTable();
  table.add(1, '/a', 'child');
  expect(fire(table, nodeDataChanged, '/a')).toEqual([]);
  expect(fire(table, nodeCreated, '/a')).toEqual([]);
  expect(fire(table, nodeChildrenChanged, '/a')).toEqual([[1, nodeChildrenChanged, '/a']]);
  expect(isEmpty(table)).toBe(true);
  table.add(1, '/a', 'child');
  expect(fire(table, nodeDeleted, '/a')).toEqual([[1, nodeDeleted, '/a']]);
  expect(isEmpty(table)).toBe(true);
});

test('a persistent watch stays, and gets everything of its own path', () => {
  const table = new WatchTable();
  table.add(1, '/a', 'persistent');
  for (const type of [nodeCreated, nodeDataChanged, nodeChildrenChanged, nodeDeleted, nodeCreated]) {
    expect(fire(table, type, '/a')).toEqual([[1, type, '/a']]);
    expect(fire(table, type, '/a/b')).toEqual([]);
  }
  expect(table.counts).toEqual({ watches: 2, paths: 1, watchers: 1 });
});

test('a recursive watch stays, gets what happens below with its path, and never NodeChildrenChanged', () => {
  const table = new WatchTable();
  table.add(1, '/a', 'persistentRecursive');
  for (const type of [nodeCreated, nodeDataChanged, nodeDeleted]) {
    expect(fire(table, type, '/a')).toEqual([[1, type, '/a']]);
    expect(fire(table, type, '/a/b/c')).toEqual([[1, type, '/a/b/c']]);
    expect(fire(table, type, '/ab')).toEqual([]);
    expect(fire(table, type, '/')).toEqual([]);
  }
  expect(fire(table, nodeChildrenChanged, '/a')).toEqual([]);
  expect(fire(table, nodeChildrenChanged, '/a/b')).toEqual([]);
  expect(table.counts).toEqual({ watches: 1, paths: 1, watchers: 1 });
});

test('a recursive watch on the root gets everything', () => {
  const table = new WatchTable();
  table.add(1, '/', 'persistentRecursive');
  expect(fire(table, nodeCreated, '/a/b/c')).toEqual([[1, nodeCreated, '/a/b/c']]);
  expect(fire(table, nodeDataChanged, '/')).toEqual([[1, nodeDataChanged, '/']]);
});

test('a deletion reaches a connection once, whatever it watches there', () => {
  const table = new WatchTable();
  for (const kind of ['data', 'child', 'persistent', 'persistentRecursive'] as const) table.add(1, '/a/b', kind);
  table.add(1, '/a', 'persistentRecursive');
  table.add(2, '/a/b', 'child');
  table.add(3, '/a', 'persistentRecursive');
  table.add(3, '/a/b', 'child');
  expect(fire(table, nodeDeleted, '/a/b')).toEqual([
    [1, nodeDeleted, '/a/b'],
    [3, nodeDeleted, '/a/b'],
    [2, nodeDeleted, '/a/b'],
  ]);
  // The one-shot ones are used up, told or not.
  expect(table.has(1, '/a/b', WatcherType.data)).toBe(false);
  expect(table.has(1, '/a/b', WatcherType.children)).toBe(false);
  expect(table.has(3, '/a/b', WatcherType.children)).toBe(false);
  expect(table.has(1, '/a/b', WatcherType.persistent)).toBe(true);
  expect(table.has(1, '/a/b', WatcherType.persistentRecursive)).toBe(true);
});

test('watches of several kinds on one path live side by side, for every pair', () => {
  const kinds: WatchKind[] = ['data', 'child', 'persistent', 'persistentRecursive'];
  const types = {
    data: WatcherType.data,
    child: WatcherType.children,
    persistent: WatcherType.persistent,
    persistentRecursive: WatcherType.persistentRecursive,
  };
  for (const first of kinds) {
    for (const second of kinds) {
      const table = new WatchTable();
      table.add(1, '/a', first);
      table.add(1, '/a', second);
      expect(table.has(1, '/a', types[first])).toBe(true);
      expect(table.has(1, '/a', types[second])).toBe(true);
      expect(fire(table, nodeDeleted, '/a')).toHaveLength(1);
      const lasting = [first, second].filter((kind) => kind.startsWith('persistent'));
      for (const kind of kinds) expect(table.has(1, '/a', types[kind])).toBe(lasting.includes(kind));
    }
  }
});

test('removing and checking look at exactly one connection, path and kind', () => {
  const table = new WatchTable();
  table.add(1, '/a', 'data');
  table.add(1, '/a', 'persistent');
  table.add(2, '/a', 'child');
  expect(table.remove(1, '/a', WatcherType.children)).toBe(false);
  expect(table.remove(1, '/b', WatcherType.any)).toBe(false);
  expect(table.remove(3, '/a', WatcherType.any)).toBe(false);
  expect(table.remove(1, '/a', WatcherType.persistentRecursive)).toBe(false);
  expect(table.remove(1, '/a', 77)).toBe(false);
  expect(table.remove(1, '/a', WatcherType.persistent)).toBe(true);
  expect(table.has(1, '/a', WatcherType.data)).toBe(true);
  expect(table.has(1, '/a', WatcherType.persistent)).toBe(false);
  table.add(1, '/a', 'persistentRecursive');
  expect(table.remove(1, '/a', WatcherType.any)).toBe(true);
  expect(table.has(1, '/a', WatcherType.any)).toBe(false);
  expect(table.has(2, '/a', WatcherType.children)).toBe(true);
});

test("a dropped connection leaves nothing behind, and nobody else's watches are touched", () => {
  const table = new WatchTable();
  for (let path = 0; path < 50; path += 1) {
    table.add(1, `/p${path}`, 'data');
    table.add(1, `/p${path}`, 'persistentRecursive');
    if (path % 2 === 0) table.add(2, `/p${path}`, 'child');
  }
  table.dropWatcher(1);
  expect(table.counts).toEqual({ watches: 25, paths: 25, watchers: 1 });
  expect([...table.pathsOf(1)]).toEqual([]);
  expect([...table.pathsOf(2)]).toHaveLength(25);
  table.dropWatcher(1);
  table.dropWatcher(2);
  expect(isEmpty(table)).toBe(true);
});

test('who watches what can be listed', () => {
  const table = new WatchTable();
  table.add(7, '/a', 'data');
  table.add(8, '/a', 'child');
  table.add(7, '/b', 'persistent');
  expect([...table.watchedPaths()]).toEqual(['/a', '/b']);
  expect([...table.watchersOf('/a')]).toEqual([7, 8]);
  expect([...table.pathsOf(7)].sort()).toEqual(['/a', '/b']);
  expect([...table.watchers()]).toEqual([7, 8]);
});

// ZooKeeper's structure as plainly as it can be said: two managers, a map of sets each.
class NaiveTable {
  readonly data = new Map<string, Map<number, Set<string>>>();
  readonly child = new Map<string, Map<number, Set<string>>>();

  managersOf(kind: WatchKind) {
    if (kind === 'persistent') return [this.data, this.child];
    return [kind === 'child' ? this.child : this.data];
  }

  add(watcher: number, path: string, kind: WatchKind): void {
    const mode = kind === 'data' || kind === 'child' ? 'standard' : kind;
    for (const manager of this.managersOf(kind)) {
      const byWatcher = manager.get(path) ?? new Map<number, Set<string>>();
      manager.set(path, byWatcher);
      byWatcher.set(watcher, (byWatcher.get(watcher) ?? new Set()).add(mode));
    }
  }

  triggerIn(manager: NaiveTable['data'], path: string, suppressed: Set<number>): Set<number> {
    const receivers = new Set<number>();
    const ancestors = [path];
    for (let at = path; at !== '/'; ) {
      at = at.slice(0, at.lastIndexOf('/')) || '/';
      ancestors.push(at);
    }
    for (const [distance, at] of ancestors.entries()) {
      for (const [watcher, modes] of manager.get(at) ?? []) {
        const matches = distance === 0 ? modes.size > 0 : modes.has('persistentRecursive');
        if (!matches) continue;
        if (!suppressed.has(watcher)) receivers.add(watcher);
        if (distance === 0) modes.delete('standard');
      }
    }
    return receivers;
  }

  trigger(type: EventType, path: string): number[] {
    if (type === nodeChildrenChanged) return [...this.triggerIn(this.child, path, new Set())];
    const first = this.triggerIn(this.data, path, new Set());
    if (type !== nodeDeleted) return [...first];
    return [...first, ...this.triggerIn(this.child, path, first)];
  }

  matching(watcher: number, path: string, type: number): [Set<string>, string][] {
    const found: [Set<string>, string][] = [];
    const look = (manager: NaiveTable['data'], mode: string) => {
      const modes = manager.get(path)?.get(watcher);
      if (modes?.has(mode)) found.push([modes, mode]);
    };
    if (type === WatcherType.children || type === WatcherType.any) look(this.child, 'standard');
    if (type === WatcherType.data || type === WatcherType.any) look(this.data, 'standard');
    if (type === WatcherType.persistent || type === WatcherType.any) {
      look(this.child, 'persistent');
      look(this.data, 'persistent');
    }
    if (type === WatcherType.persistentRecursive || type === WatcherType.any) look(this.data, 'persistentRecursive');
    return found;
  }

  drop(watcher: number): void {
    for (const manager of [this.data, this.child]) for (const byWatcher of manager.values()) byWatcher.delete(watcher);
  }

  watches(): number {
    let count = 0;
    for (const manager of [this.data, this.child]) {
      for (const byWatcher of manager.values()) for (const modes of byWatcher.values()) if (modes.size > 0) count += 1;
    }
    return count;
  }
}

test('a random life of watches is the same as in two managers of plain maps', () => {
  const table = new WatchTable();
  const naive = new NaiveTable();
  const random = new Random(11);
  const paths = [
    '/',
    '/a',
    '/a/b',
    '/a/b/c',
    '/a/bc',
    '/d',
    '/d/e',
    ...Array.from({ length: 30 }, (_, i) => `/a/n${i}`),
  ];
  const kinds: WatchKind[] = ['data', 'child', 'persistent', 'persistentRecursive'];
  let fired = 0;
  for (let step = 0; step < 15_000; step += 1) {
    const watcher = random.below(40);
    const path = random.pick(paths);
    const choice = random.below(100);
    if (choice < 55) {
      const kind = random.pick(kinds);
      table.add(watcher, path, kind);
      naive.add(watcher, path, kind);
    } else if (choice < 80) {
      const type = random.pick([nodeCreated, nodeDeleted, nodeDataChanged, nodeChildrenChanged]);
      const receivers = fire(table, type, path).map(([receiver]) => receiver);
      fired += receivers.length;
      expect([...receivers].sort()).toEqual(naive.trigger(type, path).sort());
      expect(new Set(receivers).size).toBe(receivers.length);
    } else if (choice < 95) {
      const type = 1 + random.below(5);
      const found = naive.matching(watcher, path, type);
      expect(table.has(watcher, path, type)).toBe(found.length > 0);
      expect(table.remove(watcher, path, type)).toBe(found.length > 0);
      for (const [modes, mode] of found) modes.delete(mode);
    } else {
      table.dropWatcher(watcher);
      naive.drop(watcher);
    }
    if (step % 500 === 0) expect(table.counts.watches).toBe(naive.watches());
  }
  expect(fired).toBeGreaterThan(5_000);
  for (let watcher = 0; watcher < 40; watcher += 1) table.dropWatcher(watcher);
  expect(isEmpty(table)).toBe(true);
});

test('ten thousand connections come, watch and go, and the counts return to zero', () => {
  const table = new WatchTable();
  for (let watcher = 0; watcher < 10_000; watcher += 1) {
    table.add(watcher, '/shared', 'data');
    table.add(watcher, `/own/${watcher}`, 'persistent');
    if (watcher >= 100) table.dropWatcher(watcher - 100);
  }
  expect(table.counts).toEqual({ watches: 300, paths: 101, watchers: 100 });
  expect(fire(table, nodeDataChanged, '/shared')).toHaveLength(100);
  for (let watcher = 9900; watcher < 10_000; watcher += 1) table.dropWatcher(watcher);
  expect(isEmpty(table)).toBe(true);
});
