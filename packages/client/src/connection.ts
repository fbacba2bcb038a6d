// One socket to one server: the handshake, replies matched to calls in order, pings, one write per turn.
// It decides nothing about the session: whatever goes wrong here ends this connection, and the session hears it once.

import { connect as connectTcp, type Socket } from 'node:net';
import { connect as connectTls, type ConnectionOptions as TlsOptions } from 'node:tls';
import {
  type AuthRequest,
  type CheckRequest,
  type ConnectRequest,
  type ConnectResponse,
  decodeConnectResponse,
  decodeReplyHeader,
  decodeResponse,
  decodeWatcherEvent,
  ErrorCode,
  encodeConnectRequest,
  encodeRequest,
  encodeRequestHeader,
  FrameDecoder,
  JuteReader,
  JuteWriter,
  NO_ZXID,
  ProtocolError,
  type Request,
  type Response,
  type SetWatchesRequest,
  type WatchEvent,
  Xid,
  type Zxid,
} from '@quorate/protocol';
import type { Clock, Timer } from './clock.ts';
import { formatAddress, type ServerAddress } from './servers.ts';

/** One request of the user and what becomes of it. Exactly one of onReply and onFailed is called, once. */
export type Call = {
  /** A check is a request only inside a multi. */
  readonly request: Exclude<Request, CheckRequest>;
  readonly onReply: (code: number, response: Response | null) => void;
  readonly onFailed: (error: Error) => void;
  /** Nobody waits any more: a reply is only matched, and the call is not sent again. */
  isAbandoned: boolean;
  /** On how many lost connections it was underway. */
  lostCount: number;
};

export type ConnectionHandlers = {
  readonly onHandshake: (response: ConnectResponse) => void;
  /** A call was answered; told before call.onReply. Only such a zxid vouches that everything up to it has been told. */
  readonly onReply: (zxid: Zxid) => void;
  readonly onEvent: (event: WatchEvent, zxid: Zxid) => void;
  /** Once, last. `calls` were sent and not answered, in order. */
  readonly onClosed: (reason: Error, calls: readonly Call[]) => void;
};

export type ConnectionOptions = {
  readonly server: ServerAddress;
  readonly tls: TlsOptions | undefined;
  readonly handshake: ConnectRequest;
  readonly connectTimeoutMs: number;
  readonly requestBytesMax: number;
  readonly replyBytesMax: number;
  /** The last xid of the session's connection before this one, else 0: within a session no xid names two requests. */
  readonly lastXid: number;
  readonly clock: Clock;
};

const XID_MAX = 0x7fffffff;
/** ZooKeeper's clients ping at least this often, however long the session timeout is. */
const PING_INTERVAL_MS_MAX = 10_000;
/** A timer that comes this late means that this process stood still; what arrived meanwhile is still in the socket. */
const STALL_MS = 250;
const IS_READ_ONLY_TIMEOUT_MS = 1_000;

export class Connection {
  readonly server: ServerAddress;
  readonly #options: ConnectionOptions;
  readonly #handlers: ConnectionHandlers;
  readonly #clock: Clock;
  readonly #socket: Socket;
  readonly #frames: FrameDecoder;
  readonly #reader = new JuteReader();
  readonly #writer = new JuteWriter();
  #isFlushScheduled = false;
  #isEstablished = false;
  #isClosed = false;
  #xid: number;
  // In flight, in the order sent: calls[first..] with xids that follow each other.
  #calls: Call[] = [];
  #firstCall = 0;
  #firstXid = 1;
  readonly #auths: ((code: number) => void)[] = [];
  #rearmsUnderway = 0;
  #readTimeoutMs = 0;
  #pingIntervalMs = 0;
  #lastHeardMs: number;
  #lastSentMs: number;
  #timer: Timer | undefined;
  #timerDueMs = 0;
  #socketError: Error | undefined;

  constructor(options: ConnectionOptions, handlers: ConnectionHandlers) {
    this.server = options.server;
    this.#options = options;
    this.#handlers = handlers;
    this.#clock = options.clock;
    this.#xid = options.lastXid;
    this.#frames = new FrameDecoder(options.replyBytesMax);
    this.#lastHeardMs = this.#clock.nowMs();
    this.#lastSentMs = this.#lastHeardMs;
    this.#readTimeoutMs = options.connectTimeoutMs;
    this.#pingIntervalMs = Number.POSITIVE_INFINITY;
    this.#socket = openSocket(options.server, options.tls);
    this.#socket.on('data', (chunk: Uint8Array) => this.#onData(chunk));
    this.#socket.on('error', (error) => {
      this.#socketError = error;
    });
    this.#socket.on('close', () => this.close(this.#socketError ?? new Error('the server closed the connection')));
    this.#writer.beginFrame();
    encodeConnectRequest(this.#writer, options.handshake);
    this.#writer.endFrame();
    this.#flush();
    this.#schedule();
  }

  get lastXid(): number {
    return this.#xid;
  }

  get isRearming(): boolean {
    return this.#rearmsUnderway > 0;
  }

  /** The handshake was accepted: from now on silence is judged by the session's timeout. */
  establish(sessionTimeoutMs: number): void {
    this.#isEstablished = true;
    this.#readTimeoutMs = (sessionTimeoutMs * 2) / 3;
    this.#pingIntervalMs = Math.min(PING_INTERVAL_MS_MAX, sessionTimeoutMs / 3);
    this.#schedule();
  }

  /** Queues a call for this turn's write. Answers false, and sends nothing, when its frame would exceed the limit. */
  send(call: Call): boolean {
    const xid = this.#xid === XID_MAX ? 1 : this.#xid + 1;
    if (!this.#encode(xid, call.request)) return false;
    this.#xid = xid;
    if (this.#firstCall === this.#calls.length) this.#firstXid = xid;
    this.#calls.push(call);
    return true;
  }

  sendAuth(request: AuthRequest, onReply: (code: number) => void): void {
    if (this.#encode(Xid.auth, request)) this.#auths.push(onReply);
    else onReply(ErrorCode.badArguments);
  }

  sendRearm(request: SetWatchesRequest): void {
    if (this.#encode(Xid.setWatches, request)) this.#rearmsUnderway++;
    else this.close(new Error('a request that arms the watches again exceeds the frame limit'));
  }

  /** Ends the connection at once. Does nothing when it has ended. */
  close(reason: Error): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#timer?.cancel();
    this.#socket.destroy();
    this.#reader.release();
    const calls = this.#calls.slice(this.#firstCall);
    this.#calls = [];
    this.#firstCall = 0;
    this.#handlers.onClosed(reason, calls);
  }

  #encode(xid: number, request: Request): boolean {
    const writer = this.#writer;
    const start = writer.position;
    writer.beginFrame();
    encodeRequestHeader(writer, xid, request.kind);
    encodeRequest(writer, request);
    if (writer.position - start - 4 > this.#options.requestBytesMax) {
      writer.abortFrame();
      return false;
    }
    writer.endFrame();
    if (!this.#isFlushScheduled) {
      this.#isFlushScheduled = true;
      // The check phase comes after everything that this turn still wants to send.
      setImmediate(() => this.#flush());
    }
    return true;
  }

  #flush(): void {
    this.#isFlushScheduled = false;
    if (this.#isClosed || this.#writer.position === 0) return;
    this.#lastSentMs = this.#clock.nowMs();
    this.#socket.write(this.#writer.detach());
  }

  #onData(chunk: Uint8Array): void {
    if (this.#isClosed) return;
    this.#lastHeardMs = this.#clock.nowMs();
    try {
      this.#frames.push(chunk, (bytes, start, end) => {
        this.#reader.reset(bytes, start, end);
        this.#onFrame(this.#reader);
        return !this.#isClosed;
      });
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      if (error.code === 'frameTooLarge') this.#failFirstRead();
      this.close(error);
    }
    if (!this.#isClosed) this.#reader.release();
  }

  #onFrame(reader: JuteReader): void {
    if (!this.#isEstablished) {
      this.#handlers.onHandshake(decodeConnectResponse(reader));
      return;
    }
    const { xid, zxid, err } = decodeReplyHeader(reader);
    switch (xid) {
      case Xid.watchEvent:
        this.#handlers.onEvent(decodeWatcherEvent(reader), zxid);
        return;
      case Xid.ping:
        return;
      case Xid.auth: {
        const onReply = this.#auths.shift();
        if (onReply === undefined) throw new ProtocolError('marshalling', 'an auth reply answers an auth request');
        onReply(err);
        return;
      }
      case Xid.setWatches:
        if (this.#rearmsUnderway === 0 || err !== ErrorCode.ok) {
          throw new ProtocolError('marshalling', 'a setWatches reply accepts a setWatches request');
        }
        this.#rearmsUnderway--;
        return;
      default:
        this.#onReply(reader, xid, zxid, err);
    }
  }

  #onReply(reader: JuteReader, xid: number, zxid: Zxid, err: number): void {
    const call = this.#calls[this.#firstCall];
    if (call === undefined || xid !== this.#firstXid) {
      throw new ProtocolError('marshalling', 'replies come in the order of the requests');
    }
    let response: Response | null = null;
    if (err === ErrorCode.ok) {
      try {
        response = decodeResponse(call.request.kind, reader);
      } catch (error) {
        if (error instanceof ProtocolError) this.#failFirstRead();
        throw error;
      }
    }
    this.#shiftCall();
    this.#handlers.onReply(zxid);
    if (!call.isAbandoned) call.onReply(err, response);
  }

  /** A read whose reply we cannot take must not be sent again: it would cost us every connection. */
  #failFirstRead(): void {
    const call = this.#calls[this.#firstCall];
    if (call === undefined || isWrite(call.request)) return;
    this.#shiftCall();
    this.#handlers.onReply(NO_ZXID);
    if (!call.isAbandoned) call.onReply(ErrorCode.marshallingError, null);
  }

  #shiftCall(): void {
    this.#firstCall++;
    this.#firstXid = this.#firstXid === XID_MAX ? 1 : this.#firstXid + 1;
    if (this.#firstCall === this.#calls.length) {
      this.#calls = [];
      this.#firstCall = 0;
    } else if (this.#firstCall > 1024 && this.#firstCall * 2 > this.#calls.length) {
      this.#calls = this.#calls.slice(this.#firstCall);
      this.#firstCall = 0;
    }
  }

  /** One timer for both duties: hear something in time, and say something in time. */
  #schedule(): void {
    if (this.#isClosed) return;
    this.#timer?.cancel();
    this.#timerDueMs = Math.min(this.#lastHeardMs + this.#readTimeoutMs, this.#lastSentMs + this.#pingIntervalMs);
    const waitMs = Math.max(0, this.#timerDueMs - this.#clock.nowMs());
    this.#timer = this.#clock.after(waitMs, () => this.#onTimer());
  }

  #onTimer(): void {
    const now = this.#clock.nowMs();
    if (now - this.#timerDueMs > STALL_MS) {
      // Let the socket speak first; then judge.
      this.#timerDueMs = now;
      this.#timer = this.#clock.after(1, () => this.#onTimer());
      return;
    }
    if (now - this.#lastHeardMs >= this.#readTimeoutMs) {
      const waitedMs = Math.round(now - this.#lastHeardMs);
      this.close(new Error(`${formatAddress(this.server)} was silent for ${waitedMs} ms`));
      return;
    }
    if (now - this.#lastSentMs >= this.#pingIntervalMs) {
      this.#encode(Xid.ping, { kind: 'ping' });
      this.#flush();
    }
    this.#schedule();
  }
}

/** Asks a server, by the four-letter word `isro`, whether it accepts writes. Whatever goes wrong is a no. */
export function askIsReadWrite(
  server: ServerAddress,
  tls: TlsOptions | undefined,
  clock: Clock,
  onAnswer: (isReadWrite: boolean) => void,
): void {
  const socket = openSocket(server, tls);
  let answer = '';
  const timer = clock.after(IS_READ_ONLY_TIMEOUT_MS, () => socket.destroy());
  socket.on('data', (chunk: Uint8Array) => {
    // Two letters are expected; what is longer is not an answer.
    if (answer.length < 64) answer += Buffer.from(chunk).toString('latin1');
  });
  socket.on('error', () => socket.destroy());
  socket.on('close', () => {
    timer.cancel();
    onAnswer(answer.trim() === 'rw');
  });
  socket.end('isro');
}

function openSocket(server: ServerAddress, tls: TlsOptions | undefined): Socket {
  const { host, port } = server;
  // Node tries every address of a host name in turn; the only deadline is our own.
  if (tls === undefined) return connectTcp({ host, port, noDelay: true });
  return connectTls({ host, port, servername: host, ...tls }).setNoDelay(true);
}

/** A write may have taken place although its reply was lost; everything else may simply be asked again. */
export function isWrite(request: Request): boolean {
  switch (request.kind) {
    case 'create':
    case 'create2':
    case 'createContainer':
    case 'createTTL':
    case 'delete':
    case 'setData':
    case 'setACL':
    case 'multi':
    case 'reconfig':
    case 'closeSession':
      return true;
    default:
      return false;
  }
}
