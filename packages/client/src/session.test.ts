import { ErrorCode, EventType, type Response, type Stat, zxidFrom } from '@quorate/protocol';
import { expect, test, vi } from 'vitest';
import { ManualClock, type ScriptedConnection, ScriptedServer } from '../../../test/support/scripted-server.ts';
import { Client, type ClientOptions } from './client.ts';
import type { WatchedEvent } from './watches.ts';

const STAT: Stat = {
  czxid: zxidFrom(1n),
  mzxid: zxidFrom(2n),
  ctime: 3,
  mtime: 4,
  version: 5,
  cversion: 6,
  aversion: 7,
  ephemeralOwner: 0n,
  dataLength: 1,
  numChildren: 0,
  pzxid: zxidFrom(9n),
};
const DATA: Response = { kind: 'getData', data: Buffer.from('x'), stat: STAT };

/** A client that dials the scripted server without delay, and what its default watcher was told. */
function makeClient(server: ScriptedServer, options: Partial<ClientOptions> = {}) {
  const told: string[] = [];
  const watcher = (event: WatchedEvent): void => {
    told.push(event.kind === 'session' ? event.state : `${event.kind} ${event.path}`);
  };
  const address = { host: '127.0.0.1', port: server.port };
  const client = new Client({
    servers: `127.0.0.1:${server.port}`,
    sessionTimeoutMs: 6_000,
    watcher,
    hostProvider: { size: () => 1, next: () => ({ server: address, delayMs: 0 }), onConnected() {} },
    ...options,
  });
  return { client, told };
}

async function replyTo(connection: ScriptedConnection, zxid: bigint, answer: Response | number) {
  const { xid, request } = await connection.next();
  connection.reply(xid, zxid, answer);
  return request;
}

async function closeInOrder(client: Client, connection: ScriptedConnection): Promise<void> {
  await client.whenConnected();
  const closed = client.close();
  expect(await replyTo(connection, 1n, { kind: 'closeSession' })).toEqual({ kind: 'closeSession' });
  await closed;
  expect(client.state).toBe('closed');
}

test('the handshake asks for a new session with the read-only byte, and takes what the server grants', async () => {
  await using server = await ScriptedServer.start();
  const { client, told } = makeClient(server);
  expect(client.state).toBe('connecting');
  const connection = await server.accept();
  expect(connection.handshakeBytes).toBe(45);
  expect(connection.handshake).toMatchObject({ lastZxidSeen: 0n, timeoutMs: 6_000, sessionId: 0n, readOnly: false });
  connection.grant({ timeoutMs: 4_000, sessionId: 0x77n });
  await client.whenConnected();
  expect([client.state, client.sessionId, client.sessionTimeoutMs, client.isReadOnly]).toEqual([
    'connected',
    0x77n,
    4_000,
    false,
  ]);
  expect(client.server).toBe(`127.0.0.1:${server.port}`);
  await closeInOrder(client, connection);
  expect(told).toEqual(['connected', 'closed']);
});

test('the old form of the response, without the read-only byte, is understood', async () => {
  await using server = await ScriptedServer.start();
  const { client } = makeClient(server);
  const connection = await server.serve({ readOnly: null });
  await client.whenConnected();
  expect(client.isReadOnly).toBe(false);
  await closeInOrder(client, connection);
});

test('a lost connection is resumed with the session, its password and the newest zxid', async () => {
  await using server = await ScriptedServer.start();
  const { client, told } = makeClient(server);
  const first = await server.serve({ sessionId: 0x99n });
  const reading = client.get('/a');
  await replyTo(first, 42n, DATA);
  await reading;
  expect(client.lastZxid).toBe(42n);
  first.close();
  const second = await server.accept();
  expect(client.state).toBe('suspended');
  expect(second.handshake).toMatchObject({ sessionId: 0x99n, lastZxidSeen: 42n });
  expect(second.handshake.password).toEqual(new Uint8Array(16).fill(7));
  second.grant({ sessionId: 0x99n });
  await client.whenConnected();
  expect(told).toEqual(['connected', 'suspended', 'connected']);
  await closeInOrder(client, second);
});

test('xids go on over connections, so that the session and the xid name one request', async () => {
  await using server = await ScriptedServer.start();
  const { client } = makeClient(server);
  const first = await server.serve();
  const reading = client.get('/a');
  await replyTo(first, 42n, DATA);
  await reading;
  const write = client.set('/a', 'x');
  const lost = await first.next();
  first.close();
  await expect(write).rejects.toMatchObject({ code: 'connectionLoss' });
  const second = await server.serve();
  const again = client.set('/a', 'x');
  const { xid } = await second.next();
  expect(xid).toBe(lost.xid + 1);
  second.reply(xid, 43n, { kind: 'setData', stat: STAT });
  await again;
  await closeInOrder(client, second);
});

test('a refused session is expired: what waits is rejected, and nothing is dialled again', async () => {
  await using server = await ScriptedServer.start();
  const { client, told } = makeClient(server);
  (await server.serve()).close();
  const second = await server.accept();
  const waiting = client.get('/a');
  second.refuse();
  await expect(waiting).rejects.toMatchObject({ code: 'sessionExpired' });
  expect(client.state).toBe('expired');
  await expect(client.set('/a', '')).rejects.toMatchObject({ code: 'sessionExpired' });
  await second.closed;
  expect(server.acceptedCount).toBe(2);
  expect(told).toEqual(['connected', 'suspended', 'expired']);
  await client.close();
  expect(client.state).toBe('expired');
});

test('without any server the session expires on its own account after 4/3 of the granted timeout', async () => {
  const clock = new ManualClock();
  const server = await ScriptedServer.start();
  const { client, told } = makeClient(server, { clock });
  await server.serve({ timeoutMs: 6_000 });
  await client.whenConnected();
  const watch = client.addWatch('/w');
  const waiting = client.exists('/a');
  await server[Symbol.asyncDispose]();
  await vi.waitUntil(() => client.state === 'suspended');
  clock.advance(7_999);
  expect(client.state).toBe('suspended');
  clock.advance(1);
  expect(client.state).toBe('expired');
  await expect(waiting).rejects.toMatchObject({ code: 'sessionExpired' });
  await expect(watch).rejects.toMatchObject({ code: 'sessionExpired' });
  expect(told).toEqual(['connected', 'suspended', 'expired']);
});

test('a client that never reached a server stays connecting, and close ends it', async () => {
  const clock = new ManualClock();
  const server = await ScriptedServer.start();
  await server[Symbol.asyncDispose]();
  const { client } = makeClient(server, { clock });
  const waiting = client.whenConnected();
  clock.advance(60_000);
  expect(client.state).toBe('connecting');
  await vi.waitUntil(() => client.lastFailure !== undefined);
  await client.close();
  await expect(waiting).rejects.toMatchObject({ code: 'sessionExpired' });
  expect(client.state).toBe('closed');
});

test('a reply out of order ends the connection, and the session goes on over the next', async () => {
  await using server = await ScriptedServer.start();
  const { client } = makeClient(server);
  const first = await server.serve();
  const reading = Promise.all([client.get('/a'), client.get('/b')]);
  const [a, b] = [await first.next(), await first.next()];
  expect([a.request, b.request]).toMatchObject([{ path: '/a' }, { path: '/b' }]);
  first.reply(b.xid, 5n, DATA);
  await first.closed;
  const second = await server.serve();
  for (const path of ['/a', '/b']) expect(await replyTo(second, 6n, DATA)).toMatchObject({ kind: 'getData', path });
  expect(await reading).toHaveLength(2);
  await closeInOrder(client, second);
});

test('a write whose reply is lost is a connectionLoss, a read is asked again, and what was not sent is sent later, in order', async () => {
  await using server = await ScriptedServer.start();
  const { client } = makeClient(server);
  const first = await server.serve();
  const write = client.set('/w', '1');
  const read = client.get('/r');
  await first.next();
  await first.next();
  first.close();
  await expect(write).rejects.toMatchObject({ code: 'connectionLoss' });
  expect(client.state).toBe('suspended');
  const later = client.set('/later', '2');
  const second = await server.serve();
  expect(await replyTo(second, 7n, DATA)).toMatchObject({ kind: 'getData', path: '/r' });
  expect(await replyTo(second, 8n, { kind: 'setData', stat: STAT })).toMatchObject({ kind: 'setData', path: '/later' });
  await Promise.all([read, later]);
  await closeInOrder(client, second);
});

test('a read that was underway on three lost connections is given up', async () => {
  await using server = await ScriptedServer.start();
  const { client } = makeClient(server);
  const read = client.get('/poison');
  for (let i = 0; i < 3; i++) {
    const connection = await server.serve();
    await connection.next();
    connection.close();
  }
  await expect(read).rejects.toMatchObject({ code: 'connectionLoss' });
  await closeInOrder(client, await server.serve());
});

test('requests wait while there is no session yet, and go out in one write', async () => {
  await using server = await ScriptedServer.start();
  const { client } = makeClient(server);
  const early = client.exists('/early');
  const connection = await server.serve();
  expect(await replyTo(connection, 1n, ErrorCode.noNode)).toMatchObject({ kind: 'exists', path: '/early' });
  expect(await early).toBeNull();
  const chunksBefore = connection.chunkCount;
  const reads = Array.from({ length: 50 }, (_, index) => client.get(`/n${index}`));
  for (const index of reads.keys()) {
    expect(await replyTo(connection, 2n, DATA)).toMatchObject({ path: `/n${index}` });
  }
  await Promise.all(reads);
  expect(connection.chunkCount - chunksBefore).toBe(1);
  await closeInOrder(client, connection);
});

test('an aborted call rejects with the reason of its signal; unsent it is never sent, sent it is matched and forgotten', async () => {
  await using server = await ScriptedServer.start();
  const { client } = makeClient(server);
  const [unsent, sent] = [new AbortController(), new AbortController()];
  await expect(client.get('/never', { signal: AbortSignal.abort('at once') })).rejects.toBe('at once');
  const first = client.get('/unsent', { signal: unsent.signal });
  unsent.abort('unsent');
  await expect(first).rejects.toBe('unsent');
  const second = client.set('/sent', '', { signal: sent.signal });
  const third = client.get('/third');
  const connection = await server.serve();
  const arrived = await connection.next();
  expect(arrived.request).toMatchObject({ path: '/sent' });
  sent.abort('sent');
  await expect(second).rejects.toBe('sent');
  connection.reply(arrived.xid, 3n, { kind: 'setData', stat: STAT });
  expect(await replyTo(connection, 4n, DATA)).toMatchObject({ path: '/third' });
  expect((await third).data).toEqual(Buffer.from('x'));
  await closeInOrder(client, connection);
});

test('an aborted call leaves no listener on a long-lived signal', async () => {
  await using server = await ScriptedServer.start();
  const { client } = makeClient(server);
  const connection = await server.serve();
  const { signal } = new AbortController();
  const added = vi.spyOn(signal, 'addEventListener');
  const removed = vi.spyOn(signal, 'removeEventListener');
  const read = client.get('/a', { signal });
  await replyTo(connection, 1n, DATA);
  await read;
  expect([added.mock.calls.length, removed.mock.calls.length]).toEqual([1, 1]);
  await closeInOrder(client, connection);
});

test('every new connection hears credentials first, then watches, then requests', async () => {
  await using server = await ScriptedServer.start();
  const { client, told } = makeClient(server, { auth: [{ scheme: 'digest', auth: 'a:b' }] });
  const first = await server.serve();
  const auth = await first.next();
  expect(auth).toMatchObject({
    xid: -4,
    request: { kind: 'auth', scheme: 'digest', auth: Uint8Array.from(Buffer.from('a:b')) },
  });
  first.reply(-4, 0n, { kind: 'auth' });
  const watched = client.get('/d', { watch: true });
  const missing = client.exists('/e', { watch: true });
  const listed = client.children('/c', { watch: true });
  const streaming = client.addWatch('/p', { recursive: true });
  await replyTo(first, 10n, DATA);
  await replyTo(first, 10n, ErrorCode.noNode);
  await replyTo(first, 10n, { kind: 'getChildren2', children: [], stat: STAT });
  await replyTo(first, 11n, { kind: 'addWatch', err: 0 });
  const [, , , stream] = await Promise.all([watched, missing, listed, streaming]);
  first.close();
  await vi.waitUntil(() => client.state === 'suspended');
  const later = client.get('/later');
  const second = await server.serve();
  expect((await second.next()).request).toMatchObject({ kind: 'auth' });
  const rearm = await second.next();
  expect(rearm).toEqual({
    xid: -8,
    request: {
      kind: 'setWatches2',
      relativeZxid: 11n,
      dataWatches: ['/d'],
      existWatches: ['/e'],
      childWatches: ['/c'],
      persistentWatches: [],
      persistentRecursiveWatches: ['/p'],
    },
  });
  second.together(() => {
    second.reply(-4, 0n, { kind: 'auth' });
    second.event(EventType.nodeDataChanged, '/d', -1n);
    second.reply(-8, 12n, { kind: 'setWatches2' });
  });
  await replyTo(second, 12n, DATA);
  await later;
  expect(told).toEqual(['connected', 'suspended', 'connected', 'nodeDataChanged /d']);
  expect((await stream.next()).value).toMatchObject({ kind: 'session', state: 'suspended' });
  expect((await stream.next()).value).toMatchObject({ kind: 'session', state: 'connected' });
  const next = stream.next();
  await closeInOrder(client, second);
  expect((await next).done).toBe(true);
});

test('after a reconnect nothing of the last txn is lost and nothing of it is told twice', async () => {
  await using server = await ScriptedServer.start();
  const { client } = makeClient(server);
  const first = await server.serve();
  const streaming = client.addWatch('/p', { recursive: true });
  await replyTo(first, 5n, { kind: 'addWatch', err: 0 });
  const stream = await streaming;
  // A multi of two: the connection is lost between its two events.
  first.event(EventType.nodeCreated, '/p/1', 20n);
  expect((await stream.next()).value).toMatchObject({ path: '/p/1' });
  first.close();
  const second = await server.serve();
  expect(second.handshake.lastZxidSeen).toBe(20n);
  expect((await second.next()).request).toMatchObject({ relativeZxid: 19n, persistentRecursiveWatches: ['/p'] });
  second.together(() => {
    second.event(EventType.nodeCreated, '/p/1', 20n);
    second.event(EventType.nodeCreated, '/p/2', 20n);
    second.reply(-8, 21n, { kind: 'setWatches2' });
    second.event(EventType.nodeDataChanged, '/p/2', 22n);
  });
  const texts: unknown[] = [];
  for (let i = 0; i < 4; i++) {
    const { value } = await stream.next();
    texts.push(value.kind === 'session' ? value.state : `${value.kind} ${value.path}`);
  }
  expect(texts).toEqual(['suspended', 'connected', 'nodeCreated /p/2', 'nodeDataChanged /p/2']);
  await closeInOrder(client, second);
});

test('events and replies reach the caller in the order of the wire', async () => {
  await using server = await ScriptedServer.start();
  const { client } = makeClient(server);
  const connection = await server.serve();
  const streaming = client.addWatch('/s');
  await replyTo(connection, 1n, { kind: 'addWatch', err: 0 });
  const stream = await streaming;
  const order: string[] = [];
  const tell = (text: string) => () => void order.push(text);
  client.get('/a', { watch: tell('event /a') }).then(tell('reply /a'));
  client.get('/b').then(tell('reply /b'));
  const last = client.get('/c').then(tell('reply /c'));
  stream.next().then(tell('event /s'));
  const [a, b, c] = [await connection.next(), await connection.next(), await connection.next()];
  connection.together(() => {
    connection.reply(a.xid, 1n, DATA);
    connection.event(EventType.nodeDataChanged, '/a', 2n);
    connection.reply(b.xid, 2n, DATA);
    connection.event(EventType.nodeDataChanged, '/s', 3n);
    connection.reply(c.xid, 3n, DATA);
  });
  await last;
  expect(order).toEqual(['reply /a', 'event /a', 'reply /b', 'event /s', 'reply /c']);
  await closeInOrder(client, connection);
});

test('refused credentials of the options end the client; those of addAuth only reject their call', async () => {
  await using server = await ScriptedServer.start();
  const strict = makeClient(server, { auth: [{ scheme: 'digest', auth: 'wrong' }] });
  const connecting = strict.client.whenConnected();
  const first = await server.serve();
  await replyTo(first, 0n, ErrorCode.authFailed);
  await expect(connecting).rejects.toMatchObject({ code: 'authFailed' });
  expect(strict.client.state).toBe('closed');

  const { client } = makeClient(server);
  const second = await server.serve();
  await client.whenConnected();
  const adding = client.addAuth('digest', 'wrong');
  await replyTo(second, 0n, ErrorCode.authFailed);
  await expect(adding).rejects.toMatchObject({ code: 'authFailed' });
  second.close();
  const third = await server.serve();
  const read = client.get('/a');
  // No auth request comes before it: the refused credentials are dropped.
  expect(await replyTo(third, 1n, DATA)).toMatchObject({ kind: 'getData' });
  await read;
  await closeInOrder(client, third);
});

test('an idle connection is pinged at a third of the timeout, a silent server is left at two thirds', async () => {
  const clock = new ManualClock();
  await using server = await ScriptedServer.start();
  const { client } = makeClient(server, { clock });
  const first = await server.serve({ timeoutMs: 6_000 });
  await client.whenConnected();
  clock.advance(2_000);
  expect(await first.next()).toMatchObject({ xid: -2, request: { kind: 'ping' } });
  clock.advance(1_999);
  expect(client.state).toBe('connected');
  clock.advance(1);
  expect(client.state).toBe('suspended');
  await first.closed;
  await closeInOrder(client, await server.serve());
});

test('a process that stood still listens to the socket before it accuses the server of silence', async () => {
  const clock = new ManualClock();
  await using server = await ScriptedServer.start();
  const { client } = makeClient(server, { clock });
  const connection = await server.serve({ timeoutMs: 6_000 });
  await client.whenConnected();
  clock.stall(5_000);
  expect(client.state).toBe('connected');
  const read = client.get('/a');
  await replyTo(connection, 1n, DATA);
  await read;
  clock.advance(10);
  expect(client.state).toBe('connected');
  await closeInOrder(client, connection);
});

test('a request above the frame limit is refused here and hurts nobody', async () => {
  await using server = await ScriptedServer.start();
  const { client } = makeClient(server, { requestBytesMax: 1_000 });
  const connection = await server.serve();
  await client.whenConnected();
  const big = client.set('/big', Buffer.alloc(1_000));
  const small = client.set('/small', '');
  await expect(big).rejects.toMatchObject({ code: 'badArguments' });
  expect(await replyTo(connection, 1n, { kind: 'setData', stat: STAT })).toMatchObject({ path: '/small' });
  await small;
  await closeInOrder(client, connection);
});

test.each([
  ['too long', Buffer.from([0x7f, 0xff, 0xff, 0xff])],
  ['cut short', Buffer.from('0000001800000001000000000000000100000000000000ff00000000', 'hex')],
])('a read whose reply is %s is rejected and not asked again', async (_, bytes) => {
  await using server = await ScriptedServer.start();
  const { client } = makeClient(server);
  const first = await server.serve();
  const read = client.get('/huge');
  const next = client.get('/next');
  await first.next();
  await first.next();
  first.raw(bytes);
  await expect(read).rejects.toMatchObject({ code: 'marshallingError' });
  const second = await server.serve();
  expect(await replyTo(second, 1n, DATA)).toMatchObject({ path: '/next' });
  await next;
  await closeInOrder(client, second);
});

test('more calls than may wait are refused at once', async () => {
  await using server = await ScriptedServer.start();
  const { client } = makeClient(server, { outstandingMax: 2 });
  const calls = [client.get('/1'), client.get('/2')];
  await expect(client.get('/3')).rejects.toMatchObject({ code: 'throttledOp' });
  const connection = await server.serve();
  for (const _ of calls) await replyTo(connection, 1n, DATA);
  await Promise.all(calls);
  await closeInOrder(client, connection);
});

test('a session of a read-only server is not taken to a server with a quorum: a new one is asked for', async () => {
  const clock = new ManualClock();
  await using server = await ScriptedServer.start();
  const { client } = makeClient(server, { clock, canBeReadOnly: true });
  const first = await server.accept();
  expect(first.handshake.readOnly).toBe(true);
  first.grant({ readOnly: true, sessionId: 0x55n });
  await client.whenConnected();
  expect(client.isReadOnly).toBe(true);
  first.close();
  const second = await server.accept();
  expect(client.isReadOnly).toBe(false);
  expect(second.handshake.sessionId).toBe(0n);
  second.grant({ sessionId: 0x66n });
  await client.whenConnected();
  expect(client.sessionId).toBe(0x66n);
  second.close();
  const third = await server.accept();
  expect(third.handshake.sessionId).toBe(0x66n);
  third.grant({ sessionId: 0x66n });
  await client.whenConnected();
  await closeInOrder(client, third);
});

test('a client of a read-only server looks for one that accepts writes, and moves there by itself', async () => {
  const clock = new ManualClock();
  await using server = await ScriptedServer.start();
  const { client } = makeClient(server, { clock, canBeReadOnly: true });
  const first = await server.serve({ readOnly: true, sessionId: 0x55n });
  await client.whenConnected();
  // Asked after 100 ms, then after 200: the first answer is a no.
  clock.advance(100);
  await vi.waitUntil(() => server.acceptedCount === 2);
  const reading = client.get('/a');
  await replyTo(first, 1n, DATA);
  await reading;
  server.isro = 'rw';
  await vi.waitUntil(() => {
    clock.advance(50);
    return server.acceptedCount >= 3;
  });
  await first.closed;
  const second = await server.accept();
  expect(second.handshake.sessionId).toBe(0n);
  second.grant({ sessionId: 0x66n });
  await client.whenConnected();
  expect([client.isReadOnly, client.sessionId]).toEqual([false, 0x66n]);
  await closeInOrder(client, second);
});

test('a read that is aborted while underway leaves no watch behind', async () => {
  await using server = await ScriptedServer.start();
  const { client } = makeClient(server);
  const connection = await server.serve();
  const controller = new AbortController();
  const told: string[] = [];
  const read = client.get('/a', { watch: (event) => told.push(event.kind), signal: controller.signal });
  const { xid } = await connection.next();
  controller.abort('enough');
  await expect(read).rejects.toBe('enough');
  connection.reply(xid, 1n, DATA);
  connection.event(EventType.nodeDataChanged, '/a', 2n);
  const fence = client.get('/b');
  await replyTo(connection, 2n, DATA);
  await fence;
  expect(told).toEqual([]);
  await closeInOrder(client, connection);
});

test('close does not wait for ever on a server that does not answer', async () => {
  const clock = new ManualClock();
  await using server = await ScriptedServer.start();
  const { client } = makeClient(server, { clock });
  // A timeout so long that only the limit of close itself can end the waiting.
  const connection = await server.serve({ timeoutMs: 40_000 });
  await client.whenConnected();
  const write = client.set('/a', '');
  const closed = client.close();
  await connection.next();
  await connection.next();
  await expect(client.get('/late')).rejects.toMatchObject({ code: 'sessionExpired' });
  clock.advance(5_000);
  await closed;
  await expect(write).rejects.toMatchObject({ code: 'connectionLoss' });
});
