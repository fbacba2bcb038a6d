// What the leader has prepared and not yet applied, as data: the newest state per path, ephemerals per session, and per
// txn what it touched, so that applying it or giving it up costs as much as the txn, not as much as the queue.
// It never looks at the tree and never calls back.

import type { Acl, SessionId } from '@quorate/protocol';
import { assert } from '@quorate/protocol/assert';
import type { SessionTable } from './sessions.ts';

/** A znode as it will be: absolute. Immutable; a further change makes a further record. */
export type ChangeRecord = {
  readonly path: string;
  /** False: it will be gone. */
  readonly exists: boolean;
  readonly version: number;
  readonly aversion: number;
  /** Stored cversion: the sequence counter. */
  readonly cversion: number;
  readonly childCount: number;
  /** As stored (owner.ts). */
  readonly owner: bigint;
  readonly isEphemeral: boolean;
  readonly acl: readonly Acl[];
};

type Undo = { readonly path: string; readonly before: ChangeRecord | undefined };

type Prepared = {
  readonly records: ChangeRecord[];
  /** Ephemerals this txn creates, with their session. */
  readonly ephemerals: { readonly sessionId: SessionId; readonly path: string }[];
  sessionCreated: SessionId | null;
};

export class Outstanding {
  readonly #sessions: SessionTable;
  readonly #newest = new Map<string, ChangeRecord>();
  /** Paths of ephemerals to be created, in order, with the number of outstanding creates of each. */
  readonly #ephemerals = new Map<SessionId, Map<string, number>>();
  readonly #sessionsCreated = new Set<SessionId>();
  #queue: Prepared[] = [];
  #head = 0;
  #open: Prepared | null = null;
  #undo: Undo[] = [];

  /** `sessions`: its closing flags are decisions of the same kind, so they go with clear. */
  constructor(sessions: SessionTable) {
    this.#sessions = sessions;
  }

  /** Txns prepared and not yet applied. */
  get count(): number {
    return this.#queue.length - this.#head;
  }

  newest(path: string): ChangeRecord | undefined {
    return this.#newest.get(path);
  }

  isSessionToBeCreated(id: SessionId): boolean {
    return this.#sessionsCreated.has(id);
  }

  /** Paths of ephemerals that outstanding txns create for the session, in order; some may be deleted again by later ones. */
  ephemeralsOf(id: SessionId): Iterable<string> {
    return this.#ephemerals.get(id)?.keys() ?? [];
  }

  /** Every txn is prepared between begin and end, error txns too. */
  begin(): void {
    assert(this.#open === null, 'one txn is prepared at a time');
    this.#open = { records: [], ephemerals: [], sessionCreated: null };
    this.#undo = [];
  }

  end(): void {
    const prepared = this.#opened();
    this.#queue.push(prepared);
    this.#open = null;
    this.#undo = [];
  }

  put(record: ChangeRecord): void {
    const prepared = this.#opened();
    this.#undo.push({ path: record.path, before: this.#newest.get(record.path) });
    this.#newest.set(record.path, record);
    prepared.records.push(record);
  }

  putEphemeral(sessionId: SessionId, path: string): void {
    this.#opened().ephemerals.push({ sessionId, path });
    let paths = this.#ephemerals.get(sessionId);
    if (paths === undefined) {
      paths = new Map();
      this.#ephemerals.set(sessionId, paths);
    }
    const count = paths.get(path) ?? 0;
    // Created again: it now stands where its latest creation stands.
    paths.delete(path);
    paths.set(path, count + 1);
  }

  putSession(id: SessionId): void {
    this.#opened().sessionCreated = id;
    this.#sessionsCreated.add(id);
  }

  /** Undoes every put since begin: the newest records are what they were, parents' too (ZOOKEEPER-1624). */
  rollback(): void {
    const prepared = this.#opened();
    for (let index = this.#undo.length - 1; index >= 0; index -= 1) {
      const undo = this.#undo[index];
      if (undo === undefined) continue;
      if (undo.before === undefined) this.#newest.delete(undo.path);
      else this.#newest.set(undo.path, undo.before);
    }
    this.#undo = [];
    for (const { sessionId, path } of prepared.ephemerals) this.#dropEphemeral(sessionId, path);
    prepared.records.length = 0;
    prepared.ephemerals.length = 0;
  }

  /** The oldest `count` prepared txns are applied: the tree has what they changed. */
  settle(count = 1): void {
    assert(count <= this.count, 'only prepared txns are settled', count);
    for (let settled = 0; settled < count; settled += 1) {
      const prepared = this.#queue[this.#head];
      assert(prepared !== undefined, 'a counted txn is in the queue');
      this.#head += 1;
      for (const record of prepared.records) {
        if (this.#newest.get(record.path) === record) this.#newest.delete(record.path);
      }
      for (const { sessionId, path } of prepared.ephemerals) this.#dropEphemeral(sessionId, path);
      if (prepared.sessionCreated !== null) this.#sessionsCreated.delete(prepared.sessionCreated);
    }
    // Give the front of the array back now and then: each txn is moved less than once on average.
    if (this.#head > 64 && this.#head * 2 >= this.#queue.length) {
      this.#queue = this.#queue.slice(this.#head);
      this.#head = 0;
    }
  }

  /** Leadership is lost: none of this was decided by anybody else. */
  clear(): void {
    assert(this.#open === null, 'leadership is not lost in the middle of preparing');
    this.#newest.clear();
    this.#ephemerals.clear();
    this.#sessionsCreated.clear();
    this.#queue = [];
    this.#head = 0;
    this.#sessions.clearClosing();
  }

  #opened(): Prepared {
    assert(this.#open !== null, 'changes are put while a txn is prepared');
    return this.#open;
  }

  #dropEphemeral(sessionId: SessionId, path: string): void {
    const paths = this.#ephemerals.get(sessionId);
    const count = paths?.get(path);
    assert(paths !== undefined && count !== undefined, 'a prepared ephemeral is counted once');
    if (count > 1) paths.set(path, count - 1);
    else paths.delete(path);
    if (paths.size === 0) this.#ephemerals.delete(sessionId);
  }
}
