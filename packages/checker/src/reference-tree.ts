// A deliberately naive znode tree, written from the protocol's documentation and sharing no code with the server.
// Fed with the committed requests in zxid order it predicts every result, Stat, error, sequential name and watch trigger,
// and it remembers each znode's past, so that a read can be compared with the state at its own zxid.

import { CreateFlag, ErrorCode, EventType, type Stat, zxidFrom } from '@quorate/protocol';
import type { MultiPart, MultiPartResult, OpArgs, OpResult, TxnOutcome } from './history.ts';

export type Znode = {
  readonly data: string | null;
  readonly czxid: bigint;
  readonly mzxid: bigint;
  readonly pzxid: bigint;
  readonly ctime: number;
  readonly mtime: number;
  readonly version: number;
  readonly aversion: number;
  /** Children ever created. */
  readonly creations: number;
  /** Session id of an ephemeral's owner, else 0n. */
  readonly owner: bigint;
  readonly children: readonly string[];
};

/** One thing that fires watches; `step` orders the triggers of one change (zookeeper-semantics 4.3). */
export type Trigger = { readonly table: 'data' | 'child'; readonly event: number; readonly path: string };

export type Prediction = {
  readonly code: number;
  readonly result: OpResult | null;
  readonly triggers: readonly Trigger[];
};

const CONTAINER_OWNER = -(1n << 63n);

type Version = { readonly zxid: bigint; readonly znode: Znode | null };

export function parentOf(path: string): string {
  const cut = path.lastIndexOf('/');
  return cut <= 0 ? '/' : path.slice(0, cut);
}

function nameOf(path: string): string {
  return path.slice(path.lastIndexOf('/') + 1);
}

function freshZnode(zxid: bigint, timeMs: number, data: string | null, owner: bigint): Znode {
  return {
    data,
    czxid: zxid,
    mzxid: zxid,
    pzxid: zxid,
    ctime: timeMs,
    mtime: timeMs,
    version: 0,
    aversion: 0,
    creations: 0,
    owner,
    children: [],
  };
}

export function statOf(znode: Znode): Stat {
  return {
    czxid: zxidFrom(znode.czxid),
    mzxid: zxidFrom(znode.mzxid),
    ctime: znode.ctime,
    mtime: znode.mtime,
    version: znode.version,
    cversion: 2 * znode.creations - znode.children.length,
    aversion: znode.aversion,
    ephemeralOwner: znode.owner === CONTAINER_OWNER ? 0n : znode.owner,
    dataLength: znode.data?.length ?? 0,
    numChildren: znode.children.length,
    pzxid: zxidFrom(znode.pzxid),
  };
}

type Step = { code: number; path?: string; znode?: Znode; triggers: Trigger[] };

export class ReferenceTree {
  readonly #past = new Map<string, Version[]>();
  readonly #sessions = new Map<bigint, 'open' | 'closed'>();
  /** Changes of the txn being applied; thrown away when a multi fails. */
  #draft = new Map<string, Znode | null>();
  #zxid = 0n;
  #timeMs = 0;

  constructor() {
    for (const path of ['/', '/zookeeper', '/zookeeper/quota', '/zookeeper/config']) {
      this.#past.set(path, [{ zxid: 0n, znode: freshZnode(0n, 0, null, 0n) }]);
    }
    this.#link('/', ['zookeeper']);
    this.#link('/zookeeper', ['quota', 'config']);
    // ZooKeeper makes it with an ACL of its own, and that way its aversion begins below 0.
    const config = this.#now('/zookeeper/config');
    if (config !== null) this.#past.set('/zookeeper/config', [{ zxid: 0n, znode: { ...config, aversion: -1 } }]);
  }

  #link(path: string, children: readonly string[]): void {
    const znode = this.#now(path);
    if (znode !== null) this.#past.set(path, [{ zxid: 0n, znode: { ...znode, children } }]);
  }

  /** Newest committed or drafted state. */
  #now(path: string): Znode | null {
    const drafted = this.#draft.get(path);
    if (drafted !== undefined) return drafted;
    return this.#past.get(path)?.at(-1)?.znode ?? null;
  }

  /** The znode as it was right after the txn `zxid`. */
  at(zxid: bigint, path: string): Znode | null {
    const versions = this.#past.get(path);
    if (versions === undefined) return null;
    for (let i = versions.length - 1; i >= 0; i--) {
      const version = versions[i];
      if (version !== undefined && version.zxid <= zxid) return version.znode;
    }
    return null;
  }

  isOpen(session: bigint): boolean {
    return this.#sessions.get(session) === 'open';
  }

  wasEverOpened(session: bigint): boolean {
    return this.#sessions.has(session);
  }

  openSession(session: bigint): void {
    this.#sessions.set(session, 'open');
  }

  ephemeralsOf(session: bigint): string[] {
    const paths: string[] = [];
    for (const path of this.#past.keys()) if (this.#now(path)?.owner === session) paths.push(path);
    return paths;
  }

  #keepDraft(): void {
    for (const [path, znode] of this.#draft) {
      const versions = this.#past.get(path);
      if (versions === undefined) this.#past.set(path, [{ zxid: this.#zxid, znode }]);
      else versions.push({ zxid: this.#zxid, znode });
    }
    this.#draft.clear();
  }

  /** The session ends: its ephemerals go with it. `order` is the order in which the txn lists them. */
  closeSession(zxid: bigint, session: bigint, order: readonly string[]): readonly Trigger[] {
    this.#zxid = zxid;
    const triggers: Trigger[] = [];
    for (const path of order) if (this.#now(path) !== null) triggers.push(...this.#remove(path));
    this.#sessions.set(session, 'closed');
    this.#keepDraft();
    return triggers;
  }

  /** What one write request must give at this place in the order. */
  request(zxid: bigint, timeMs: number, session: bigint, kind: string, args: OpArgs): Prediction {
    this.#zxid = zxid;
    this.#timeMs = timeMs;
    if (kind === 'multi') return this.#multi(session, args.operations ?? []);
    if (!this.isOpen(session)) return { code: ErrorCode.sessionExpired, result: null, triggers: [] };
    const step = this.#one(session, { kind, ...args });
    if (step.code !== 0) {
      this.#draft.clear();
      return { code: step.code, result: null, triggers: [] };
    }
    this.#keepDraft();
    return { code: 0, result: resultOf(kind, step), triggers: step.triggers };
  }

  /** A change that no client asked for (a container that was reaped). */
  internal(zxid: bigint, timeMs: number, outcome: TxnOutcome): readonly Trigger[] {
    this.#zxid = zxid;
    this.#timeMs = timeMs;
    if (outcome.kind !== 'delete' || this.#now(outcome.path) === null) return [];
    const triggers = this.#remove(outcome.path);
    this.#keepDraft();
    return triggers;
  }

  #multi(session: bigint, parts: readonly MultiPart[]): Prediction {
    const results: MultiPartResult[] = [];
    const triggers: Trigger[] = [];
    for (const [index, part] of parts.entries()) {
      const step = this.isOpen(session) ? this.#one(session, part) : failed(ErrorCode.sessionExpired);
      if (step.code === 0) {
        results.push({ kind: part.kind, ...resultOf(part.kind, step) });
        triggers.push(...step.triggers);
        continue;
      }
      this.#draft.clear();
      const refused = parts.map((_part, at): MultiPartResult => {
        if (at < index) return { kind: 'error', code: 0 };
        return { kind: 'error', code: at === index ? step.code : ErrorCode.runtimeInconsistency };
      });
      return { code: 0, result: { results: refused }, triggers: [] };
    }
    this.#keepDraft();
    return { code: 0, result: { results }, triggers };
  }

  #one(session: bigint, part: MultiPart): Step {
    const path = part.path ?? '';
    const version = part.version ?? -1;
    switch (part.kind) {
      case 'create':
      case 'create2':
      case 'createContainer':
        return this.#create(session, path, part.data ?? null, part.flags ?? 0);
      case 'delete':
        return this.#delete(path, version);
      case 'setData': {
        const znode = this.#now(path);
        if (znode === null) return failed(ErrorCode.noNode);
        if (version !== -1 && version !== znode.version) return failed(ErrorCode.badVersion);
        const changed: Znode = {
          ...znode,
          data: part.data ?? null,
          version: znode.version + 1,
          mzxid: this.#zxid,
          mtime: this.#timeMs,
        };
        this.#draft.set(path, changed);
        return { code: 0, znode: changed, triggers: [{ table: 'data', event: EventType.nodeDataChanged, path }] };
      }
      case 'setACL': {
        const znode = this.#now(path);
        if (znode === null) return failed(ErrorCode.noNode);
        if (version !== -1 && version !== znode.aversion) return failed(ErrorCode.badVersion);
        const changed: Znode = { ...znode, aversion: znode.aversion + 1 };
        this.#draft.set(path, changed);
        return { code: 0, znode: changed, triggers: [] };
      }
      case 'check': {
        const znode = this.#now(path);
        if (znode === null) return failed(ErrorCode.noNode);
        return version !== -1 && version !== znode.version ? failed(ErrorCode.badVersion) : { code: 0, triggers: [] };
      }
      default:
        throw new RangeError(`the reference tree does not know ${part.kind}`);
    }
  }

  #create(session: bigint, requested: string, data: string | null, flags: number): Step {
    const parentPath = parentOf(requested);
    const parent = this.#now(parentPath);
    if (parent === null) return failed(ErrorCode.noNode);
    const isSequential = flags === CreateFlag.persistentSequential || flags === CreateFlag.ephemeralSequential;
    const isEphemeral = flags === CreateFlag.ephemeral || flags === CreateFlag.ephemeralSequential;
    const path = isSequential ? requested + String(parent.creations).padStart(10, '0') : requested;
    if (this.#now(path) !== null) return failed(ErrorCode.nodeExists);
    if (parent.owner !== 0n && parent.owner !== CONTAINER_OWNER) return failed(ErrorCode.noChildrenForEphemerals);
    const owner = isEphemeral ? session : flags === CreateFlag.container ? CONTAINER_OWNER : 0n;
    const znode = freshZnode(this.#zxid, this.#timeMs, data, owner);
    this.#draft.set(path, znode);
    this.#draft.set(parentPath, {
      ...parent,
      creations: parent.creations + 1,
      pzxid: this.#zxid,
      children: [...parent.children, nameOf(path)],
    });
    return {
      code: 0,
      path,
      znode,
      triggers: [
        { table: 'data', event: EventType.nodeCreated, path },
        { table: 'child', event: EventType.nodeChildrenChanged, path: parentPath },
      ],
    };
  }

  #delete(path: string, version: number): Step {
    if (path === '/') return failed(ErrorCode.badArguments);
    if (this.#now(parentOf(path)) === null) return failed(ErrorCode.noNode);
    const znode = this.#now(path);
    if (znode === null) return failed(ErrorCode.noNode);
    if (version !== -1 && version !== znode.version) return failed(ErrorCode.badVersion);
    if (znode.children.length > 0) return failed(ErrorCode.notEmpty);
    return { code: 0, triggers: this.#remove(path) };
  }

  #remove(path: string): Trigger[] {
    const parentPath = parentOf(path);
    const parent = this.#now(parentPath);
    this.#draft.set(path, null);
    if (parent !== null) {
      const name = nameOf(path);
      this.#draft.set(parentPath, {
        ...parent,
        pzxid: this.#zxid,
        children: parent.children.filter((child) => child !== name),
      });
    }
    return [
      { table: 'data', event: EventType.nodeDeleted, path },
      { table: 'child', event: EventType.nodeDeleted, path },
      { table: 'child', event: EventType.nodeChildrenChanged, path: parentPath },
    ];
  }
}

function failed(code: number): Step {
  return { code, triggers: [] };
}

function resultOf(kind: string, step: Step): { path?: string; stat?: Stat } {
  const path = step.path === undefined ? {} : { path: step.path };
  const stat = step.znode === undefined ? {} : { stat: statOf(step.znode) };
  switch (kind) {
    case 'create':
      return path;
    case 'create2':
    case 'createContainer':
      return { ...path, ...stat };
    case 'setData':
    case 'setACL':
      return stat;
    default:
      return {};
  }
}
