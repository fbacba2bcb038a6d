// A tap on the wire between recorded clients and servers: it passes every byte on unchanged and writes down what the frames said,
// in the order of the wire. So a history does not depend on what a client believes, and any client can be recorded.
// The times are those of the tap: a call begins later and a reply comes earlier than the client saw it, which only sharpens the checks.
import { connect, createServer, type Server, type Socket } from 'node:net';
import type { MultiPart, MultiPartResult, OpArgs, OpResult, Recorder, Violation } from '@quorate/checker';
import {
  decodeConnectRequest,
  decodeConnectResponse,
  decodeReplyHeader,
  decodeRequest,
  decodeRequestHeader,
  decodeResponse,
  decodeWatcherEvent,
  FrameDecoder,
  JuteReader,
  type MultiOperation,
  type MultiResult,
  type Request,
  type Response,
  Xid,
} from '@quorate/protocol';

/** A reply may list many children; nothing here needs the server's limit. */
const frameBytesMax = 64 * 1024 * 1024;

export type TapTarget = { readonly server: number; readonly port: number };

export type TapDisconnect = {
  readonly client: string;
  readonly server: number;
  readonly at: number;
  /** Had a session been granted on it? A dial that nobody answered is not a loss. */
  readonly wasServed: boolean;
  readonly unanswered: number;
};

/** Where the recorded history of one run comes together. */
export class WireTap {
  readonly #recorder: Recorder;
  readonly #now: () => number;
  readonly #servers: Server[] = [];
  readonly #wires = new Set<Wire>();
  readonly #silenced = new Set<string>();
  readonly violations: Violation[] = [];
  /** Connections that the server's side ended. */
  readonly disconnects: TapDisconnect[] = [];

  constructor(recorder: Recorder, now: () => number) {
    this.#recorder = recorder;
    this.#now = now;
  }

  /** One port of `client`'s own for each target; connections to it are passed on and recorded under that name. */
  async listen(client: string, targets: readonly TapTarget[]): Promise<number[]> {
    return Promise.all(targets.map((target) => this.#listenFor(client, target)));
  }

  /** From now on nothing of `client` goes through: it is gone without a word, as after a cut cable. */
  silence(client: string): void {
    this.#silenced.add(client);
    for (const wire of this.#wires) if (wire.client === client) wire.destroy(true);
  }

  /** Connections to these servers that were served and that the server's side ended since then. */
  lostConnections(servers: readonly number[], since: number): readonly TapDisconnect[] {
    return this.disconnects.filter(({ server, at, wasServed }) => wasServed && at >= since && servers.includes(server));
  }

  async close(): Promise<void> {
    for (const wire of this.#wires) wire.destroy(true);
    await Promise.all(this.#servers.map((server) => new Promise<void>((done) => server.close(() => done()))));
  }

  #listenFor(client: string, target: TapTarget): Promise<number> {
    const server = createServer({ noDelay: true }, (downstream) => {
      if (this.#silenced.has(client)) {
        downstream.destroy();
        return;
      }
      const upstream = connect({ host: '127.0.0.1', port: target.port, noDelay: true });
      const wire: Wire = new Wire(client, target.server, downstream, upstream, this.#recorder, {
        onViolation: (violation) => this.violations.push(violation),
        onEnded: (isByClient, wasServed, unanswered) => {
          this.#wires.delete(wire);
          if (!isByClient) {
            this.disconnects.push({ client, server: target.server, at: this.#now(), wasServed, unanswered });
          }
        },
      });
      this.#wires.add(wire);
    });
    this.#servers.push(server);
    return new Promise((done, fail) => {
      server.once('error', fail);
      server.listen({ host: '127.0.0.1', port: 0 }, () => {
        const address = server.address();
        if (address === null || typeof address === 'string') fail(new Error('a tap listens on a TCP port'));
        else done(address.port);
      });
    });
  }
}

type WireHandlers = {
  readonly onViolation: (violation: Violation) => void;
  readonly onEnded: (isByClient: boolean, wasServed: boolean, unanswered: number) => void;
};

type Asked = { readonly op: number; readonly request: Request };

/** One connection of a client to a server. */
class Wire {
  readonly client: string;
  readonly #server: number;
  readonly #downstream: Socket;
  readonly #upstream: Socket;
  readonly #recorder: Recorder;
  readonly #handlers: WireHandlers;
  readonly #requests = new FrameDecoder(frameBytesMax);
  readonly #replies = new FrameDecoder(frameBytesMax);
  readonly #reader = new JuteReader();
  /** Requests in flight by xid, oldest first: special xids may repeat. */
  readonly #asked = new Map<number, Asked[]>();
  #connection: number | null = null;
  #isServed = false;
  #hasEnded = false;
  /** The client asked for the end of its session: the server closes the connection behind its answer. */
  #isClosing = false;

  constructor(
    client: string,
    server: number,
    downstream: Socket,
    upstream: Socket,
    recorder: Recorder,
    handlers: WireHandlers,
  ) {
    this.client = client;
    this.#server = server;
    this.#downstream = downstream;
    this.#upstream = upstream;
    this.#recorder = recorder;
    this.#handlers = handlers;
    downstream.on('data', (chunk: Buffer) => {
      this.#requests.push(chunk, (bytes, start, end) => this.#onRequest(bytes, start, end));
      upstream.write(chunk);
    });
    upstream.on('data', (chunk: Buffer) => {
      this.#replies.push(chunk, (bytes, start, end) => this.#onReply(bytes, start, end));
      downstream.write(chunk);
    });
    // An error is followed by close, which is what counts.
    downstream.on('error', () => {});
    upstream.on('error', () => {});
    downstream.on('end', () => this.destroy(true));
    upstream.on('end', () => this.destroy(this.#isClosing));
    downstream.on('close', () => this.destroy(true));
    upstream.on('close', () => this.destroy(this.#isClosing));
  }

  /** The first side that ends names the cause. */
  destroy(isByClient: boolean): void {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    this.#downstream.destroySoon();
    this.#upstream.destroySoon();
    let unanswered = 0;
    for (const asked of this.#asked.values()) unanswered += asked.length;
    if (this.#connection !== null) this.#recorder.onDisconnected(this.#connection, isByClient);
    this.#handlers.onEnded(isByClient, this.#isServed, unanswered);
  }

  #onRequest(bytes: Uint8Array, start: number, end: number): boolean {
    if (this.#hasEnded) return false;
    const reader = this.#reader;
    reader.reset(bytes, start, end);
    if (this.#connection === null) {
      const request = decodeConnectRequest(reader);
      this.#connection = this.#recorder.onConnecting(this.client, this.#server, {
        requestedSession: request.sessionId,
        isPasswordRight: true,
        lastZxidSeen: request.lastZxidSeen,
        requestedTimeoutMs: request.timeoutMs,
      });
      return true;
    }
    const { xid, opcode } = decodeRequestHeader(reader);
    const request = decodeRequest(opcode, reader);
    this.#isClosing ||= request.kind === 'closeSession';
    const op = this.#recorder.onCall(this.#connection, xid, request.kind, argsOf(request));
    const asked = this.#asked.get(xid);
    if (asked === undefined) this.#asked.set(xid, [{ op, request }]);
    else asked.push({ op, request });
    return true;
  }

  #onReply(bytes: Uint8Array, start: number, end: number): boolean {
    if (this.#hasEnded || this.#connection === null) return false;
    const reader = this.#reader;
    reader.reset(bytes, start, end);
    if (!this.#isServed) {
      const { sessionId, timeoutMs } = decodeConnectResponse(reader);
      this.#recorder.onConnected(this.#connection, timeoutMs <= 0 ? 0n : sessionId, timeoutMs);
      this.#isServed = timeoutMs > 0;
      return this.#isServed;
    }
    const { xid, zxid, err } = decodeReplyHeader(reader);
    if (xid === Xid.watchEvent) {
      const event = decodeWatcherEvent(reader);
      this.#recorder.onEvent(this.#connection, event.type, event.path, zxid);
      return true;
    }
    const asked = this.#asked.get(xid);
    const first = asked?.shift();
    if (asked === undefined || first === undefined) {
      this.#handlers.onViolation({
        rule: 'R4',
        detail: `${this.client}: a reply with xid ${xid} that nobody asked for`,
      });
      return true;
    }
    if (asked.length === 0) this.#asked.delete(xid);
    this.#recorder.onReply(this.#connection, first.op, zxid, err, err === 0 ? this.#resultOf(first.request) : null);
    return true;
  }

  #resultOf(request: Request): OpResult {
    if (request.kind === 'check') throw new Error('a check is no request of its own');
    return resultOf(decodeResponse(request.kind, this.#reader));
  }
}

function text(data: Uint8Array | null): string | null {
  return data === null ? null : Buffer.from(data).toString('latin1');
}

function argsOf(request: Request): OpArgs {
  switch (request.kind) {
    case 'create':
    case 'create2':
    case 'createContainer':
    case 'createTTL':
      return { path: request.path, data: text(request.data), flags: request.flags };
    case 'delete':
    case 'check':
    case 'setACL':
      return { path: request.path, version: request.version };
    case 'setData':
      return { path: request.path, data: text(request.data), version: request.version };
    case 'multi':
      return { operations: request.operations.map(partOf) };
    case 'exists':
    case 'getData':
    case 'getChildren':
    case 'getChildren2':
      return { path: request.path, watch: request.watch };
    case 'addWatch':
      return { path: request.path, mode: request.mode };
    case 'checkWatches':
    case 'removeWatches':
      return { path: request.path, mode: request.type };
    case 'setWatches':
    case 'setWatches2':
      return {
        relativeZxid: request.relativeZxid,
        dataWatches: request.dataWatches,
        existWatches: request.existWatches,
        childWatches: request.childWatches,
        persistentWatches: request.persistentWatches,
        recursiveWatches: request.persistentRecursiveWatches,
      };
    default:
      return 'path' in request ? { path: request.path } : {};
  }
}

function partOf(operation: MultiOperation): MultiPart {
  return { kind: operation.kind, ...argsOf(operation) };
}

function resultOf(response: Response): OpResult {
  if (response.kind === 'multi' || response.kind === 'multiRead') {
    return { results: response.results.map(partResultOf) };
  }
  return {
    ...('path' in response ? { path: response.path } : {}),
    ...('data' in response ? { data: text(response.data) } : {}),
    ...('stat' in response ? { stat: response.stat } : {}),
    ...('children' in response ? { children: response.children } : {}),
  };
}

function partResultOf(result: MultiResult): MultiPartResult {
  return {
    kind: result.kind,
    ...('code' in result ? { code: result.code } : {}),
    ...('path' in result ? { path: result.path } : {}),
    ...('stat' in result ? { stat: result.stat } : {}),
  };
}
