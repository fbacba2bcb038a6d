import { CreateFlag, sessionIdFrom } from '@quorate/protocol';
import { expect, test } from 'vitest';
import { beginSnapshot, DataTree, SnapshotError, SnapshotLoader, type SnapshotWalk } from './index.ts';
import { ALICE, aclFor, create, Leader, OPEN, Random, remove, setAcl, setData } from './leader.test-data.ts';

function drain(walk: SnapshotWalk, bytesMax = 500): Uint8Array[] {
  const chunks: Uint8Array[] = [];
  for (let chunk = walk.next(bytesMax); chunk !== null; chunk = walk.next(bytesMax)) chunks.push(chunk);
  return chunks;
}

function load(chunks: readonly Uint8Array[]) {
  const loader = new SnapshotLoader();
  for (const chunk of chunks) loader.push(chunk);
  return loader.finish();
}

function furnished(): Leader {
  const leader = new Leader();
  leader.openSession(sessionIdFrom(-9n), 4000);
  for (let folder = 0; folder < 10; folder += 1) {
    leader.run(create(`/f${folder}`, { acl: folder % 2 === 0 ? OPEN : aclFor(ALICE), data: null }));
    for (let child = 0; child < 20; child += 1) {
      leader.skipAcl = true;
      leader.run(create(`/f${folder}/größe-${child}`, { data: 'x'.repeat(child) }));
    }
  }
  leader.run(create('/f1/e', { flags: CreateFlag.ephemeral }));
  leader.run(create('/f0/e', { flags: CreateFlag.ephemeral }));
  leader.run({ ...create('/box'), kind: 'createContainer', flags: 4 });
  return leader;
}

/** Everything that can be read of a tree, by path. */
function everything(tree: DataTree): Map<string, unknown> {
  const all = new Map<string, unknown>();
  const visit = (path: string): void => {
    const slot = tree.find(path);
    const data = tree.dataOf(slot);
    all.set(path, {
      stat: tree.statOf(slot),
      owner: tree.ownerOf(slot),
      cversion: tree.storedCVersionOf(slot),
      acl: tree.aclOf(slot),
      data: data === null ? null : [...data],
      descendants: tree.countDescendants(slot),
      crc: tree.crcOf(slot),
    });
    for (const name of tree.children(slot)) visit(path === '/' ? `/${name}` : `${path}/${name}`);
  };
  visit('/');
  for (const { id, agreedTimeoutMs, password } of tree.sessions.all()) {
    all.set(`session ${id}`, { agreedTimeoutMs, password: [...password], ephemerals: [...tree.ephemeralsOf(id)] });
  }
  all.set('totals', [tree.znodeCount, tree.approximateDataBytes, tree.digest, tree.lastZxid, tree.ephemeralCount]);
  return all;
}

test('a tree and its sessions come back as they were', () => {
  const leader = furnished();
  const { tree, sessions } = load(drain(beginSnapshot(leader.tree)));
  expect(everything(tree)).toEqual(everything(leader.tree));
  expect(tree.sessions).toBe(sessions);
});

test('a new tree has a snapshot too', () => {
  const { tree } = load(drain(beginSnapshot(new DataTree())));
  expect(everything(tree)).toEqual(everything(new DataTree()));
});

test('a loaded tree goes on like the one it was taken of', () => {
  const leader = furnished();
  const { tree } = load(drain(beginSnapshot(leader.tree)));
  const mark = leader.log.length;
  leader.run(remove('/f3/größe-4'));
  leader.run(create('/f3/new'));
  leader.run(setData('/f1', 'now'));
  leader.run({ kind: 'closeSession' });
  for (const { zxid, txn } of leader.log.slice(mark)) tree.apply(zxid, txn, []);
  expect(everything(tree)).toEqual(everything(leader.tree));
});

test('every change of any kind while the walk is under way stays out of it', () => {
  const leader = furnished();
  const before = everything(leader.tree);
  const walk = beginSnapshot(leader.tree);
  const chunks: Uint8Array[] = [];
  const changes = [
    () => leader.run(setData('/f9/größe-3', 'changed')),
    () => leader.run(remove('/f9/größe-4')),
    () => leader.run(create('/f9/in-a-freed-slot')),
    () => leader.run(setAcl('/f8', aclFor(ALICE))),
    () => leader.run(setAcl('/f1', OPEN)),
    () => leader.run({ kind: 'multi', operations: [create('/m'), create('/m/x'), remove('/f7/größe-0')] }),
    () => leader.run({ kind: 'closeSession' }),
    () => leader.openSession(sessionIdFrom(1234n)),
    () => leader.tree.installConfig(new Uint8Array(3), leader.tree.lastZxid),
    () => leader.run(setData('/', 'root'), { sessionId: sessionIdFrom(-9n) }),
  ];
  for (const change of changes) {
    change();
    const chunk = walk.next(700);
    if (chunk !== null) chunks.push(chunk);
  }
  chunks.push(...drain(walk));
  expect(everything(load(chunks).tree)).toEqual(before);
});

test('two walks at different zxids do not disturb each other', () => {
  const leader = furnished();
  const first = beginSnapshot(leader.tree);
  const atFirst = everything(leader.tree);
  leader.run(setData('/f5', 'between'));
  const second = beginSnapshot(leader.tree);
  const atSecond = everything(leader.tree);
  leader.run(remove('/f9/größe-9'));
  leader.run(create('/later'));
  expect(everything(load(drain(first)).tree)).toEqual(atFirst);
  expect(everything(load(drain(second)).tree)).toEqual(atSecond);
});

test('a walk that was given up costs nothing more', () => {
  const leader = furnished();
  const walk = beginSnapshot(leader.tree);
  walk.next(100);
  walk.abort();
  expect(walk.next(100)).toBe(null);
  leader.run(setData('/f5', 'x'));
  expect(walk.next(100)).toBe(null);
});

test('a chunk is about as large as asked for', () => {
  const leader = furnished();
  const chunks = drain(beginSnapshot(leader.tree), 1000);
  expect(chunks.length).toBeGreaterThan(10);
  for (const chunk of chunks) expect(chunk.length).toBeLessThan(1300);
});

test('bytes may be cut anywhere', () => {
  const leader = new Leader();
  leader.run(create('/a', { data: 'some data', acl: aclFor(ALICE) }));
  const bytes = Buffer.concat(drain(beginSnapshot(leader.tree)));
  for (let cut = 1; cut < bytes.length; cut += 1) {
    const { tree } = load([bytes.subarray(0, cut), bytes.subarray(cut)]);
    expect(tree.digest).toBe(leader.tree.digest);
  }
  const oneByOne = load([...bytes].map((byte) => Uint8Array.of(byte)));
  expect(everything(oneByOne.tree)).toEqual(everything(leader.tree));
});

test('a snapshot cut short, at any byte, is refused', () => {
  const leader = new Leader();
  leader.run(create('/a'));
  const bytes = Buffer.concat(drain(beginSnapshot(leader.tree)));
  for (let cut = 0; cut < bytes.length; cut += 1) expect(() => load([bytes.subarray(0, cut)])).toThrow(SnapshotError);
  expect(() => load([bytes, Uint8Array.of(1, 0, 0, 0, 9)])).toThrow(SnapshotError);
});

test('a snapshot with a wrong bit in any byte is refused, or tells of nothing that matters', () => {
  const leader = new Leader();
  leader.run(create('/a', { data: 'some data', acl: aclFor(ALICE) }));
  leader.run(create('/a/b', { flags: CreateFlag.ephemeral }));
  const whole = everything(leader.tree);
  const bytes = Buffer.concat(drain(beginSnapshot(leader.tree)));
  let refused = 0;
  let harmless = 0;
  const random = new Random(3);
  for (let byte = 0; byte < bytes.length; byte += 1) {
    const bit = byte * 8 + random.below(8);
    const damaged = Buffer.from(bytes);
    damaged[bit >> 3] = (damaged[bit >> 3] ?? 0) ^ (1 << (bit & 7));
    try {
      const { tree } = load([damaged]);
      harmless += 1;
      // Its own zxid, the local configuration, and slot numbers are not the digest's business: the file's checksums
      // guard them. Nothing else may differ.
      const seen = everything(tree);
      for (const key of ['/', '/a', '/a/b', '/zookeeper', '/zookeeper/quota', `session ${leader.sessionId}`]) {
        expect(seen.get(key), `bit ${bit}`).toEqual(whole.get(key));
      }
    } catch (error) {
      expect(error).toBeInstanceOf(SnapshotError);
      refused += 1;
    }
  }
  expect(refused).toBeGreaterThan(harmless * 2);
});

test('a snapshot at a random moment is the state at its zxid, however many writes go on', () => {
  let walks = 0;
  for (let seed = 1; seed <= 25; seed += 1) {
    const random = new Random(seed);
    const leader = new Leader();
    leader.skipAcl = true;
    let walk: { walk: SnapshotWalk; chunks: Uint8Array[]; expected: Map<string, unknown> } | null = null;
    for (let step = 0; step < 400; step += 1) {
      const path = random.pick(['', '/a', '/b', '/c', '/a/a', '/b/b']) + random.pick(['/a', '/b', '/c', '/d', '/e']);
      const request = [
        create(path, { flags: random.pick([0, 0, 1, 2, 4]), data: 'd'.repeat(random.below(60)) }),
        create(path, { acl: random.pick([OPEN, aclFor(ALICE)]) }),
        remove(path),
        setData(path, 's'.repeat(random.below(60))),
        setAcl(path, random.pick([OPEN, aclFor(ALICE), aclFor(ALICE, 1)])),
      ][random.below(5)];
      if (request !== undefined) leader.run(request);
      if (random.below(100) === 0) {
        leader.run({ kind: 'closeSession' });
        leader.openSession(leader.sessionId);
      }
      if (walk === null) {
        if (random.below(30) !== 0) continue;
        walk = { walk: beginSnapshot(leader.tree), chunks: [], expected: everything(leader.tree) };
      } else if (random.below(2) === 0) {
        const chunk = walk.walk.next(random.below(200));
        if (chunk !== null) {
          walk.chunks.push(chunk);
          continue;
        }
        expect(everything(load(walk.chunks).tree), `seed ${seed}`).toEqual(walk.expected);
        walks += 1;
        walk = null;
      }
    }
    walk?.walk.abort();
  }
  expect(walks).toBeGreaterThan(50);
});
