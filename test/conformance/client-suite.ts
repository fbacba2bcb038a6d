// What @quorate/client promises, run against a real ensemble: Apache ZooKeeper's and ours go through the same tests.
// Each test works below a chroot of its own. Tests that end servers start them again before they leave.
// Clients of one test may be on different servers: who reads what another one wrote says sync first.

import {
  type Client,
  type ClientOptions,
  CREATOR_ALL_ACL,
  connect,
  MultiError,
  READ_ACL,
  type WatchedEvent,
} from '@quorate/client';
import { expect, test } from 'vitest';
import { type Ensemble, waitFor } from '../support/ensemble.ts';

type Options = Omit<ClientOptions, 'servers'>;

/** Defines the tests. `ensemble` is asked when a test runs: three servers, ready, with extendedTypesEnabled. */
export function defineClientSuite(ensemble: () => Ensemble): void {
  let testCount = 0;

  async function open(chroot = '', options: Options = {}): Promise<Client> {
    const signal = AbortSignal.timeout(20_000);
    return connect(`${ensemble().connectString}${chroot}`, { sessionTimeoutMs: 10_000, ...options, signal });
  }

  /** A client below a fresh chroot, and others there on demand; all end with the test. */
  async function room(options: Options = {}) {
    testCount++;
    const chroot = `/suite-${process.pid}-${Date.now()}-${testCount}`;
    const root = await open();
    await root.create(chroot);
    const client = await open(chroot, options);
    const others: Client[] = [root, client];
    return {
      client,
      chroot,
      async another(more: Options = {}): Promise<Client> {
        const other = await open(chroot, more);
        others.push(other);
        return other;
      },
      async [Symbol.asyncDispose]() {
        await Promise.all(others.map((other) => other.close()));
      },
    };
  }

  test('what is written is read, with the Stat that belongs to it', async () => {
    await using it = await room();
    const { client } = it;
    const { path, stat } = await client.create('/a', 'one');
    expect(path).toBe('/a');
    expect(stat).toMatchObject({ version: 0, cversion: 0, aversion: 0, ephemeralOwner: 0n, dataLength: 3 });
    expect(await client.get('/a')).toEqual({ data: Buffer.from('one'), stat });
    const changed = await client.set('/a', 'three');
    expect(changed).toMatchObject({ czxid: stat.czxid, version: 1, dataLength: 5 });
    expect(changed.mzxid).toBeGreaterThan(stat.mzxid);
    expect(await client.exists('/a')).toEqual(changed);
    await client.create('/a/b', null);
    expect((await client.get('/a/b')).data).toBeNull();
    await client.set('/a/b', '');
    expect((await client.get('/a/b')).data).toEqual(Buffer.alloc(0));
    expect(await client.children('/a')).toMatchObject({ children: ['b'], stat: { numChildren: 1, cversion: 1 } });
    await client.delete('/a/b');
    await client.delete('/a');
    expect(await client.exists('/a')).toBeNull();
    expect(client.lastZxid).toBeGreaterThan(changed.mzxid);
  });

  test('each failure has its code and its path', async () => {
    await using it = await room();
    const { client } = it;
    await client.create('/a');
    await client.create('/a/b');
    await client.create('/e', '', { mode: 'ephemeral' });
    const failures: [Promise<unknown>, string, string][] = [
      [client.get('/none'), 'noNode', '/none'],
      [client.create('/none/x'), 'noNode', '/none/x'],
      [client.create('/a'), 'nodeExists', '/a'],
      [client.delete('/a'), 'notEmpty', '/a'],
      [client.set('/a', '', { version: 9 }), 'badVersion', '/a'],
      [client.delete('/a/b', { version: 9 }), 'badVersion', '/a/b'],
      [client.create('/e/x'), 'noChildrenForEphemerals', '/e/x'],
      [client.create('/i', '', { acl: [] }), 'invalidAcl', '/i'],
      [client.removeWatches('/a'), 'noWatcher', '/a'],
    ];
    for (const [failing, code, path] of failures) await expect(failing).rejects.toMatchObject({ code, path });
  });

  test('znodes of every mode are what their mode says', async () => {
    await using it = await room();
    const { client } = it;
    await client.create('/q');
    const names: string[] = [];
    for (const mode of ['persistentSequential', 'ephemeralSequential'] as const) {
      names.push((await client.create('/q/n-', '', { mode })).path);
    }
    names.push((await client.create('/q/', '', { mode: 'persistentSequential' })).path);
    expect(names).toEqual(['/q/n-0000000000', '/q/n-0000000001', '/q/0000000002']);

    // Clients see 0 for every owner that is not a session.
    const container = await client.create('/container', 'c', { mode: 'container' });
    const ttl = await client.create('/ttl', 't', { ttlMs: 60_000 });
    expect([container.stat.ephemeralOwner, ttl.stat.ephemeralOwner]).toEqual([0n, 0n]);
    const timed = await client.create('/ttl-', 't', { ttlMs: 60_000, mode: 'persistentSequential' });
    expect(timed.path).toMatch(/^\/ttl-\d{10}$/);
    await expect(client.create('/ttl-none', '', { ttlMs: 0 })).rejects.toMatchObject({ code: 'badArguments' });

    const other = await it.another();
    const ephemeral = await other.create('/e', '', { mode: 'ephemeral' });
    expect(ephemeral.stat.ephemeralOwner).toBe(other.sessionId);
    await other.close();
    await client.sync();
    expect(await client.exists('/e')).toBeNull();
  });

  test('a multi takes place as a whole or not at all', async () => {
    await using it = await room();
    const { client } = it;
    await client.create('/a', '0');
    const [created, set, checked, deleted] = await client.multi([
      { kind: 'create', path: '/a/b-', data: 'x', mode: 'ephemeralSequential' },
      { kind: 'set', path: '/a', data: '1', version: 0 },
      { kind: 'check', path: '/a', version: 1 },
      { kind: 'delete', path: '/a/b-0000000000' },
    ]);
    expect(created).toMatchObject({ path: '/a/b-0000000000', stat: { ephemeralOwner: client.sessionId } });
    expect(set.stat).toMatchObject({ version: 1, mzxid: created.stat.czxid });
    expect([checked.kind, deleted.kind]).toEqual(['check', 'delete']);

    const failed: unknown = await client
      .multi([
        { kind: 'set', path: '/a', data: '2' },
        { kind: 'create', path: '/a/c', mode: 'container' },
        { kind: 'create', path: '/none/x' },
        { kind: 'delete', path: '/a' },
      ])
      .catch((error: unknown) => error);
    expect(failed).toBeInstanceOf(MultiError);
    expect(failed).toMatchObject({ index: 2, code: 'noNode', path: '/none/x' });
    expect((await client.get('/a')).data?.toString()).toBe('1');
    expect(await client.multi([])).toEqual([]);
    expect(
      await client.multiRead([
        { kind: 'get', path: '/a' },
        { kind: 'children', path: '/' },
        { kind: 'get', path: '/none' },
      ]),
    ).toMatchObject([
      { kind: 'get', data: Buffer.from('1') },
      { kind: 'children', children: ['a'] },
      { kind: 'error', error: { code: 'noNode', path: '/none' } },
    ]);
  });

  test('ACLs bind those who are not named in them', async () => {
    await using it = await room({ auth: [{ scheme: 'digest', auth: 'ann:secret' }] });
    const { client } = it;
    await client.create('/mine', 'x', { acl: CREATOR_ALL_ACL });
    const { acl } = await client.getAcl('/mine');
    expect(acl).toMatchObject([{ perms: 31, id: { scheme: 'digest', id: expect.stringMatching(/^ann:/) } }]);
    expect(await client.whoAmI()).toContainEqual({ scheme: 'digest', user: 'ann' });

    const stranger = await it.another();
    await stranger.sync();
    await expect(stranger.get('/mine')).rejects.toMatchObject({ code: 'noAuth', path: '/mine' });
    const changed = await client.setAcl('/mine', READ_ACL, { version: 0 });
    expect(changed.aversion).toBe(1);
    await stranger.sync();
    expect((await stranger.get('/mine')).data?.toString()).toBe('x');
    await expect(stranger.set('/mine', 'y')).rejects.toMatchObject({ code: 'noAuth' });

    await client.create('/ours', 'z', { acl: CREATOR_ALL_ACL });
    await stranger.addAuth('digest', 'ann:secret');
    await stranger.sync();
    expect((await stranger.get('/ours')).data?.toString()).toBe('z');
  });

  test('one-shot watches of every kind fire once, to whom they belong', async () => {
    const told: WatchedEvent[] = [];
    await using it = await room({ watcher: (event) => told.push(event) });
    const { client } = it;
    const writer = await it.another();
    const own: string[] = [];
    const tell = (who: string) => (event: WatchedEvent) => void own.push(`${who} ${event.kind}`);
    await writer.create('/d', '');
    await client.sync();
    await client.get('/d', { watch: tell('data') });
    await client.exists('/n', { watch: tell('exist') });
    await client.children('/', { watch: tell('child') });
    await client.exists('/d', { watch: true });
    await writer.set('/d', '1');
    await writer.set('/d', '2');
    await writer.create('/n', '');
    await writer.delete('/d');
    await client.sync();
    expect(own).toEqual(['data nodeDataChanged', 'exist nodeCreated', 'child nodeChildrenChanged']);
    expect(told).toMatchObject([
      { kind: 'session', state: 'connected' },
      { kind: 'nodeDataChanged', path: '/d' },
    ]);
  });

  test('a watch event comes before any reply that could reveal its change, also to the writer itself', async () => {
    await using it = await room();
    const { client } = it;
    await client.create('/w', '');
    for (let i = 0; i < 20; i++) {
      const order: string[] = [];
      const watched = client.get('/w', { watch: () => order.push('event') }).then(() => order.push('read'));
      const written = client.set('/w', `${i}`).then(() => order.push('written'));
      await Promise.all([watched, written]);
      expect(order).toEqual(['read', 'event', 'written']);
    }
  });

  test('a persistent watch tells everything, in order, until it is closed', async () => {
    await using it = await room();
    const { client } = it;
    const writer = await it.another();
    const flat = await client.addWatch('/p');
    const deep = await client.addWatch('/p', { recursive: true });
    await writer.create('/p', '');
    await writer.create('/p/c', '');
    await writer.set('/p/c', '1');
    await writer.set('/p', '1');
    await writer.delete('/p/c');
    await writer.delete('/p');
    const take = async (stream: typeof flat, count: number): Promise<string[]> => {
      const texts: string[] = [];
      for await (const event of stream) {
        texts.push(event.kind === 'session' ? event.state : `${event.kind} ${event.path}`);
        if (texts.length === count) break;
      }
      return texts;
    };
    expect(await take(flat, 5)).toEqual([
      'nodeCreated /p',
      'nodeChildrenChanged /p',
      'nodeDataChanged /p',
      'nodeChildrenChanged /p',
      'nodeDeleted /p',
    ]);
    expect(await take(deep, 6)).toEqual([
      'nodeCreated /p',
      'nodeCreated /p/c',
      'nodeDataChanged /p/c',
      'nodeDataChanged /p',
      'nodeDeleted /p/c',
      'nodeDeleted /p',
    ]);
    // Leaving the loops has closed both: the server holds no watch of ours any more.
    await expect(client.removeWatches('/p')).rejects.toMatchObject({ code: 'noWatcher' });
  });

  test('watches can be removed by kind, and the others stay', async () => {
    await using it = await room();
    const { client } = it;
    await client.create('/r', '');
    const told: string[] = [];
    await client.get('/r', { watch: (event) => told.push(`data ${event.kind}`) });
    await client.children('/r', { watch: (event) => told.push(`child ${event.kind}`) });
    const stream = await client.addWatch('/r');
    await client.removeWatches('/r', { kind: 'children' });
    await client.set('/r', '1');
    expect(told).toEqual(['child watchRemoved', 'data nodeDataChanged']);
    expect((await stream.next()).value).toMatchObject({ kind: 'nodeDataChanged' });
    await client.removeWatches('/r', { kind: 'persistent' });
    expect((await stream.next()).done).toBe(true);
  });

  test('getEphemerals and getAllChildrenNumber count below the chroot', async () => {
    await using it = await room();
    const { client } = it;
    await client.create('/a');
    await client.create('/a/1', '', { mode: 'ephemeral' });
    await client.create('/a/2', '', { mode: 'ephemeral' });
    await client.create('/b', '', { mode: 'ephemeral' });
    expect((await client.getEphemerals()).toSorted()).toEqual(['/a/1', '/a/2', '/b']);
    expect((await client.getEphemerals('/a')).toSorted()).toEqual(['/a/1', '/a/2']);
    expect(await client.getAllChildrenNumber('/')).toBe(4);
    expect(await client.getAllChildrenNumber('/a')).toBe(2);
  });

  test('calls of one client take effect and are answered in the order they were made', async () => {
    await using it = await room();
    const { client } = it;
    await client.create('/n', 'start');
    const answers: Promise<string>[] = [];
    for (let i = 0; i < 500; i++) {
      answers.push(client.set('/n', `${i}`).then(({ version }) => `set ${version}`));
      answers.push(client.get('/n').then(({ data }) => `got ${data}`));
    }
    const expected = Array.from({ length: 500 }, (_, i) => [`set ${i + 1}`, `got ${i}`]).flat();
    expect(await Promise.all(answers)).toEqual(expected);
  }, 30_000);

  test('a request above the limit is refused here, and one just below it arrives', async () => {
    await using it = await room();
    const { client } = it;
    await client.create('/big', '');
    await expect(client.set('/big', Buffer.alloc(1_048_576))).rejects.toMatchObject({ code: 'badArguments' });
    const data = Buffer.alloc(1_000_000, 7);
    await client.set('/big', data);
    expect((await client.get('/big')).data?.equals(data)).toBe(true);
  }, 20_000);

  test('a list of children may be longer than any request', async () => {
    await using it = await room();
    const { client } = it;
    const names = Array.from({ length: 7_000 }, (_, index) => `${String(index).padStart(5, '0')}-${'n'.repeat(160)}`);
    for (let at = 0; at < names.length; at += 1_000) {
      await client.multi(names.slice(at, at + 1_000).map((name) => ({ kind: 'create' as const, path: `/${name}` })));
    }
    const { children, stat } = await client.children('/');
    expect(children.toSorted()).toEqual(names);
    expect(stat.numChildren).toBe(names.length);
    // A client that takes less ends that call, not its session.
    const narrow = await it.another({ replyBytesMax: 100_000 });
    await narrow.sync();
    await expect(narrow.children('/')).rejects.toMatchObject({ code: 'marshallingError' });
    expect(await narrow.getAllChildrenNumber('/')).toBe(names.length);
  }, 30_000);

  test('the session survives its server: same id, ephemerals, and more watches than fit into one frame', async () => {
    const states: string[] = [];
    await using it = await room({ watcher: (event) => event.kind === 'session' && states.push(event.state) });
    const { client } = it;
    const { sessionId } = client;
    await client.create('/e', '', { mode: 'ephemeral' });
    const paths = Array.from({ length: 1_200 }, (_, index) => `/w-${'x'.repeat(150)}-${index}`);
    const fired = new Set<string>();
    const watch = (event: WatchedEvent): void => {
      if (event.kind === 'nodeCreated') fired.add(event.path);
    };
    await Promise.all(paths.map((path) => client.exists(path, { watch })));
    const stream = await client.addWatch('/e');

    const victim = ensemble().servers.find(({ address }) => address === client.server);
    if (victim === undefined) throw new Error('the client names a server of the ensemble');
    await ensemble().kill(victim.id, 'SIGKILL');
    await waitFor('the session elsewhere', () => states.length === 3 && client.state === 'connected', 20_000);
    expect(states).toEqual(['connected', 'suspended', 'connected']);
    expect(client.sessionId).toBe(sessionId);
    expect(client.server).not.toBe(victim.address);
    expect((await client.exists('/e'))?.ephemeralOwner).toBe(sessionId);

    for (let at = 0; at < paths.length; at += 100) {
      await client.multi(paths.slice(at, at + 100).map((path) => ({ kind: 'create' as const, path })));
    }
    await client.sync();
    expect(fired.size).toBe(paths.length);
    await client.set('/e', '1');
    const told: string[] = [];
    for await (const event of stream) {
      told.push(event.kind === 'session' ? event.state : event.kind);
      if (told.length === 3) break;
    }
    expect(told).toEqual(['suspended', 'connected', 'nodeDataChanged']);
    await ensemble().startServer(victim.id);
  }, 60_000);

  test('while writes go on, the loss of the leader costs at most the writes that were underway', async () => {
    await using it = await room();
    const { client } = it;
    await client.create('/counter', '0');
    const leader = await ensemble().findLeader();
    if (leader === null) throw new Error('an ensemble has a leader');
    let acknowledgedCount = 0;
    let unknownCount = 0;
    let isKilled = false;
    const deadlineMs = Date.now() + 30_000;
    for (let afterKillCount = 0; afterKillCount < 50; ) {
      expect(Date.now()).toBeLessThan(deadlineMs);
      if (acknowledgedCount === 20 && !isKilled) {
        isKilled = true;
        await ensemble().kill(leader, 'SIGKILL');
      }
      try {
        await client.set('/counter', 'x', { signal: AbortSignal.timeout(25_000) });
        acknowledgedCount++;
        if (isKilled) afterKillCount++;
      } catch (error) {
        expect(error).toMatchObject({ code: 'connectionLoss' });
        unknownCount++;
      }
    }
    const version = (await client.exists('/counter'))?.version ?? -1;
    expect(version).toBeGreaterThanOrEqual(acknowledgedCount);
    expect(version).toBeLessThanOrEqual(acknowledgedCount + unknownCount);
    await ensemble().startServer(leader);
  }, 60_000);

  test('when every server is gone the session says suspended, then expired on its own account, and a new client goes on', async () => {
    await using it = await room({ sessionTimeoutMs: 4_000 });
    const { client } = it;
    const stream = await client.addWatch('/s');
    const timeoutMs = client.sessionTimeoutMs;
    await Promise.all(ensemble().servers.map(({ id }) => ensemble().kill(id, 'SIGKILL')));
    await waitFor('suspended', () => client.state === 'suspended', 5_000);
    const waiting = client.get('/s');
    const sinceMs = Date.now();
    await expect(waiting).rejects.toMatchObject({ code: 'sessionExpired' });
    expect(client.state).toBe('expired');
    expect(Date.now() - sinceMs).toBeLessThan((timeoutMs * 4) / 3 + 1_000);
    expect((await stream.next()).value).toMatchObject({ state: 'suspended' });
    await expect(stream.next()).rejects.toMatchObject({ code: 'sessionExpired' });
    await ensemble().startAll();
    const next = await it.another();
    expect(await next.exists('/s')).toBeNull();
  }, 90_000);
}
