// A server that does what a test tells it, frame by frame: for what a genuine one cannot be asked to do.
// It has no znodes and no opinion; every reply is the test's. With it comes a clock that only the test moves.

import { createServer, type Server, type Socket } from 'node:net';
import {
  type ConnectRequest,
  decodeConnectRequest,
  decodeRequest,
  decodeRequestHeader,
  type EventType,
  encodeConnectResponse,
  encodeReplyHeader,
  encodeResponse,
  encodeWatchEvent,
  FrameDecoder,
  JuteReader,
  JuteWriter,
  KeeperState,
  type Request,
  type Response,
  sessionIdFrom,
} from '@quorate/protocol';

type Arrival = { readonly xid: number; readonly request: Request };

/** First in, first out; whoever comes too early waits. */
class Mailbox<T extends object> {
  readonly #items: T[] = [];
  readonly #takers: ((item: T) => void)[] = [];

  put(item: T): void {
    const taker = this.#takers.shift();
    if (taker === undefined) this.#items.push(item);
    else taker(item);
  }

  take(): Promise<T> {
    return new Promise((resolve) => {
      const [item] = this.#items.splice(0, 1);
      if (item === undefined) this.#takers.push(resolve);
      else resolve(item);
    });
  }

  get size(): number {
    return this.#items.length;
  }
}

export class ScriptedConnection {
  readonly handshake: ConnectRequest;
  readonly handshakeBytes: number;
  readonly #socket: Socket;
  readonly #arrivals = new Mailbox<Arrival>();
  readonly closed: Promise<void>;
  /** Chunks that held requests. */
  chunkCount = 0;

  constructor(socket: Socket, handshake: ConnectRequest, handshakeBytes: number) {
    this.#socket = socket;
    this.handshake = handshake;
    this.handshakeBytes = handshakeBytes;
    this.closed = new Promise((resolve) => {
      socket.on('close', () => resolve());
    });
  }

  /** Grants the session. `readOnly: null` is the old form of the response, without the byte. */
  grant(options: { timeoutMs?: number; sessionId?: bigint; readOnly?: boolean | null } = {}): void {
    this.#frame((writer) =>
      encodeConnectResponse(writer, {
        protocolVersion: 0,
        timeoutMs: options.timeoutMs ?? 6_000,
        sessionId: sessionIdFrom(options.sessionId ?? 0x1234n),
        password: Buffer.alloc(16, 7),
        readOnly: options.readOnly === undefined ? false : options.readOnly,
      }),
    );
  }

  refuse(): void {
    this.#frame((writer) =>
      encodeConnectResponse(writer, {
        protocolVersion: 0,
        timeoutMs: 0,
        sessionId: sessionIdFrom(0n),
        password: Buffer.alloc(16),
        readOnly: false,
      }),
    );
    this.#socket.end();
  }

  next(): Promise<Arrival> {
    return this.#arrivals.take();
  }

  /** Requests that have arrived and were not taken. */
  get arrivedCount(): number {
    return this.#arrivals.size;
  }

  reply(xid: number, zxid: bigint, answer: Response | number): void {
    this.#frame((writer) => {
      encodeReplyHeader(writer, xid, zxid, typeof answer === 'number' ? answer : 0);
      if (typeof answer !== 'number') encodeResponse(writer, answer);
    });
  }

  event(type: EventType, path: string, zxid: bigint): void {
    this.#frame((writer) => encodeWatchEvent(writer, { type, state: KeeperState.syncConnected, path }, zxid));
  }

  raw(bytes: Uint8Array): void {
    this.#socket.write(bytes);
  }

  /** What is said in between leaves in one write. */
  together(say: () => void): void {
    this.#socket.cork();
    say();
    this.#socket.uncork();
  }

  close(): void {
    this.#socket.destroy();
  }

  arrived(arrival: Arrival): void {
    this.#arrivals.put(arrival);
  }

  #frame(encode: (writer: JuteWriter) => void): void {
    const writer = new JuteWriter();
    writer.beginFrame();
    encode(writer);
    writer.endFrame();
    this.#socket.write(writer.detach());
  }
}

export class ScriptedServer implements AsyncDisposable {
  readonly #server: Server;
  readonly #connections = new Mailbox<ScriptedConnection>();
  readonly #sockets = new Set<Socket>();
  port = 0;
  acceptedCount = 0;
  /** What it says to the four-letter word `isro`. */
  isro = 'ro';

  private constructor() {
    this.#server = createServer((socket) => this.#onSocket(socket));
  }

  static async start(): Promise<ScriptedServer> {
    const server = new ScriptedServer();
    await new Promise<void>((resolve) => server.#server.listen(0, '127.0.0.1', resolve));
    const address = server.#server.address();
    if (address === null || typeof address === 'string') throw new Error('a listening server has a port');
    server.port = address.port;
    return server;
  }

  /** The next connection whose connect request has arrived. */
  accept(): Promise<ScriptedConnection> {
    return this.#connections.take();
  }

  /** Accepts and grants. */
  async serve(options: Parameters<ScriptedConnection['grant']>[0] = {}): Promise<ScriptedConnection> {
    const connection = await this.accept();
    connection.grant(options);
    return connection;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }

  #onSocket(socket: Socket): void {
    this.acceptedCount++;
    this.#sockets.add(socket);
    socket.on('error', () => socket.destroy());
    socket.on('close', () => this.#sockets.delete(socket));
    const frames = new FrameDecoder(64 * 1024 * 1024);
    let connection: ScriptedConnection | undefined;
    socket.on('data', (chunk) => {
      if (connection === undefined && chunk.toString('latin1') === 'isro') {
        socket.end(this.isro);
        return;
      }
      if (connection !== undefined) connection.chunkCount++;
      frames.push(chunk, (bytes, start, end) => {
        const reader = new JuteReader(bytes, start, end);
        if (connection === undefined) {
          connection = new ScriptedConnection(socket, decodeConnectRequest(reader), end - start);
          this.#connections.put(connection);
        } else {
          const { xid, opcode } = decodeRequestHeader(reader);
          // A copy: a request's buffers are views of a chunk that the test may look at much later.
          const body = new JuteReader(Uint8Array.from(bytes.subarray(reader.offset, end)));
          connection.arrived({ xid, request: decodeRequest(opcode, body) });
        }
        return true;
      });
    });
  }
}

/** Time stands still until `advance` moves it; due work then runs in order. */
export class ManualClock {
  #nowMs = 1_000;
  #works: { readonly dueMs: number; readonly work: () => void }[] = [];

  nowMs(): number {
    return this.#nowMs;
  }

  after(waitMs: number, work: () => void): { cancel(): void } {
    const entry = { dueMs: this.#nowMs + waitMs, work };
    this.#works.push(entry);
    return {
      cancel: () => {
        this.#works = this.#works.filter((it) => it !== entry);
      },
    };
  }

  advance(ms: number): void {
    const untilMs = this.#nowMs + ms;
    for (;;) {
      const due = this.#works.filter((it) => it.dueMs <= untilMs).sort((a, b) => a.dueMs - b.dueMs)[0];
      if (due === undefined) break;
      this.#works = this.#works.filter((it) => it !== due);
      this.#nowMs = Math.max(this.#nowMs, due.dueMs);
      due.work();
    }
    this.#nowMs = untilMs;
  }

  /** Moves the time in one jump, as for a process that stood still: work that was due comes late. */
  stall(ms: number): void {
    this.#nowMs += ms;
    this.advance(0);
  }
}
