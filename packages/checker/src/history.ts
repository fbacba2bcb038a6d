// What clients saw, in a form that can be written down: operations, watch events, connections, and optionally the committed log.
// Recording decides nothing. Times are whatever the caller's clock says, but one clock for all clients of a history.
// File format: JSON lines, one record each; bigints as {"$big":"…"}, Infinity as {"$infinity":true}.

import type { Stat } from '@quorate/protocol';

export type OpArgs = {
  readonly path?: string;
  /** Values are text, one character per byte; unique ones make the checks sharp. null is a value of its own. */
  readonly data?: string | null;
  readonly version?: number;
  readonly flags?: number;
  readonly watch?: boolean;
  /** addWatch: AddWatchMode; removeWatches: WatcherType. */
  readonly mode?: number;
  readonly operations?: readonly MultiPart[];
  readonly relativeZxid?: bigint;
  readonly dataWatches?: readonly string[];
  readonly existWatches?: readonly string[];
  readonly childWatches?: readonly string[];
  readonly persistentWatches?: readonly string[];
  readonly recursiveWatches?: readonly string[];
};

export type MultiPart = { readonly kind: string } & Pick<OpArgs, 'path' | 'data' | 'version' | 'flags'>;

export type OpResult = {
  readonly path?: string;
  readonly data?: string | null;
  readonly stat?: Stat;
  readonly children?: readonly string[];
  readonly results?: readonly MultiPartResult[];
};

export type MultiPartResult = {
  readonly kind: string;
  readonly code?: number;
  readonly path?: string;
  readonly stat?: Stat;
};

export type OpRecord = {
  readonly type: 'op';
  readonly id: number;
  readonly client: string;
  readonly session: bigint;
  readonly connection: number;
  readonly server: number;
  readonly xid: number;
  readonly kind: string;
  readonly args: OpArgs;
  readonly call: number;
  /** Infinity: no answer was seen. */
  readonly ret: number;
  /** unknown: it may or may not have taken place. */
  readonly outcome: 'ok' | 'error' | 'unknown';
  readonly code: number;
  readonly result: OpResult | null;
  readonly zxid: bigint | null;
  /** Place of the reply among all frames received on its connection; -1 without reply. */
  readonly position: number;
};

export type EventRecord = {
  readonly type: 'event';
  readonly client: string;
  readonly session: bigint;
  readonly connection: number;
  readonly server: number;
  readonly at: number;
  readonly position: number;
  /** EventType on the wire. */
  readonly event: number;
  readonly path: string;
  /** Of the frame's header; -1 for what setWatches caught up with (and for every event of servers before 3.9). */
  readonly zxid: bigint;
};

export type ConnectRecord = {
  readonly type: 'connect';
  readonly client: string;
  readonly connection: number;
  readonly server: number;
  readonly call: number;
  readonly ret: number;
  /** 0n asks for a new session. */
  readonly requestedSession: bigint;
  readonly isPasswordRight: boolean;
  readonly lastZxidSeen: bigint;
  readonly requestedTimeoutMs: number;
  /** 0n: refused. */
  readonly session: bigint;
  readonly timeoutMs: number;
};

export type DisconnectRecord = {
  readonly type: 'disconnect';
  readonly connection: number;
  readonly at: number;
  readonly isByClient: boolean;
};

/** One txn of the committed log, as the servers decided it. */
export type TxnRecord = {
  readonly type: 'txn';
  readonly zxid: bigint;
  readonly session: bigint;
  readonly xid: number;
  readonly timeMs: number;
  readonly body: TxnOutcome;
};

export type TxnOutcome =
  | { readonly kind: 'create'; readonly path: string; readonly data: string | null; readonly owner: bigint }
  | { readonly kind: 'delete' | 'check'; readonly path: string }
  | { readonly kind: 'setData'; readonly path: string; readonly data: string | null; readonly version: number }
  | { readonly kind: 'setACL'; readonly path: string; readonly version: number }
  | { readonly kind: 'createSession'; readonly timeoutMs: number }
  | { readonly kind: 'closeSession'; readonly paths: readonly string[] }
  | { readonly kind: 'multi'; readonly operations: readonly TxnOutcome[] }
  | { readonly kind: 'multiError'; readonly codes: readonly number[] }
  | { readonly kind: 'error'; readonly code: number };

export type HistoryRecord = OpRecord | EventRecord | ConnectRecord | DisconnectRecord | TxnRecord;
export type History = readonly HistoryRecord[];

export type Violation = { readonly rule: string; readonly detail: string };

const WRITES: ReadonlySet<string> = new Set([
  'create',
  'create2',
  'createContainer',
  'createTTL',
  'delete',
  'setData',
  'setACL',
  'multi',
  'closeSession',
]);

export function isWrite(kind: string): boolean {
  return WRITES.has(kind);
}

type OpenOp = Omit<OpRecord, 'type' | 'ret' | 'outcome' | 'code' | 'result' | 'zxid' | 'position'>;

export type ConnectRequestFacts = Pick<
  ConnectRecord,
  'requestedSession' | 'isPasswordRight' | 'lastZxidSeen' | 'requestedTimeoutMs'
>;

type Connection = {
  readonly client: string;
  readonly server: number;
  readonly call: number;
  readonly request: ConnectRequestFacts;
  session: bigint;
  received: number;
  readonly open: Map<number, OpenOp>;
};

/** Collects a history while clients run. Every call may come from any client; ids are given here. */
export class Recorder {
  readonly #now: () => number;
  readonly #records: HistoryRecord[] = [];
  readonly #connections = new Map<number, Connection>();
  #nextConnection = 1;
  #nextOp = 1;

  constructor(now: () => number) {
    this.#now = now;
  }

  /** A connect request is sent. The number names this connection in all other calls. */
  onConnecting(client: string, server: number, request: ConnectRequestFacts): number {
    const id = this.#nextConnection++;
    this.#connections.set(id, {
      client,
      server,
      call: this.#now(),
      request,
      session: 0n,
      received: 0,
      open: new Map(),
    });
    return id;
  }

  /** The connect response arrived; session 0n: refused. */
  onConnected(connection: number, session: bigint, timeoutMs: number): void {
    const state = this.#connection(connection);
    state.session = session;
    this.#records.push({
      type: 'connect',
      client: state.client,
      connection,
      server: state.server,
      call: state.call,
      ret: this.#now(),
      ...state.request,
      session,
      timeoutMs,
    });
  }

  onCall(connection: number, xid: number, kind: string, args: OpArgs): number {
    const state = this.#connection(connection);
    const id = this.#nextOp++;
    state.open.set(id, {
      id,
      client: state.client,
      session: state.session,
      connection,
      server: state.server,
      xid,
      kind,
      args,
      call: this.#now(),
    });
    return id;
  }

  onReply(connection: number, op: number, zxid: bigint, code: number, result: OpResult | null): void {
    const state = this.#connection(connection);
    const open = state.open.get(op);
    if (open === undefined) throw new RangeError('a reply without its call');
    state.open.delete(op);
    const outcome = code === 0 ? 'ok' : 'error';
    this.#records.push({
      type: 'op',
      ...open,
      ret: this.#now(),
      outcome,
      code,
      result,
      zxid,
      position: state.received++,
    });
  }

  onEvent(connection: number, event: number, path: string, zxid: bigint): void {
    const { client, session, server, received } = this.#connection(connection);
    this.#connection(connection).received++;
    this.#records.push({
      type: 'event',
      client,
      session,
      connection,
      server,
      at: this.#now(),
      position: received,
      event,
      path,
      zxid,
    });
  }

  /** What was not answered is unknown from now on. */
  onDisconnected(connection: number, isByClient: boolean): void {
    const state = this.#connections.get(connection);
    if (state === undefined) return;
    this.#connections.delete(connection);
    for (const open of state.open.values()) this.#records.push(unanswered(open));
    this.#records.push({ type: 'disconnect', connection, at: this.#now(), isByClient });
  }

  /** For what the caller learns elsewhere: the committed log. */
  add(record: TxnRecord): void {
    this.#records.push(record);
  }

  /** Everything so far; operations still open are unknown. */
  history(): History {
    const open: HistoryRecord[] = [];
    for (const state of this.#connections.values()) for (const op of state.open.values()) open.push(unanswered(op));
    return [...this.#records, ...open];
  }

  #connection(id: number): Connection {
    const state = this.#connections.get(id);
    if (state === undefined) throw new RangeError('no such connection, or it is closed');
    return state;
  }
}

function unanswered(open: OpenOp): OpRecord {
  return {
    type: 'op',
    ...open,
    ret: Number.POSITIVE_INFINITY,
    outcome: 'unknown',
    code: 0,
    result: null,
    zxid: null,
    position: -1,
  };
}

export function toJsonLines(history: History): string {
  return history
    .map((record) =>
      JSON.stringify(record, (_key, value: unknown) => {
        if (typeof value === 'bigint') return { $big: value.toString() };
        return value === Number.POSITIVE_INFINITY ? { $infinity: true } : value;
      }),
    )
    .join('\n');
}

export function fromJsonLines(text: string): History {
  const records: HistoryRecord[] = [];
  for (const line of text.split('\n')) {
    if (line.trim() === '') continue;
    records.push(
      JSON.parse(line, (_key, value: unknown) => {
        if (typeof value !== 'object' || value === null) return value;
        if ('$big' in value && typeof value.$big === 'string') return BigInt(value.$big);
        return '$infinity' in value ? Number.POSITIVE_INFINITY : value;
      }),
    );
  }
  return records;
}

export function operationsOf(history: History): OpRecord[] {
  return history.filter((record) => record.type === 'op');
}

export function txnsOf(history: History): TxnRecord[] {
  return history.filter((record) => record.type === 'txn').sort((a, b) => (a.zxid < b.zxid ? -1 : 1));
}

export function hex(value: bigint): string {
  return `0x${BigInt.asUintN(64, value).toString(16)}`;
}
