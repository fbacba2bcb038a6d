import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  AddWatchMode,
  decodeConnectResponse,
  decodeReplyHeader,
  decodeResponse,
  ErrorCode,
  encodeConnectRequest,
  encodeRequest,
  encodeRequestHeader,
  FrameDecoder,
  JuteReader,
  JuteWriter,
  NO_MUTATIONS,
  type OpName,
  type Request,
  type SessionId,
  serverIdFrom,
  sessionIdFrom,
  zxidFrom,
} from '@quorate/protocol';
import { openDisk } from '@quorate/storage';
import { afterEach, expect, test } from 'vitest';
import type { ClientPort, ReplicaPorts } from './ports.ts';
import { type ClientConnection, Replica, type ReplicaConfig } from './replica.ts';

const one = serverIdFrom(1);
const OPEN = [{ perms: 31, id: { scheme: 'world', id: 'anyone' } }];

const config: ReplicaConfig = {
  id: one,
  voters: [one],
  observers: [],
  incarnation: 7,
  seed: 1,
  tickMs: 100,
  zabTickMs: 10,
  zab: {
    heartbeatTicks: 2,
    syncLimitTicks: 20,
    initLimitTicks: 100,
    finalizeTicks: 2,
    historyCountMax: 1000,
    historyBytesMax: 1 << 20,
    counterMax: 0xffffffff,
  },
  minSessionTimeoutMs: 200,
  maxSessionTimeoutMs: 60_000,
  limits: {
    maxFrameBytes: 0xfffff,
    outstandingMax: 1000,
    connectionOutstandingMax: 100,
    outboxBytesMax: 1 << 22,
    waitWithoutLeaderMs: 1000,
  },
  snapshots: { logBytesMin: 1 << 26, retain: 3, chunkBytes: 1 << 16, stagger: 0 },
  skipAcl: false,
  extendedTypesEnabled: false,
  superDigest: null,
  membership: null,
  mutations: NO_MUTATIONS,
};

type Reply = { readonly xid: number; readonly zxid: bigint; readonly err: number; readonly body: JuteReader };

/** A client without a socket: frames in, frames out, each reply in the order it came. */
class TestClient implements ClientPort {
  readonly remoteAddress = '127.0.0.1';
  readonly bufferedBytes = 0;
  readonly replies: Reply[] = [];
  sessionId: SessionId = sessionIdFrom(0n);
  password: Uint8Array | null = null;
  timeoutMs = -1;
  closedBecause: string | null = null;
  readonly #decoder = new FrameDecoder();
  readonly #connection: ClientConnection;
  #isAttached = false;
  #xid = 0;

  constructor(replica: Replica) {
    this.#connection = replica.connectClient(this);
  }

  write(bytes: Uint8Array): boolean {
    this.#decoder.push(bytes.slice(), (frame, start, end) => {
      const reader = new JuteReader(frame, start, end);
      if (!this.#isAttached) {
        this.#isAttached = true;
        const response = decodeConnectResponse(reader);
        this.sessionId = response.sessionId;
        this.password = response.password;
        this.timeoutMs = response.timeoutMs;
      } else {
        const { xid, zxid, err } = decodeReplyHeader(reader);
        this.replies.push({ xid, zxid, err, body: reader });
      }
      return true;
    });
    return true;
  }

  pause(): void {}
  resume(): void {}

  close(reason: string): void {
    this.closedBecause = reason;
  }

  connect(sessionId = 0n, password: Uint8Array | null = null, timeoutMs = 10_000): void {
    const writer = new JuteWriter();
    encodeConnectRequest(writer, {
      protocolVersion: 0,
      lastZxidSeen: zxidFrom(0n),
      timeoutMs,
      sessionId: sessionIdFrom(sessionId),
      password,
      readOnly: false,
    });
    this.#frame(writer);
  }

  send(...requests: Request[]): void {
    for (const request of requests) {
      const writer = new JuteWriter();
      this.#xid += 1;
      encodeRequestHeader(writer, this.#xid, request.kind as OpName);
      encodeRequest(writer, request);
      this.#connection.onFrame(writer.bytes());
    }
    this.#connection.onChunkEnd();
  }

  raw(bytes: Uint8Array): void {
    this.#connection.onFrame(bytes);
    this.#connection.onChunkEnd();
  }

  drop(): void {
    this.#connection.onClosed();
  }

  #frame(writer: JuteWriter): void {
    this.#connection.onFrame(writer.bytes());
    this.#connection.onChunkEnd();
  }
}

const cleanups: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function until(what: string, condition: () => boolean): Promise<void> {
  const deadline = Date.now() + 5_000;
  while (!condition()) {
    if (Date.now() > deadline) throw new Error(`not within 5 s: ${what}`);
    await new Promise((resolve) => setImmediate(resolve));
  }
}

async function start(
  directory: string,
  overrides: Partial<ReplicaConfig> = {},
): Promise<{ replica: Replica; stop: () => Promise<void> }> {
  const { disk, restored } = await openDisk(directory, {
    serverId: one,
    windowCount: 1000,
    windowBytes: 1 << 20,
    ballastBytes: 0,
  });
  let failure: Error | null = null;
  const ports: ReplicaPorts = {
    clock: { nowMs: () => performance.now(), wallMs: () => Date.now() },
    network: { send: () => {}, sendBulk: (_to, _message, done) => done(false), drop: () => {} },
    disk,
    schedule: (work) => void setImmediate(work),
    randomBytes: (count) => crypto.getRandomValues(new Uint8Array(count)),
    sha1Base64: (text) => `hash-of-${text}`,
    log: () => {},
    fatal: (error) => {
      failure = error;
    },
  };
  const replica = new Replica({ ...config, ...overrides }, ports, restored);
  const timer = setInterval(() => replica.onTick(), config.zabTickMs);
  replica.start(() => {});
  let isStopped = false;
  const stop = async (): Promise<void> => {
    if (isStopped) return;
    isStopped = true;
    await new Promise<void>((resolve) => replica.stop(resolve));
    clearInterval(timer);
    expect(failure).toBeNull();
  };
  cleanups.push(stop);
  await until('the replica serves', () => {
    if (failure !== null) throw failure;
    return replica.status.isServing;
  });
  return { replica, stop };
}

function temporaryDirectory(): string {
  const directory = mkdtempSync(join(tmpdir(), 'quorate-replica-'));
  cleanups.push(async () => rmSync(directory, { recursive: true, force: true }));
  return join(directory, 'store');
}

async function attached(replica: Replica): Promise<TestClient> {
  const client = new TestClient(replica);
  client.connect();
  await until('the session is attached', () => client.timeoutMs >= 0);
  expect(client.sessionId).not.toBe(0n);
  return client;
}

const create = (path: string, flags = 0): Request => ({
  kind: 'create',
  path,
  data: new Uint8Array([1, 2, 3]),
  acl: OPEN,
  flags,
  ttl: -1n,
});

test('a pipeline of writes and reads is answered in order, each read after the writes before it', async () => {
  const { replica } = await start(temporaryDirectory());
  const client = await attached(replica);
  client.send(
    create('/a'),
    { kind: 'getData', path: '/a', watch: false },
    { kind: 'setData', path: '/a', data: new Uint8Array([9]), version: 0 },
    { kind: 'getData', path: '/a', watch: false },
    { kind: 'sync', path: '/a' },
    { kind: 'delete', path: '/a', version: 7 },
    { kind: 'exists', path: '/nothing', watch: false },
  );
  await until('seven replies', () => client.replies.length === 7);
  expect(client.replies.map(({ xid, err }) => [xid, err])).toEqual([
    [1, 0],
    [2, 0],
    [3, 0],
    [4, 0],
    [5, 0],
    [6, ErrorCode.badVersion],
    [7, ErrorCode.noNode],
  ]);
  const second = client.replies[3];
  const data = second === undefined ? null : decodeResponse('getData', second.body);
  expect(data).toMatchObject({ kind: 'getData', data: new Uint8Array([9]), stat: { version: 1 } });
  // A failed write takes a zxid too.
  expect(client.replies[5]?.zxid).toBe((client.replies[2]?.zxid ?? 0n) + 1n);
});

test('a watch event comes before the reply of the write that caused it', async () => {
  const { replica } = await start(temporaryDirectory());
  const client = await attached(replica);
  client.send(
    create('/a'),
    { kind: 'getData', path: '/a', watch: true },
    { kind: 'setData', path: '/a', data: null, version: -1 },
  );
  await until('three replies and an event', () => client.replies.length === 4);
  expect(client.replies.map(({ xid }) => xid)).toEqual([1, 2, -1, 3]);
  expect(client.replies[2]?.zxid).toBe(client.replies[3]?.zxid);
});

test('persistent watches see every change below them', async () => {
  const { replica } = await start(temporaryDirectory());
  const watcher = await attached(replica);
  const writer = await attached(replica);
  watcher.send({ kind: 'addWatch', path: '/', mode: AddWatchMode.persistentRecursive });
  await until('the watch is there', () => watcher.replies.length === 1);
  writer.send(create('/a'), create('/a/b'), { kind: 'delete', path: '/a/b', version: -1 });
  await until('three events', () => watcher.replies.length === 4);
});

test('a session re-attaches with its password, keeps its ephemerals, and the older connection is closed', async () => {
  const { replica } = await start(temporaryDirectory());
  const client = await attached(replica);
  client.send(create('/e', 1));
  await until('the ephemeral', () => client.replies.length === 1);
  const again = new TestClient(replica);
  again.connect(client.sessionId, client.password);
  await until('the session is attached again', () => again.timeoutMs > 0);
  expect(again.sessionId).toBe(client.sessionId);
  expect(client.closedBecause).not.toBeNull();
  again.send({ kind: 'getEphemerals', path: '/' });
  await until('the reply', () => again.replies.length === 1);
  const reply = again.replies[0];
  expect(reply && decodeResponse('getEphemerals', reply.body)).toEqual({ kind: 'getEphemerals', paths: ['/e'] });
});

test('a wrong password is answered like an expired session and has no effect', async () => {
  const { replica } = await start(temporaryDirectory());
  const client = await attached(replica);
  const thief = new TestClient(replica);
  thief.connect(client.sessionId, new Uint8Array(16));
  await until('the refusal', () => thief.timeoutMs >= 0);
  expect([thief.timeoutMs, thief.sessionId]).toEqual([0, 0n]);
  expect(thief.closedBecause).not.toBeNull();
  expect(replica.status.sessionCount).toBe(1);
});

test('a silent session expires with its ephemerals, a closed one at once', async () => {
  const { replica } = await start(temporaryDirectory());
  const silent = new TestClient(replica);
  silent.connect(0n, null, 200);
  await until('attached', () => silent.timeoutMs >= 0);
  const closing = await attached(replica);
  silent.send(create('/silent', 1));
  closing.send(create('/closing', 1), { kind: 'closeSession' });
  await until('the close is answered', () => closing.replies.length === 2);
  expect(closing.closedBecause).not.toBeNull();
  expect(replica.status.ephemeralCount).toBe(1);
  await until('the silent session is gone', () => replica.status.sessionCount === 0);
  expect(silent.closedBecause).not.toBeNull();
  expect(replica.status.ephemeralCount).toBe(0);
});

test('what cannot be decoded is answered with -5 in its place, an unknown opcode with -6 and the end of the connection', async () => {
  const { replica } = await start(temporaryDirectory());
  const client = await attached(replica);
  client.send(create('/a'));
  const broken = new JuteWriter();
  broken.writeInt(2);
  broken.writeInt(1);
  broken.writeInt(1_000_000);
  client.raw(broken.bytes());
  const unknown = new JuteWriter();
  unknown.writeInt(3);
  unknown.writeInt(77);
  client.raw(unknown.bytes());
  await until('three replies', () => client.replies.length === 3);
  expect(client.replies.map(({ err }) => err)).toEqual([0, ErrorCode.marshallingError, ErrorCode.unimplemented]);
  expect(client.closedBecause).not.toBeNull();
});

test('a multi takes place whole or not at all', async () => {
  const { replica } = await start(temporaryDirectory());
  const client = await attached(replica);
  const set = (version: number): Request => ({
    kind: 'multi',
    operations: [
      { kind: 'create', path: '/m', data: null, acl: OPEN, flags: 0, ttl: -1n },
      { kind: 'setData', path: '/m', data: new Uint8Array([1]), version },
      { kind: 'delete', path: '/m', version: 1 },
    ],
  });
  client.send(set(5), set(0), { kind: 'exists', path: '/m', watch: false });
  await until('three replies', () => client.replies.length === 3);
  const results = client.replies.slice(0, 2).map(({ body }) => decodeResponse('multi', body));
  expect(results[0]).toEqual({
    kind: 'multi',
    results: [
      { kind: 'error', code: ErrorCode.ok },
      { kind: 'error', code: ErrorCode.badVersion },
      { kind: 'error', code: ErrorCode.runtimeInconsistency },
    ],
  });
  expect(results[1]).toMatchObject({
    results: [{ kind: 'create', path: '/m' }, { kind: 'setData' }, { kind: 'delete' }],
  });
  expect(client.replies[2]?.err).toBe(ErrorCode.noNode);
});

test('a restart finds everything, from the log and from a snapshot', async () => {
  const directory = temporaryDirectory();
  const settings = { snapshots: { ...config.snapshots, logBytesMin: 20_000 } };
  const first = await start(directory, settings);
  const client = await attached(first.replica);
  const count = 300;
  let taken = 0;
  first.replica.observer = (event) => {
    if (event.kind === 'snapshotTaken') taken += 1;
  };
  for (let i = 0; i < count; i += 1) client.send(create(`/n${i}`));
  await until('all are created', () => client.replies.length === count);
  await until('a snapshot', () => taken > 0);
  const { digest, applied } = first.replica.status;
  await first.stop();
  const second = await start(directory, settings);
  expect(second.replica.status.applied).toBe(applied);
  expect(second.replica.status.digest).toBe(digest);
  const again = await attached(second.replica);
  again.send({ kind: 'getData', path: `/n${count - 1}`, watch: false });
  await until('the reply', () => again.replies.length === 1);
  expect(again.replies[0]?.err).toBe(0);
});
