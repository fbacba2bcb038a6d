import { ErrorCode, EventType, type Response, type Stat, zxidFrom } from '@quorate/protocol';
import { expect, test } from 'vitest';
import { type ScriptedConnection, ScriptedServer } from '../../../test/support/scripted-server.ts';
import { Client, connect, OPEN_ACL } from './client.ts';
import { MultiError } from './errors.ts';
import type { WatchedEvent } from './watches.ts';

const ZXID = zxidFrom(1n);
const STAT: Stat = {
  czxid: ZXID,
  mzxid: ZXID,
  ctime: 0,
  mtime: 0,
  version: 0,
  cversion: 0,
  aversion: 0,
  ephemeralOwner: 0n,
  dataLength: 0,
  numChildren: 0,
  pzxid: ZXID,
};

async function start(chroot = '', watcher?: (event: WatchedEvent) => void) {
  const server = await ScriptedServer.start();
  const servers = `127.0.0.1:${server.port}${chroot}`;
  const client = new Client(watcher === undefined ? { servers } : { servers, watcher });
  const connection = await server.serve();
  await client.whenConnected();
  return {
    server,
    client,
    connection,
    async [Symbol.asyncDispose]() {
      const closed = client.close();
      await answer(connection, { kind: 'closeSession' });
      await closed;
      await server[Symbol.asyncDispose]();
    },
  };
}

async function answer(connection: ScriptedConnection, response: Response | number) {
  const { xid, request } = await connection.next();
  connection.reply(xid, 1n, response);
  return request;
}

test('the chroot is put before every path that goes out and taken from every path that comes in', async () => {
  const events: WatchedEvent[] = [];
  await using it = await start('/app', (event) => events.push(event));
  const { client, connection } = it;
  const created = client.create('/a', 'x', { mode: 'persistentSequential' });
  expect(await answer(connection, { kind: 'create2', path: '/app/a0000000003', stat: STAT })).toMatchObject({
    path: '/app/a',
  });
  expect((await created).path).toBe('/a0000000003');

  const rooted = client.children('/', { watch: true });
  expect(await answer(connection, { kind: 'getChildren2', children: ['a'], stat: STAT })).toMatchObject({
    path: '/app',
  });
  expect((await rooted).children).toEqual(['a']);

  const ephemerals = client.getEphemerals();
  expect(await answer(connection, { kind: 'getEphemerals', paths: ['/app/e', '/app', '/apple/e'] })).toMatchObject({
    path: '/app',
  });
  expect(await ephemerals).toEqual(['/e', '/']);

  const adding = client.addWatch('/', { recursive: true });
  await answer(connection, { kind: 'addWatch', err: 0 });
  const stream = await adding;
  connection.event(EventType.nodeChildrenChanged, '/app', 9n);
  connection.event(EventType.nodeCreated, '/app/b', 9n);
  expect((await stream.next()).value).toEqual({ kind: 'nodeCreated', path: '/b', zxid: 9n });
  expect(events).toEqual([
    { kind: 'session', state: 'connected', isReadOnly: false },
    { kind: 'nodeChildrenChanged', path: '/', zxid: 9n },
  ]);

  const multi = client.multi([
    { kind: 'create', path: '/m' },
    { kind: 'check', path: '/n' },
  ]);
  expect(
    await answer(connection, {
      kind: 'multi',
      results: [{ kind: 'create2', path: '/app/m', stat: STAT }, { kind: 'check' }],
    }),
  ).toMatchObject({ operations: [{ path: '/app/m' }, { path: '/app/n' }] });
  expect((await multi)[0].path).toBe('/m');
});

test.each([
  ['nothing said', {}, { kind: 'create2', flags: 0, ttl: -1n, acl: OPEN_ACL }],
  ['ephemeral', { mode: 'ephemeral' }, { kind: 'create2', flags: 1 }],
  ['persistentSequential', { mode: 'persistentSequential' }, { kind: 'create2', flags: 2 }],
  ['ephemeralSequential', { mode: 'ephemeralSequential' }, { kind: 'create2', flags: 3 }],
  ['container', { mode: 'container' }, { kind: 'createContainer', flags: 4 }],
  ['ttlMs', { ttlMs: 1500 }, { kind: 'createTTL', flags: 5, ttl: 1500n }],
  ['ttlMs, sequential', { ttlMs: 1500, mode: 'persistentSequential' }, { kind: 'createTTL', flags: 6, ttl: 1500n }],
] as const)('create with %s becomes the request that says so', async (_, options, request) => {
  await using it = await start();
  const created = it.client.create('/a', null, options);
  expect(await answer(it.connection, { kind: 'create2', path: '/a', stat: STAT })).toMatchObject(request);
  await created;
});

test('what cannot be meant is refused here and never sent', async () => {
  await using it = await start();
  const { client } = it;
  const bad = { code: 'badArguments' };
  await expect(client.get('a')).rejects.toMatchObject(bad);
  await expect(client.delete('/a/')).rejects.toMatchObject(bad);
  await expect(client.create('/a/../b')).rejects.toMatchObject(bad);
  await expect(client.addWatch('')).rejects.toMatchObject(bad);
  await expect(client.create('/a', '', { mode: 'ephemeral', ttlMs: 5 })).rejects.toMatchObject(bad);
  await expect(client.get('/a', { watch: true })).rejects.toMatchObject(bad);
  await expect(client.multi([{ kind: 'check', path: 'x' }])).rejects.toMatchObject(bad);
  expect(() => new Client({ servers: '127.0.0.1/app/' })).toThrow(expect.objectContaining(bad));
  expect(it.connection.arrivedCount).toBe(0);
});

test('a sequential path may end with a slash', async () => {
  await using it = await start();
  const created = it.client.create('/q/', null, { mode: 'ephemeralSequential' });
  expect(await answer(it.connection, { kind: 'create2', path: '/q/0000000000', stat: STAT })).toMatchObject({
    path: '/q/',
  });
  expect((await created).path).toBe('/q/0000000000');
});

test('null and empty data are different values, both ways', async () => {
  await using it = await start();
  for (const data of [null, new Uint8Array(0)]) {
    const [written, read] = [it.client.set('/a', data), it.client.get('/a')];
    expect(await answer(it.connection, { kind: 'setData', stat: STAT })).toMatchObject({ data });
    await answer(it.connection, { kind: 'getData', data, stat: STAT });
    await written;
    expect((await read).data).toEqual(data === null ? null : Buffer.alloc(0));
  }
});

test('a failed multi names the operation that failed, whatever stands before and behind it', async () => {
  await using it = await start();
  const multi = it.client.multi([
    { kind: 'set', path: '/a', data: '' },
    { kind: 'delete', path: '/b', version: 3 },
    { kind: 'check', path: '/c' },
  ]);
  await answer(it.connection, {
    kind: 'multi',
    results: [
      { kind: 'error', code: ErrorCode.ok },
      { kind: 'error', code: ErrorCode.badVersion },
      { kind: 'error', code: ErrorCode.runtimeInconsistency },
    ],
  });
  const error: unknown = await multi.catch((reason: unknown) => reason);
  expect(error).toBeInstanceOf(MultiError);
  expect(error).toMatchObject({ index: 1, code: 'badVersion', path: '/b' });
});

test('a multiRead gives each operation its own result', async () => {
  await using it = await start();
  const reading = it.client.multiRead([
    { kind: 'get', path: '/a' },
    { kind: 'children', path: '/b' },
    { kind: 'get', path: '/c' },
  ]);
  expect(
    await answer(it.connection, {
      kind: 'multiRead',
      results: [
        { kind: 'getData', data: null, stat: STAT },
        { kind: 'getChildren', children: ['x'] },
        { kind: 'error', code: ErrorCode.noNode },
      ],
    }),
  ).toMatchObject({ operations: [{ kind: 'getData' }, { kind: 'getChildren' }, { kind: 'getData' }] });
  expect(await reading).toMatchObject([
    { kind: 'get', data: null },
    { kind: 'children', children: ['x'] },
    { kind: 'error', error: { code: 'noNode', path: '/c' } },
  ]);
});

test('a one-shot watch is entered by the reply: after a failed read there is none', async () => {
  await using it = await start();
  const { client, connection } = it;
  const told: string[] = [];
  const watch = (event: WatchedEvent): void => void told.push(event.kind);
  const failed = client.get('/a', { watch });
  await answer(connection, ErrorCode.noNode);
  await expect(failed).rejects.toMatchObject({ code: 'noNode', path: '/a', message: 'noNode: /a does not exist' });
  connection.event(EventType.nodeCreated, '/a', 5n);
  const missing = client.exists('/a', { watch });
  await answer(connection, ErrorCode.noNode);
  expect(await missing).toBeNull();
  connection.event(EventType.nodeCreated, '/a', 6n);
  connection.event(EventType.nodeDataChanged, '/a', 7n);
  const fence = client.sync();
  await answer(connection, { kind: 'sync', path: '/' });
  await fence;
  expect(told).toEqual(['nodeCreated']);
});

test('the last persistent watch on a path takes its entry from the server', async () => {
  await using it = await start();
  const { client, connection } = it;
  const adding = [client.addWatch('/p'), client.addWatch('/p')];
  await answer(connection, { kind: 'addWatch', err: 0 });
  await answer(connection, { kind: 'addWatch', err: 0 });
  const [first, second] = await Promise.all(adding);
  await first?.close();
  const closing = second?.close();
  expect(await answer(connection, { kind: 'removeWatches' })).toEqual({ kind: 'removeWatches', path: '/p', type: 4 });
  await closing;
  expect((await second?.next())?.done).toBe(true);
});

test('an overflown persistent watch is taken from the server too', async () => {
  await using it = await start();
  const adding = it.client.addWatch('/p', { eventsMax: 1 });
  await answer(it.connection, { kind: 'addWatch', err: 0 });
  const stream = await adding;
  it.connection.event(EventType.nodeDataChanged, '/p', 2n);
  it.connection.event(EventType.nodeDataChanged, '/p', 3n);
  expect(await answer(it.connection, { kind: 'removeWatches' })).toMatchObject({ kind: 'removeWatches', path: '/p' });
  expect((await stream.next()).value).toMatchObject({ zxid: 2n });
  await expect(stream.next()).rejects.toMatchObject({ name: 'WatchOverflowError', eventsMax: 1 });
});

test('leaving a for await loop closes its watch', async () => {
  await using it = await start();
  const adding = it.client.addWatch('/p');
  await answer(it.connection, { kind: 'addWatch', err: 0 });
  const stream = await adding;
  it.connection.event(EventType.nodeDeleted, '/p', 2n);
  const removal = answer(it.connection, { kind: 'removeWatches' });
  for await (const event of stream) {
    expect(event).toMatchObject({ kind: 'nodeDeleted' });
    break;
  }
  expect(await removal).toMatchObject({ kind: 'removeWatches' });
});

test('removeWatches tells the removed watcher and rejects with noWatcher where there is none', async () => {
  await using it = await start();
  const { client, connection } = it;
  const told: WatchedEvent[] = [];
  const read = client.get('/a', { watch: (event) => told.push(event) });
  await answer(connection, { kind: 'getData', data: null, stat: STAT });
  await read;
  const removing = client.removeWatches('/a', { kind: 'data' });
  expect(await answer(connection, { kind: 'removeWatches' })).toMatchObject({ type: 2 });
  await removing;
  expect(told).toEqual([{ kind: 'watchRemoved', path: '/a' }]);
  const again = client.removeWatches('/a');
  expect(await answer(connection, ErrorCode.noWatcher)).toMatchObject({ type: 3 });
  await expect(again).rejects.toMatchObject({ code: 'noWatcher' });
});

test('connect resolves when a server serves the session, and rejects with the reason of its signal', async () => {
  await using server = await ScriptedServer.start();
  const connecting = connect(`127.0.0.1:${server.port}`, { sessionTimeoutMs: 4_000 });
  const connection = await server.serve();
  const client = await connecting;
  expect(client.state).toBe('connected');
  const closed = client.close();
  await answer(connection, { kind: 'closeSession' });
  await closed;

  const controller = new AbortController();
  const waiting = connect(`127.0.0.1:${server.port}`, { signal: controller.signal });
  const ungranted = await server.accept();
  controller.abort('enough');
  await expect(waiting).rejects.toBe('enough');
  await ungranted.closed;
});
