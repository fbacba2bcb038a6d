import {
  CreateFlag,
  ErrorCode,
  NO_MUTATIONS,
  Perms,
  sessionIdFrom,
  type WriteRequest,
  zxidFrom,
} from '@quorate/protocol';
import { expect, test } from 'vitest';
import { CONTAINER_OWNER, DataTree, NO_SLOT, Outstanding, TTL_MS_MAX, type Txn } from './index.ts';
import {
  ALICE,
  type AnyRequest,
  aclFor,
  BOB,
  check,
  create,
  Leader,
  OPEN,
  Random,
  randomRequest,
  remove,
  setAcl,
  setData,
} from './leader.test-data.ts';

const STRANGER = sessionIdFrom(0xbadn);

/** A leader with znodes to bump into: `/closed` belongs to bob, `/e` is ephemeral, `/p/c` a child. */
function furnished(options: ConstructorParameters<typeof Leader>[0] = {}): Leader {
  const leader = new Leader(options);
  leader.identity = [BOB];
  leader.run(create('/closed', { acl: aclFor(BOB) }));
  leader.run(create('/closed/c', { acl: aclFor(BOB) }));
  leader.identity = [ALICE];
  leader.run(create('/e', { flags: CreateFlag.ephemeral }));
  leader.run(create('/p'));
  leader.run(create('/p/c'));
  return leader;
}

function codes(leader: Leader, cases: readonly (readonly [string, AnyRequest, number])[]): void {
  for (const [what, request, code] of cases) {
    expect([what, leader.codeOf(request)]).toEqual([what, code]);
  }
}

test('create: the first failing check decides', () => {
  const leader = furnished();
  const bad = { acl: [{ perms: 1, id: { scheme: 'none', id: '' } }] };
  const ttl = { ...create('/t'), kind: 'createTTL', flags: 5, ttl: 5n } as const;
  codes(leader, [
    ['an unknown flag, before the session', create('/x', { flags: 7 }), ErrorCode.badArguments],
    ['a negative flag', create('/x', { flags: -1 }), ErrorCode.badArguments],
    ['a TTL while extended types are off', ttl, ErrorCode.unimplemented],
    ['a TTL flag on a plain create', create('/x', { flags: 5 }), ErrorCode.unimplemented],
    ['createTTL without a TTL flag', { ...ttl, flags: 0 }, ErrorCode.badArguments],
    ['no slash, before the ACL', create('x', bad), ErrorCode.badArguments],
    ['a NUL, before the ACL', create('/x\0', bad), ErrorCode.badArguments],
    ['a bad ACL, before the parent', create('/none/x', bad), ErrorCode.invalidAcl],
    ['no ACL', create('/x', { acl: null }), ErrorCode.invalidAcl],
    ['no parent, before the whole path', create('/a//b'), ErrorCode.noNode],
    ['an odd parent', create('/a/./b'), ErrorCode.noNode],
    ['a relative path', create('a/b'), ErrorCode.noNode],
    ['no CREATE on the parent, before the path', create('/closed/.'), ErrorCode.noAuth],
    ['an odd name below an existing parent', create('/p/..'), ErrorCode.badArguments],
    ['a trailing slash', create('/p/'), ErrorCode.badArguments],
    ['an empty component', create('//x'), ErrorCode.badArguments],
    ['a control character', create('/p/\u0001'), ErrorCode.badArguments],
    ['an existing znode', create('/p/c'), ErrorCode.nodeExists],
    ['the root', create('/'), ErrorCode.nodeExists],
    ['a child of an ephemeral', create('/e/x'), ErrorCode.noChildrenForEphemerals],
    ['all is well', create('/p/d'), 0],
    ['a trailing slash is the empty name of a sequential one', create('/p/', { flags: 2 }), 0],
  ]);
  expect(leader.codeOf(create('/x', { flags: 9 }), { sessionId: STRANGER })).toBe(ErrorCode.badArguments);
  expect(leader.codeOf(create('x'), { sessionId: STRANGER })).toBe(ErrorCode.sessionExpired);
});

test('create: a TTL is within its range, and says so before the session is looked at', () => {
  const leader = furnished({ extendedTypesEnabled: true });
  const withTtl = (ttl: bigint) => ({ ...create('/t'), kind: 'createTTL', flags: 5, ttl }) as const;
  for (const ttl of [-1n, 0n, TTL_MS_MAX + 1n]) {
    expect(leader.codeOf(withTtl(ttl), { sessionId: STRANGER })).toBe(ErrorCode.badArguments);
  }
  expect(leader.codeOf(create('/x', { flags: 5 }))).toBe(ErrorCode.badArguments);
  expect(leader.codeOf(withTtl(TTL_MS_MAX))).toBe(0);
  expect(leader.tree.ownerOf(leader.slot('/t'))).toBe(BigInt.asIntN(64, 0xff00_00ff_ffff_ffffn));
  const { result } = leader.run({ ...create('/s-'), kind: 'createTTL', flags: 6, ttl: 5n });
  expect(result.path).toMatch(/^\/s-\d{10}$/);
});

test('create: a container is one from whichever side it is asked for', () => {
  const leader = furnished();
  leader.run(create('/c1', { flags: CreateFlag.container }));
  leader.run({ ...create('/c2'), kind: 'createContainer', flags: 4 });
  leader.run({ ...create('/c3'), kind: 'createContainer', flags: CreateFlag.ephemeralSequential });
  for (const path of ['/c1', '/c2', '/c3']) expect(leader.tree.ownerOf(leader.slot(path))).toBe(CONTAINER_OWNER);
  expect(leader.codeOf(create('/c1/e', { flags: CreateFlag.ephemeral }))).toBe(0);
});

test('delete: the first failing check decides', () => {
  const leader = furnished();
  codes(leader, [
    ['no slash', remove('x'), ErrorCode.badArguments],
    ['a NUL', remove('/x\0'), ErrorCode.badArguments],
    ['the root', remove('/'), ErrorCode.badArguments],
    ['/zookeeper', remove('/zookeeper'), ErrorCode.badArguments],
    ['/zookeeper/quota', remove('/zookeeper/quota'), ErrorCode.badArguments],
    ['/zookeeper/config', remove('/zookeeper/config'), ErrorCode.badArguments],
    ['no parent', remove('/none/x'), ErrorCode.noNode],
    ['no DELETE on the parent, before the znode', remove('/closed/none'), ErrorCode.noAuth],
    ['no znode', remove('/p/none'), ErrorCode.noNode],
    ['another version, before the children', remove('/p', 3), ErrorCode.badVersion],
    ['children', remove('/p', 0), ErrorCode.notEmpty],
    ['all is well', remove('/p/c', 0), 0],
    ['any version', remove('/p', -1), 0],
  ]);
  expect(leader.codeOf(remove('x'), { sessionId: STRANGER })).toBe(ErrorCode.sessionExpired);
});

test('setData: the first failing check decides', () => {
  const leader = furnished();
  codes(leader, [
    ['a bad path', setData('/p/', 'x'), ErrorCode.badArguments],
    ['no znode', setData('/none', 'x'), ErrorCode.noNode],
    ['no WRITE, before the version', setData('/closed', 'x', 5), ErrorCode.noAuth],
    ['another version', setData('/p', 'x', 1), ErrorCode.badVersion],
    ['the configuration', setData('/zookeeper/config', 'x'), ErrorCode.noAuth],
    ['all is well', setData('/p', 'x', 0), 0],
    ['the root', setData('/', 'x'), 0],
  ]);
  const superAsker = { identity: [{ scheme: 'super', id: '' }] };
  expect(leader.codeOf(setData('/zookeeper/config', 'x'), superAsker)).toBe(ErrorCode.badArguments);
  expect(leader.codeOf(setData('/closed', 'x'), superAsker)).toBe(0);
  expect(leader.codeOf(setData('', 'x'), { sessionId: STRANGER })).toBe(ErrorCode.sessionExpired);
});

test('setACL: the first failing check decides', () => {
  const leader = furnished();
  codes(leader, [
    ['a bad path, before the ACL', setAcl('/p/', null), ErrorCode.badArguments],
    ['a bad ACL, before the znode', setAcl('/none', null), ErrorCode.invalidAcl],
    ['no znode', setAcl('/none', OPEN), ErrorCode.noNode],
    ['no ADMIN, before the version', setAcl('/closed', OPEN, 5), ErrorCode.noAuth],
    ['another aversion', setAcl('/p', OPEN, 1), ErrorCode.badVersion],
    ['all is well', setAcl('/p', aclFor(ALICE), 0), 0],
    ['the next aversion', setAcl('/p', OPEN, 1), 0],
  ]);
  expect(leader.codeOf(setAcl('', OPEN), { sessionId: STRANGER })).toBe(ErrorCode.sessionExpired);
});

test('check: the first failing check decides', () => {
  const leader = furnished();
  const codeOf = (path: string, version: number, asker = {}) => {
    const { body } = leader.run({ kind: 'multi', operations: [check(path, version)] }, asker).txn;
    return body.kind === 'multiError' ? body.codes[0] : 0;
  };
  expect(codeOf('/p/', -1)).toBe(ErrorCode.badArguments);
  expect(codeOf('/none', -1)).toBe(ErrorCode.noNode);
  expect(codeOf('/closed', 5)).toBe(ErrorCode.noAuth);
  expect(codeOf('/p', 1)).toBe(ErrorCode.badVersion);
  expect(codeOf('/p', 0)).toBe(0);
  expect(codeOf('', 0, { sessionId: STRANGER })).toBe(ErrorCode.sessionExpired);
});

test('reconfig is not there yet and says so', () => {
  const leader = furnished();
  const request: WriteRequest = {
    kind: 'reconfig',
    joiningServers: null,
    leavingServers: null,
    newMembers: null,
    curConfigId: -1n,
  };
  expect(leader.codeOf(request)).toBe(ErrorCode.reconfigDisabled);
});

test('permissions are asked of the right znode, by the right bit', () => {
  const cases = [
    [Perms.CREATE, create('/x/new')],
    [Perms.DELETE, remove('/x/c')],
    [Perms.WRITE, setData('/x', 'y')],
    [Perms.ADMIN, setAcl('/x', OPEN)],
  ] as const;
  for (const [bit, request] of cases) {
    for (const perms of [bit, Perms.ALL & ~bit]) {
      const leader = new Leader();
      leader.identity = [ALICE];
      leader.run(create('/x', { acl: OPEN }));
      leader.run(create('/x/c', { acl: aclFor(BOB) }));
      leader.run(setAcl('/x', aclFor(ALICE, perms)));
      expect(leader.codeOf(request)).toBe(perms === bit ? 0 : ErrorCode.noAuth);
    }
  }
});

test('skipACL looks at no list', () => {
  const leader = furnished();
  leader.skipAcl = true;
  expect(leader.codeOf(setData('/closed', 'x'))).toBe(0);
});

test('a failed multi answers 0 before the culprit, its code, and -2 behind', () => {
  const leader = furnished();
  const { txn } = leader.run({
    kind: 'multi',
    operations: [create('/m'), create('/m/c'), remove('/none'), create('/m')],
  });
  expect(txn.body).toEqual({ kind: 'multiError', codes: [0, 0, ErrorCode.noNode, ErrorCode.runtimeInconsistency] });
  expect(leader.slot('/m')).toBe(NO_SLOT);
});

test('operations of a multi see the earlier ones, and a multi of none succeeds', () => {
  const leader = furnished();
  const operations = [
    create('/m'),
    create('/m/a-', { flags: CreateFlag.persistentSequential }),
    create('/m/a-', { flags: CreateFlag.ephemeralSequential }),
    setData('/m', 'x', 0),
    check('/m', 1),
    remove('/m/a-0000000000'),
  ];
  const { result } = leader.run({ kind: 'multi', operations });
  expect(result.operations.map(({ path }) => path)).toEqual([
    '/m',
    '/m/a-0000000000',
    '/m/a-0000000001',
    '/m',
    '/m',
    '/m/a-0000000000',
  ]);
  expect(leader.run({ kind: 'multi', operations: [] }).txn.body).toEqual({ kind: 'multi', operations: [] });
});

test('a failed multi leaves nothing outstanding, of its znodes and of their parents', () => {
  const leader = furnished();
  const before = leader.prepare(create('/p/s-', { flags: CreateFlag.persistentSequential }));
  const failed = leader.prepare({
    kind: 'multi',
    operations: [
      create('/p/s-', { flags: CreateFlag.persistentSequential }),
      remove('/p/c'),
      setData('/p', 'lost'),
      create('/p/e', { flags: CreateFlag.ephemeral }),
      remove('/none'),
    ],
  });
  const after = leader.prepare(create('/p/s-', { flags: CreateFlag.persistentSequential }));
  const close = leader.prepare({ kind: 'closeSession' });
  expect(failed.body.kind).toBe('multiError');
  expect(before.body).toMatchObject({ path: '/p/s-0000000001' });
  expect(after.body).toMatchObject({ path: '/p/s-0000000002', parentCVersion: 3 });
  expect(close.body).toEqual({ kind: 'closeSession', paths: ['/e'] });
  for (const txn of [before, failed, after, close]) expect(leader.apply(txn).result.code).toBe(ErrorCode.ok);
  leader.outstanding.settle(4);
  expect(leader.outstanding.count).toBe(0);
  expect(leader.slot('/p/c')).not.toBe(NO_SLOT);
  expect(leader.stat('/p').version).toBe(0);
});

test('pipelined sequential creates get distinct rising numbers, and failed ones none', () => {
  const leader = furnished();
  const txns: Txn[] = [];
  for (let index = 0; index < 5; index += 1) {
    txns.push(leader.prepare(create('/p/n', { flags: CreateFlag.persistentSequential })));
    txns.push(leader.prepare(create('/p/c')));
  }
  const paths = txns.map((txn) => leader.apply(txn).result.path).filter((path) => path !== '');
  expect(paths).toEqual([1, 2, 3, 4, 5].map((number) => `/p/n000000000${number}`));
});

test('a sequence number that a plain sibling has taken gives NodeExists', () => {
  const leader = furnished();
  leader.run(create('/p/n0000000002'));
  expect(leader.codeOf(create('/p/n', { flags: CreateFlag.persistentSequential }))).toBe(ErrorCode.nodeExists);
});

test('the sequence counter sticks at its end', () => {
  const leader = furnished();
  leader.run(create('/last'));
  const body = {
    kind: 'create',
    path: '/last/x',
    data: null,
    acl: OPEN,
    owner: 0n,
    parentCVersion: 0x7fffffff,
  } as const;
  leader.apply({
    origin: { server: 1, incarnation: 1, sequence: 0 },
    sessionId: leader.sessionId,
    cxid: 0,
    timeMs: 1,
    body,
  });
  const sequential = create('/last/n', { flags: CreateFlag.persistentSequential });
  expect(leader.run(sequential).result.path).toBe('/last/n2147483647');
  expect(leader.codeOf(sequential)).toBe(ErrorCode.nodeExists);
  expect(leader.codeOf(create('/last/plain'))).toBe(0);
});

test('versions wrap like Java ints', () => {
  const leader = furnished();
  const set = (version: number) => ({ kind: 'setData', path: '/p', data: null, version }) as const;
  const txn = leader.prepare(setData('/p', 'x'));
  leader.apply({ ...txn, body: set(0x7fffffff) });
  leader.outstanding.settle();
  expect(leader.run(setData('/p', 'y', 0x7fffffff)).txn.body).toMatchObject({ version: -0x80000000 });
});

test('a closing session takes nothing more, and its list has what is outstanding', () => {
  const leader = furnished();
  leader.run(create('/e2', { flags: CreateFlag.ephemeral }));
  leader.run(create('/e3', { flags: CreateFlag.ephemeral }));
  const txns = [
    leader.prepare(remove('/e2')),
    leader.prepare(create('/p/new', { flags: CreateFlag.ephemeral })),
    leader.prepare(create('/p/short', { flags: CreateFlag.ephemeral })),
    leader.prepare(remove('/p/short')),
    leader.prepare(remove('/e')),
    leader.prepare(create('/e', { flags: CreateFlag.ephemeral })),
    leader.prepare(setData('/e3', 'changed')),
    leader.prepare({ kind: 'closeSession' }),
    leader.prepare(create('/p/late', { flags: CreateFlag.ephemeral })),
    leader.prepare({ kind: 'multi', operations: [create('/late')] }),
    leader.prepare(create('/e'), { sessionId: sessionIdFrom(0x77n) }),
  ];
  expect(txns[7]?.body).toEqual({ kind: 'closeSession', paths: ['/e3', '/p/new', '/e'] });
  expect(txns[8]?.body).toEqual({ kind: 'error', code: ErrorCode.sessionExpired });
  expect(txns[9]?.body).toEqual({ kind: 'multiError', codes: [ErrorCode.sessionExpired] });
  for (const txn of txns) leader.apply(txn);
  leader.outstanding.settle(txns.length);
  expect(leader.tree.ephemeralCount).toBe(0);
  expect(leader.codeOf(create('/x'))).toBe(ErrorCode.sessionExpired);
});

test("another session's request sees the close that is outstanding", () => {
  const leader = furnished();
  const other = sessionIdFrom(0x99n);
  leader.openSession(other);
  const close = leader.prepare({ kind: 'closeSession' });
  const again = leader.prepare(create('/e', { flags: CreateFlag.ephemeral }), { sessionId: other });
  expect(leader.apply(close).result.code).toBe(ErrorCode.ok);
  expect(leader.apply(again).result.code).toBe(ErrorCode.ok);
  expect(leader.stat('/e').ephemeralOwner).toBe(other);
});

test('a session to be created is good for requests, one that is closing cannot be created', () => {
  const leader = furnished();
  const id = sessionIdFrom(0x123n);
  const password = new Uint8Array(16);
  leader.prepare({ kind: 'createSession', timeoutMs: 5000, password }, { sessionId: id });
  expect(leader.prepare(create('/x'), { sessionId: id }).body.kind).toBe('create');
  leader.prepare({ kind: 'closeSession' }, { sessionId: id });
  const again = leader.prepare({ kind: 'createSession', timeoutMs: 5000, password }, { sessionId: id });
  expect(again.body).toEqual({ kind: 'error', code: ErrorCode.sessionExpired });
});

test('closing a session that is not there succeeds: it is gone', () => {
  const leader = furnished();
  expect(leader.run({ kind: 'closeSession' }, { sessionId: STRANGER }).txn.body).toEqual({
    kind: 'closeSession',
    paths: [],
  });
});

test('only an empty container or TTL znode is reaped', () => {
  const leader = furnished({ extendedTypesEnabled: true });
  leader.run({ ...create('/box'), kind: 'createContainer', flags: 4 });
  leader.run(create('/box/c'));
  leader.run({ ...create('/t'), kind: 'createTTL', flags: 5, ttl: 5n });
  const reap = (path: string) => leader.codeOf({ kind: 'deleteContainer', path }, { sessionId: sessionIdFrom(0n) });
  expect(reap('/box')).toBe(ErrorCode.notEmpty);
  expect(reap('/e')).toBe(ErrorCode.badVersion);
  expect(reap('/p/c')).toBe(ErrorCode.badVersion);
  expect(reap('/none')).toBe(ErrorCode.noNode);
  expect(reap('/zookeeper')).toBe(ErrorCode.badArguments);
  leader.run(remove('/box/c'));
  expect(reap('/box')).toBe(0);
  expect(reap('/t')).toBe(0);
  expect([...leader.tree.expirables()]).toEqual([]);
});

test('what was outstanding at the loss of leadership leaves no trace', () => {
  const leader = furnished();
  leader.prepare(create('/lost'));
  leader.prepare({ kind: 'closeSession' });
  leader.outstanding.clear();
  expect(leader.outstanding.count).toBe(0);
  expect(leader.codeOf(create('/lost'))).toBe(0);
});

test('the mutant multiNotAtomic leaves the earlier operations applied', () => {
  const leader = new Leader({ mutations: { ...NO_MUTATIONS, multiNotAtomic: true } });
  const { result } = leader.run({ kind: 'multi', operations: [create('/kept'), remove('/none'), create('/never')] });
  expect(result.kind).toBe('multiError');
  expect(result.operations.map(({ code }) => code)).toEqual([0, ErrorCode.noNode, ErrorCode.runtimeInconsistency]);
  expect(leader.slot('/kept')).not.toBe(NO_SLOT);
  expect(leader.slot('/never')).toBe(NO_SLOT);
});

test('preparing ahead decides exactly as preparing when everything before is applied', () => {
  let multis = 0;
  let failedMultis = 0;
  let closes = 0;
  for (let seed = 1; seed <= 60; seed += 1) {
    const random = new Random(seed);
    const ahead = new Leader();
    const step = new Leader();
    const ids = [0x77n, 0x101n, 0x102n].map(sessionIdFrom);
    for (const leader of [ahead, step]) {
      for (const id of ids.slice(1)) leader.openSession(id);
      leader.identity = [ALICE];
    }
    const queue: Txn[] = [];
    for (let index = 0; index < 150; index += 1) {
      const request = randomRequest(random);
      const sessionId = random.pick(ids);
      const early = ahead.prepare(request, { sessionId });
      queue.push(early);
      const late = step.run(request, { sessionId }).txn;
      expect(early, `seed ${seed}, request ${index}`).toEqual(late);
      if (late.body.kind === 'multi') multis += 1;
      if (late.body.kind === 'multiError') failedMultis += 1;
      if (late.body.kind === 'closeSession') closes += 1;
      // Up to twenty ahead.
      while (queue.length > 20 || (queue.length > 0 && random.below(3) === 0)) {
        const txn = queue.shift();
        if (txn === undefined) break;
        ahead.apply(txn);
        ahead.outstanding.settle();
      }
    }
    for (const txn of queue) ahead.apply(txn);
    ahead.outstanding.settle(queue.length);
    expect(ahead.tree.digest).toBe(step.tree.digest);
    expect(ahead.outstanding.count).toBe(0);
  }
  expect(Math.min(multis, failedMultis, closes)).toBeGreaterThan(50);
});

test('settling more than was prepared is our fault and says so', () => {
  const tree = new DataTree();
  const outstanding = new Outstanding(tree.sessions);
  expect(() => outstanding.settle()).toThrow('only prepared txns are settled');
  expect(tree.lastZxid).toBe(zxidFrom(0n));
});
