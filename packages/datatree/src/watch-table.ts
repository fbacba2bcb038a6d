// Who watches what on this server: ZooKeeper's two watch managers in one table. Watchers are connection numbers; an entry
// is one (watcher, path) pair with its modes, linked into the path's list and the watcher's list, all in typed arrays.
// It is local, never replicated, and knows no ACL: whoever delivers checks READ, and a denied event counts as fired.

import { EventType, WatcherType } from '@quorate/protocol';
import { assert } from '@quorate/protocol/assert';

export type WatchKind = 'data' | 'child' | 'persistent' | 'persistentRecursive';
export type DeliverEvent = (watcher: number, type: EventType, path: string) => void;
export type WatchCounts = {
  /** Entries of both managers together, as ZooKeeper's watch_count: a persistent watch stands in both. */
  readonly watches: number;
  readonly paths: number;
  readonly watchers: number;
};

// Modes of an entry. STANDARD watches are one-shot; PERSISTENT stands in both managers, RECURSIVE in the data manager.
const DATA = 1;
const CHILD = 2;
const PERSISTENT = 4;
const RECURSIVE = 8;

const MODE_OF_KIND = { data: DATA, child: CHILD, persistent: PERSISTENT, persistentRecursive: RECURSIVE } as const;

const NONE = -1;

// Fields of an entry.
const ENTRY = 7;
const PATH = 0;
const WATCHER = 1;
const MODES = 2;
const PATH_NEXT = 3;
const PATH_PREV = 4;
const WATCHER_NEXT = 5;
const WATCHER_PREV = 6;

// Fields of a path. In registration order, so that every run fires in the same order.
const PATHS = 3;
const FIRST = 0;
const LAST = 1;
const RECURSIVE_COUNT = 2;

// Fields of a watcher.
const WATCHERS = 2;
const OWN_FIRST = 0;
const STAMP = 1;

/** Rows of int32 fields with a free list through the first field; grows by half, in place of one object per row. */
class Rows {
  readonly #width: number;
  fields: Int32Array;
  #count = 0;
  #free = NONE;
  #live = 0;

  constructor(width: number) {
    this.#width = width;
    this.fields = new Int32Array(width * 64);
  }

  get live(): number {
    return this.#live;
  }

  add(): number {
    this.#live += 1;
    if (this.#free !== NONE) {
      const row = this.#free;
      this.#free = this.fields[row * this.#width] ?? NONE;
      return row;
    }
    const row = this.#count;
    this.#count += 1;
    if (this.#count * this.#width > this.fields.length) {
      const grown = new Int32Array(Math.ceil((this.fields.length * 1.5) / this.#width) * this.#width);
      grown.set(this.fields);
      this.fields = grown;
    }
    return row;
  }

  remove(row: number): void {
    this.#live -= 1;
    this.fields[row * this.#width] = this.#free;
    this.#free = row;
  }
}

/** (watcher, path) -> entry: open addressing with linear probing; deletion moves later entries up, so no tombstones. */
class PairIndex {
  readonly #rows: Rows;
  #slots = new Int32Array(128).fill(NONE);
  #count = 0;

  constructor(rows: Rows) {
    this.#rows = rows;
  }

  find(watcher: number, path: number): number {
    const mask = this.#slots.length - 1;
    for (let at = hash(watcher, path) & mask; ; at = (at + 1) & mask) {
      const row = this.#slots[at] ?? NONE;
      if (row === NONE) return NONE;
      const base = row * ENTRY;
      if (this.#rows.fields[base + PATH] === path && this.#rows.fields[base + WATCHER] === watcher) return row;
    }
  }

  insert(row: number): void {
    this.#count += 1;
    if (this.#count * 4 > this.#slots.length * 3) this.#grow();
    this.#place(this.#slots, row);
  }

  delete(row: number): void {
    const slots = this.#slots;
    const mask = slots.length - 1;
    let hole = this.#home(row) & mask;
    while (slots[hole] !== row) {
      assert(slots[hole] !== NONE, 'an entry stands in the index');
      hole = (hole + 1) & mask;
    }
    this.#count -= 1;
    for (let at = (hole + 1) & mask; ; at = (at + 1) & mask) {
      const next = slots[at] ?? NONE;
      if (next === NONE) break;
      // It may move up when its home is not between the hole and where it stands.
      const home = this.#home(next) & mask;
      if (((at - home) & mask) >= ((at - hole) & mask)) {
        slots[hole] = next;
        hole = at;
      }
    }
    slots[hole] = NONE;
  }

  #home(row: number): number {
    const base = row * ENTRY;
    return hash(this.#rows.fields[base + WATCHER] ?? 0, this.#rows.fields[base + PATH] ?? 0);
  }

  #place(slots: Int32Array, row: number): void {
    const mask = slots.length - 1;
    let at = this.#home(row) & mask;
    while (slots[at] !== NONE) at = (at + 1) & mask;
    slots[at] = row;
  }

  #grow(): void {
    const grown = new Int32Array(this.#slots.length * 2).fill(NONE);
    for (const row of this.#slots) if (row !== NONE) this.#place(grown, row);
    this.#slots = grown;
  }
}

function hash(watcher: number, path: number): number {
  let value = Math.imul(watcher, 0x9e3779b1) ^ Math.imul(path, 0x85ebca6b);
  value = Math.imul(value ^ (value >>> 15), 0xc2b2ae35);
  return value ^ (value >>> 13);
}

export class WatchTable {
  readonly #entries = new Rows(ENTRY);
  readonly #paths = new Rows(PATHS);
  readonly #watchers = new Rows(WATCHERS);
  readonly #index = new PairIndex(this.#entries);
  readonly #pathRows = new Map<string, number>();
  readonly #pathNames: string[] = [];
  readonly #watcherRows = new Map<number, number>();
  #stamp = 0;
  #recursiveCount = 0;
  #dataCount = 0;
  #childCount = 0;

  /** Both managers together. */
  get counts(): WatchCounts {
    return {
      watches: this.#dataCount + this.#childCount,
      paths: this.#pathRows.size,
      watchers: this.#watcherRows.size,
    };
  }

  /** Registers; modes on one path coexist (ZOOKEEPER-4466), the same one twice is one. */
  add(watcher: number, path: string, kind: WatchKind): void {
    const pathRow = this.#pathRow(path);
    let entry = this.#index.find(watcher, pathRow);
    if (entry === NONE) entry = this.#link(watcher, pathRow);
    const at = entry * ENTRY + MODES;
    const before = this.#entries.fields[at] ?? 0;
    this.#setModes(entry, before, before | MODE_OF_KIND[kind]);
  }

  /** Fires one event in ZooKeeper's order: a deletion reaches the data manager, then whoever of the child manager has not had it. */
  trigger(event: { readonly type: EventType; readonly path: string }, deliver: DeliverEvent): void {
    if (this.#entries.live === 0) return;
    this.#stamp = (this.#stamp + 1) | 0;
    const { type, path } = event;
    const row = this.#pathRows.get(path) ?? NONE;
    if (type === EventType.nodeChildrenChanged) {
      if (row !== NONE) this.#fire(row, CHILD, PERSISTENT, type, path, deliver);
      return;
    }
    if (row !== NONE) this.#fire(row, DATA, PERSISTENT | RECURSIVE, type, path, deliver);
    if (this.#recursiveCount > 0) this.#fireAncestors(type, path, deliver);
    if (type !== EventType.nodeDeleted) return;
    // Firing may have taken the path's last watch.
    const rest = this.#pathRows.get(path) ?? NONE;
    if (rest !== NONE) this.#fire(rest, CHILD, PERSISTENT, type, path, deliver);
  }

  /** removeWatches: false when there was nothing of that kind. */
  remove(watcher: number, path: string, watcherType: number): boolean {
    const entry = this.#find(watcher, path);
    if (entry === NONE) return false;
    const before = this.#entries.fields[entry * ENTRY + MODES] ?? 0;
    const wanted = modesOfType(watcherType);
    if ((before & wanted) === 0) return false;
    this.#setModes(entry, before, before & ~wanted);
    return true;
  }

  /** checkWatches. */
  has(watcher: number, path: string, watcherType: number): boolean {
    const entry = this.#find(watcher, path);
    return entry !== NONE && ((this.#entries.fields[entry * ENTRY + MODES] ?? 0) & modesOfType(watcherType)) !== 0;
  }

  /** A connection is gone: everything it watched, in time proportional to that. */
  dropWatcher(watcher: number): void {
    for (let row = this.#watcherRows.get(watcher); row !== undefined; row = this.#watcherRows.get(watcher)) {
      const entry = this.#watchers.fields[row * WATCHERS + OWN_FIRST] ?? NONE;
      assert(entry !== NONE, 'a known watcher watches something');
      this.#setModes(entry, this.#entries.fields[entry * ENTRY + MODES] ?? 0, 0);
    }
  }

  /** Watched paths, each once. */
  watchedPaths(): Iterable<string> {
    return this.#pathRows.keys();
  }

  /** Watchers that watch something, each once. */
  watchers(): Iterable<number> {
    return this.#watcherRows.keys();
  }

  *watchersOf(path: string): Iterable<number> {
    const row = this.#pathRows.get(path);
    if (row === undefined) return;
    for (let entry = this.#paths.fields[row * PATHS + FIRST] ?? NONE; entry !== NONE; ) {
      yield this.#entries.fields[entry * ENTRY + WATCHER] ?? NONE;
      entry = this.#entries.fields[entry * ENTRY + PATH_NEXT] ?? NONE;
    }
  }

  *pathsOf(watcher: number): Iterable<string> {
    const row = this.#watcherRows.get(watcher);
    if (row === undefined) return;
    for (let entry = this.#watchers.fields[row * WATCHERS + OWN_FIRST] ?? NONE; entry !== NONE; ) {
      yield this.#pathNames[this.#entries.fields[entry * ENTRY + PATH] ?? NONE] ?? '';
      entry = this.#entries.fields[entry * ENTRY + WATCHER_NEXT] ?? NONE;
    }
  }

  #fire(row: number, oneShot: number, lasting: number, type: EventType, path: string, deliver: DeliverEvent): void {
    let entry = this.#paths.fields[row * PATHS + FIRST] ?? NONE;
    while (entry !== NONE) {
      // Before anything is delivered or taken away: rows may move when the table grows.
      const base = entry * ENTRY;
      const next = this.#entries.fields[base + PATH_NEXT] ?? NONE;
      const modes = this.#entries.fields[base + MODES] ?? 0;
      if ((modes & (oneShot | lasting)) !== 0) {
        const watcher = this.#entries.fields[base + WATCHER] ?? NONE;
        const isFirst = this.#mark(watcher);
        if ((modes & oneShot) !== 0) this.#setModes(entry, modes, modes & ~oneShot);
        if (isFirst) deliver(watcher, type, path);
      }
      entry = next;
    }
  }

  #fireAncestors(type: EventType, path: string, deliver: DeliverEvent): void {
    let cut = path.length > 1 ? path.lastIndexOf('/') : NONE;
    while (cut >= 0) {
      const row = this.#pathRows.get(cut === 0 ? '/' : path.slice(0, cut)) ?? NONE;
      if (row !== NONE && (this.#paths.fields[row * PATHS + RECURSIVE_COUNT] ?? 0) > 0) {
        this.#fire(row, 0, RECURSIVE, type, path, deliver);
      }
      cut = cut === 0 ? NONE : path.lastIndexOf('/', cut - 1);
    }
  }

  /** True for the first mark of this trigger: one event per watcher, however many of its watches match. */
  #mark(watcher: number): boolean {
    const row = this.#watcherRows.get(watcher);
    assert(row !== undefined, 'who has an entry is known');
    const at = row * WATCHERS + STAMP;
    if (this.#watchers.fields[at] === this.#stamp) return false;
    this.#watchers.fields[at] = this.#stamp;
    return true;
  }

  #find(watcher: number, path: string): number {
    const row = this.#pathRows.get(path);
    return row === undefined ? NONE : this.#index.find(watcher, row);
  }

  #pathRow(path: string): number {
    const known = this.#pathRows.get(path);
    if (known !== undefined) return known;
    const row = this.#paths.add();
    this.#paths.fields.set([NONE, NONE, 0], row * PATHS);
    this.#pathRows.set(path, row);
    this.#pathNames[row] = path;
    return row;
  }

  #watcherRow(watcher: number): number {
    const known = this.#watcherRows.get(watcher);
    if (known !== undefined) return known;
    const row = this.#watchers.add();
    this.#watchers.fields.set([NONE, this.#stamp - 1], row * WATCHERS);
    this.#watcherRows.set(watcher, row);
    return row;
  }

  #link(watcher: number, pathRow: number): number {
    const entry = this.#entries.add();
    const watcherRow = this.#watcherRow(watcher);
    const entries = this.#entries.fields;
    const base = entry * ENTRY;
    const last = this.#paths.fields[pathRow * PATHS + LAST] ?? NONE;
    const first = this.#watchers.fields[watcherRow * WATCHERS + OWN_FIRST] ?? NONE;
    entries[base + PATH] = pathRow;
    entries[base + WATCHER] = watcher;
    entries[base + MODES] = 0;
    entries[base + PATH_NEXT] = NONE;
    entries[base + PATH_PREV] = last;
    entries[base + WATCHER_NEXT] = first;
    entries[base + WATCHER_PREV] = NONE;
    if (last === NONE) this.#paths.fields[pathRow * PATHS + FIRST] = entry;
    else entries[last * ENTRY + PATH_NEXT] = entry;
    this.#paths.fields[pathRow * PATHS + LAST] = entry;
    if (first !== NONE) entries[first * ENTRY + WATCHER_PREV] = entry;
    this.#watchers.fields[watcherRow * WATCHERS + OWN_FIRST] = entry;
    this.#index.insert(entry);
    return entry;
  }

  /** The one place where modes change: counts follow, and an entry without modes goes, with its path and watcher if it was their last. */
  #setModes(entry: number, before: number, after: number): void {
    const base = entry * ENTRY;
    this.#entries.fields[base + MODES] = after;
    this.#dataCount += inDataManager(after) - inDataManager(before);
    this.#childCount += inChildManager(after) - inChildManager(before);
    const recursive = (after & RECURSIVE) - (before & RECURSIVE);
    if (recursive !== 0) {
      const step = recursive > 0 ? 1 : -1;
      this.#recursiveCount += step;
      const at = (this.#entries.fields[base + PATH] ?? 0) * PATHS + RECURSIVE_COUNT;
      this.#paths.fields[at] = (this.#paths.fields[at] ?? 0) + step;
    }
    if (after === 0) this.#unlink(entry);
  }

  #unlink(entry: number): void {
    this.#index.delete(entry);
    const entries = this.#entries.fields;
    const base = entry * ENTRY;
    const pathRow = entries[base + PATH] ?? NONE;
    const watcher = entries[base + WATCHER] ?? NONE;
    const pathNext = entries[base + PATH_NEXT] ?? NONE;
    const pathPrev = entries[base + PATH_PREV] ?? NONE;
    const ownNext = entries[base + WATCHER_NEXT] ?? NONE;
    const ownPrev = entries[base + WATCHER_PREV] ?? NONE;
    if (pathPrev === NONE) this.#paths.fields[pathRow * PATHS + FIRST] = pathNext;
    else entries[pathPrev * ENTRY + PATH_NEXT] = pathNext;
    if (pathNext === NONE) this.#paths.fields[pathRow * PATHS + LAST] = pathPrev;
    else entries[pathNext * ENTRY + PATH_PREV] = pathPrev;
    if (ownNext !== NONE) entries[ownNext * ENTRY + WATCHER_PREV] = ownPrev;
    if (ownPrev !== NONE) {
      entries[ownPrev * ENTRY + WATCHER_NEXT] = ownNext;
    } else {
      const watcherRow = this.#watcherRows.get(watcher);
      assert(watcherRow !== undefined, 'who has an entry is known');
      this.#watchers.fields[watcherRow * WATCHERS + OWN_FIRST] = ownNext;
      if (ownNext === NONE) this.#retireWatcher(watcher, watcherRow);
    }
    this.#entries.remove(entry);
    if (pathPrev === NONE && pathNext === NONE) this.#retirePath(pathRow);
  }

  #retirePath(row: number): void {
    this.#pathRows.delete(this.#pathNames[row] ?? '');
    this.#pathNames[row] = '';
    this.#paths.remove(row);
  }

  #retireWatcher(watcher: number, row: number): void {
    this.#watcherRows.delete(watcher);
    this.#watchers.remove(row);
  }
}

function inDataManager(modes: number): number {
  return (modes & (DATA | PERSISTENT | RECURSIVE)) === 0 ? 0 : 1;
}

function inChildManager(modes: number): number {
  return (modes & (CHILD | PERSISTENT)) === 0 ? 0 : 1;
}

function modesOfType(watcherType: number): number {
  switch (watcherType) {
    case WatcherType.children:
      return CHILD;
    case WatcherType.data:
      return DATA;
    case WatcherType.any:
      return DATA | CHILD | PERSISTENT | RECURSIVE;
    case WatcherType.persistent:
      return PERSISTENT;
    case WatcherType.persistentRecursive:
      return RECURSIVE;
    default:
      return 0;
  }
}
