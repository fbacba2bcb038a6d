// The life of one session: connecting, connected, suspended, expired, closed, told truthfully also when no server answers.
// It owns the connection of the moment, the calls that wait for one, and what must be said first on each new one
// (credentials, watches). It never invents an answer: a write whose reply was lost is a connectionLoss.

import type { ConnectionOptions as TlsOptions } from 'node:tls';
import {
  type AuthRequest,
  assert,
  type ConnectResponse,
  ErrorCode,
  EventType,
  NO_ZXID,
  type SessionId,
  sessionIdFrom,
  type WatchEvent,
  type Zxid,
  zxidFrom,
} from '@quorate/protocol';
import type { Clock, Timer } from './clock.ts';
import { askIsReadWrite, type Call, Connection, isWrite } from './connection.ts';
import { answeredError, ZkError } from './errors.ts';
import { formatAddress, type HostProvider, type ServerAddress } from './servers.ts';
import type { SessionEvent, WatchTables, ZnodeEventKind } from './watches.ts';

/**
 * connecting: no session yet. connected: a server serves it. suspended: the session probably lives, no server is reached.
 * expired: the session is over, by the servers' word or because no server was reached for longer than any server would wait.
 * closed: by this client. The last two are final.
 */
export type SessionState = 'connecting' | 'connected' | 'suspended' | 'expired' | 'closed';

export type Credentials = { readonly scheme: string; readonly auth: string | Uint8Array };

export type SessionOptions = {
  readonly hostProvider: HostProvider;
  readonly sessionTimeoutMs: number;
  readonly canBeReadOnly: boolean;
  readonly auth: readonly Credentials[];
  readonly tls: TlsOptions | undefined;
  readonly requestBytesMax: number;
  readonly replyBytesMax: number;
  readonly outstandingMax: number;
  readonly clock: Clock;
  readonly tables: WatchTables;
  /** The default watcher's ear. */
  readonly onSessionEvent: (event: SessionEvent) => void;
};

type Credential = {
  readonly request: AuthRequest;
  /** Whoever called addAuth and has no answer yet. Without one, a refusal ends the session. */
  waiter: { readonly resolve: () => void; readonly reject: (error: ZkError) => void } | undefined;
};
type ConnectedWaiter = { readonly resolve: () => void; readonly reject: (error: Error) => void };

/** A dial gets a fair share of the session timeout, but never so little that no server could answer. */
const CONNECT_TIMEOUT_MS_MIN = 200;
/** A read that was underway on this many lost connections is suspected of having caused it. */
const LOST_COUNT_MAX = 3;
const CLOSE_TIMEOUT_MS_MAX = 5_000;
const READ_WRITE_SEARCH_MS_MIN = 100;
const READ_WRITE_SEARCH_MS_MAX = 60_000;

const EVENT_KINDS: ReadonlyMap<number, ZnodeEventKind> = new Map([
  [EventType.nodeCreated, 'nodeCreated'],
  [EventType.nodeDeleted, 'nodeDeleted'],
  [EventType.nodeDataChanged, 'nodeDataChanged'],
  [EventType.nodeChildrenChanged, 'nodeChildrenChanged'],
]);

export class Session {
  readonly #options: SessionOptions;
  readonly #clock: Clock;
  readonly #credentials: Credential[];
  #state: SessionState = 'connecting';
  #isReadOnly = false;
  #isClosing = false;
  #endError: ZkError | undefined;
  #connection: Connection | undefined;
  #server: ServerAddress | undefined;
  #preferredServer: ServerAddress | undefined;
  #sessionId: SessionId = sessionIdFrom(0n);
  #password: Uint8Array | null = null;
  #timeoutMs: number;
  // False while only read-only servers have answered: such a session is local to its server and cannot move.
  #hasSeenReadWrite = false;
  // The newest zxid of an ordinary reply: everything up to it has been told on this session.
  #repliedZxid: Zxid = NO_ZXID;
  // The newest zxid of a watch event, and what was told with it: the rest of that txn's events may be missing.
  #eventZxid: Zxid = NO_ZXID;
  readonly #eventsOfLastZxid = new Set<string>();
  // Reads that were underway when a connection was lost, then what has not been sent yet. Both in order.
  #resends: Call[] = [];
  readonly #waiting = new Set<Call>();
  // Goes on over connections, so that (session, xid) names one request in every log.
  #lastXid = 0;
  // Calls that wait, are in flight, or will be sent again.
  #outstandingCount = 0;
  #authsUnderway = 0;
  #lastFailure: Error | undefined;
  #connectedWaiters: ConnectedWaiter[] = [];
  readonly #closeWaiters: (() => void)[] = [];
  #dialTimer: Timer | undefined;
  #expiryTimer: Timer | undefined;
  #closeTimer: Timer | undefined;
  #searchTimer: Timer | undefined;

  constructor(options: SessionOptions) {
    this.#options = options;
    this.#clock = options.clock;
    this.#timeoutMs = options.sessionTimeoutMs;
    this.#credentials = options.auth.map((credentials) => ({ request: authRequest(credentials), waiter: undefined }));
  }

  get state(): SessionState {
    return this.#state;
  }

  get isReadOnly(): boolean {
    return this.#isReadOnly;
  }

  get sessionId(): SessionId {
    return this.#sessionId;
  }

  get timeoutMs(): number {
    return this.#timeoutMs;
  }

  /** The newest zxid this session has seen; a server that is behind it will not take the session. */
  get lastZxid(): Zxid {
    if (this.#eventZxid > this.#repliedZxid) return this.#eventZxid;
    return this.#repliedZxid;
  }

  get server(): ServerAddress | undefined {
    return this.#state === 'connected' ? this.#server : undefined;
  }

  /** Why the last attempt to reach a server failed; for messages. */
  get lastFailure(): Error | undefined {
    return this.#lastFailure;
  }

  get hasEnded(): boolean {
    return this.#state === 'expired' || this.#state === 'closed';
  }

  /** Dials the first server. Called once. */
  start(): void {
    assert(this.#connection === undefined && this.#dialTimer === undefined, 'a session starts once');
    this.#dial();
  }

  /** Resolves when a server serves the session and has accepted our credentials. Rejects when the session ends first. */
  whenConnected(): Promise<void> {
    if (this.#state === 'connected' && this.#authsUnderway === 0) return Promise.resolve();
    if (this.hasEnded) return Promise.reject(this.#endedError());
    return new Promise((resolve, reject) => {
      this.#connectedWaiters.push({ resolve, reject });
    });
  }

  /** Sends the call now, or as soon as a server serves the session. */
  submit(call: Call): void {
    if (this.hasEnded || this.#isClosing) {
      call.onFailed(this.#endedError());
      return;
    }
    if (this.#outstandingCount >= this.#options.outstandingMax) {
      const message = `throttledOp: ${this.#outstandingCount} requests of this client wait for an answer already`;
      call.onFailed(new ZkError('throttledOp', message));
      return;
    }
    this.#outstandingCount++;
    if (this.#state === 'connected' && this.#connection !== undefined) this.#send(this.#connection, call);
    else this.#waiting.add(call);
  }

  /** Nobody waits for this call any more. What is sent already cannot be taken back. */
  abandon(call: Call): void {
    call.isAbandoned = true;
    if (this.#waiting.delete(call)) this.#outstandingCount--;
  }

  addAuth(credentials: Credentials): Promise<void> {
    if (this.hasEnded || this.#isClosing) return Promise.reject(this.#endedError());
    return new Promise((resolve, reject) => {
      const credential: Credential = { request: authRequest(credentials), waiter: { resolve, reject } };
      this.#credentials.push(credential);
      if (this.#state === 'connected' && this.#connection !== undefined) {
        this.#sendCredential(this.#connection, credential);
      }
    });
  }

  /** Ends the session in order: what was sent before is answered first. Without a connection the servers are left to expire it. */
  close(): Promise<void> {
    if (this.hasEnded) return Promise.resolve();
    const closed = new Promise<void>((resolve) => {
      this.#closeWaiters.push(resolve);
    });
    if (this.#isClosing) return closed;
    this.#isClosing = true;
    if (this.#state !== 'connected' || this.#connection === undefined) {
      this.#end('closed', undefined);
      return closed;
    }
    const finish = (): void => this.#end('closed', undefined);
    this.#outstandingCount++;
    this.#connection.send({
      request: { kind: 'closeSession' },
      onReply: finish,
      onFailed: finish,
      isAbandoned: false,
      lostCount: 0,
    });
    this.#closeTimer = this.#clock.after(Math.min(CLOSE_TIMEOUT_MS_MAX, this.#timeoutMs), finish);
    return closed;
  }

  #dial(): void {
    if (this.hasEnded) return;
    let server = this.#preferredServer;
    let delayMs = 0;
    this.#preferredServer = undefined;
    if (server === undefined) ({ server, delayMs } = this.#options.hostProvider.next());
    const target = server;
    if (delayMs === 0) this.#open(target);
    else this.#dialTimer = this.#clock.after(delayMs, () => this.#open(target));
  }

  #open(server: ServerAddress): void {
    this.#dialTimer = undefined;
    // A session that only a read-only server knows is nothing to any other server: ask for a new one.
    const sessionId = this.#hasSeenReadWrite ? this.#sessionId : sessionIdFrom(0n);
    const share = this.#timeoutMs / Math.max(1, this.#options.hostProvider.size());
    const connection: Connection = new Connection(
      {
        server,
        tls: this.#options.tls,
        handshake: {
          protocolVersion: 0,
          lastZxidSeen: this.lastZxid,
          timeoutMs: this.#options.sessionTimeoutMs,
          sessionId,
          password: sessionId === 0n ? new Uint8Array(16) : this.#password,
          readOnly: this.#options.canBeReadOnly,
        },
        connectTimeoutMs: Math.max(CONNECT_TIMEOUT_MS_MIN, share),
        requestBytesMax: this.#options.requestBytesMax,
        replyBytesMax: this.#options.replyBytesMax,
        lastXid: this.#lastXid,
        clock: this.#clock,
      },
      {
        onHandshake: (response) => this.#onHandshake(connection, response, sessionId !== 0n),
        onReply: (zxid) => {
          this.#outstandingCount--;
          if (zxid > this.#repliedZxid) this.#repliedZxid = zxid;
        },
        onEvent: (event, zxid) => this.#onEvent(connection, event, zxid),
        onClosed: (reason, calls) => this.#onClosed(reason, calls),
      },
    );
    this.#connection = connection;
    this.#server = server;
  }

  #onHandshake(connection: Connection, response: ConnectResponse, wasResumed: boolean): void {
    if (response.timeoutMs <= 0) {
      const where = formatAddress(connection.server);
      if (wasResumed) this.#expire(`sessionExpired: ${where} does not know the session any more`);
      else connection.close(new Error(`${where} refused a new session`));
      return;
    }
    this.#sessionId = response.sessionId;
    this.#password = response.password;
    this.#timeoutMs = response.timeoutMs;
    this.#isReadOnly = response.readOnly === true;
    if (!this.#isReadOnly) this.#hasSeenReadWrite = true;
    this.#expiryTimer?.cancel();
    this.#expiryTimer = undefined;
    this.#options.hostProvider.onConnected();
    connection.establish(response.timeoutMs);
    this.#become('connected');

    // First who we are, then what we watch, then what was asked: a watch must not be armed, nor a request judged, without credentials.
    for (const credential of this.#credentials.slice()) this.#sendCredential(connection, credential);
    const relativeZxid = this.#toldZxid();
    for (const request of this.#options.tables.rearmRequests(relativeZxid)) connection.sendRearm(request);
    const calls = [...this.#resends, ...this.#waiting];
    this.#resends = [];
    this.#waiting.clear();
    for (const call of calls) {
      if (call.isAbandoned) this.#outstandingCount--;
      else this.#send(connection, call);
    }
    if (this.#authsUnderway === 0) this.#releaseConnectedWaiters();
    if (this.#isReadOnly) this.#searchReadWrite(READ_WRITE_SEARCH_MS_MIN);
  }

  /**
   * Up to here everything has been told. Of the last event's txn the client may have seen only a part, so that zxid
   * itself is not included; what of it comes twice is recognised in #onEvent.
   */
  #toldZxid(): Zxid {
    return this.#eventZxid > this.#repliedZxid ? zxidFrom(this.#eventZxid - 1n) : this.#repliedZxid;
  }

  #send(connection: Connection, call: Call): void {
    if (connection.send(call)) return;
    this.#outstandingCount--;
    const message = `badArguments: the request is longer than ${this.#options.requestBytesMax} bytes`;
    call.onFailed(new ZkError('badArguments', message));
  }

  #sendCredential(connection: Connection, credential: Credential): void {
    this.#authsUnderway++;
    connection.sendAuth(credential.request, (code) => {
      this.#authsUnderway--;
      const waiter = credential.waiter;
      credential.waiter = undefined;
      if (code === ErrorCode.ok) {
        waiter?.resolve();
        if (this.#authsUnderway === 0) this.#releaseConnectedWaiters();
        return;
      }
      // The server closes the connection now. Going on without these rights is right only if somebody is told.
      const error = answeredError(code, undefined);
      if (waiter === undefined) {
        this.#end('closed', error);
      } else {
        this.#credentials.splice(this.#credentials.indexOf(credential), 1);
        waiter.reject(error);
      }
    });
  }

  #releaseConnectedWaiters(): void {
    for (const waiter of this.#connectedWaiters.splice(0)) waiter.resolve();
  }

  #onEvent(connection: Connection, event: WatchEvent, zxid: Zxid): void {
    const kind = EVENT_KINDS.get(event.type);
    if (kind === undefined) return;
    if (zxid <= 0n) {
      this.#options.tables.fire(kind, event.path, null);
      return;
    }
    if (zxid > this.#eventZxid) {
      this.#eventZxid = zxid;
      this.#eventsOfLastZxid.clear();
    }
    if (zxid === this.#eventZxid) {
      const key = `${kind} ${event.path}`;
      const wasTold = this.#eventsOfLastZxid.has(key);
      // A server that replays what was missed starts with the txn of which we may have seen only a part.
      if (wasTold && connection.isRearming) return;
      this.#eventsOfLastZxid.add(key);
    }
    this.#options.tables.fire(kind, event.path, zxid);
  }

  #onClosed(reason: Error, calls: readonly Call[]): void {
    const server = this.#server;
    const wasConnected = this.#state === 'connected';
    this.#lastXid = this.#connection?.lastXid ?? this.#lastXid;
    this.#connection = undefined;
    this.#authsUnderway = 0;
    this.#searchTimer?.cancel();
    const where = server === undefined ? 'the server' : formatAddress(server);
    const message = `connectionLoss: the connection to ${where} was lost before the reply came`;
    const lost: Call[] = [];
    for (const call of calls) {
      call.lostCount++;
      if (!call.isAbandoned && !isWrite(call.request) && call.lostCount < LOST_COUNT_MAX && !this.#isClosing) {
        this.#resends.push(call);
        continue;
      }
      this.#outstandingCount--;
      if (!call.isAbandoned) lost.push(call);
    }
    if (!this.hasEnded) {
      if (this.#isClosing) {
        this.#end('closed', undefined);
      } else {
        this.#lastFailure = reason;
        if (wasConnected) {
          this.#expiryTimer = this.#clock.after((this.#timeoutMs * 4) / 3, () => {
            const waitedMs = Math.round((this.#timeoutMs * 4) / 3);
            this.#expire(`sessionExpired: no server was reached for ${waitedMs} ms`);
          });
          this.#become('suspended');
        }
      }
    }
    for (const call of lost) call.onFailed(new ZkError('connectionLoss', message, { cause: reason }));
    if (!this.hasEnded) this.#dial();
  }

  /** While only a read-only server serves us, asks the others whether one of them has a quorum again. */
  #searchReadWrite(waitMs: number): void {
    this.#searchTimer = this.#clock.after(waitMs, () => {
      const { server } = this.#options.hostProvider.next();
      askIsReadWrite(server, this.#options.tls, this.#clock, (isReadWrite) => {
        if (this.#state !== 'connected' || !this.#isReadOnly) return;
        if (!isReadWrite) {
          this.#searchReadWrite(Math.min(waitMs * 2, READ_WRITE_SEARCH_MS_MAX));
          return;
        }
        this.#preferredServer = server;
        this.#connection?.close(new Error(`${formatAddress(server)} accepts writes`));
      });
    });
  }

  #become(state: SessionState): void {
    this.#state = state;
    if (state !== 'connected') this.#isReadOnly = false;
    const event: SessionEvent = { kind: 'session', state, isReadOnly: this.#isReadOnly };
    this.#options.onSessionEvent(event);
    this.#options.tables.tellStreams(event);
  }

  #expire(message: string): void {
    this.#end('expired', new ZkError('sessionExpired', message));
  }

  #end(state: 'expired' | 'closed', error: ZkError | undefined): void {
    if (this.hasEnded) return;
    this.#state = state;
    this.#isReadOnly = false;
    this.#endError = error;
    for (const timer of [this.#dialTimer, this.#expiryTimer, this.#closeTimer, this.#searchTimer]) timer?.cancel();
    // In flight calls come back through #onClosed, which knows what a lost write is.
    this.#connection?.close(new Error('the session has ended'));
    const event: SessionEvent = { kind: 'session', state, isReadOnly: false };
    this.#options.onSessionEvent(event);
    this.#options.tables.endAll(event, error);
    const calls = [...this.#resends, ...this.#waiting];
    this.#resends = [];
    this.#waiting.clear();
    this.#outstandingCount -= calls.length;
    assert(this.#outstandingCount === 0, 'an ended session has answered every call');
    for (const call of calls) if (!call.isAbandoned) call.onFailed(this.#endedError());
    for (const { waiter } of this.#credentials) waiter?.reject(this.#endedError());
    for (const waiter of this.#connectedWaiters.splice(0)) waiter.reject(this.#endedError());
    for (const resolve of this.#closeWaiters.splice(0)) resolve();
  }

  #endedError(): ZkError {
    const error = this.#endError;
    // A new error each time: each caller gets its own stack.
    if (error !== undefined) return new ZkError(error.code, error.message, { cause: error });
    return new ZkError('sessionExpired', 'sessionExpired: this client was closed');
  }
}

function authRequest(credentials: Credentials): AuthRequest {
  const { scheme, auth } = credentials;
  return { kind: 'auth', type: 0, scheme, auth: typeof auth === 'string' ? Buffer.from(auth) : auth };
}
