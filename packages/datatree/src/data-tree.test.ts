import {
  CreateFlag,
  decodeStat,
  ErrorCode,
  EventType,
  JuteReader,
  JuteWriter,
  sessionIdFrom,
  zxidFrom,
} from '@quorate/protocol';
import { expect, test } from 'vitest';
import { DataTree, NO_SLOT, type TreeEvent, type Txn, type TxnBody } from './index.ts';
import { ALICE, aclFor, BOB, bytesOf, create, Leader, OPEN, remove, setAcl, setData } from './leader.test-data.ts';

const { nodeCreated, nodeDeleted, nodeDataChanged, nodeChildrenChanged } = EventType;

function firing(events: readonly TreeEvent[]) {
  return events.map(({ type, path }) => [type, path]);
}

function txnOf(body: TxnBody): Txn {
  const origin = { server: 1, incarnation: 1, sequence: 1 };
  return { origin, sessionId: sessionIdFrom(0x77n), cxid: 0, timeMs: 5, body };
}

function applyBody(leader: Leader, body: TxnBody) {
  return leader.apply(txnOf(body));
}

test('a new tree has the reserved subtree, with the Stats and ACLs that stock clients know', () => {
  const tree = new DataTree();
  const read = (path: string) => {
    const { version, cversion, aversion, numChildren, czxid, mzxid, pzxid, ctime } = tree.statOf(tree.find(path));
    expect([czxid, mzxid, pzxid, ctime]).toEqual([0n, 0n, 0n, 0]);
    return { version, cversion, aversion, numChildren };
  };
  expect(read('/')).toEqual({ version: 0, cversion: -1, aversion: 0, numChildren: 1 });
  expect(read('/zookeeper')).toEqual({ version: 0, cversion: -2, aversion: 0, numChildren: 2 });
  expect(read('/zookeeper/quota')).toEqual({ version: 0, cversion: 0, aversion: 0, numChildren: 0 });
  expect(read('/zookeeper/config')).toEqual({ version: 0, cversion: 0, aversion: -1, numChildren: 0 });
  expect(tree.aclOf(tree.find('/'))).toEqual(OPEN);
  expect(tree.aclOf(tree.find('/zookeeper/config'))).toEqual([{ perms: 1, id: { scheme: 'world', id: 'anyone' } }]);
  expect(tree.find('')).toBe(tree.find('/'));
  expect(tree.znodeCount).toBe(4);
  expect(tree.countDescendants(tree.find('/'))).toBe(3);
  expect(tree.approximateDataBytes).toBe(44);
});

test("the digest of a znode is ZooKeeper's", () => {
  const tree = new DataTree();
  expect(tree.crcOf(tree.find('/'))).toBe(0x04128908);
  expect(tree.crcOf(tree.find('/zookeeper'))).toBe(0x4db44d58);
});

test('only an exact path finds a znode', () => {
  const leader = new Leader();
  leader.run(create('/a'));
  leader.run(create('/a/b'));
  for (const path of [
    '/a/',
    '//a',
    '/a//b',
    '/a/./b',
    'a',
    'a/b',
    '/b',
    '/a/b/c',
    '/a/',
    '/__proto__',
    '/a/constructor',
  ]) {
    expect(leader.slot(path), path).toBe(NO_SLOT);
  }
  expect(leader.tree.pathOf(leader.slot('/a/b'))).toBe('/a/b');
  expect(leader.tree.pathOf(leader.slot('/'))).toBe('/');
});

test("a create sets the new znode's Stat and, of its parent, cversion, pzxid and numChildren only", () => {
  const leader = new Leader();
  leader.run(create('/p', { data: 'parent' }));
  const before = leader.stat('/p');
  const { zxid, txn } = leader.run(create('/p/c', { data: 'child' }));
  expect(leader.stat('/p/c')).toEqual({
    czxid: zxid,
    mzxid: zxid,
    pzxid: zxid,
    ctime: txn.timeMs,
    mtime: txn.timeMs,
    version: 0,
    cversion: 0,
    aversion: 0,
    ephemeralOwner: 0n,
    dataLength: 5,
    numChildren: 0,
  });
  expect(leader.stat('/p')).toEqual({ ...before, cversion: before.cversion + 1, numChildren: 1, pzxid: zxid });
});

test("a delete counts in the parent's cversion and pzxid, whoever deletes", () => {
  const leader = new Leader();
  leader.run(create('/p'));
  leader.run(create('/p/c'));
  leader.run(create('/p/e', { flags: CreateFlag.ephemeral }));
  const before = leader.stat('/p');
  const deleted = leader.run(remove('/p/c'));
  expect(leader.stat('/p')).toEqual({ ...before, cversion: 3, numChildren: 1, pzxid: deleted.zxid });
  const closed = leader.run({ kind: 'closeSession' });
  expect(leader.stat('/p')).toEqual({ ...before, cversion: 4, numChildren: 0, pzxid: closed.zxid });
});

test('setData changes version, mzxid, mtime and dataLength, and nothing of the parent', () => {
  const leader = new Leader();
  leader.run(create('/p'));
  leader.run(create('/p/c', { data: 'x' }));
  const parent = leader.stat('/p');
  const before = leader.stat('/p/c');
  const { zxid, txn } = leader.run(setData('/p/c', 'longer'));
  expect(leader.stat('/p/c')).toEqual({ ...before, version: 1, mzxid: zxid, mtime: txn.timeMs, dataLength: 6 });
  expect(leader.stat('/p')).toEqual(parent);
  expect(leader.text('/p/c')).toBe('longer');
});

test('setACL changes aversion and nothing else', () => {
  const leader = new Leader();
  leader.run(create('/p'));
  const before = leader.stat('/p');
  leader.run(setAcl('/p', aclFor(ALICE)));
  expect(leader.stat('/p')).toEqual({ ...before, aversion: 1 });
  expect(leader.tree.aclOf(leader.slot('/p'))).toEqual(aclFor(ALICE));
});

test('refused requests, checks and sessions change no Stat, and each takes its zxid', () => {
  const leader = new Leader();
  leader.run(create('/p'));
  const stats = () => ['/', '/p', '/zookeeper'].map((path) => leader.stat(path));
  const before = stats();
  leader.run(create('/p'));
  leader.run({ kind: 'multi', operations: [{ kind: 'check', path: '/p', version: 0 }] });
  leader.run({ kind: 'multi', operations: [setData('/p', 'x'), remove('/nothing')] });
  leader.openSession(sessionIdFrom(2n));
  expect(stats()).toEqual(before);
  expect(leader.tree.lastZxid).toBe(leader.zxid);
});

test('null data and empty data are two values', () => {
  const leader = new Leader();
  leader.run(create('/null', { data: null }));
  leader.run(create('/empty', { data: '' }));
  expect(leader.text('/null')).toBe(null);
  expect(leader.text('/empty')).toBe('');
  expect(leader.stat('/null').dataLength).toBe(0);
  leader.run(setData('/null', 'now'));
  leader.run(setData('/empty', null));
  expect([leader.text('/null'), leader.text('/empty')]).toEqual(['now', null]);
  leader.run(setData('/null', ''));
  expect(leader.text('/null')).toBe('');
});

test('writeStat and writeData write what statOf and dataOf tell', () => {
  const leader = new Leader({ extendedTypesEnabled: true });
  leader.run(create('/p', { data: 'some data' }));
  leader.run(create('/p/e', { flags: CreateFlag.ephemeral, data: null }));
  leader.run({ ...create('/ttl'), kind: 'createTTL', flags: 5, ttl: 1000n });
  leader.run({ ...create('/box'), kind: 'createContainer', flags: 4 });
  leader.run(setData('/p', 'other'));
  for (const path of ['/', '/p', '/p/e', '/ttl', '/box']) {
    const writer = new JuteWriter();
    leader.tree.writeStat(leader.slot(path), writer);
    leader.tree.writeData(leader.slot(path), writer);
    const reader = new JuteReader();
    reader.reset(writer.bytes(), 0, writer.position);
    expect(decodeStat(reader)).toEqual(leader.stat(path));
    const data = reader.readBuffer();
    expect(data === null ? null : new TextDecoder().decode(data)).toBe(leader.text(path));
  }
  expect(leader.stat('/p/e').ephemeralOwner).toBe(0x77n);
  expect(leader.stat('/ttl').ephemeralOwner).toBe(0n);
  expect(leader.stat('/box').ephemeralOwner).toBe(0n);
});

test('what fires, and in which order, per txn', () => {
  const leader = new Leader();
  expect(firing(leader.run(create('/p')).events)).toEqual([
    [nodeCreated, '/p'],
    [nodeChildrenChanged, '/'],
  ]);
  expect(firing(leader.run(create('/p/c')).events)).toEqual([
    [nodeCreated, '/p/c'],
    [nodeChildrenChanged, '/p'],
  ]);
  expect(firing(leader.run(setData('/p/c', 'x')).events)).toEqual([[nodeDataChanged, '/p/c']]);
  expect(leader.run(setAcl('/p/c', OPEN)).events).toEqual([]);
  expect(firing(leader.run(remove('/p/c')).events)).toEqual([
    [nodeDeleted, '/p/c'],
    [nodeChildrenChanged, '/p'],
  ]);
  expect(leader.run(remove('/p/c')).events).toEqual([]);
  expect(
    firing(leader.run({ kind: 'multi', operations: [create('/m'), setData('/m', 'y'), remove('/m')] }).events),
  ).toEqual([
    [nodeCreated, '/m'],
    [nodeChildrenChanged, '/'],
    [nodeDataChanged, '/m'],
    [nodeDeleted, '/m'],
    [nodeChildrenChanged, '/'],
  ]);
  expect(leader.run({ kind: 'multi', operations: [create('/m'), remove('/none')] }).events).toEqual([]);
});

test("a closing session's ephemerals go in creation order, each firing like a delete", () => {
  const leader = new Leader();
  leader.run(create('/p'));
  for (const path of ['/p/z', '/e', '/p/a']) leader.run(create(path, { flags: CreateFlag.ephemeral }));
  expect([...leader.tree.ephemeralsOf(leader.sessionId)]).toEqual(['/p/z', '/e', '/p/a']);
  const { events, result } = leader.run({ kind: 'closeSession' });
  expect(result.code).toBe(ErrorCode.ok);
  expect(firing(events)).toEqual([
    [nodeDeleted, '/p/z'],
    [nodeChildrenChanged, '/p'],
    [nodeDeleted, '/e'],
    [nodeChildrenChanged, '/'],
    [nodeDeleted, '/p/a'],
    [nodeChildrenChanged, '/p'],
  ]);
  expect([...leader.tree.ephemeralsOf(leader.sessionId)]).toEqual([]);
  expect(leader.tree.sessions.has(leader.sessionId)).toBe(false);
  expect(leader.tree.ephemeralCount).toBe(0);
});

test('an event carries the ACL of the znode it is about, as it was then', () => {
  const leader = new Leader();
  leader.identity = [ALICE];
  leader.run(create('/p', { acl: aclFor(BOB) }));
  leader.skipAcl = true;
  const created = leader.run(create('/p/c', { acl: aclFor(ALICE) })).events;
  expect(created.map(({ acl }) => acl)).toEqual([aclFor(ALICE), aclFor(BOB)]);
  expect(leader.run(setData('/p/c', 'x')).events[0]?.acl).toEqual(aclFor(ALICE));
  const deleted = leader.run(remove('/p/c')).events;
  expect(deleted.map(({ acl }) => acl)).toEqual([aclFor(ALICE), aclFor(BOB)]);
});

test('each operation of a multi is answered with the Stat as it was after that operation', () => {
  const leader = new Leader();
  const { result } = leader.run({
    kind: 'multi',
    operations: [
      create('/m', { data: 'abc' }),
      setData('/m', 'x'),
      setData('/m', 'yy'),
      { kind: 'check', path: '/m', version: 2 },
      remove('/m'),
    ],
  });
  expect(
    result.operations.map(({ kind, code, path, stat }) => [kind, code, path, stat?.version, stat?.dataLength]),
  ).toEqual([
    ['create', 0, '/m', 0, 3],
    ['setData', 0, '/m', 1, 1],
    ['setData', 0, '/m', 2, 2],
    ['check', 0, '/m', undefined, undefined],
    ['delete', 0, '/m', undefined, undefined],
  ]);
});

test('the sequence counter counts creates of any kind and never goes back', () => {
  const leader = new Leader();
  leader.run(create('/q'));
  leader.run(create('/q/a'));
  leader.run(create('/q/b'));
  leader.run(remove('/q/a'));
  const { result } = leader.run(create('/q/n-', { flags: CreateFlag.persistentSequential }));
  expect(result.path).toBe('/q/n-0000000002');
  expect(leader.stat('/q').cversion).toBe(4);
});

test('descendants, znodes and bytes are counted at any depth', () => {
  const leader = new Leader();
  for (const path of ['/a', '/a/b', '/a/b/c', '/a/d']) leader.run(create(path, { data: '12345' }));
  const count = (path: string) => leader.tree.countDescendants(leader.slot(path));
  expect([count('/'), count('/a'), count('/a/b'), count('/a/d')]).toEqual([7, 3, 1, 0]);
  expect(leader.tree.approximateDataBytes).toBe(44 + 2 + 4 + 6 + 4 + 20);
  leader.run(remove('/a/b/c'));
  expect([count('/'), count('/a'), count('/a/b')]).toEqual([6, 2, 0]);
  for (const path of ['/a/b', '/a/d', '/a']) leader.run(remove(path));
  expect(leader.tree.znodeCount).toBe(4);
  expect(leader.tree.approximateDataBytes).toBe(44);
  expect(leader.tree.digest).toBe(onlyRootChanged(leader));
});

// The digest of a new tree with the same session, after the same number of changes of the root.
function onlyRootChanged(leader: Leader): bigint {
  const other = new Leader();
  const stat = leader.stat('/');
  applyBody(other, { kind: 'create', path: '/a', data: null, acl: OPEN, owner: 0n, parentCVersion: 1 });
  other.zxid = stat.pzxid - 1n;
  applyBody(other, { kind: 'delete', path: '/a' });
  return other.tree.digest;
}

test('a txn that was applied before changes nothing and fires nothing', () => {
  const leader = new Leader();
  leader.run(create('/a'));
  leader.run(create('/a/s', { flags: CreateFlag.persistentSequential }));
  leader.run(setData('/a', 'x'));
  const digest = leader.tree.digest;
  for (const { zxid, txn } of leader.log) {
    const events: TreeEvent[] = [];
    leader.tree.apply(zxid, txn, events);
    expect(events).toEqual([]);
  }
  expect(leader.tree.digest).toBe(digest);
});

test('applying is total: what no leader would decide is answered, not thrown', () => {
  const leader = new Leader();
  leader.run(create('/a'));
  leader.run(create('/a/b'));
  const codeOf = (body: TxnBody) => applyBody(leader, body).result.code;
  const makes = (path: string): TxnBody => ({
    kind: 'create',
    path,
    data: null,
    acl: OPEN,
    owner: 0n,
    parentCVersion: 1,
  });
  expect(codeOf(makes('/none/b'))).toBe(ErrorCode.noNode);
  expect(codeOf(makes('/'))).toBe(ErrorCode.badArguments);
  expect(codeOf(makes('/a/'))).toBe(ErrorCode.badArguments);
  expect(codeOf({ kind: 'delete', path: '/' })).toBe(ErrorCode.badArguments);
  expect(codeOf({ kind: 'delete', path: '/a' })).toBe(ErrorCode.notEmpty);
  expect(codeOf({ kind: 'delete', path: '/none/x' })).toBe(ErrorCode.noNode);
  expect(codeOf({ kind: 'setData', path: '/none', data: null, version: 1 })).toBe(ErrorCode.noNode);
  expect(codeOf({ kind: 'setACL', path: '/none', acl: OPEN, aversion: 1 })).toBe(ErrorCode.noNode);
  expect(codeOf({ kind: 'closeSession', paths: ['/none/x', '/a', '/'] })).toBe(ErrorCode.ok);
  expect(leader.slot('/a/b')).not.toBe(NO_SLOT);
});

test('a create of what exists raises the parent and takes over the ACL; the parent never goes back', () => {
  const leader = new Leader();
  leader.run(create('/p'));
  leader.run(create('/p/c', { data: 'kept' }));
  const before = leader.stat('/p/c');
  const again = (parentCVersion: number) =>
    applyBody(leader, {
      kind: 'create',
      path: '/p/c',
      data: bytesOf('new'),
      acl: aclFor(ALICE),
      owner: 0n,
      parentCVersion,
    });
  expect(again(5).result.code).toBe(ErrorCode.nodeExists);
  expect(leader.stat('/p')).toMatchObject({ cversion: 9, pzxid: leader.zxid, numChildren: 1 });
  expect(leader.stat('/p/c')).toEqual(before);
  expect(leader.text('/p/c')).toBe('kept');
  expect(leader.tree.aclOf(leader.slot('/p/c'))).toEqual(aclFor(ALICE));
  again(2);
  expect(leader.stat('/p').cversion).toBe(9);
});

test("a delete of what is gone still raises the parent's pzxid", () => {
  const leader = new Leader();
  leader.run(create('/p'));
  applyBody(leader, { kind: 'delete', path: '/p/gone' });
  expect(leader.stat('/p').pzxid).toBe(leader.zxid);
  applyBody(leader, { kind: 'closeSession', paths: ['/p/gone'] });
  expect(leader.stat('/p').pzxid).toBe(leader.zxid);
});

test('an ephemeral that the list forgot does not outlive its session', () => {
  const leader = new Leader();
  leader.run(create('/e', { flags: CreateFlag.ephemeral }));
  const { events } = applyBody(leader, { kind: 'closeSession', paths: [] });
  expect(firing(events)).toEqual([
    [nodeDeleted, '/e'],
    [nodeChildrenChanged, '/'],
  ]);
});

test('a multi that holds an error changes nothing, unless the mutant says so', () => {
  const operations: TxnBody[] = [
    { kind: 'create', path: '/m', data: null, acl: OPEN, owner: 0n, parentCVersion: 1 },
    { kind: 'error', code: ErrorCode.badVersion },
    { kind: 'error', code: ErrorCode.runtimeInconsistency },
  ];
  const leader = new Leader();
  const { result, events } = applyBody(leader, { kind: 'multi', operations });
  expect(result.kind).toBe('multiError');
  expect(result.operations.map(({ code }) => code)).toEqual([0, ErrorCode.badVersion, ErrorCode.runtimeInconsistency]);
  expect(events).toEqual([]);
  expect(leader.slot('/m')).toBe(NO_SLOT);
});

test("a name is any characters, and long names do not share the path's memory", () => {
  const leader = new Leader();
  for (const name of [
    'größenwahnsinnig-lang',
    '价格价格价格价格价格价格价格',
    'plain-and-rather-long-name',
    'ÿ'.repeat(40),
    'x'.repeat(5000),
  ]) {
    leader.run(create(`/${name}`));
    expect([...leader.tree.children(leader.slot('/'))]).toContain(name);
    expect(leader.tree.pathOf(leader.slot(`/${name}`))).toBe(`/${name}`);
  }
});

test('each server shows its own configuration, and no digest depends on it', () => {
  const tree = new DataTree();
  const digest = tree.digest;
  tree.installConfig(bytesOf('server.1=127.0.0.1'), zxidFrom(0x100n));
  const slot = tree.find('/zookeeper/config');
  expect(tree.statOf(slot)).toMatchObject({ version: -1, mzxid: 0x100n, dataLength: 18 });
  expect(tree.digest).toBe(digest);
  tree.installConfig(null, zxidFrom(0n));
  expect(tree.digest).toBe(digest);
  expect(tree.approximateDataBytes).toBe(44);
});

test('an owner 0xff... is a session until extended types are on', () => {
  const owner = sessionIdFrom(-5n);
  const plain = new Leader();
  plain.openSession(owner);
  plain.run(create('/e', { flags: CreateFlag.ephemeral }), { sessionId: owner });
  expect(plain.stat('/e').ephemeralOwner).toBe(-5n);
  expect([...plain.tree.ephemeralsOf(owner)]).toEqual(['/e']);
});
