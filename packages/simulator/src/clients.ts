// The workload of whole replicas: clients that pipeline requests, set watches, move between servers, fall silent, come with wrong
// passwords, and record everything they see. At the end the checkers judge the record against the committed log.

import { checkHistory, type OpArgs, type OpResult, Recorder } from '@quorate/checker';
import {
  AddWatchMode,
  type ConnectResponse,
  decodeConnectResponse,
  decodeReplyHeader,
  decodeResponse,
  decodeWatcherEvent,
  ErrorCode,
  EventType,
  encodeConnectRequest,
  encodeRequest,
  encodeRequestHeader,
  type JuteReader,
  JuteWriter,
  type OpName,
  type Request,
  type ResponseKind,
  type ServerId,
  sessionIdFrom,
  Xid,
  zxidFrom,
} from '@quorate/protocol';
import { ClientLink } from './client-link.ts';
import { txnRecordOf } from './committed-log.ts';
import type { Violation } from './invariants.ts';
import { Random } from './random.ts';
import { SESSION_TIMEOUT_MS_MAX, SESSION_TIMEOUT_MS_MIN } from './replica-machine.ts';
import { type Asked, randomRead, randomWrite, resultOf } from './requests.ts';
import type { Simulation, Workload } from './simulation.ts';

type InFlight = {
  readonly op: number;
  readonly xid: number;
  readonly kind: OpName & ResponseKind;
  readonly args: OpArgs;
  readonly sentAt: number;
};

type ClientWatches = {
  readonly data: Set<string>;
  readonly exist: Set<string>;
  readonly child: Set<string>;
  readonly persistent: Set<string>;
  readonly recursive: Set<string>;
};

function noWatches(): ClientWatches {
  return { data: new Set(), exist: new Set(), child: new Set(), persistent: new Set(), recursive: new Set() };
}

const NO_SESSION = { id: 0n, password: new Uint8Array(16) };

class SimClient {
  readonly name: string;
  readonly #simulation: Simulation;
  readonly #workload: Clients;
  readonly #random: Random;
  readonly #timeoutMs: number;
  readonly #gapUs: number;
  #session: { readonly id: bigint; readonly password: Uint8Array } = NO_SESSION;
  #lastZxidSeen = 0n;
  #watches = noWatches();
  #link: ClientLink | null = null;
  #connection = 0;
  #isAttached = false;
  #inFlight: InFlight[] = [];
  #pings: InFlight[] = [];
  #nextXid = 1;
  #nextValue = 1;
  #silentUntil = 0;
  #connectingSince = 0;
  /** Successful writes since the calm began. */
  progress = 0;

  constructor(simulation: Simulation, workload: Clients, index: number) {
    this.#simulation = simulation;
    this.#workload = workload;
    this.name = `client ${index}`;
    this.#random = new Random(simulation.scenario.seed, 'client', index);
    this.#timeoutMs = this.#random.pick([100, 600, 1500, 9000]);
    this.#gapUs = this.#random.pick([3000, 20_000, 60_000]);
  }

  start(): void {
    this.#simulation.timeline.after(this.#random.wait(this.#gapUs), () => {
      this.#act();
      this.start();
    });
  }

  #act(): void {
    const now = this.#simulation.timeline.now;
    const isCalm = this.#workload.isCalm;
    if (now < this.#silentUntil && !isCalm) return;
    if (this.#link === null) {
      if (this.#random.chance(0.5)) this.#connect();
      return;
    }
    const oldest = this.#inFlight[0] ?? this.#pings[0];
    const waitingSince = this.#isAttached ? oldest?.sentAt : this.#connectingSince;
    if (waitingSince !== undefined && now - waitingSince > 1_500_000) {
      this.#link.close();
      return;
    }
    if (!this.#isAttached) return;
    const dice = this.#random.unit();
    if (!isCalm) {
      if (dice < 0.01) return void this.#link.close();
      if (dice < 0.015) {
        // Longer than the session may live, or not quite.
        this.#silentUntil = now + this.#random.below(3 * Math.max(this.#timeoutMs, SESSION_TIMEOUT_MS_MIN) * 1000);
        this.#simulation.witness('client fell silent');
        return;
      }
      if (dice < 0.02) return void this.#send([this.#closing()]);
    }
    if (this.#inFlight.length > 12) return;
    if (!this.#workload.pipelinesBehindSync && this.#inFlight.some((one) => one.kind === 'sync')) return;
    if (dice > 0.95) return void this.#ping();
    const asked: Asked[] = [];
    for (let i = this.#random.chance(0.7) ? 1 : this.#random.between(2, 5); i > 0; i--) {
      asked.push(
        this.#random.chance(0.55)
          ? randomWrite(this.#random, `${this.name}#${this.#nextValue++}`)
          : randomRead(this.#random),
      );
    }
    const sync = asked.findIndex(({ request }) => request.kind === 'sync');
    this.#send(this.#workload.pipelinesBehindSync || sync < 0 ? asked : asked.slice(0, sync + 1));
  }

  #closing(): Asked {
    return { request: { kind: 'closeSession' }, args: {} };
  }

  #connect(): void {
    const host = this.#random.pick(this.#workload.servers(this.#simulation));
    if (host.life === 0) return;
    const isKnown = this.#session.id !== 0n;
    // Not in the calm: there each client must get on.
    const isPasswordRight = !isKnown || this.#workload.isCalm || !this.#random.chance(0.05);
    const password = isPasswordRight ? this.#session.password : this.#random.bytes(16);
    const connection = this.#workload.recorder.onConnecting(this.name, host.id, {
      requestedSession: this.#session.id,
      isPasswordRight,
      lastZxidSeen: this.#lastZxidSeen,
      requestedTimeoutMs: this.#timeoutMs,
    });
    this.#connection = connection;
    this.#isAttached = false;
    this.#inFlight = [];
    this.#pings = [];
    this.#connectingSince = this.#simulation.timeline.now;
    let isFirst = true;
    const link = new ClientLink(this.#simulation, host, this.#random, this.#workload.latencyUs, {
      // Judged when the server writes, acted upon when the bytes arrive.
      onServerFrame: (reader) => {
        if (!isFirst) return this.#onServerFrame(reader);
        isFirst = false;
        const response = decodeConnectResponse(reader);
        return () => this.#onConnected(link, response, isPasswordRight);
      },
      onClosed: (isByClient) => {
        this.#workload.recorder.onDisconnected(connection, isByClient);
        if (this.#link === link) this.#link = null;
      },
    });
    this.#link = link;
    const writer = new JuteWriter();
    encodeConnectRequest(writer, {
      protocolVersion: 0,
      lastZxidSeen: zxidFrom(this.#lastZxidSeen),
      timeoutMs: this.#timeoutMs,
      sessionId: sessionIdFrom(this.#session.id),
      password,
      readOnly: false,
    });
    link.send([writer]);
    this.#simulation.say(() => `${this.name} connects to ${host.id} with session ${this.#session.id.toString(16)}`);
  }

  #onServerFrame(reader: JuteReader): () => void {
    const header = decodeReplyHeader(reader);
    if (header.xid === Xid.watchEvent) {
      const event = decodeWatcherEvent(reader);
      this.#workload.onEventWritten(header.zxid, event.path);
      return () => this.#onEvent(event.type, event.path, header.zxid);
    }
    return () => this.#onReply(header.xid, header.zxid, header.err, reader);
  }

  #onConnected(link: ClientLink, response: ConnectResponse, isPasswordRight: boolean): void {
    const { sessionId: session, timeoutMs, password } = response;
    this.#workload.recorder.onConnected(this.#connection, session, timeoutMs);
    this.#simulation.say(() => `${this.name} attached to ${link.host.id} as ${session.toString(16)}`);
    if (timeoutMs <= 0) {
      // A wrong password says nothing about the session; the right one says that it is over.
      this.#simulation.witness(isPasswordRight ? 'session found expired' : 'wrong password refused');
      if (isPasswordRight) this.#forgetSession();
      return;
    }
    const isReattached = this.#session.id !== 0n;
    this.#session = { id: session, password: password ?? new Uint8Array(16) };
    this.#isAttached = true;
    if (isReattached) this.#simulation.witness('session re-attached');
    if (isReattached) this.#reRegister();
  }

  #forgetSession(): void {
    this.#session = NO_SESSION;
    this.#watches = noWatches();
    // As a client that expired: the new session starts from nothing.
    this.#lastZxidSeen = 0n;
  }

  #reRegister(): void {
    const { data, exist, child, persistent, recursive } = this.#watches;
    if (data.size + exist.size + child.size + persistent.size + recursive.size === 0) return;
    const lists = {
      dataWatches: [...data],
      existWatches: [...exist],
      childWatches: [...child],
      persistentWatches: [...persistent],
    };
    this.#simulation.witness('setWatches2');
    this.#send([
      {
        request: {
          kind: 'setWatches2',
          relativeZxid: zxidFrom(this.#lastZxidSeen),
          ...lists,
          persistentRecursiveWatches: [...recursive],
        },
        args: { relativeZxid: this.#lastZxidSeen, ...lists, recursiveWatches: [...recursive] },
      },
    ]);
  }

  #send(asked: readonly Asked[]): void {
    const link = this.#link;
    if (link === null) return;
    const frames: JuteWriter[] = [];
    for (const { request, args } of asked) {
      const xid = this.#nextXid++;
      frames.push(this.#frame(xid, request));
      const kind = request.kind;
      const op = this.#workload.recorder.onCall(this.#connection, xid, kind, args);
      this.#inFlight.push({ op, xid, kind: responseKindOf(request), args, sentAt: this.#simulation.timeline.now });
      this.#simulation.say(
        () =>
          `${this.name} asks xid ${xid} ${kind} ${JSON.stringify(args, (_key, value) => (typeof value === 'bigint' ? value.toString() : value))}`,
      );
    }
    link.send(frames);
  }

  #ping(): void {
    const link = this.#link;
    if (link === null) return;
    const op = this.#workload.recorder.onCall(this.#connection, Xid.ping, 'ping', {});
    this.#pings.push({ op, xid: Xid.ping, kind: 'ping', args: {}, sentAt: this.#simulation.timeline.now });
    link.send([this.#frame(Xid.ping, { kind: 'ping' })]);
  }

  #frame(xid: number, request: Request): JuteWriter {
    const writer = new JuteWriter();
    encodeRequestHeader(writer, xid, request.kind);
    encodeRequest(writer, request);
    return writer;
  }

  #onReply(xid: number, zxid: bigint, err: number, reader: JuteReader): void {
    const line = xid === Xid.ping ? this.#pings : this.#inFlight;
    const first = line.shift();
    if (first === undefined || first.xid !== xid) {
      this.#simulation.fail({
        invariant: 'R4',
        detail: `${this.name} got a reply to xid ${xid}, due was ${first?.xid ?? 'none'}`,
      });
      return;
    }
    const result = err === 0 ? this.#decode(first, reader) : null;
    this.#workload.recorder.onReply(this.#connection, first.op, zxid, err, result);
    this.#simulation.say(
      () => `${this.name} answered xid ${xid} ${first.kind} at ${zxid >> 32n}:${zxid & 0xffffffffn}: ${err}`,
    );
    if (xid === Xid.ping) return;
    if (zxid > this.#lastZxidSeen) this.#lastZxidSeen = zxid;
    this.#register(first, err);
    if (first.kind === 'closeSession' && err === 0) this.#forgetSession();
    if (err === ErrorCode.sessionExpired) {
      this.#forgetSession();
      this.#link?.close();
    }
    if (err === 0 && (first.kind === 'setData' || first.kind === 'create' || first.kind === 'create2')) this.progress++;
  }

  #decode(asked: InFlight, reader: JuteReader): OpResult | null {
    try {
      return resultOf(decodeResponse(asked.kind, reader));
    } catch (error) {
      const what = error instanceof Error ? error.message : String(error);
      this.#simulation.fail({
        invariant: 'WireFormat',
        detail: `${this.name}: the reply to xid ${asked.xid} ${asked.kind}: ${what}`,
      });
      return null;
    }
  }

  #register({ kind, args }: InFlight, err: number): void {
    const path = args.path ?? '';
    const { data, exist, child, persistent, recursive } = this.#watches;
    switch (kind) {
      case 'exists':
        if (args.watch) (err === 0 ? data : exist).add(path);
        return;
      case 'getData':
        if (args.watch && err === 0) data.add(path);
        return;
      case 'getChildren':
      case 'getChildren2':
        if (args.watch && err === 0) child.add(path);
        return;
      case 'addWatch':
        if (err === 0) (args.mode === AddWatchMode.persistent ? persistent : recursive).add(path);
        return;
      case 'removeWatches':
        // The server's table decides what is left; the client's lists are only for re-registration, so it gives up all of them.
        if (err === 0) for (const table of [data, exist, child, persistent, recursive]) table.delete(path);
        return;
      default:
        return;
    }
  }

  #onEvent(type: EventType, path: string, zxid: bigint): void {
    this.#workload.recorder.onEvent(this.#connection, type, path, zxid);
    this.#simulation.witness('watch fired');
    this.#simulation.say(() => `${this.name} told event ${type} ${path} of ${zxid >> 32n}:${zxid & 0xffffffffn}`);
    const { data, exist, child } = this.#watches;
    if (type === EventType.nodeChildrenChanged) child.delete(path);
    else {
      data.delete(path);
      exist.delete(path);
      if (type === EventType.nodeDeleted) child.delete(path);
    }
  }

  onServerDied(id: ServerId): void {
    if (this.#link?.host.id === id) this.#link.serverDied(this.#random.chance(0.8));
  }

  onCalm(core: readonly ServerId[]): void {
    this.progress = 0;
    if (this.#link !== null && !core.includes(this.#link.host.id)) this.#link.close();
  }
}

function responseKindOf(request: Request): OpName & ResponseKind {
  if (request.kind === 'check') throw new RangeError('check is part of a multi only');
  return request.kind;
}

export class Clients implements Workload {
  recorder = new Recorder(() => 0);
  isCalm = false;
  latencyUs = 100;
  /** Some clients wait for the answer to a sync before they ask for more. */
  pipelinesBehindSync = false;
  #simulation: Simulation | null = null;
  #clients: SimClient[] = [];
  #core: readonly ServerId[] = [];
  #written: { readonly zxid: bigint; readonly path: string }[] = [];

  start(simulation: Simulation): void {
    this.#simulation = simulation;
    this.recorder = new Recorder(() => simulation.timeline.now);
    const random = new Random(simulation.scenario.seed, 'clients');
    this.latencyUs = random.pick([20, 200, 2000]);
    this.pipelinesBehindSync = random.chance(0.3);
    for (let i = 1; i <= simulation.scenario.clientCount; i++) this.#clients.push(new SimClient(simulation, this, i));
    for (const client of this.#clients) client.start();
  }

  servers(simulation: Simulation) {
    return this.isCalm ? simulation.hosts.filter((host) => this.#core.includes(host.id)) : simulation.hosts;
  }

  /** A server writes an event of this txn; judged when its step is over. */
  onEventWritten(zxid: bigint, path: string): void {
    if (zxid > 0n) this.#written.push({ zxid, path });
  }

  /** W2: whose event was written in this step is committed, it was applied somewhere. */
  afterStep(): void {
    const simulation = this.#simulation;
    if (simulation === null || this.#written.length === 0) return;
    const { committed } = simulation.invariants;
    for (const { zxid, path } of this.#written) {
      if (committed[simulation.invariants.indexUpTo(zxidFrom(zxid))]?.zxid === zxid) continue;
      const detail = `an event of ${path} for ${zxid >> 32n}:${zxid & 0xffffffffn}, which is not committed`;
      simulation.fail({ invariant: 'W2', detail });
    }
    this.#written = [];
  }

  onServerDied(id: ServerId): void {
    for (const client of this.#clients) client.onServerDied(id);
  }

  onCommitted(zxid: bigint, txn: Uint8Array): void {
    const record = txnRecordOf(zxid, txn);
    if (record === null) return;
    this.recorder.add(record);
    if (record.body.kind === 'closeSession' && record.xid === 0) this.#simulation?.witness('session expired');
  }

  onCalm(core: readonly ServerId[]): void {
    this.isCalm = true;
    this.#core = core;
    for (const client of this.#clients) client.onCalm(core);
  }

  missing(): string | null {
    const stuck = this.#clients.find((client) => client.progress === 0);
    return stuck === undefined ? null : `${stuck.name} made no progress`;
  }

  verdict(): Violation | null {
    const first = checkHistory(this.recorder.history(), {
      hasLog: true,
      isSyncQuorum: true,
      hasUniqueXids: true,
      doEventsCarryZxid: true,
      timeoutMsMin: SESSION_TIMEOUT_MS_MIN,
      timeoutMsMax: SESSION_TIMEOUT_MS_MAX,
      stepsMax: 100_000,
    })[0];
    return first === undefined ? null : { invariant: first.rule, detail: first.detail };
  }
}
