// One client connection as the pipeline sees it: who is attached, what waits for an answer, and the bytes going out.
// It holds no socket (ClientPort does) and decides nothing.

import { type Id, JuteWriter, type Request, type SessionId, sessionIdFrom } from '@quorate/protocol';
import type { ClientPort } from './ports.ts';

export type WaitingKind = 'write' | 'sync' | 'read' | 'createSession' | 'revalidate' | 'settled';

/** A request that has its place in the connection's line and no answer on the wire yet. All instances have one shape. */
export class Waiting {
  readonly kind: WaitingKind;
  readonly connection: ClientSession;
  /** Pairs a forwarded request with its txn; 0 for reads, which never leave this server. */
  readonly sequence: number;
  readonly xid: number;
  readonly opcode: number;
  /** Decoded, with its own copy of the bytes. */
  readonly request: Request | null;
  /** The request record as it came, own copy. */
  readonly body: Uint8Array;
  readonly arrivedMs: number;
  /** A complete reply frame, once there is one but earlier requests of this connection are still unanswered. */
  reply: Uint8Array | null = null;
  isDone = false;
  /** Handed to the leader of this epoch; 0: not handed over. */
  sentInEpoch = 0;
  /** sync: everything up to this zxid must be applied here first. */
  waitsForZxid = -1n;

  constructor(
    kind: WaitingKind,
    connection: ClientSession,
    sequence: number,
    xid: number,
    opcode: number,
    request: Request | null,
    body: Uint8Array,
    arrivedMs: number,
  ) {
    this.kind = kind;
    this.connection = connection;
    this.sequence = sequence;
    this.xid = xid;
    this.opcode = opcode;
    this.request = request;
    this.body = body;
    this.arrivedMs = arrivedMs;
  }
}

export type ClientPhase = 'connecting' | 'attaching' | 'attached' | 'closing' | 'closed';

const NO_SESSION = sessionIdFrom(0n);

export class ClientSession {
  /** Its number in the watch table; never used again while this process lives. */
  readonly watcher: number;
  readonly port: ClientPort;
  readonly writer = new JuteWriter(512);
  readonly establishedMs: number;
  phase: ClientPhase = 'connecting';
  sessionId: SessionId = NO_SESSION;
  attachment = 0n;
  timeoutMs = 0;
  password: Uint8Array = new Uint8Array(0);
  /** The client's connect request had the readOnly byte, so the response has it too. */
  asksReadOnly = false;
  lastZxidSeen = 0n;
  identity: Id[];
  /** First in, first answered. `head` is the index of the oldest unanswered one. */
  line: Waiting[] = [];
  head = 0;
  /** Frames that came while the session was being attached; own copies. */
  held: Uint8Array[] = [];
  isPaused = false;
  isDirty = false;
  /** The touch report in which this session was last named. */
  touchedInRound = -1;
  packetsReceived = 0;
  packetsSent = 0;
  lastCxid = 0;
  lastOperation = 'NA';
  lastResponseMs = 0;
  latencyMaxMs = 0;
  latencyMinMs = 0;
  latencySumMs = 0;

  constructor(watcher: number, port: ClientPort, nowMs: number) {
    this.watcher = watcher;
    this.port = port;
    this.establishedMs = nowMs;
    this.identity = [{ scheme: 'ip', id: port.remoteAddress }];
  }

  get waitingCount(): number {
    return this.line.length - this.head;
  }

  /** An unanswered sync stands before `waiting` in the line. */
  hasSyncBefore(waiting: Waiting): boolean {
    for (let i = this.head; i < this.line.length; i += 1) {
      const one = this.line[i];
      if (one === waiting) return false;
      if (one?.kind === 'sync') return true;
    }
    return false;
  }

  first(): Waiting | undefined {
    return this.line[this.head];
  }

  enqueue(waiting: Waiting): void {
    this.line.push(waiting);
  }

  dequeue(): void {
    this.head += 1;
    if (this.head === this.line.length) {
      this.line.length = 0;
      this.head = 0;
    } else if (this.head >= 1024) {
      // Keeps a long pipeline from growing the array for ever; amortised cost is one move per request.
      this.line = this.line.slice(this.head);
      this.head = 0;
    }
  }
}
