// For tests only: a leader that is alone, so that a request can be prepared, encoded, decoded and applied in one line.

import {
  type Acl,
  CreateFlag,
  type Id,
  type Mutations,
  Perms,
  type SessionId,
  sessionIdFrom,
  type WriteRequest,
  type Zxid,
  zxidFrom,
} from '@quorate/protocol';
import {
  type ApplyResult,
  type Asker,
  DataTree,
  type DataTreeOptions,
  decodeTxn,
  encodeTxn,
  type InternalRequest,
  Outstanding,
  prepare,
  type TreeEvent,
  type Txn,
} from './index.ts';

export const OPEN: readonly Acl[] = [{ perms: Perms.ALL, id: { scheme: 'world', id: 'anyone' } }];
export const ALICE: Id = { scheme: 'digest', id: 'alice:hash' };
export const BOB: Id = { scheme: 'digest', id: 'bob:hash' };

export function aclFor(id: Id, perms: number = Perms.ALL): readonly Acl[] {
  return [{ perms, id }];
}

export type AnyRequest = WriteRequest | InternalRequest;

export function create(
  path: string,
  options: { data?: string | null; acl?: readonly Acl[] | null; flags?: number } = {},
) {
  const { data = '', acl = OPEN, flags = CreateFlag.persistent } = options;
  return { kind: 'create', path, data: data === null ? null : bytesOf(data), acl, flags, ttl: -1n } as const;
}

export function remove(path: string, version = -1) {
  return { kind: 'delete', path, version } as const;
}

export function setData(path: string, data: string | null, version = -1) {
  return { kind: 'setData', path, data: data === null ? null : bytesOf(data), version } as const;
}

export function setAcl(path: string, acl: readonly Acl[] | null, version = -1) {
  return { kind: 'setACL', path, acl, version } as const;
}

export function check(path: string, version = -1) {
  return { kind: 'check', path, version } as const;
}

export function bytesOf(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

export type Applied = { txn: Txn; result: ApplyResult; events: TreeEvent[]; zxid: Zxid };

export class Leader {
  readonly tree: DataTree;
  readonly outstanding: Outstanding;
  skipAcl = false;
  /** Advances by one per txn: every mtime is different. */
  timeMs = 1_700_000_000_000;
  zxid = 0n;
  identity: readonly Id[] = [];
  sessionId: SessionId = sessionIdFrom(0x77n);
  readonly log: { zxid: Zxid; txn: Txn }[] = [];

  constructor(options: DataTreeOptions & { mutations?: Mutations } = {}) {
    this.tree = new DataTree(options);
    this.outstanding = new Outstanding(this.tree.sessions);
    this.openSession(this.sessionId);
  }

  openSession(id: SessionId, timeoutMs = 10_000): void {
    this.run(
      { kind: 'createSession', timeoutMs, password: new Uint8Array(16).fill(Number(id & 0xffn)) },
      { sessionId: id },
    );
  }

  prepare(request: AnyRequest, asker: Partial<Asker> = {}): Txn {
    this.timeMs += 1;
    const context = { tree: this.tree, outstanding: this.outstanding, skipAcl: this.skipAcl };
    const origin = { server: 1, incarnation: 7, sequence: Number(this.timeMs % 100000) };
    const own = { sessionId: this.sessionId, cxid: 3, identity: this.identity, origin, ...asker };
    // Through its bytes, as every replica but the leader gets it.
    return decodeTxn(encodeTxn(prepare(context, own, request, this.timeMs)));
  }

  apply(txn: Txn): Applied {
    this.zxid += 1n;
    const zxid = zxidFrom(this.zxid);
    const events: TreeEvent[] = [];
    const result = this.tree.apply(zxid, txn, events);
    this.log.push({ zxid, txn });
    return { txn, result, events, zxid };
  }

  run(request: AnyRequest, asker: Partial<Asker> = {}): Applied {
    const applied = this.apply(this.prepare(request, asker));
    this.outstanding.settle();
    return applied;
  }

  /** The error code of a refused request; 0 when it was not. */
  codeOf(request: AnyRequest, asker: Partial<Asker> = {}): number {
    const { body } = this.run(request, asker).txn;
    return body.kind === 'error' ? body.code : 0;
  }

  slot(path: string): number {
    return this.tree.find(path);
  }

  stat(path: string) {
    return this.tree.statOf(this.tree.find(path));
  }

  text(path: string): string | null {
    const data = this.tree.dataOf(this.tree.find(path));
    return data === null ? null : new TextDecoder().decode(data);
  }
}

/** A seeded generator (mulberry32): a failing seed repeats. */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed;
  }

  below(limit: number): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let value = Math.imul(this.#state ^ (this.#state >>> 15), this.#state | 1);
    value ^= value + Math.imul(value ^ (value >>> 7), value | 61);
    return Math.floor((((value ^ (value >>> 14)) >>> 0) / 4294967296) * limit);
  }

  pick<T>(values: readonly T[]): T {
    const value = values[this.below(values.length)];
    if (value === undefined) throw new Error('nothing to pick from');
    return value;
  }
}

/** One random request after another, on few paths so that they meet. */
export function randomRequest(random: Random): AnyRequest {
  const folders = ['', '/a', '/b', '/a/c'];
  const names = ['/a', '/b', '/c', '/d'];
  const path = random.pick(folders) + random.pick(names);
  const version = random.pick([-1, -1, 0, 1, 2]);
  switch (random.below(12)) {
    case 0:
    case 1:
    case 2:
      return create(path, { flags: random.pick([0, 0, 1, 2, 3, 4]), data: random.pick(['', 'x', null]) });
    case 3:
    case 4:
      return remove(path, version);
    case 5:
    case 6:
      return setData(path, 'y'.repeat(random.below(100)), version);
    case 7:
      return setAcl(path, random.pick([OPEN, aclFor(ALICE), aclFor(BOB, Perms.READ)]), version);
    case 8:
    case 9:
    case 10: {
      const operations = Array.from({ length: random.below(4) }, () => {
        const operation = randomRequest(random);
        const isAllowed = operation.kind === 'create' || operation.kind === 'delete' || operation.kind === 'setData';
        return isAllowed ? operation : check(path, version);
      });
      return { kind: 'multi', operations };
    }
    default:
      return random.below(4) === 0 ? { kind: 'closeSession' } : create(path);
  }
}
