// The smallest driver around the consensus core: a server whose state is a count and a running hash of what was applied.
// It executes effects in order and decides nothing, so that a run of it is a run of Zab alone, fast and without clients.

import type { ServerId, Zxid } from '@quorate/protocol/zxid';
import { NO_ZXID, zxidFrom } from '@quorate/protocol/zxid';
import type { ClientPort } from '@quorate/server/ports';
import type { DiskWrite, SnapshotReader, SnapshotWriter } from '@quorate/storage/disk';
import type { Entry, RestoredState, StoreKind, ZabEffect, ZabInput } from '@quorate/zab';
import { Zab } from '@quorate/zab';
import type { ClientEnd, Machine, MachineEnv, ServerView } from './machine.ts';
import type { PeerMessage } from './network.ts';

type Incoming = {
  readonly from: ServerId;
  readonly epoch: number;
  readonly zxid: Zxid;
  readonly writer: SnapshotWriter;
  nextIndex: number;
};

const MASK = (1n << 64n) - 1n;

export class ZabMachine implements Machine {
  readonly #env: MachineEnv;
  #zab: Zab | null = null;
  #inbox: ZabInput[] = [];
  #isDrainScheduled = false;
  /** The snapshot being sent to each peer; a newer one, or the link's loss, ends an older. */
  #outgoing = new Map<ServerId, object>();
  #applied: Zxid;
  #appliedCount = 0;
  #hash = 0xcbf29ce484222325n;
  #sinceSnapshot = 0;
  #isSnapshotting = false;
  #incoming: Incoming | null = null;
  #isInstalling = false;
  #waitingEffects: ZabEffect[] = [];
  #ownProposals = new Set<Zxid>();

  constructor(env: MachineEnv) {
    this.#env = env;
    this.#applied = env.restored.snapshot;
    if (this.#applied === NO_ZXID) this.#begin();
    else this.#load(this.#applied, () => this.#begin());
  }

  #load(zxid: Zxid, done: () => void): void {
    const reader: SnapshotReader = this.#env.disk.openSnapshot(zxid);
    const chunks: Uint8Array[] = [];
    const next = (): void =>
      reader.next((error, chunk) => {
        if (error !== null) {
          this.#env.fatal(error);
          return;
        }
        if (chunk !== null) {
          chunks.push(chunk);
          next();
          return;
        }
        const text = new TextDecoder().decode(concat(chunks));
        const [stored, count, hash] = text.split(' ');
        if (stored === undefined || count === undefined || hash === undefined || BigInt(stored) !== zxid) {
          this.#env.fatal(new Error(`snapshot ${zxid} reads ${text}`));
          return;
        }
        this.#applied = zxid;
        this.#appliedCount = Number(count);
        this.#hash = BigInt(hash);
        done();
      });
    next();
  }

  #begin(): void {
    const { restored, shape, timing, limits } = this.#env;
    this.#env.onStarted(this.#applied);
    for (const entry of restored.entries) {
      if (entry.zxid > this.#applied && entry.zxid <= restored.committed) this.#applyEntry(entry);
    }
    const state: RestoredState = {
      store: storeKind(restored.classification, restored.entries.length > 0 || restored.snapshot > 0n),
      clusterId: restored.clusterId,
      epochs: restored.epochs,
      base: restored.base,
      entries: restored.entries,
      committed: this.#applied,
    };
    this.#zab = new Zab(
      {
        id: this.#env.id,
        voters: shape.voters,
        observers: shape.observers,
        seed: this.#env.seed,
        heartbeatTicks: timing.heartbeatTicks,
        syncLimitTicks: timing.syncLimitTicks,
        initLimitTicks: timing.initLimitTicks,
        finalizeTicks: timing.finalizeTicks,
        historyCountMax: limits.historyCountMax,
        historyBytesMax: 1 << 20,
        counterMax: limits.counterMax,
        mutations: this.#env.mutations,
      },
      state,
    );
    this.#env.onListening();
    this.#wake();
  }

  view(): ServerView | null {
    return this.#zab?.status ?? null;
  }

  onTick(): void {
    this.#wake();
  }

  onPeerConnected(peer: ServerId, _incarnation: number): void {
    this.#push({ kind: 'connected', peer });
  }

  onPeerDisconnected(peer: ServerId): void {
    if (this.#incoming?.from === peer) this.#dropIncoming();
    this.#outgoing.delete(peer);
    this.#push({ kind: 'disconnected', peer });
  }

  onPeerMessage(from: ServerId, message: PeerMessage): void {
    switch (message.kind) {
      case 'snapshotChunk':
        this.#receiveChunk(from, message.epoch, message.zxid, message.index, message.last, message.bytes);
        return;
      case 'request':
      case 'requestRefused':
      case 'syncRequest':
      case 'syncDone':
      case 'revalidate':
      case 'revalidated':
      case 'sessionMoved':
      case 'touched':
      case 'digest':
        this.#env.fatal(new Error(`the bare core never sends ${message.kind}`));
        return;
      default:
        this.#push({ kind: 'received', from, message });
    }
  }

  propose(payloads: readonly Uint8Array[]): number {
    const status = this.#zab?.status;
    if (status === undefined || status.role !== 'leading' || !status.serving) return 0;
    this.#push({ kind: 'proposed', txns: payloads });
    return payloads.length;
  }

  transfer(to: ServerId): void {
    const status = this.#zab?.status;
    if (status === undefined || status.role !== 'leading' || !status.serving) return;
    if (!status.followers.some((follower) => follower.id === to && follower.inSync && !follower.observer)) return;
    this.#push({ kind: 'transfer', to });
  }

  connectClient(_port: ClientPort): ClientEnd | null {
    return null;
  }

  #push(input: ZabInput): void {
    this.#inbox.push(input);
    this.#wake();
  }

  #wake(): void {
    if (this.#isDrainScheduled || this.#zab === null) return;
    this.#isDrainScheduled = true;
    this.#env.schedule(() => {
      this.#isDrainScheduled = false;
      this.#drain();
    });
  }

  #drain(): void {
    const zab = this.#zab;
    if (zab === null) return;
    const effects: ZabEffect[] = [];
    const tick = Math.floor(this.#env.clock.nowMs() / this.#env.timing.zabTickMs);
    zab.step({ kind: 'tick', tick }, effects);
    const inputs = this.#inbox;
    this.#inbox = [];
    for (const input of inputs) {
      if (input.kind === 'proposed') {
        // Leadership may have ended, or be on its way to another, since the txns were offered.
        const status = zab.status;
        if (status.role !== 'leading' || !status.serving) continue;
      }
      zab.step(input, effects);
    }
    this.#run(effects);
  }

  #run(effects: readonly ZabEffect[]): void {
    this.#waitingEffects.push(...effects);
    while (!this.#isInstalling) {
      const effect = this.#waitingEffects.shift();
      if (effect === undefined) return;
      this.#execute(effect);
    }
  }

  #execute(effect: ZabEffect): void {
    switch (effect.kind) {
      case 'persist': {
        const write: DiskWrite = {
          entries: effect.entries,
          ...(effect.truncateAfter === undefined ? {} : { truncateAfter: effect.truncateAfter }),
          ...(effect.epochs === undefined ? {} : { epochs: effect.epochs }),
          ...(effect.base === undefined ? {} : { base: effect.base }),
          ...(effect.clusterId === undefined ? {} : { clusterId: effect.clusterId }),
          ...(effect.store === undefined ? {} : { mark: effect.store === 'suspect' ? 'suspect' : 'clean' }),
          committed: this.#applied,
        };
        this.#env.disk.write(write, (error) => {
          if (error !== null) this.#env.fatal(error);
          else this.#push({ kind: 'durable', sequence: effect.sequence });
        });
        return;
      }
      case 'send':
        this.#env.network.send(effect.to, effect.message);
        return;
      case 'apply':
        for (const entry of effect.entries) this.#applyEntry(entry);
        this.#maybeSnapshot();
        return;
      case 'sendSnapshot':
        {
          const token = {};
          this.#outgoing.set(effect.to, token);
          this.#sendSnapshot(effect.to, effect.epoch, effect.from, token);
        }
        return;
      case 'installSnapshot':
        this.#isInstalling = true;
        this.#load(effect.zxid, () => {
          this.#env.onInstalled(effect.zxid);
          this.#isInstalling = false;
          this.#run([]);
        });
        return;
      case 'discardStaged':
        this.#dropIncoming();
        this.#env.disk.discardStaged();
        return;
      case 'numbered':
        for (let zxid: bigint = effect.first; zxid <= effect.last; zxid++) this.#ownProposals.add(zxidFrom(zxid));
        return;
      case 'roleChanged':
        this.#ownProposals.clear();
        this.#env.log('info', 'role', {
          role: effect.role,
          epoch: effect.epoch,
          serving: effect.serving,
          reason: effect.reason,
        });
        return;
      case 'dropPeer':
        this.#env.network.drop(effect.peer, effect.reason);
        return;
      case 'barrierPassed':
      case 'barriersFailed':
        return;
    }
  }

  #applyEntry(entry: Entry): void {
    this.#applied = entry.zxid;
    this.#appliedCount++;
    this.#sinceSnapshot++;
    this.#hash = ((this.#hash ^ entry.zxid) * 0x100000001b3n) & MASK;
    for (const byte of entry.txn) this.#hash = ((this.#hash ^ BigInt(byte)) * 0x100000001b3n) & MASK;
    this.#env.onApplied(entry.zxid, entry.txn, this.#hash);
    if (this.#ownProposals.delete(entry.zxid)) this.#env.onAcknowledged(entry.zxid);
  }

  #maybeSnapshot(): void {
    const every = this.#env.limits.snapshotEvery;
    if (every > 0 && this.#sinceSnapshot >= every) this.#takeSnapshot(() => {});
  }

  #takeSnapshot(done: (zxid: Zxid) => void): void {
    if (this.#isSnapshotting) return;
    this.#isSnapshotting = true;
    this.#sinceSnapshot = 0;
    const zxid = this.#applied;
    const bytes = new TextEncoder().encode(`${zxid} ${this.#appliedCount} ${this.#hash}`);
    const writer = this.#env.disk.beginSnapshot(zxid);
    const half = bytes.length >> 1;
    const fail = (error: Error | null): void => {
      if (error !== null) this.#env.fatal(error);
    };
    writer.write(bytes.subarray(0, half), fail);
    writer.write(bytes.subarray(half), fail);
    writer.finish((error) => {
      fail(error);
      this.#isSnapshotting = false;
      this.#push({ kind: 'snapshotTaken', zxid });
      this.#env.disk.purge(2, this.#zab?.status.base ?? NO_ZXID, fail);
      done(zxid);
    });
  }

  #sendSnapshot(to: ServerId, epoch: number, from: Zxid, token: object): void {
    const isWanted = (): boolean => this.#outgoing.get(to) === token;
    if (!isWanted()) return;
    const usable = this.#env.disk.snapshots()[0];
    if (usable === undefined || usable.zxid < from) {
      if (this.#applied >= from && !this.#isSnapshotting) {
        this.#takeSnapshot(() => this.#sendSnapshot(to, epoch, from, token));
      } else {
        this.#env.schedule(() => this.#sendSnapshot(to, epoch, from, token));
      }
      return;
    }
    this.#env.witness('snapshot sent');
    const zxid = usable.zxid;
    const reader = this.#env.disk.openSnapshot(zxid);
    let index = 0;
    const next = (): void =>
      reader.next((error, chunk) => {
        if (!isWanted()) return;
        if (error !== null) {
          this.#env.network.drop(to, 'the snapshot is gone');
          return;
        }
        const message: PeerMessage = {
          kind: 'snapshotChunk',
          epoch,
          zxid,
          index: index++,
          last: chunk === null,
          bytes: chunk ?? new Uint8Array(0),
        };
        this.#env.network.sendBulk(to, message, (isOk) => {
          if (!isOk) return;
          if (chunk !== null) next();
        });
        if (chunk === null) this.#push({ kind: 'snapshotSent', peer: to, epoch, zxid });
      });
    next();
  }

  #receiveChunk(from: ServerId, epoch: number, zxid: Zxid, index: number, last: boolean, bytes: Uint8Array): void {
    if (index === 0) {
      this.#dropIncoming();
      this.#incoming = { from, epoch, zxid, writer: this.#env.disk.stageSnapshot(zxid), nextIndex: 0 };
    }
    const incoming = this.#incoming;
    if (incoming === null || incoming.from !== from || incoming.epoch !== epoch || incoming.zxid !== zxid) return;
    if (incoming.nextIndex++ !== index) {
      this.#env.fatal(new Error(`snapshot chunk ${index} is out of order`));
      return;
    }
    const fail = (error: Error | null): void => {
      if (error !== null) this.#env.fatal(error);
    };
    if (!last) {
      incoming.writer.write(bytes, fail);
      return;
    }
    incoming.writer.finish((error) => {
      fail(error);
      if (this.#incoming !== incoming) return;
      this.#incoming = null;
      this.#push({ kind: 'snapshotStaged', from, epoch, zxid });
    });
  }

  #dropIncoming(): void {
    this.#incoming?.writer.abort();
    this.#incoming = null;
  }
}

function storeKind(classification: 'blank' | 'clean' | 'suspect', hasRecords: boolean): StoreKind {
  if (classification !== 'clean') return classification;
  return hasRecords ? 'used' : 'formed';
}

function concat(chunks: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(chunks.reduce((sum, chunk) => sum + chunk.length, 0));
  let offset = 0;
  for (const chunk of chunks) {
    bytes.set(chunk, offset);
    offset += chunk.length;
  }
  return bytes;
}
