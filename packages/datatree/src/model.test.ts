// The tree against a model that is as plain as can be: one map by path, everything derived is computed when asked for.

import { crc32 } from 'node:zlib';
import { type Acl, type SessionId, sessionIdFrom, type Zxid, zxidFrom } from '@quorate/protocol';
import { expect, test } from 'vitest';
import { mix32 } from './crc32.ts';
import { beginSnapshot, DataTree, OPEN_ACL, READ_ACL, SnapshotLoader, type Txn, type TxnBody } from './index.ts';
import { ALICE, aclFor, BOB, bytesOf, Leader, OPEN, Random, randomRequest } from './leader.test-data.ts';

type ModelZnode = {
  data: Uint8Array | null;
  acl: readonly Acl[];
  owner: bigint;
  czxid: bigint;
  mzxid: bigint;
  pzxid: bigint;
  ctime: number;
  mtime: number;
  version: number;
  cversion: number;
  aversion: number;
};

class Model {
  readonly znodes = new Map<string, ModelZnode>();
  readonly sessions = new Map<bigint, { timeoutMs: number; password: Uint8Array }>();

  constructor() {
    for (const path of ['/', '/zookeeper', '/zookeeper/quota', '/zookeeper/config']) {
      const isConfig = path.endsWith('config');
      this.znodes.set(path, {
        data: null,
        acl: isConfig ? READ_ACL : OPEN_ACL,
        owner: 0n,
        czxid: 0n,
        mzxid: 0n,
        pzxid: 0n,
        ctime: 0,
        mtime: 0,
        version: 0,
        cversion: 0,
        aversion: isConfig ? -1 : 0,
      });
    }
  }

  parent(path: string): string {
    return path.slice(0, path.lastIndexOf('/')) || '/';
  }

  children(path: string): string[] {
    const prefix = path === '/' ? '/' : `${path}/`;
    return [...this.znodes.keys()]
      .filter((other) => other !== '/' && other.startsWith(prefix) && !other.slice(prefix.length).includes('/'))
      .map((other) => other.slice(prefix.length));
  }

  descendants(path: string): number {
    const prefix = path === '/' ? '/' : `${path}/`;
    return [...this.znodes.keys()].filter((other) => other !== '/' && other.startsWith(prefix)).length;
  }

  remove(zxid: bigint, path: string): void {
    const parent = this.znodes.get(this.parent(path));
    const isThere = this.znodes.has(path);
    if (path === '/' || (isThere && this.children(path).length > 0)) return;
    this.znodes.delete(path);
    if (parent !== undefined && zxid > parent.pzxid) parent.pzxid = zxid;
  }

  apply(zxid: bigint, txn: Txn, body: TxnBody): void {
    switch (body.kind) {
      case 'create': {
        const parent = this.znodes.get(this.parent(body.path));
        if (parent === undefined) return;
        parent.cversion = Math.max(parent.cversion, body.parentCVersion);
        if (zxid > parent.pzxid) parent.pzxid = zxid;
        const existing = this.znodes.get(body.path);
        if (existing !== undefined) {
          existing.acl = body.acl;
          return;
        }
        const { data, acl, owner } = body;
        const times = { czxid: zxid, mzxid: zxid, pzxid: zxid, ctime: txn.timeMs, mtime: txn.timeMs };
        this.znodes.set(body.path, { data, acl, owner, ...times, version: 0, cversion: 0, aversion: 0 });
        return;
      }
      case 'delete':
        this.remove(zxid, body.path);
        return;
      case 'setData': {
        const znode = this.znodes.get(body.path);
        if (znode === undefined) return;
        Object.assign(znode, { data: body.data, version: body.version, mzxid: zxid, mtime: txn.timeMs });
        return;
      }
      case 'setACL': {
        const znode = this.znodes.get(body.path);
        if (znode !== undefined) Object.assign(znode, { acl: body.acl, aversion: body.aversion });
        return;
      }
      case 'createSession':
        this.sessions.set(txn.sessionId, body);
        return;
      case 'closeSession':
        for (const path of body.paths) {
          const znode = this.znodes.get(path);
          if (znode === undefined || znode.owner === txn.sessionId) this.remove(zxid, path);
        }
        for (const [path, { owner }] of [...this.znodes].reverse())
          if (owner === txn.sessionId) this.remove(zxid, path);
        this.sessions.delete(txn.sessionId);
        return;
      case 'multi':
        for (const operation of body.operations) this.apply(zxid, txn, operation);
        return;
      default:
    }
  }

  digest(): bigint {
    let low = 0;
    let high = 0;
    for (const [path, znode] of this.znodes) {
      if (path === '/zookeeper/config') continue;
      const stat = Buffer.alloc(60);
      stat.writeBigInt64BE(znode.czxid, 0);
      stat.writeBigInt64BE(znode.mzxid, 8);
      stat.writeBigInt64BE(znode.pzxid, 16);
      stat.writeBigInt64BE(BigInt(znode.ctime), 24);
      stat.writeBigInt64BE(BigInt(znode.mtime), 32);
      stat.writeInt32BE(znode.version, 40);
      stat.writeInt32BE(znode.cversion, 44);
      stat.writeInt32BE(znode.aversion, 48);
      stat.writeBigInt64BE(znode.owner, 52);
      const bytes = Buffer.concat([bytesOf(path === '/' ? '' : path), znode.data ?? Buffer.alloc(0), stat]);
      const crc = crc32(bytes) | 0;
      low = (low + crc) | 0;
      high = (high + mix32(crc, aclCrc(znode.acl))) | 0;
    }
    for (const [id, { timeoutMs, password }] of this.sessions) {
      const head = Buffer.alloc(12);
      head.writeBigInt64BE(id, 0);
      head.writeInt32BE(timeoutMs, 8);
      const crc = crc32(Buffer.concat([head, password])) | 0;
      low = (low + crc) | 0;
      high = (high + mix32(crc, head.readInt32BE(0) ^ head.readInt32BE(4))) | 0;
    }
    return (BigInt(high >>> 0) << 32n) | BigInt(low >>> 0);
  }
}

function aclCrc(acl: readonly Acl[]): number {
  const word = (value: number) => {
    const bytes = Buffer.alloc(4);
    bytes.writeInt32BE(value);
    return bytes;
  };
  const parts = acl.flatMap(({ perms, id }) => [
    word(perms),
    bytesOf(id.scheme),
    word(id.scheme.length),
    bytesOf(id.id),
    word(id.id.length),
  ]);
  return crc32(Buffer.concat(parts)) | 0;
}

function compare(tree: DataTree, model: Model, what: string): void {
  expect(tree.znodeCount, what).toBe(model.znodes.size);
  let bytes = 1;
  const lists = new Map<string, number>();
  for (const [path, znode] of model.znodes) {
    const slot = tree.find(path);
    const names = model.children(path);
    expect([...tree.children(slot)].sort(), `${what} ${path}`).toEqual(names.sort());
    expect(tree.statOf(slot), `${what} ${path}`).toEqual({
      czxid: znode.czxid,
      mzxid: znode.mzxid,
      pzxid: znode.pzxid,
      ctime: znode.ctime,
      mtime: znode.mtime,
      version: znode.version,
      cversion: 2 * znode.cversion - names.length,
      aversion: znode.aversion,
      ephemeralOwner: znode.owner === -1n << 63n ? 0n : znode.owner,
      dataLength: znode.data?.length ?? 0,
      numChildren: names.length,
    });
    const data = tree.dataOf(slot);
    expect(data === null ? null : [...data]).toEqual(znode.data === null ? null : [...znode.data]);
    expect(tree.aclOf(slot)).toEqual(znode.acl);
    expect(tree.pathOf(slot)).toBe(path);
    expect(tree.countDescendants(slot)).toBe(model.descendants(path));
    const key = JSON.stringify(znode.acl);
    lists.set(key, (lists.get(key) ?? 0) + 1);
    bytes += (path === '/' ? 0 : path.length) + (znode.data?.length ?? 0);
  }
  expect(tree.approximateDataBytes).toBe(bytes);
  expect(new Map([...tree.aclCounts()].map(({ acl, count }) => [JSON.stringify(acl), count]))).toEqual(lists);
  const owned = new Map<bigint, Set<string>>();
  for (const [path, { owner }] of model.znodes) {
    if (owner !== 0n && owner !== -1n << 63n) owned.set(owner, (owned.get(owner) ?? new Set()).add(path));
  }
  expect(new Map([...tree.ephemeralOwners()].map((id) => [id, new Set(tree.ephemeralsOf(id))]))).toEqual(owned);
  expect(tree.digest, what).toBe(model.digest());
}

const IDS = [0x77n, 0x101n, -7n].map(sessionIdFrom);

/** What a leader decides for random requests, with sessions that come back after they were closed. */
function leaderLog(seed: number, length: number): { zxid: Zxid; txn: Txn }[] {
  const random = new Random(seed);
  const leader = new Leader();
  leader.identity = [ALICE];
  for (let step = 0; step < length; step += 1) {
    const sessionId = random.pick(IDS);
    if (!leader.tree.sessions.has(sessionId)) leader.openSession(sessionId, 1000 + random.below(3));
    leader.run(randomRequest(random), { sessionId });
  }
  return leader.log;
}

/** Txns that no leader would decide: apply must be total, and everywhere the same. */
function wildTxn(random: Random, sessionId: SessionId, timeMs: number): Txn {
  const path = random.pick(['', '/a', '/b', '/a/c']) + random.pick(['/a', '/b', '/c']);
  const acl = random.pick([OPEN, aclFor(ALICE), aclFor(BOB, 1)]);
  const data = random.pick([null, bytesOf(''), bytesOf('x'.repeat(random.below(300)))]);
  const owner = random.pick([0n, 0n, sessionId, -1n << 63n]);
  const body = random.pick<TxnBody>([
    { kind: 'create', path, data, acl, owner, parentCVersion: random.below(20) },
    { kind: 'create', path, data, acl, owner: 0n, parentCVersion: random.below(20) },
    { kind: 'delete', path },
    { kind: 'setData', path, data, version: random.below(10) },
    { kind: 'setACL', path, acl, aversion: random.below(10) },
    {
      kind: 'multi',
      operations: [
        { kind: 'delete', path },
        { kind: 'check', path: '/none' },
        { kind: 'setData', path: '/a', data, version: 3 },
      ],
    },
    { kind: 'closeSession', paths: [path, '/a/b'] },
    { kind: 'createSession', timeoutMs: random.below(5), password: bytesOf('p'.repeat(16)) },
    { kind: 'error', code: -101 },
    { kind: 'multiError', codes: [0, -101] },
  ]);
  return { origin: { server: 1, incarnation: 1, sequence: 1 }, sessionId, cxid: 1, timeMs, body };
}

test("what a leader decides gives the model's tree, Stats, ACL counts, ephemerals and digest", () => {
  const kinds = new Set<string>();
  for (let seed = 1; seed <= 12; seed += 1) {
    const tree = new DataTree();
    const model = new Model();
    for (const [index, { zxid, txn }] of leaderLog(seed, 250).entries()) {
      tree.apply(zxid, txn, []);
      model.apply(zxid, txn, txn.body);
      kinds.add(txn.body.kind);
      expect(tree.digest, `seed ${seed}, txn ${index}`).toBe(model.digest());
      if (index % 25 === 0) compare(tree, model, `seed ${seed}, txn ${index}`);
    }
    compare(tree, model, `seed ${seed}`);
  }
  expect(kinds.size).toBe(9);
});

test("what no leader decides gives the model's tree too", () => {
  for (let seed = 1; seed <= 12; seed += 1) {
    const random = new Random(seed);
    const tree = new DataTree();
    const model = new Model();
    for (let index = 1; index <= 300; index += 1) {
      const zxid = zxidFrom(BigInt(index));
      const txn = wildTxn(random, random.pick(IDS), 1_700_000_000_000 + index);
      tree.apply(zxid, txn, []);
      model.apply(zxid, txn, txn.body);
      if (index % 20 === 0) compare(tree, model, `seed ${seed}, txn ${index}`);
    }
  }
});

test('applying txns twice, one by one or as a whole, converges', () => {
  for (let seed = 20; seed < 26; seed += 1) {
    const log = leaderLog(seed, 200);
    const once = new DataTree();
    for (const { zxid, txn } of log) once.apply(zxid, txn, []);
    const twice = new DataTree();
    for (const { zxid, txn } of log) {
      twice.apply(zxid, txn, []);
      twice.apply(zxid, txn, []);
    }
    for (const { zxid, txn } of log) twice.apply(zxid, txn, []);
    expect(twice.digest).toBe(once.digest);
    expect(twice.lastZxid).toBe(once.lastZxid);
  }
});

test("a server that starts from a snapshot and the log behind it arrives at the model's tree", () => {
  for (let seed = 40; seed < 52; seed += 1) {
    const log = leaderLog(seed, 200);
    const random = new Random(seed);
    const tree = new DataTree();
    const model = new Model();
    const cut = random.below(log.length);
    for (const { zxid, txn } of log.slice(0, cut)) tree.apply(zxid, txn, []);
    const walk = beginSnapshot(tree);
    const loader = new SnapshotLoader();
    // The first server goes on while its snapshot is being written.
    for (const { zxid, txn } of log.slice(cut)) {
      tree.apply(zxid, txn, []);
      const chunk = random.below(3) === 0 ? walk.next(300) : null;
      if (chunk !== null) loader.push(chunk);
    }
    for (let chunk = walk.next(300); chunk !== null; chunk = walk.next(300)) loader.push(chunk);
    const started = loader.finish().tree;
    // From the beginning of the log: what the snapshot holds already changes nothing.
    for (const { zxid, txn } of log) started.apply(zxid, txn, []);
    for (const { zxid, txn } of log) model.apply(zxid, txn, txn.body);
    compare(started, model, `seed ${seed}`);
    compare(tree, model, `seed ${seed}`);
  }
});
