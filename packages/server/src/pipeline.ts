// Every client request's path: its place in its connection's line, read or write, and its reply.
// It never waits and never decides who leads or what is committed: it hands writes to the replica, which hands back what was applied.
// Order (zookeeper-semantics 1.11): requests of one connection are answered in the order they came; a read waits only for earlier
// requests of its own connection; watch events are queued before any reply that could reveal the same zxid.

import { type ApplyResult, checkPermission, type TreeEvent, type Txn } from '@quorate/datatree';
import {
  assert,
  decodeConnectRequest,
  decodeRequest,
  ErrorCode,
  type EventType,
  encodeConnectResponse,
  encodeReplyHeader,
  encodeResponse,
  encodeWatchEvent,
  epochOf,
  hex64,
  JuteReader,
  JuteWriter,
  KeeperState,
  type MultiResult,
  OpCode,
  Perms,
  ProtocolError,
  type ReadRequest,
  type Request,
  type SessionId,
  sessionIdFrom,
  type Zxid,
  zxidFrom,
} from '@quorate/protocol';
import { ClientSession, Waiting } from './client-session.ts';
import type { ClientPort, ReplicaPorts } from './ports.ts';
import type { ReplicatedState } from './reads.ts';
import { Reads } from './reads.ts';
import type { ReplicaConfig } from './replica.ts';
import { firstAttachment } from './session-tracker.ts';

const PING_XID = -2;
const PASSWORD_BYTES = 16;
const NO_SESSION = sessionIdFrom(0n);
const EMPTY = new Uint8Array(0);

/** Memory of its own. `slice` would do for a Uint8Array, but on a socket's Buffer it is a view that holds the whole chunk. */
function copyOf(bytes: Uint8Array, start: number, end: number): Uint8Array {
  return new Uint8Array(bytes.subarray(start, end));
}

/** What the pipeline asks of the replica. */
export type PipelineHost = {
  /** Hands a write, sync, createSession or revalidate to whoever leads; called only while serving. */
  submit(waiting: Waiting): void;
  /** Reads the clock and lets Zab know, before anything is answered; false: this server must not answer now. */
  isCurrent(): boolean;
};

export type PipelineCounters = {
  packetsReceived: number;
  packetsSent: number;
  latencyCount: number;
  latencySumMs: number;
  latencyMinMs: number;
  latencyMaxMs: number;
  watchEvents: number;
  connectionsClosed: number;
};

export class Pipeline {
  readonly #config: ReplicaConfig;
  readonly #ports: ReplicaPorts;
  readonly #host: PipelineHost;
  readonly #state: ReplicatedState;
  readonly #connections = new Map<number, ClientSession>();
  readonly #attached = new Map<SessionId, ClientSession>();
  /** Everything that needs the leader and has no answer yet, oldest first. */
  readonly #pending = new Map<number, Waiting>();
  readonly #dirty: ClientSession[] = [];
  readonly #paused = new Set<ClientSession>();
  readonly #reads: Reads;
  readonly #reader = new JuteReader();
  readonly #copyReader = new JuteReader();
  readonly #eventWriter = new JuteWriter(256);
  readonly counters: PipelineCounters = {
    packetsReceived: 0,
    packetsSent: 0,
    latencyCount: 0,
    latencySumMs: 0,
    latencyMinMs: 0,
    latencyMaxMs: 0,
    watchEvents: 0,
    connectionsClosed: 0,
  };
  #nextWatcher = 1;
  #nextSequence = 1;
  #nextSessionId: bigint;
  #touched: SessionId[] = [];
  #touchRound = 0;
  /** The connection whose chunk is being read right now. */
  #reading: ClientSession | null = null;
  #isServing = false;
  #isStopping = false;
  #notServingSinceMs: number;
  #epoch = 0;
  #waitingCount = 0;
  /** The event encoded last: a fan-out encodes once. */
  #eventPath: string | null = null;
  #eventType: EventType | null = null;
  #eventZxid: Zxid | -1n = -1n;
  /** The earliest zxid that a waiting sync needs, so that an apply without one costs nothing. */
  #syncsWaiting: Waiting[] = [];

  constructor(config: ReplicaConfig, ports: ReplicaPorts, host: PipelineHost, state: ReplicatedState) {
    this.#config = config;
    this.#ports = ports;
    this.#host = host;
    this.#state = state;
    this.#reads = new Reads(state, config.skipAcl, (connection, type, path) =>
      this.#sendEvent(connection, type, path, -1n),
    );
    this.#notServingSinceMs = ports.clock.nowMs();
    // Top byte: server id; 40 bits of milliseconds; 16 bits that count on. A restart never uses an id again as long as time advanced.
    const time = BigInt(Math.floor(ports.clock.wallMs())) & 0xff_ffff_ffffn;
    this.#nextSessionId = (BigInt(config.id & 0xff) << 56n) | (time << 16n);
  }

  get connections(): IterableIterator<ClientSession> {
    return this.#connections.values();
  }

  get connectionCount(): number {
    return this.#connections.size;
  }

  /** Requests that wait for an answer. */
  get outstandingCount(): number {
    return this.#waitingCount;
  }

  get pendingCount(): number {
    return this.#pending.size;
  }

  attachmentOf(sessionId: SessionId): bigint {
    return this.#attached.get(sessionId)?.attachment ?? -1n;
  }

  connect(port: ClientPort): ClientSession {
    const connection = new ClientSession(this.#nextWatcher, port, this.#ports.clock.nowMs());
    this.#nextWatcher += 1;
    this.#connections.set(connection.watcher, connection);
    return connection;
  }

  onClosed(connection: ClientSession): void {
    if (connection.phase === 'closed') return;
    connection.phase = 'closed';
    this.counters.connectionsClosed += 1;
    this.#connections.delete(connection.watcher);
    this.#paused.delete(connection);
    this.#state.watches.dropWatcher(connection.watcher);
    if (this.#attached.get(connection.sessionId) === connection) this.#attached.delete(connection.sessionId);
    // What is under way may still take place; nobody is there to be told, and it is never forwarded again, so that nothing of this
    // connection can happen after its session re-attached elsewhere (S5).
    for (let i = connection.head; i < connection.line.length; i += 1) {
      const waiting = connection.line[i];
      if (waiting !== undefined && waiting.sequence !== 0) this.#pending.delete(waiting.sequence);
    }
    this.#waitingCount -= connection.waitingCount;
    connection.line = [];
    connection.head = 0;
    connection.held = [];
    this.#resumeSome();
  }

  /** Closes a connection from this side; what is queued for it is flushed first. */
  close(connection: ClientSession, reason: string): void {
    if (connection.phase === 'closed') return;
    this.flush(connection);
    this.onClosed(connection);
    connection.port.close(reason);
  }

  closeAll(reason: string): void {
    for (const connection of [...this.#connections.values()]) this.close(connection, reason);
  }

  // --- Requests come in -----------------------------------------------------------------------------------------------------

  /** One frame's payload. The bytes are the socket's: valid only during this call. */
  onFrame(connection: ClientSession, bytes: Uint8Array, start: number, end: number): void {
    if (connection.phase === 'closed' || connection.phase === 'closing') return;
    this.#reading = connection;
    this.counters.packetsReceived += 1;
    connection.packetsReceived += 1;
    if (connection.phase === 'attaching') {
      connection.held.push(copyOf(bytes, start, end));
      return;
    }
    this.#reader.reset(bytes, start, end);
    if (connection.phase === 'connecting') {
      this.#onConnectRequest(connection);
      return;
    }
    const xid = this.#reader.readInt();
    const opcode = this.#reader.readInt();
    this.#touch(connection);
    this.#onRequest(connection, xid, opcode, bytes, this.#reader.offset, end);
    this.#limit(connection);
  }

  onChunkEnd(connection: ClientSession): void {
    this.#reading = null;
    if (connection.isDirty) this.flush(connection);
  }

  #onRequest(
    connection: ClientSession,
    xid: number,
    opcode: number,
    bytes: Uint8Array,
    start: number,
    end: number,
  ): void {
    connection.lastCxid = xid;
    switch (opcode) {
      case OpCode.ping:
        // Answered at once and in every phase of an ensemble's life, so that no client gives its connection up during an election.
        connection.lastOperation = 'PING';
        this.#replyHeader(connection, PING_XID, this.#state.tree.lastZxid, ErrorCode.ok);
        return;
      case OpCode.auth:
        this.#onAuth(connection, xid);
        return;
      case OpCode.sasl:
        // No SASL login on this server: err 0 with a null token, as ZooKeeper answers.
        this.#replyResponse(connection, xid, zxidFrom(0n), { kind: 'sasl', token: null });
        return;
      case OpCode.exists:
      case OpCode.getData:
      case OpCode.getChildren:
      case OpCode.getChildren2:
      case OpCode.getACL:
      case OpCode.getEphemerals:
      case OpCode.getAllChildrenNumber:
      case OpCode.multiRead:
      case OpCode.setWatches:
      case OpCode.setWatches2:
      case OpCode.addWatch:
      case OpCode.checkWatches:
      case OpCode.removeWatches:
      case OpCode.whoAmI:
        this.#onRead(connection, xid, opcode, bytes, start, end);
        return;
      case OpCode.create:
      case OpCode.create2:
      case OpCode.createContainer:
      case OpCode.createTTL:
      case OpCode.delete:
      case OpCode.setData:
      case OpCode.setACL:
      case OpCode.multi:
      case OpCode.reconfig:
      case OpCode.closeSession:
        this.#onWrite(connection, xid, opcode, bytes, start, end);
        return;
      case OpCode.sync:
        this.#onWrite(connection, xid, opcode, bytes, start, end);
        return;
      default:
        // Unknown, or one that only servers may make (createSession, deleteContainer, a check outside a multi).
        this.#settle(connection, xid, opcode, zxidFrom(-1n), ErrorCode.unimplemented);
        connection.phase = 'closing';
        if (connection.waitingCount === 0) this.close(connection, `opcode ${opcode} is not one for clients`);
    }
  }

  #onRead(connection: ClientSession, xid: number, opcode: number, bytes: Uint8Array, start: number, end: number): void {
    if (connection.waitingCount === 0 && this.#isServing && this.#host.isCurrent()) {
      // The short way: decoded in place, answered at once.
      const request = this.#decode(connection, xid, opcode, this.#reader);
      if (request === null) return;
      this.#answerRead(connection, xid, request as ReadRequest);
      this.counters.latencyCount += 1;
      return;
    }
    const body = copyOf(bytes, start, end);
    this.#copyReader.reset(body, 0, body.length);
    const request = this.#decode(connection, xid, opcode, this.#copyReader);
    if (request === null) return;
    this.#wait(new Waiting('read', connection, 0, xid, opcode, request, body, this.#ports.clock.nowMs()));
  }

  #onWrite(
    connection: ClientSession,
    xid: number,
    opcode: number,
    bytes: Uint8Array,
    start: number,
    end: number,
  ): void {
    const body = copyOf(bytes, start, end);
    this.#copyReader.reset(body, 0, body.length);
    // Decoded completely before it can take a place in the order: an undecodable write leaves no trace there.
    const request = this.#decode(connection, xid, opcode, this.#copyReader);
    if (request === null) return;
    const kind = request.kind === 'sync' ? 'sync' : 'write';
    const waiting = new Waiting(
      kind,
      connection,
      this.#takeSequence(),
      xid,
      opcode,
      request,
      body,
      this.#ports.clock.nowMs(),
    );
    if (request.kind === 'closeSession') connection.phase = 'closing';
    this.#wait(waiting);
    this.#pending.set(waiting.sequence, waiting);
    this.#trySubmit(waiting);
  }

  /** null: it cannot be decoded, and that is the answer, in its place in the line. */
  #decode(connection: ClientSession, xid: number, opcode: number, reader: JuteReader): Request | null {
    try {
      return decodeRequest(opcode, reader);
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      this.#settle(connection, xid, opcode, this.#state.tree.lastZxid, ErrorCode.marshallingError);
      return null;
    }
  }

  /** An answer that needs nobody, in its place in the line. */
  #settle(connection: ClientSession, xid: number, opcode: number, zxid: Zxid, code: ErrorCode): void {
    if (connection.waitingCount === 0) {
      this.#replyHeader(connection, xid, zxid, code);
      return;
    }
    const waiting = new Waiting('settled', connection, 0, xid, opcode, null, EMPTY, this.#ports.clock.nowMs());
    const writer = new JuteWriter(20);
    writer.beginFrame();
    encodeReplyHeader(writer, xid, zxid, code);
    writer.endFrame();
    waiting.reply = writer.detach();
    waiting.isDone = true;
    this.#wait(waiting);
  }

  #wait(waiting: Waiting): void {
    waiting.connection.enqueue(waiting);
    this.#waitingCount += 1;
  }

  /** A sync is answered: the writes behind it, up to the next one, may go. */
  #submitBehindSync(connection: ClientSession): void {
    for (let i = connection.head; i < connection.line.length; i += 1) {
      const waiting = connection.line[i];
      if (waiting === undefined) continue;
      if (waiting.kind === 'sync') return;
      if (waiting.kind === 'write') this.#trySubmit(waiting);
    }
  }

  #takeSequence(): number {
    const sequence = this.#nextSequence;
    this.#nextSequence += 1;
    return sequence;
  }

  #trySubmit(waiting: Waiting): void {
    if (!this.#isServing || waiting.sentInEpoch === this.#epoch) return;
    // A write that overtook a sync of its own connection would be seen by the reads between them.
    if (waiting.kind === 'write' && waiting.connection.hasSyncBefore(waiting)) return;
    waiting.sentInEpoch = this.#epoch;
    this.#host.submit(waiting);
  }

  // --- Connecting ------------------------------------------------------------------------------------------------------------

  #onConnectRequest(connection: ClientSession): void {
    const request = decodeConnectRequest(this.#reader);
    connection.asksReadOnly = request.readOnly !== null;
    connection.lastZxidSeen = request.lastZxidSeen;
    connection.timeoutMs = Math.min(
      Math.max(request.timeoutMs, this.#config.minSessionTimeoutMs),
      this.#config.maxSessionTimeoutMs,
    );
    connection.sessionId = request.sessionId;
    connection.password = request.password === null ? EMPTY : request.password.slice();
    const nowMs = this.#ports.clock.nowMs();
    if (this.#isStopping) {
      this.close(connection, 'this server is stopping');
      return;
    }
    if (!this.#isServing && nowMs - this.#notServingSinceMs > this.#config.limits.waitWithoutLeaderMs) {
      this.close(connection, 'this server has no leader');
      return;
    }
    connection.phase = 'attaching';
    if (this.#isServing) this.#attach(connection);
    this.#pauseReading(connection);
  }

  #attach(connection: ClientSession): void {
    if (connection.lastZxidSeen > this.#state.tree.lastZxid) {
      // The client must look for a server that is further on: here it would go back in time.
      this.close(connection, 'the client has seen a later zxid than this server');
      return;
    }
    const nowMs = this.#ports.clock.nowMs();
    if (connection.sessionId === NO_SESSION) {
      connection.sessionId = sessionIdFrom(this.#nextSessionId);
      this.#nextSessionId += 1n;
      connection.password = this.#ports.randomBytes(PASSWORD_BYTES);
      assert(connection.password.length === PASSWORD_BYTES, 'a session password has 16 bytes');
      const writer = new JuteWriter(24);
      writer.writeInt(connection.timeoutMs);
      writer.writeBuffer(connection.password);
      const waiting = new Waiting(
        'createSession',
        connection,
        this.#takeSequence(),
        0,
        OpCode.createSession,
        null,
        writer.detach(),
        nowMs,
      );
      this.#wait(waiting);
      this.#pending.set(waiting.sequence, waiting);
      this.#trySubmit(waiting);
      return;
    }
    // The newer connection of a session wins on this server, even before its password is checked, as in ZooKeeper.
    const older = this.#attached.get(connection.sessionId);
    if (older !== undefined && older !== connection) this.close(older, 'the client reconnected');
    if (this.#state.tree.sessions.has(connection.sessionId)) {
      this.#revalidate(connection);
      return;
    }
    // Unknown here: it may have been created a moment ago elsewhere. Ask for everything that is committed, then look again.
    const waiting = new Waiting('sync', connection, this.#takeSequence(), 0, OpCode.sync, null, EMPTY, nowMs);
    this.#wait(waiting);
    this.#pending.set(waiting.sequence, waiting);
    this.#trySubmit(waiting);
  }

  #revalidate(connection: ClientSession): void {
    const password = this.#state.tree.sessions.get(connection.sessionId)?.password ?? null;
    if (password === null || !equalBytes(password, connection.password)) {
      this.#refuseSession(connection, 'the session does not exist or the password is wrong');
      return;
    }
    const waiting = new Waiting(
      'revalidate',
      connection,
      this.#takeSequence(),
      0,
      OpCode.createSession,
      null,
      EMPTY,
      this.#ports.clock.nowMs(),
    );
    this.#wait(waiting);
    this.#pending.set(waiting.sequence, waiting);
    this.#trySubmit(waiting);
  }

  /** "Expired", "never existed" and "wrong password" are one answer: timeout 0, then the connection is closed. */
  #refuseSession(connection: ClientSession, reason: string): void {
    this.#writeConnectResponse(connection, 0, NO_SESSION, new Uint8Array(PASSWORD_BYTES));
    this.close(connection, reason);
  }

  #onAttached(connection: ClientSession, attachment: bigint): void {
    assert(connection.phase === 'attaching', 'a session is attached once per connection');
    connection.phase = 'attached';
    connection.attachment = attachment;
    const older = this.#attached.get(connection.sessionId);
    if (older !== undefined && older !== connection) this.close(older, 'the client reconnected');
    this.#attached.set(connection.sessionId, connection);
    this.#writeConnectResponse(connection, connection.timeoutMs, connection.sessionId, connection.password);
    connection.lastOperation = 'SESS';
    const held = connection.held;
    connection.held = [];
    for (const frame of held) {
      this.counters.packetsReceived -= 1;
      connection.packetsReceived -= 1;
      try {
        this.onFrame(connection, frame, 0, frame.length);
        this.onChunkEnd(connection);
      } catch (error) {
        if (!(error instanceof ProtocolError)) throw error;
        this.close(connection, error.message);
        return;
      }
    }
    this.#resumeReading(connection);
  }

  #writeConnectResponse(
    connection: ClientSession,
    timeoutMs: number,
    sessionId: SessionId,
    password: Uint8Array,
  ): void {
    connection.writer.beginFrame();
    encodeConnectResponse(connection.writer, {
      protocolVersion: 0,
      timeoutMs,
      sessionId,
      password,
      readOnly: connection.asksReadOnly ? false : null,
    });
    connection.writer.endFrame();
    this.#sent(connection);
  }

  // --- Authentication --------------------------------------------------------------------------------------------------------

  #onAuth(connection: ClientSession, xid: number): void {
    const request = decodeRequest(OpCode.auth, this.#reader);
    assert(request.kind === 'auth', 'opcode 100 decodes to auth');
    connection.lastOperation = 'AUTH';
    if (request.scheme === 'digest' && request.auth !== null) {
      const text = decodeUtf8(request.auth);
      const colon = text.indexOf(':');
      const user = colon < 0 ? text : text.slice(0, colon);
      const digest = `${user}:${this.#ports.sha1Base64(text)}`;
      if (this.#config.superDigest !== null && digest === this.#config.superDigest) {
        this.#addIdentity(connection, 'super', '');
      }
      this.#addIdentity(connection, 'digest', digest);
      this.#replyHeader(connection, xid, zxidFrom(0n), ErrorCode.ok);
      return;
    }
    if (request.scheme === 'ip') {
      this.#addIdentity(connection, 'ip', connection.port.remoteAddress);
      this.#replyHeader(connection, xid, zxidFrom(0n), ErrorCode.ok);
      return;
    }
    this.#replyHeader(connection, xid, zxidFrom(0n), ErrorCode.authFailed);
    this.close(connection, `authentication scheme ${JSON.stringify(request.scheme)} is not one of digest, ip`);
  }

  #addIdentity(connection: ClientSession, scheme: string, id: string): void {
    for (const known of connection.identity) if (known.scheme === scheme && known.id === id) return;
    // A new array: requests under way keep the identity they were asked with.
    connection.identity = [...connection.identity, { scheme, id }];
  }

  // --- Reads -----------------------------------------------------------------------------------------------------------------

  #answerRead(connection: ClientSession, xid: number, request: ReadRequest): void {
    this.#reads.answer(connection, xid, request);
    this.#sent(connection);
  }

  // --- What was applied comes back -------------------------------------------------------------------------------------------

  /**
   * A txn was applied at `zxid`. `isOwn`: it came from this process. First the watch events, then the reply:
   * no reply can reveal a change whose event is not yet queued on the same connection.
   */
  onApplied(zxid: Zxid, txn: Txn, result: ApplyResult, events: readonly TreeEvent[], isOwn: boolean): void {
    if (this.#config.mutations.replyBeforeWatchEvent) {
      if (isOwn) this.#onOwnApplied(zxid, txn, result);
      this.deliver(zxid, events);
    } else {
      this.deliver(zxid, events);
      if (isOwn) this.#onOwnApplied(zxid, txn, result);
    }
    if (txn.body.kind === 'closeSession') {
      const connection = this.#attached.get(txn.sessionId);
      if (connection !== undefined) this.close(connection, 'the session was closed');
    }
    if (this.#syncsWaiting.length > 0) this.#releaseSyncs();
  }

  deliver(zxid: Zxid, events: readonly TreeEvent[]): void {
    for (const event of events) {
      this.#state.watches.trigger(event, (watcher, type, path) => {
        const connection = this.#connections.get(watcher);
        assert(connection !== undefined, 'a closed connection has no watches');
        // At delivery, not at registration (CVE-2024-23944): an event must not reveal what the client may not read.
        if (!checkPermission(event.acl, Perms.READ, connection.identity, this.#config.skipAcl)) return;
        this.#sendEvent(connection, type, path, zxid);
      });
    }
  }

  #sendEvent(connection: ClientSession, type: EventType, path: string, zxid: Zxid | -1n): void {
    if (connection.phase === 'closed') return;
    if (this.#eventPath !== path || this.#eventType !== type || this.#eventZxid !== zxid) {
      this.#eventWriter.reset();
      this.#eventWriter.beginFrame();
      encodeWatchEvent(this.#eventWriter, { type, state: KeeperState.syncConnected, path }, zxid);
      this.#eventWriter.endFrame();
      this.#eventPath = path;
      this.#eventType = type;
      this.#eventZxid = zxid;
    }
    this.counters.watchEvents += 1;
    connection.writer.writeRaw(this.#eventWriter.bytes());
    this.#sent(connection);
  }

  #onOwnApplied(zxid: Zxid, txn: Txn, result: ApplyResult): void {
    const waiting = this.#pending.get(txn.origin.sequence);
    if (waiting === undefined) return;
    this.#pending.delete(txn.origin.sequence);
    const connection = waiting.connection;
    if (waiting.kind === 'createSession') {
      this.#finish(waiting);
      if (result.code === ErrorCode.ok) this.#onAttached(connection, firstAttachment(epochOf(zxid)));
      else this.#refuseSession(connection, 'the session could not be created');
      return;
    }
    assert(waiting.kind === 'write', 'only writes and session creations become txns');
    if (connection.first() === waiting) {
      this.#encodeWriteReply(connection.writer, waiting, zxid, txn, result);
      this.#sent(connection);
      this.#finish(waiting);
      this.#advance(connection, true);
    } else {
      // Something before it still waits (a sync): the reply is made now, from the state at this zxid, and sent in its turn.
      const writer = new JuteWriter(256);
      this.#encodeWriteReply(writer, waiting, zxid, txn, result);
      waiting.reply = writer.detach();
      waiting.isDone = true;
    }
    if (txn.body.kind === 'closeSession' && connection.phase !== 'closed') {
      this.close(connection, 'the client closed its session');
    }
  }

  #encodeWriteReply(writer: JuteWriter, waiting: Waiting, zxid: Zxid, txn: Txn, result: ApplyResult): void {
    const { tree } = this.#state;
    writer.beginFrame();
    const request = waiting.request;
    assert(request !== null, 'a write keeps its request until it is answered');
    if (request.kind === 'multi') {
      encodeReplyHeader(writer, waiting.xid, zxid, ErrorCode.ok);
      encodeResponse(writer, { kind: 'multi', results: this.#multiResults(request.operations, txn, result) });
      writer.endFrame();
      return;
    }
    encodeReplyHeader(writer, waiting.xid, zxid, result.code);
    if (result.code === ErrorCode.ok) {
      switch (request.kind) {
        case 'create':
          writer.writeString(result.path);
          break;
        case 'create2':
        case 'createContainer':
        case 'createTTL':
          writer.writeString(result.path);
          tree.writeStat(result.slot, writer);
          break;
        case 'setData':
        case 'setACL':
          tree.writeStat(result.slot, writer);
          break;
        default:
          break;
      }
    }
    writer.endFrame();
  }

  #multiResults(operations: readonly { readonly kind: string }[], txn: Txn, result: ApplyResult): MultiResult[] {
    const { tree } = this.#state;
    if (txn.body.kind === 'multiError') return txn.body.codes.map((code): MultiResult => ({ kind: 'error', code }));
    if (txn.body.kind === 'error') {
      const code = txn.body.code;
      return operations.map((): MultiResult => ({ kind: 'error', code }));
    }
    const results = result.operations;
    assert(results.length === operations.length, 'each operation of a multi has its result');
    return operations.map((operation, index): MultiResult => {
      const one = results[index];
      assert(one !== undefined, 'each operation of a multi has its result');
      if (one.code !== ErrorCode.ok) return { kind: 'error', code: one.code };
      switch (operation.kind) {
        case 'create':
          return { kind: 'create', path: one.path };
        case 'create2':
        case 'createContainer':
        case 'createTTL':
          return { kind: 'create2', path: one.path, stat: one.stat ?? tree.statOf(one.slot) };
        case 'setData':
          return { kind: 'setData', stat: one.stat ?? tree.statOf(one.slot) };
        case 'delete':
          return { kind: 'delete' };
        default:
          return { kind: 'check' };
      }
    });
  }

  /** The leader answered a sync: everything up to `zxid` was committed before. */
  onSyncDone(sequence: number, zxid: Zxid): void {
    const waiting = this.#pending.get(sequence);
    if (waiting === undefined || waiting.kind !== 'sync') return;
    this.#pending.delete(sequence);
    waiting.waitsForZxid = zxid;
    this.#syncsWaiting.push(waiting);
    this.#releaseSyncs();
  }

  #releaseSyncs(): void {
    const applied = this.#state.tree.lastZxid;
    const still: Waiting[] = [];
    const ready: Waiting[] = [];
    for (const waiting of this.#syncsWaiting) (waiting.waitsForZxid > applied ? still : ready).push(waiting);
    this.#syncsWaiting = still;
    for (const waiting of ready) {
      const connection = waiting.connection;
      if (connection.phase === 'closed') continue;
      if (connection.phase === 'attaching') {
        this.#finish(waiting);
        if (this.#state.tree.sessions.has(connection.sessionId)) this.#revalidate(connection);
        else this.#refuseSession(connection, 'the session does not exist');
        continue;
      }
      waiting.isDone = true;
      this.#advance(connection);
    }
  }

  onRevalidated(sequence: number, isValid: boolean, attachment: bigint): void {
    const waiting = this.#pending.get(sequence);
    if (waiting === undefined || waiting.kind !== 'revalidate') return;
    this.#pending.delete(sequence);
    this.#finish(waiting);
    if (isValid) this.#onAttached(waiting.connection, attachment);
    else this.#refuseSession(waiting.connection, 'the session has expired');
  }

  /** The leader did not give this request a place in the order. */
  onRefused(sequence: number, reason: string): void {
    const waiting = this.#pending.get(sequence);
    if (waiting !== undefined) this.close(waiting.connection, reason);
  }

  onSessionMoved(sessionId: SessionId, attachment: bigint): void {
    const connection = this.#attached.get(sessionId);
    if (connection !== undefined && connection.attachment < attachment) {
      this.close(connection, 'the session moved to another server');
    }
  }

  /** Takes `waiting`, which is first in its line, out of it. */
  #finish(waiting: Waiting): void {
    const connection = waiting.connection;
    assert(connection.first() === waiting, 'requests are answered in the order they came');
    connection.dequeue();
    this.#waitingCount -= 1;
    const nowMs = this.#ports.clock.nowMs();
    this.#measure(connection, nowMs - waiting.arrivedMs, nowMs);
  }

  /** Answers what has become answerable at the head of a connection's line. */
  #advance(connection: ClientSession, isOwnApplied = false): void {
    for (;;) {
      if (connection.phase === 'closed') return;
      const waiting = connection.first();
      if (waiting === undefined) break;
      if (waiting.kind === 'read') {
        // Right behind an own write the state is exactly the one this read must see; later it could be that of its session's next write,
        // which a new leader's history may bring before this server serves again.
        if (!isOwnApplied && (!this.#isServing || !this.#host.isCurrent())) break;
        const request = waiting.request;
        assert(request !== null, 'a read keeps its request until it is answered');
        this.#finish(waiting);
        this.#answerRead(connection, waiting.xid, request as ReadRequest);
        continue;
      }
      if (!waiting.isDone) break;
      this.#finish(waiting);
      if (waiting.reply !== null) {
        connection.writer.writeRaw(waiting.reply);
        this.#sent(connection);
      } else {
        assert(waiting.request?.kind === 'sync', 'only a sync is done without a ready reply');
        this.#replyResponse(connection, waiting.xid, this.#state.tree.lastZxid, {
          kind: 'sync',
          path: waiting.request.path,
        });
        this.#submitBehindSync(connection);
      }
    }
    if (connection.phase === 'closing' && connection.waitingCount === 0) {
      this.close(connection, 'its last request is answered');
      return;
    }
    this.#resumeSome();
  }

  // --- Who leads changes -----------------------------------------------------------------------------------------------------

  /** From now on requests go to the leader of `epoch`; what the old one did not put into the order is handed over again, in order. */
  serve(epoch: number): void {
    this.#isServing = true;
    this.#epoch = epoch;
    for (const connection of [...this.#connections.values()]) {
      if (connection.phase === 'attaching' && connection.waitingCount === 0) this.#attach(connection);
    }
    for (const waiting of [...this.#pending.values()]) {
      if (this.#pending.has(waiting.sequence)) this.#trySubmit(waiting);
    }
    this.advanceAll();
  }

  /** Answers whatever waits only for this server's own permission to answer. */
  advanceAll(): void {
    for (const connection of [...this.#connections.values()]) this.#advance(connection);
    this.flushAll();
  }

  /** There is no leader: requests wait, pings are answered. */
  suspend(): void {
    if (this.#isServing) this.#notServingSinceMs = this.#ports.clock.nowMs();
    this.#isServing = false;
    this.#epoch = 0;
    for (const waiting of this.#pending.values()) waiting.sentInEpoch = 0;
  }

  get isServing(): boolean {
    return this.#isServing;
  }

  /** A snapshot replaced the tree: what happened in between is not known here, so every connection starts anew. */
  onStateReplaced(): void {
    this.closeAll('this server took over a snapshot');
    this.#pending.clear();
    this.#syncsWaiting = [];
  }

  /** Clients of a server that stays without a leader are let go, so that they find another one. */
  onTick(nowMs: number): void {
    if (this.#isServing || this.#connections.size === 0) return;
    if (nowMs - this.#notServingSinceMs <= this.#config.limits.waitWithoutLeaderMs) return;
    this.closeAll(`no leader for ${Math.round(nowMs - this.#notServingSinceMs)} ms`);
  }

  /** No new sessions, no further requests; what is under way is still answered. */
  beginStop(): void {
    this.#isStopping = true;
    for (const connection of [...this.#connections.values()]) {
      if (connection.phase === 'connecting' || connection.phase === 'attaching')
        this.close(connection, 'this server is stopping');
      else this.#pauseReading(connection);
    }
  }

  // --- Touches, limits, bytes out --------------------------------------------------------------------------------------------

  #touch(connection: ClientSession): void {
    if (connection.touchedInRound === this.#touchRound) return;
    connection.touchedInRound = this.#touchRound;
    this.#touched.push(connection.sessionId);
  }

  /** Sessions heard since the last call. */
  takeTouched(): SessionId[] {
    const touched = this.#touched;
    this.#touched = [];
    this.#touchRound += 1;
    return touched;
  }

  #limit(connection: ClientSession): void {
    if (connection.phase !== 'attached') return;
    const { connectionOutstandingMax, outstandingMax } = this.#config.limits;
    if (
      connection.waitingCount >= connectionOutstandingMax ||
      (this.#waitingCount > outstandingMax && connection.waitingCount > 0)
    ) {
      this.#pauseReading(connection);
      this.#paused.add(connection);
    }
  }

  #pauseReading(connection: ClientSession): void {
    if (connection.isPaused || connection.phase === 'closed') return;
    connection.isPaused = true;
    connection.port.pause();
  }

  #resumeReading(connection: ClientSession): void {
    if (!connection.isPaused || connection.phase === 'closed' || this.#isStopping) return;
    connection.isPaused = false;
    connection.port.resume();
  }

  #resumeSome(): void {
    if (this.#paused.size === 0) return;
    const { connectionOutstandingMax, outstandingMax } = this.#config.limits;
    for (const connection of this.#paused) {
      if (connection.waitingCount * 2 > connectionOutstandingMax) continue;
      if (this.#waitingCount > outstandingMax && connection.waitingCount > 0) continue;
      this.#paused.delete(connection);
      this.#resumeReading(connection);
    }
  }

  #replyHeader(connection: ClientSession, xid: number, zxid: Zxid, code: ErrorCode): void {
    connection.writer.beginFrame();
    encodeReplyHeader(connection.writer, xid, zxid, code);
    connection.writer.endFrame();
    this.#sent(connection);
  }

  #replyResponse(
    connection: ClientSession,
    xid: number,
    zxid: Zxid,
    response: Parameters<typeof encodeResponse>[1],
  ): void {
    connection.writer.beginFrame();
    encodeReplyHeader(connection.writer, xid, zxid, ErrorCode.ok);
    encodeResponse(connection.writer, response);
    connection.writer.endFrame();
    this.#sent(connection);
  }

  #sent(connection: ClientSession): void {
    this.counters.packetsSent += 1;
    connection.packetsSent += 1;
    if (connection.isDirty) return;
    connection.isDirty = true;
    // A connection whose chunk is being read is flushed at the chunk's end, all others at the end of the drain.
    if (connection !== this.#reading) this.#dirty.push(connection);
  }

  #measure(connection: ClientSession, latencyMs: number, nowMs: number): void {
    const counters = this.counters;
    counters.latencyCount += 1;
    counters.latencySumMs += latencyMs;
    if (latencyMs > counters.latencyMaxMs) counters.latencyMaxMs = latencyMs;
    connection.latencySumMs += latencyMs;
    connection.lastResponseMs = nowMs;
    if (latencyMs > connection.latencyMaxMs) connection.latencyMaxMs = latencyMs;
  }

  flush(connection: ClientSession): void {
    if (!connection.isDirty) return;
    connection.isDirty = false;
    if (connection.phase === 'closed' || connection.writer.position === 0) return;
    // The port may keep the array only if it says so; then this connection starts a new one.
    if (connection.port.write(connection.writer.bytes())) connection.writer.reset();
    else connection.writer.detach();
    if (connection.port.bufferedBytes > this.#config.limits.outboxBytesMax) {
      this.#ports.log('warn', 'client does not read its replies: connection closed', {
        session: hex64(connection.sessionId),
        bufferedBytes: connection.port.bufferedBytes,
        limit: 'outboxBytesMax',
      });
      this.close(connection, 'replies are not read');
    }
  }

  /** One write per connection for everything that this turn queued. */
  flushAll(): void {
    if (this.#dirty.length === 0) return;
    for (let i = 0; i < this.#dirty.length; i += 1) {
      const connection = this.#dirty[i];
      if (connection !== undefined) this.flush(connection);
    }
    this.#dirty.length = 0;
  }
}

function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  let difference = 0;
  for (let i = 0; i < a.length; i += 1) difference |= (a[i] ?? 0) ^ (b[i] ?? 0);
  return difference === 0;
}

const utf8 = new TextDecoder();

function decodeUtf8(bytes: Uint8Array): string {
  return utf8.decode(bytes);
}
