// An ensemble in memory for the tests of zab: message queues, disks whose writes take effect when told to, crashes that lose
// what was not durable, partitions in both or one direction. Checks after every step what must hold across servers.
// It decides nothing by itself: a scenario or a seeded random walk says what happens next.

import { strict as assert } from 'node:assert';
import type { Mutations } from '@quorate/protocol/mutations';
import { NO_MUTATIONS } from '@quorate/protocol/mutations';
import type { ServerId, Zxid } from '@quorate/protocol/zxid';
import { counterOf, epochOf, NO_ZXID, serverIdFrom } from '@quorate/protocol/zxid';
import type {
  Entry,
  Epochs,
  PersistEffect,
  RestoredState,
  StoreKind,
  ZabEffect,
  ZabInput,
  ZabMessage,
  ZabStatus,
} from '../src/index.ts';
import { Zab } from '../src/index.ts';

type Applied = { readonly zxid: Zxid; readonly text: string };
type Snapshot = { readonly zxid: Zxid; readonly state: readonly Applied[] };
type Wire = ZabMessage | { readonly kind: 'snapshotBytes'; readonly epoch: number; readonly snapshot: Snapshot };

type Disk = {
  clusterId: string;
  epochs: Epochs;
  base: Zxid;
  entries: Entry[];
  snapshot: Snapshot | null;
  isSuspect: boolean;
  isFormed: boolean;
};

type Server = {
  readonly id: ServerId;
  zab: Zab | null;
  tick: number;
  disk: Disk;
  writes: PersistEffect[];
  /** What the live tree holds, from the beginning of time. */
  applied: Applied[];
  staged: Snapshot | null;
  transfers: { to: ServerId; epoch: number; from: Zxid }[];
  /** Writes take effect only when told to. */
  isDiskHeld: boolean;
};

type Link = { isUp: boolean; readonly queues: Map<string, Wire[]> };

export type ClusterOptions = {
  readonly voters: number;
  readonly observers?: number;
  readonly seed?: number;
  readonly mutations?: Partial<Mutations>;
  readonly historyCountMax?: number;
  readonly counterMax?: number;
  readonly heartbeatTicks?: number;
  /** Lines of the transcript; heartbeats are left out, votes too unless asked for. */
  readonly record?: boolean;
  readonly recordVotes?: boolean;
};

const CHANNELS = ['vote', 'stream'] as const;
type Channel = (typeof CHANNELS)[number];

function channelOf(message: Wire): Channel {
  return message.kind === 'vote' || message.kind === 'heartbeat' || message.kind === 'heartbeatAck' ? 'vote' : 'stream';
}

export function show(zxid: Zxid): string {
  return zxid === NO_ZXID ? '-' : `${epochOf(zxid)}.${counterOf(zxid)}`;
}

export class Cluster {
  readonly servers = new Map<ServerId, Server>();
  readonly links = new Map<string, Link>();
  /** Directed pairs whose messages vanish. */
  readonly deaf = new Set<string>();
  readonly transcript: string[] = [];
  /** The order everybody must agree on: the first to apply an entry writes it here. */
  readonly committed: Applied[] = [];
  readonly established = new Map<number, ServerId>();
  barriers: { server: ServerId; id: number; passed: boolean }[] = [];
  readonly #options: ClusterOptions;
  readonly #voters: ServerId[];
  readonly #observers: ServerId[];
  #incarnation = 0;
  readonly #drops: [number, number][] = [];

  constructor(options: ClusterOptions) {
    this.#options = options;
    this.#voters = Array.from({ length: options.voters }, (_, i) => serverIdFrom(i + 1));
    this.#observers = Array.from({ length: options.observers ?? 0 }, (_, i) => serverIdFrom(options.voters + i + 1));
    for (const id of this.ids) this.servers.set(id, blankServer(id));
    for (const a of this.ids) {
      for (const b of this.ids) {
        if (a < b) this.links.set(`${a}-${b}`, { isUp: false, queues: new Map() });
      }
    }
  }

  get ids(): ServerId[] {
    return [...this.#voters, ...this.#observers];
  }

  get voters(): readonly ServerId[] {
    return this.#voters;
  }

  say(line: string): void {
    if (this.#options.record === true) this.transcript.push(line);
  }

  server(id: number): Server {
    const server = this.servers.get(serverIdFrom(id));
    assert(server !== undefined);
    return server;
  }

  status(id: number): ZabStatus | null {
    return this.server(id).zab?.status ?? null;
  }

  isUp(id: number): boolean {
    return this.server(id).zab !== null;
  }

  link(a: number, b: number): Link {
    const link = this.links.get(a < b ? `${a}-${b}` : `${b}-${a}`);
    assert(link !== undefined);
    return link;
  }

  queue(from: number, to: number, channel: Channel): Wire[] {
    const { queues } = this.link(from, to);
    const key = `${from}>${to} ${channel}`;
    let queue = queues.get(key);
    if (queue === undefined) {
      queue = [];
      queues.set(key, queue);
    }
    return queue;
  }

  // --- what may happen

  start(id: number): void {
    const server = this.server(id);
    assert(server.zab === null);
    this.#incarnation += 1;
    const { disk } = server;
    const restored = restoredFrom(disk);
    server.applied = [...(disk.snapshot?.state ?? [])];
    server.zab = new Zab(
      {
        id: server.id,
        voters: this.#voters,
        observers: this.#observers,
        seed: (this.#options.seed ?? 1) * 1000 + this.#incarnation,
        heartbeatTicks: this.#options.heartbeatTicks ?? 2,
        syncLimitTicks: 10,
        initLimitTicks: 20,
        finalizeTicks: 3,
        historyCountMax: this.#options.historyCountMax ?? 100,
        historyBytesMax: 1 << 20,
        counterMax: this.#options.counterMax ?? 0xffffffff,
        mutations: { ...NO_MUTATIONS, ...this.#options.mutations },
      },
      restored,
    );
    this.say(
      `= ${id} starts: store ${restored.store}, epoch ${restored.epochs.currentEpoch}, last ${show(server.zab.status.last)}`,
    );
    this.step(id, { kind: 'tick', tick: server.tick });
  }

  startAll(): void {
    for (const id of this.ids) this.start(id);
    this.connectAll();
  }

  /** The process ends. `written`: so many of the writes in flight had reached the disk, unknown to anybody. */
  crash(id: number, written = 0): void {
    const server = this.server(id);
    assert(server.zab !== null);
    this.say(`= ${id} crashes`);
    for (const write of server.writes.slice(0, written)) apply(server, write);
    server.zab = null;
    server.writes = [];
    server.transfers = [];
    server.staged = null;
    server.applied = [];
    for (const other of this.ids) if (other !== id) this.disconnect(id, other);
  }

  /** Loses the whole disk of a server that is down. */
  wipe(id: number): void {
    const server = this.server(id);
    assert(server.zab === null);
    this.say(`= the disk of ${id} is replaced`);
    server.disk = blankServer(server.id).disk;
  }

  suspect(id: number): void {
    this.say(`= the disk of ${id} is suspect`);
    this.server(id).disk.isSuspect = true;
  }

  connect(a: number, b: number): void {
    const link = this.link(a, b);
    if (link.isUp || !this.isUp(a) || !this.isUp(b)) return;
    link.isUp = true;
    link.queues.clear();
    this.step(a, { kind: 'connected', peer: serverIdFrom(b) });
    this.step(b, { kind: 'connected', peer: serverIdFrom(a) });
  }

  connectAll(): void {
    for (const a of this.ids) for (const b of this.ids) if (a < b) this.connect(a, b);
  }

  disconnect(a: number, b: number): void {
    const link = this.link(a, b);
    if (!link.isUp) return;
    link.isUp = false;
    link.queues.clear();
    for (const [from, to] of [
      [a, b],
      [b, a],
    ] as const) {
      const server = this.server(from);
      server.transfers = server.transfers.filter((transfer) => transfer.to !== to);
      if (server.zab !== null) this.step(from, { kind: 'disconnected', peer: serverIdFrom(to) });
    }
  }

  tick(id: number, count = 1): void {
    const server = this.server(id);
    server.tick += count;
    if (server.zab !== null) this.step(id, { kind: 'tick', tick: server.tick });
  }

  /** Delivers the oldest message of a queue; tells whether there was one. */
  deliver(from: number, to: number, channel: Channel): boolean {
    const message = this.queue(from, to, channel).shift();
    if (message === undefined) return false;
    const server = this.server(to);
    if (server.zab === null || this.deaf.has(`${from}>${to}`)) return true;
    if (message.kind === 'snapshotBytes') {
      server.staged = message.snapshot;
      const { zxid } = message.snapshot;
      this.step(to, { kind: 'snapshotStaged', from: serverIdFrom(from), epoch: message.epoch, zxid });
      return true;
    }
    this.#sayMessage(from, to, message);
    this.step(to, { kind: 'received', from: serverIdFrom(from), message });
    return true;
  }

  /** The oldest `count` writes become durable, and their server hears of it. */
  finishWrites(id: number, count: number): boolean {
    const server = this.server(id);
    const done = server.writes.splice(0, count);
    const last = done[done.length - 1];
    if (last === undefined || server.zab === null) return false;
    for (const write of done) apply(server, write);
    this.step(id, { kind: 'durable', sequence: last.sequence });
    return true;
  }

  finishTransfer(id: number): boolean {
    const server = this.server(id);
    const transfer = server.transfers.shift();
    if (transfer === undefined || server.zab === null) return false;
    const last = server.applied[server.applied.length - 1]?.zxid ?? NO_ZXID;
    assert(last >= transfer.from, 'the tree is not older than the base of the window');
    const snapshot: Snapshot = { zxid: last, state: [...server.applied] };
    this.queue(id, transfer.to, 'stream').push({ kind: 'snapshotBytes', epoch: transfer.epoch, snapshot });
    this.say(`${id} -> ${transfer.to} snapshot at ${show(last)}`);
    this.step(id, { kind: 'snapshotSent', peer: transfer.to, epoch: transfer.epoch, zxid: last });
    return true;
  }

  takeSnapshot(id: number): void {
    const server = this.server(id);
    const zxid = server.applied[server.applied.length - 1]?.zxid;
    // The store finishes a snapshot only when the log reaches it.
    if (server.zab === null || zxid === undefined || zxid > lastOnDisk(server.disk)) return;
    this.say(`= ${id} takes a snapshot at ${show(zxid)}`);
    server.disk.snapshot = { zxid, state: [...server.applied] };
    this.step(id, { kind: 'snapshotTaken', zxid });
  }

  propose(id: number, ...texts: string[]): void {
    this.say(`= ${id} proposes ${texts.join(', ')}`);
    this.step(id, { kind: 'proposed', txns: texts.map((text) => new TextEncoder().encode(text)) });
  }

  /** Everything that waits happens, in a fixed order, until nothing waits. */
  settle(): void {
    for (let turn = 0; turn < 10_000; turn += 1) {
      let moved = false;
      for (const from of this.ids) {
        for (const to of this.ids) {
          if (from === to) continue;
          for (const channel of CHANNELS) moved = this.deliver(from, to, channel) || moved;
        }
        const server = this.server(from);
        if (!server.isDiskHeld) moved = this.finishWrites(from, server.writes.length) || moved;
        moved = this.finishTransfer(from) || moved;
      }
      if (!moved) return;
    }
    assert.fail('the ensemble does not come to rest');
  }

  run(ticks: number): void {
    for (let i = 0; i < ticks; i += 1) {
      for (const id of this.ids) if (this.isUp(id)) this.tick(id);
      this.settle();
    }
  }

  leader(): number | null {
    let best: ZabStatus | null = null;
    let id: number | null = null;
    for (const server of this.servers.values()) {
      const status = server.zab?.status;
      if (status === undefined || status.role !== 'leading' || !status.serving) continue;
      if (best !== null && best.epoch > status.epoch) continue;
      best = status;
      id = server.id;
    }
    return id;
  }

  /** Runs until there is a leader and everybody who is up serves; fails after `limit` ticks. */
  converge(limit: number): void {
    for (let i = 0; i < limit; i += 1) {
      this.settle();
      const leader = this.leader();
      const up = [...this.servers.values()].flatMap((server) => server.zab?.status ?? []);
      if (leader !== null && up.every((status) => status.serving && status.leader === leader)) return;
      // Links that a server dropped are dialled again.
      this.connectAll();
      this.run(1);
    }
    assert.fail(`the ensemble does not converge: ${JSON.stringify(this.summary())}`);
  }

  summary(): string[] {
    return [...this.servers.values()].map((server) => {
      const status = server.zab?.status;
      if (status === undefined) return `${server.id} down`;
      const where = `${status.role} ${status.phase}${status.serving ? ' serving' : ''} leader ${status.leader}`;
      return `${server.id} ${where} epoch ${status.epoch}/${status.acceptedEpoch}/${status.currentEpoch} last ${show(status.last)} committed ${show(status.committed)} store ${status.store}`;
    });
  }

  // --- one step and what it asks for

  step(id: number, input: ZabInput): void {
    const server = this.server(id);
    assert(server.zab !== null);
    const effects: ZabEffect[] = [];
    server.zab.step(input, effects);
    server.zab.checkInvariants();
    for (const effect of effects) this.#execute(server, effect);
    // The transport reports a dropped link in a step of its own; both ends see it.
    for (let drop = this.#drops.shift(); drop !== undefined; drop = this.#drops.shift()) this.disconnect(...drop);
  }

  #execute(server: Server, effect: ZabEffect): void {
    const { id } = server;
    switch (effect.kind) {
      case 'persist':
        this.say(`${id} writes${showWrite(effect)}`);
        server.writes.push(effect);
        return;
      case 'send':
        checkPromise(server, effect.message);
        if (this.link(id, effect.to).isUp) this.queue(id, effect.to, channelOf(effect.message)).push(effect.message);
        return;
      case 'apply':
        this.say(`${id} applies ${effect.entries.map((entry) => show(entry.zxid)).join(' ')}`);
        for (const entry of effect.entries) this.#apply(server, entry);
        return;
      case 'sendSnapshot':
        server.transfers.push({ to: effect.to, epoch: effect.epoch, from: effect.from });
        return;
      case 'installSnapshot': {
        const { snapshot } = server.disk;
        assert(snapshot !== null && snapshot.zxid === effect.zxid, 'what is installed is on the disk');
        this.say(`${id} installs the snapshot at ${show(effect.zxid)}`);
        server.applied = [...snapshot.state];
        this.#checkPrefix(server);
        return;
      }
      case 'discardStaged':
        server.staged = null;
        return;
      case 'roleChanged': {
        const where = effect.leader === -1 || effect.leader === id ? '' : ` ${effect.leader}`;
        const epoch = effect.epoch === 0 ? '' : ` epoch ${effect.epoch}`;
        this.say(`${id} ${effect.role}${where}${epoch}${effect.serving ? ' SERVING' : ''}: ${effect.reason}`);
        if (effect.role === 'leading' && effect.serving) this.#checkEstablished(server, effect.epoch);
        return;
      }
      case 'barrierPassed':
        this.say(`${id} barrier ${effect.id} passes at ${show(effect.committed)}`);
        this.barriers.push({ server: id, id: effect.id, passed: true });
        return;
      case 'barriersFailed':
        this.say(`${id} barriers fail`);
        this.barriers.push({ server: id, id: -1, passed: false });
        return;
      case 'numbered':
        return;
      case 'dropPeer':
        this.say(`${id} drops ${effect.peer}: ${effect.reason}`);
        this.#drops.push([id, effect.peer]);
        return;
      default:
        assert.fail(`unknown effect ${JSON.stringify(effect)}`);
    }
  }

  // --- what must hold across servers

  #apply(server: Server, entry: Entry): void {
    const text = new TextDecoder().decode(entry.txn);
    const index = server.applied.length;
    server.applied.push({ zxid: entry.zxid, text });
    const known = this.committed[index];
    if (known === undefined) {
      // The first to apply it. A quorum of disks holds it by now, or an acknowledged write could be lost.
      const holders = this.#voters.filter((voter) => isOnDisk(this.server(voter).disk, entry.zxid));
      assert(
        holders.length > this.#voters.length / 2,
        `durability: ${show(entry.zxid)} is applied, but only on the disks of ${holders.join(' ') || 'nobody'}`,
      );
      this.committed.push({ zxid: entry.zxid, text });
      const before = this.committed[index - 1];
      assert(before === undefined || before.zxid < entry.zxid, 'the agreed order is the order of zxids');
      return;
    }
    assert.deepEqual({ zxid: entry.zxid, text }, known, `agreement: position ${index} on server ${server.id}`);
  }

  #checkPrefix(server: Server): void {
    const last = server.applied[server.applied.length - 1];
    assert.deepEqual(
      last,
      last === undefined ? undefined : this.committed[server.applied.length - 1],
      'a snapshot is a prefix of the agreed order',
    );
  }

  #checkEstablished(server: Server, epoch: number): void {
    const other = this.established.get(epoch);
    assert(other === undefined, `epoch ${epoch} is established by ${server.id} and was by ${other}`);
    this.established.set(epoch, server.id);
    assert.equal(
      server.applied.length,
      this.committed.length,
      `leader completeness: server ${server.id} in epoch ${epoch}`,
    );
  }

  #sayMessage(from: number, to: number, message: ZabMessage): void {
    if (message.kind === 'heartbeat' || message.kind === 'heartbeatAck') return;
    if (message.kind === 'vote' && this.#options.recordVotes !== true) return;
    this.say(`${from} -> ${to} ${showMessage(message)}`);
  }
}

function blankServer(id: ServerId): Server {
  return {
    id,
    zab: null,
    tick: 0,
    disk: {
      clusterId: '',
      epochs: { acceptedEpoch: 0, acceptedFrom: serverIdFrom(0), currentEpoch: 0 },
      base: NO_ZXID,
      entries: [],
      snapshot: null,
      isSuspect: false,
      isFormed: false,
    },
    writes: [],
    applied: [],
    staged: null,
    transfers: [],
    isDiskHeld: false,
  };
}

/** The promise rule, seen from outside: what a message says to be durable is on the disk when it leaves. */
function checkPromise({ id, disk }: Server, message: ZabMessage): void {
  switch (message.kind) {
    case 'leaderInfo':
      assert(
        disk.epochs.acceptedEpoch >= message.epoch,
        `promise: ${id} proposes epoch ${message.epoch} before it is durable`,
      );
      return;
    case 'ackEpoch':
      if (!message.counted) return;
      assert(
        disk.epochs.acceptedEpoch >= message.epoch,
        `promise: ${id} promises epoch ${message.epoch} before it is durable`,
      );
      return;
    case 'ackNewLeader':
      assert(disk.epochs.currentEpoch === message.epoch, `promise: ${id} acks NEWLEADER before its epoch is durable`);
      assert(lastOnDisk(disk) >= message.last, `promise: ${id} acks NEWLEADER before its history is durable`);
      return;
    case 'ack':
      assert(isOnDisk(disk, message.zxid), `promise: ${id} acks ${show(message.zxid)} before it is durable`);
      return;
    case 'readmitted':
      assert(!disk.isSuspect, `promise: ${id} is readmitted before its store is marked`);
      return;
    default:
      return;
  }
}

function lastOnDisk(disk: Disk): Zxid {
  return disk.entries[disk.entries.length - 1]?.zxid ?? disk.base;
}

function isOnDisk(disk: Disk, zxid: Zxid): boolean {
  if (disk.entries.some((entry) => entry.zxid === zxid)) return true;
  return disk.snapshot?.state.some((applied) => applied.zxid === zxid) ?? false;
}

function apply(server: Server, write: PersistEffect): void {
  const { disk } = server;
  if (write.base !== undefined) {
    assert(server.staged?.zxid === write.base, 'the base is what was staged');
    disk.snapshot = server.staged;
    disk.base = write.base;
    disk.entries = [];
  }
  const { truncateAfter } = write;
  if (truncateAfter !== undefined) disk.entries = disk.entries.filter((entry) => entry.zxid <= truncateAfter);
  disk.entries.push(...write.entries);
  if (write.epochs !== undefined) disk.epochs = write.epochs;
  if (write.clusterId !== undefined) disk.clusterId = write.clusterId;
  if (write.store === 'suspect') disk.isSuspect = true;
  if (write.store === 'used' || write.store === 'formed') disk.isSuspect = false;
}

function restoredFrom(disk: Disk): RestoredState {
  let prev = disk.base;
  let store: StoreKind =
    disk.clusterId === '' ? 'blank' : disk.entries.length > 0 || disk.snapshot !== null ? 'used' : 'formed';
  if (disk.isSuspect) store = 'suspect';
  for (const entry of disk.entries) {
    assert(entry.prev === prev, `the log on disk has a hole before ${show(entry.zxid)}`);
    prev = entry.zxid;
  }
  const committed = disk.snapshot?.zxid ?? NO_ZXID;
  return {
    store,
    clusterId: disk.clusterId,
    epochs: disk.epochs,
    base: disk.base,
    entries: [...disk.entries],
    committed,
  };
}

function showEntries(entries: readonly Entry[]): string {
  const first = entries[0];
  const last = entries[entries.length - 1];
  if (first === undefined || last === undefined) return 'nothing';
  return first === last ? show(first.zxid) : `${show(first.zxid)}..${show(last.zxid)}`;
}

function showWrite(write: PersistEffect): string {
  let line = '';
  if (write.base !== undefined) line += ` base ${show(write.base)}`;
  else if (write.truncateAfter !== undefined) line += ` cut after ${show(write.truncateAfter)}`;
  if (write.entries.length > 0) line += ` entries ${showEntries(write.entries)}`;
  if (write.epochs !== undefined) line += ` epochs ${write.epochs.acceptedEpoch}/${write.epochs.currentEpoch}`;
  if (write.clusterId !== undefined) line += ' identity';
  if (write.store !== undefined) line += ` store ${write.store}`;
  return line;
}

function showMessage(m: ZabMessage): string {
  switch (m.kind) {
    case 'vote': {
      const forWhom = m.candidate === -1 ? 'nobody' : `${m.candidate} (${m.candidateEpoch}, ${show(m.candidateZxid)})`;
      const notes = `${m.favoured ? ' favoured' : ''}${m.establishedEpoch > 0 ? ` established ${m.establishedEpoch}` : ''}`;
      return `vote ${m.state} round ${m.round} for ${forWhom}${notes}${m.hearsYou ? '' : ' deaf'}`;
    }
    case 'followerInfo':
      return `FOLLOWERINFO accepted ${m.acceptedEpoch} store ${m.store}${m.observer ? ' observer' : ''}${m.needsSnapshot ? ' needs a snapshot' : ''}`;
    case 'leaderInfo':
      return `LEADERINFO epoch ${m.epoch}`;
    case 'ackEpoch':
      return `ACKEPOCH ${m.epoch} current ${m.currentEpoch} last ${show(m.lastZxid)}${m.counted ? '' : ' not counted'}`;
    case 'synchronize':
      return `${m.mode.toUpperCase()} keep ${show(m.keep)}`;
    case 'synchronizeBySnapshot':
      return `SNAP at or above ${show(m.zxid)}`;
    case 'history':
      return `HISTORY ${showEntries(m.entries)}`;
    case 'newLeader':
      return `NEWLEADER ${m.epoch} last ${show(m.last)}${m.counted ? '' : ' not counted'}`;
    case 'ackNewLeader':
      return `ACK NEWLEADER ${m.epoch} last ${show(m.last)}`;
    case 'upToDate':
      return `UPTODATE committed ${show(m.committed)}`;
    case 'propose':
      return `PROPOSE ${showEntries(m.entries)} committed ${show(m.committed)}`;
    case 'ack':
    case 'commit':
      return `${m.kind.toUpperCase()} ${show(m.zxid)}`;
    case 'takeOver':
      return `TAKEOVER last ${show(m.last)}`;
    case 'heartbeat':
    case 'heartbeatAck':
      return `${m.kind} ${m.sequence}`;
    case 'readmit':
    case 'readmitted':
      return m.kind.toUpperCase();
    default:
      return assert.fail('unknown message');
  }
}
