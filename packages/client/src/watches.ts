// What this client has asked to be told of: one-shot watches per path and persistent watches as bounded event streams.
// The tables are keyed by the server's paths (chroot included) and live as long as the session, so that they can be armed
// again on another connection. They send nothing themselves.

import { parentOf, type SetWatchesRequest, type Zxid } from '@quorate/protocol';
import { WatchOverflowError } from './errors.ts';
import type { SessionState } from './session.ts';

export type ZnodeEventKind = 'nodeCreated' | 'nodeDeleted' | 'nodeDataChanged' | 'nodeChildrenChanged';
export type ZnodeEvent = {
  readonly kind: ZnodeEventKind;
  readonly path: string;
  /** The txn that caused it; null where the server does not say (before 3.9.0, and for what a reconnect caught up with). */
  readonly zxid: Zxid | null;
};
/** Somebody removed the watch by removeWatches: nothing more will be told. */
export type WatchRemovedEvent = { readonly kind: 'watchRemoved'; readonly path: string };
export type SessionEvent = { readonly kind: 'session'; readonly state: SessionState; readonly isReadOnly: boolean };
export type WatchedEvent = ZnodeEvent | WatchRemovedEvent | SessionEvent;
export type Watcher = (event: WatchedEvent) => void;

export type OneShotKind = 'data' | 'exist' | 'child';

/** A persistent watch: an endless iteration that ends when it is closed and throws when it can no longer tell the truth. */
export type PersistentWatch = AsyncIterableIterator<WatchedEvent> &
  AsyncDisposable & {
    readonly path: string;
    readonly isRecursive: boolean;
    /** Ends the iteration and removes the watch from the server, if no other one of this client needs it. */
    close(): Promise<void>;
  };

/** Path text per setWatches frame, as in ZooKeeper's ClientCnxn: far below any frame limit. */
const REARM_FRAME_BYTES_MAX = 128 * 1024;

type Reader = {
  readonly resolve: (result: IteratorResult<WatchedEvent>) => void;
  readonly reject: (error: unknown) => void;
};

export class WatchStream implements PersistentWatch {
  readonly path: string;
  readonly serverPath: string;
  readonly isRecursive: boolean;
  readonly #eventsMax: number;
  readonly #release: (stream: WatchStream) => Promise<void>;
  readonly #events: WatchedEvent[] = [];
  readonly #readers: Reader[] = [];
  #isArmed = false;
  #end: { readonly error: unknown } | undefined;

  constructor(
    path: string,
    serverPath: string,
    isRecursive: boolean,
    eventsMax: number,
    release: (stream: WatchStream) => Promise<void>,
  ) {
    this.path = path;
    this.serverPath = serverPath;
    this.isRecursive = isRecursive;
    this.#eventsMax = eventsMax;
    this.#release = release;
  }

  /** The server has answered: what it tells from here on belongs to this watch. */
  arm(): void {
    this.#isArmed = true;
  }

  get isArmed(): boolean {
    return this.#isArmed;
  }

  /** Answers false when the buffer is full: the stream has ended itself and must leave the tables. */
  push(event: WatchedEvent): boolean {
    if (!this.#isArmed || this.#end !== undefined) return true;
    const reader = this.#readers.shift();
    if (reader !== undefined) {
      reader.resolve({ done: false, value: event });
      return true;
    }
    if (this.#events.length >= this.#eventsMax) {
      this.end(new WatchOverflowError(this.path, this.#eventsMax));
      return false;
    }
    this.#events.push(event);
    return true;
  }

  /** No more events. With an error, readers get it once, after all events that came before. */
  end(error?: unknown): void {
    if (this.#end !== undefined) return;
    this.#end = { error };
    const readers = this.#readers.splice(0);
    const first = readers.shift();
    if (first !== undefined && error !== undefined) {
      first.reject(error);
      this.#end = { error: undefined };
    } else {
      first?.resolve({ done: true, value: undefined });
    }
    for (const reader of readers) reader.resolve({ done: true, value: undefined });
  }

  next(): Promise<IteratorResult<WatchedEvent>> {
    const event = this.#events.shift();
    if (event !== undefined) return Promise.resolve({ done: false, value: event });
    if (this.#end !== undefined) {
      const { error } = this.#end;
      this.#end = { error: undefined };
      return error === undefined ? Promise.resolve({ done: true, value: undefined }) : Promise.reject(error);
    }
    return new Promise((resolve, reject) => {
      this.#readers.push({ resolve, reject });
    });
  }

  async return(): Promise<IteratorResult<WatchedEvent>> {
    await this.close();
    return { done: true, value: undefined };
  }

  async close(): Promise<void> {
    this.#events.length = 0;
    this.end();
    this.#end = { error: undefined };
    await this.#release(this);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  [Symbol.asyncIterator](): this {
    return this;
  }
}

export class WatchTables {
  readonly #oneShot: Record<OneShotKind, Map<string, Set<Watcher>>> = {
    data: new Map(),
    exist: new Map(),
    child: new Map(),
  };
  readonly #persistent = new Map<string, Set<WatchStream>>();
  readonly #recursive = new Map<string, Set<WatchStream>>();
  readonly #toUserPath: (serverPath: string) => string;
  /** Called with a stream that overflowed, when it has left the tables. */
  readonly #onOverflow: (stream: WatchStream) => void;

  constructor(toUserPath: (serverPath: string) => string, onOverflow: (stream: WatchStream) => void) {
    this.#toUserPath = toUserPath;
    this.#onOverflow = onOverflow;
  }

  addOneShot(kind: OneShotKind, serverPath: string, watcher: Watcher): void {
    addTo(this.#oneShot[kind], serverPath, watcher);
  }

  addStream(stream: WatchStream): void {
    addTo(this.#tableOf(stream), stream.serverPath, stream);
  }

  /** Answers true when it was the last one of its kind on its path: the server's entry is not needed any more. */
  deleteStream(stream: WatchStream): boolean {
    const table = this.#tableOf(stream);
    const streams = table.get(stream.serverPath);
    if (streams?.delete(stream) !== true) return false;
    if (streams.size > 0) return false;
    table.delete(stream.serverPath);
    return true;
  }

  /** Tells everybody who asked. A one-shot watch is used up by it, as on the server. */
  fire(kind: ZnodeEventKind, serverPath: string, zxid: Zxid | null): void {
    const event: ZnodeEvent = { kind, path: this.#toUserPath(serverPath), zxid };
    const watchers = new Set<Watcher>();
    if (kind === 'nodeChildrenChanged') {
      takeAll(this.#oneShot.child, serverPath, watchers);
    } else {
      takeAll(this.#oneShot.data, serverPath, watchers);
      takeAll(this.#oneShot.exist, serverPath, watchers);
      if (kind === 'nodeDeleted') takeAll(this.#oneShot.child, serverPath, watchers);
    }
    for (const watcher of watchers) deliver(watcher, event);
    this.#pushAll(this.#persistent.get(serverPath), event);
    // The server never sends nodeChildrenChanged for a recursive watch (ZOOKEEPER-4475).
    if (kind !== 'nodeChildrenChanged' && this.#recursive.size > 0) {
      for (let path = serverPath; ; path = parentOf(path)) {
        this.#pushAll(this.#recursive.get(path), event);
        if (path === '/') break;
      }
    }
  }

  /** Streams are told of every change of the session: a gap in the connection may be a gap in the events. */
  tellStreams(event: SessionEvent): void {
    for (const stream of this.#streams()) this.#push(stream, event);
  }

  /** The session is over: every watcher hears it once, every stream ends. An error is what the streams throw. */
  endAll(event: SessionEvent, error: unknown): void {
    const watchers = new Set<Watcher>();
    for (const table of Object.values(this.#oneShot)) {
      for (const set of table.values()) for (const watcher of set) watchers.add(watcher);
      table.clear();
    }
    for (const watcher of watchers) deliver(watcher, event);
    for (const stream of this.#streams()) stream.end(error);
    this.#persistent.clear();
    this.#recursive.clear();
  }

  /** The server has removed watches of this client on this path; `kind` says which. */
  remove(kind: RemoveWatchesKind, serverPath: string): void {
    const event: WatchRemovedEvent = { kind: 'watchRemoved', path: this.#toUserPath(serverPath) };
    const watchers = new Set<Watcher>();
    if (kind === 'data' || kind === 'any') {
      takeAll(this.#oneShot.data, serverPath, watchers);
      takeAll(this.#oneShot.exist, serverPath, watchers);
    }
    if (kind === 'children' || kind === 'any') takeAll(this.#oneShot.child, serverPath, watchers);
    for (const watcher of watchers) deliver(watcher, event);
    for (const table of [this.#persistent, this.#recursive]) {
      const isMeant = kind === 'any' || (kind === 'persistent') === (table === this.#persistent);
      if (!isMeant || kind === 'data' || kind === 'children') continue;
      for (const stream of table.get(serverPath) ?? []) stream.end();
      table.delete(serverPath);
    }
  }

  /** The requests that arm everything again on a new connection, each below the limit of path text. */
  rearmRequests(relativeZxid: Zxid): SetWatchesRequest[] {
    const requests: SetWatchesRequest[] = [];
    let lists = emptyLists();
    let bytes = 0;
    const flush = (): void => {
      if (bytes === 0) return;
      const needsPersistent = lists.persistentWatches.length + lists.persistentRecursiveWatches.length > 0;
      requests.push({ kind: needsPersistent ? 'setWatches2' : 'setWatches', relativeZxid, ...lists });
      lists = emptyLists();
      bytes = 0;
    };
    const add = (list: keyof typeof lists, path: string): void => {
      const pathBytes = Buffer.byteLength(path) + 4;
      if (bytes + pathBytes > REARM_FRAME_BYTES_MAX) flush();
      lists[list].push(path);
      bytes += pathBytes;
    };
    for (const path of this.#oneShot.data.keys()) add('dataWatches', path);
    for (const path of this.#oneShot.exist.keys()) add('existWatches', path);
    for (const path of this.#oneShot.child.keys()) add('childWatches', path);
    for (const path of armedPaths(this.#persistent)) add('persistentWatches', path);
    for (const path of armedPaths(this.#recursive)) add('persistentRecursiveWatches', path);
    flush();
    return requests;
  }

  #tableOf(stream: WatchStream): Map<string, Set<WatchStream>> {
    return stream.isRecursive ? this.#recursive : this.#persistent;
  }

  *#streams(): Generator<WatchStream> {
    for (const table of [this.#persistent, this.#recursive]) {
      for (const streams of table.values()) yield* streams;
    }
  }

  #pushAll(streams: ReadonlySet<WatchStream> | undefined, event: WatchedEvent): void {
    if (streams !== undefined) for (const stream of streams) this.#push(stream, event);
  }

  #push(stream: WatchStream, event: WatchedEvent): void {
    if (!stream.push(event)) this.#onOverflow(stream);
  }
}

export type RemoveWatchesKind = 'children' | 'data' | 'any' | 'persistent' | 'persistentRecursive';

/**
 * Runs the watcher as a microtask: after the continuations of replies that came before, before those of replies that come after.
 * So callers see events and results in the order of the wire. What a watcher throws is an uncaught exception, never our trouble.
 */
export function deliver(watcher: Watcher, event: WatchedEvent): void {
  queueMicrotask(() => watcher(event));
}

function emptyLists() {
  return {
    dataWatches: [] as string[],
    existWatches: [] as string[],
    childWatches: [] as string[],
    persistentWatches: [] as string[],
    persistentRecursiveWatches: [] as string[],
  };
}

function* armedPaths(table: ReadonlyMap<string, ReadonlySet<WatchStream>>): Generator<string> {
  for (const [path, streams] of table) {
    for (const stream of streams) {
      if (!stream.isArmed) continue;
      yield path;
      break;
    }
  }
}

function addTo<T>(table: Map<string, Set<T>>, path: string, item: T): void {
  const set = table.get(path);
  if (set === undefined) table.set(path, new Set([item]));
  else set.add(item);
}

function takeAll<T>(table: Map<string, Set<T>>, path: string, into: Set<T>): void {
  const set = table.get(path);
  if (set === undefined) return;
  table.delete(path);
  for (const item of set) into.add(item);
}
