// The driver of one server: inbox -> Zab -> effects. It pairs consensus with the tree, the disk, the peers and the clients.
// Callbacks only enqueue; one drain per turn thinks: everything that arrived is proposed together, made durable together, sent together.
// No timers, no sockets, no promises here: the same code runs in production and in the simulator.

import {
  type ApplyResult,
  DataTree,
  type DataTreeOptions,
  decodeTxn,
  encodeTxn,
  Outstanding,
  type PrepareContext,
  prepare,
  type TreeEvent,
  type Txn,
  WatchTable,
} from '@quorate/datatree';
import {
  assert,
  counterOf,
  decodeRequest,
  ErrorCode,
  EventType,
  epochOf,
  hex64,
  type Id,
  JuteReader,
  type Mutations,
  NO_ZXID,
  OpCode,
  type ServerId,
  type SessionId,
  sessionIdFrom,
  unreachable,
  type WriteRequest,
  type Zxid,
} from '@quorate/protocol';
import type { DiskWrite, RestoredStore } from '@quorate/storage/disk';
import {
  type Role,
  type StoreKind,
  Zab,
  type ZabConfig,
  type ZabEffect,
  type ZabMessage,
  type ZabStatus,
} from '@quorate/zab';
import type { ClientSession, Waiting } from './client-session.ts';
import type { ForwardedRequest, PeerMessage } from './peer-messages.ts';
import { Pipeline } from './pipeline.ts';
import type { ClientPort, ReplicaPorts } from './ports.ts';
import type { ReplicatedState } from './reads.ts';
import { firstAttachment, SessionTracker } from './session-tracker.ts';
import { loadSnapshot, SnapshotReceiver, SnapshotSender, SnapshotTaker } from './snapshots.ts';

export type ReplicaLimits = {
  readonly maxFrameBytes: number;
  /** Requests of all clients that wait for an answer. */
  readonly outstandingMax: number;
  readonly connectionOutstandingMax: number;
  /** Replies that a client does not read; beyond it its connection is closed. */
  readonly outboxBytesMax: number;
  /** How long clients are kept without a leader. */
  readonly waitWithoutLeaderMs: number;
};

export type ReplicaConfig = {
  readonly id: ServerId;
  readonly voters: readonly ServerId[];
  readonly observers: readonly ServerId[];
  /** Differs at each process start of this server (u32). */
  readonly incarnation: number;
  readonly seed: number;
  /** ZooKeeper's tickTime: sessions expire in buckets of it. */
  readonly tickMs: number;
  /** Granularity of Zab's ticks. */
  readonly zabTickMs: number;
  readonly zab: Omit<ZabConfig, 'id' | 'voters' | 'observers' | 'seed' | 'mutations'>;
  readonly minSessionTimeoutMs: number;
  readonly maxSessionTimeoutMs: number;
  readonly limits: ReplicaLimits;
  readonly snapshots: {
    /** A snapshot is taken when the log behind the last one has grown by this or by the last one's size, whichever is more. */
    readonly logBytesMin: number;
    readonly retain: number;
    readonly chunkBytes: number;
    /** 0..1: shifts this server's snapshots against those of the others. */
    readonly stagger: number;
  };
  readonly skipAcl: boolean;
  readonly extendedTypesEnabled: boolean;
  /** `super:<base64 SHA-1>` or null. */
  readonly superDigest: string | null;
  /** What clients read in /zookeeper/config: the members as ZooKeeper writes them. null: standalone, no text. */
  readonly membership: string | null;
  readonly mutations: Mutations;
};

export type ReplicaEvent =
  | {
      readonly kind: 'applied';
      readonly zxid: Zxid;
      readonly txn: Txn | null;
      readonly result: ApplyResult | null;
      readonly digest: bigint;
    }
  | {
      readonly kind: 'role';
      readonly role: Role;
      readonly epoch: number;
      readonly leader: ServerId | -1;
      readonly serving: boolean;
      readonly reason: string;
    }
  | { readonly kind: 'stateReplaced'; readonly zxid: Zxid; readonly digest: bigint }
  | { readonly kind: 'snapshotTaken'; readonly zxid: Zxid };

export type ReplicaStatus = {
  readonly zab: ZabStatus;
  readonly applied: Zxid;
  readonly digest: bigint;
  readonly isServing: boolean;
  readonly znodeCount: number;
  readonly dataBytes: number;
  readonly ephemeralCount: number;
  readonly sessionCount: number;
  readonly connectionCount: number;
  readonly watchCount: number;
  readonly watchPathCount: number;
  readonly watcherCount: number;
  readonly outstandingCount: number;
  readonly counters: Pipeline['counters'];
  readonly proposalBytes: { readonly last: number; readonly min: number; readonly max: number };
};

type Input =
  | { readonly kind: 'durable'; readonly sequence: number }
  | { readonly kind: 'connected'; readonly peer: ServerId; readonly incarnation: number }
  | { readonly kind: 'disconnected'; readonly peer: ServerId }
  | { readonly kind: 'message'; readonly from: ServerId; readonly message: PeerMessage }
  | { readonly kind: 'submitted'; readonly waiting: Waiting }
  | { readonly kind: 'run'; readonly run: () => void };

/** Work that must come after a snapshot is loaded, in order. */
type Deferred = Extract<ZabEffect, { kind: 'apply' | 'roleChanged' | 'barrierPassed' | 'installSnapshot' }>;

const NO_ORIGIN = { server: 0, incarnation: 0, sequence: 0 } as const;
const NOTHING: Txn = {
  origin: NO_ORIGIN,
  sessionId: sessionIdFrom(0n),
  cxid: 0,
  timeMs: 0,
  body: { kind: 'error', code: ErrorCode.ok },
};
/** A digest is kept for every so-many-th zxid, to compare servers at equal zxids. */
const DIGEST_EVERY = 64;
const DIGESTS_KEPT = 64;
const PROPOSAL_BYTES_MAX = 4 * 1024 * 1024;
/** A learner reports touched sessions, a leader its digest, every so many Zab ticks. */
const REPORT_TICKS = 2;

export class Replica {
  readonly #config: ReplicaConfig;
  readonly #ports: ReplicaPorts;
  readonly #restored: RestoredStore;
  readonly #state: ReplicatedState;
  #outstanding: Outstanding;
  readonly #tracker: SessionTracker;
  readonly #pipeline: Pipeline;
  readonly #taker: SnapshotTaker;
  readonly #sender: SnapshotSender;
  readonly #receiver: SnapshotReceiver;
  readonly #reader = new JuteReader();
  #zab: Zab | null = null;
  #inbox: Input[] = [];
  #isScheduled = false;
  #isDraining = false;
  #isDead = false;
  #effects: ZabEffect[] = [];
  /** Txns prepared in this drain, their bytes, and, until they are applied, the txns that this leader proposed, in order. */
  #proposals: Uint8Array[] = [];
  #proposed: Txn[] = [];
  #proposedHead = 0;
  #syncs: { readonly from: ServerId; readonly sequence: number }[] = [];
  readonly #barriers = new Map<number, { readonly from: ServerId; readonly sequence: number }[]>();
  #nextBarrier = 1;
  #role: Role = 'looking';
  #epoch = 0;
  #leader: ServerId | -1 = -1;
  /** Zab says: serving. The pipeline follows when everything of the history that came with it is applied here. */
  #zabServing = false;
  #serveAfter: Zxid | -1n = -1n;
  #lastTick = -1;
  #lastTickMs: number;
  #lastTrackerMs: number;
  #ticks = 0;
  /** This process stood still for longer than a leader may be silent: nothing is answered until the leader is heard again. */
  #mustHearLeader = false;
  #deferred: Deferred[] = [];
  #isLoading = false;
  readonly #incarnations = new Map<ServerId, number>();
  readonly #digests = new Map<Zxid, bigint>();
  #leaderDigest: { readonly zxid: Zxid; readonly digest: bigint } | null = null;
  #sendAttempt = 0;
  /** The newest attempt to send each learner a snapshot. */
  readonly #sendAttempts = new Map<ServerId, number>();
  #heldStream: { readonly from: ServerId; readonly message: PeerMessage }[] = [];
  #stopping: { readonly onStopped: () => void; phase: 'handover' | 'answer' | 'done'; deadlineMs: number } | null =
    null;
  #proposalBytes = { last: -1, min: -1, max: -1 };
  observer: ((event: ReplicaEvent) => void) | null = null;

  constructor(config: ReplicaConfig, ports: ReplicaPorts, restored: RestoredStore) {
    this.#config = config;
    this.#ports = ports;
    this.#restored = restored;
    this.#state = { tree: new DataTree(this.#treeOptions), watches: new WatchTable() };
    this.#outstanding = new Outstanding(this.#state.tree.sessions);
    this.#installMembership();
    this.#tracker = new SessionTracker(config.tickMs);
    this.#lastTickMs = ports.clock.nowMs();
    this.#lastTrackerMs = this.#lastTickMs;
    this.#pipeline = new Pipeline(
      config,
      ports,
      { submit: (waiting) => this.#submit(waiting), isCurrent: () => this.#isCurrent() },
      this.#state,
    );
    this.#taker = new SnapshotTaker(config.snapshots, ports);
    this.#sender = new SnapshotSender(ports);
    this.#receiver = new SnapshotReceiver(ports);
  }

  get #treeOptions(): DataTreeOptions {
    return { mutations: this.#config.mutations, extendedTypesEnabled: this.#config.extendedTypesEnabled };
  }

  // --- The outside ------------------------------------------------------------------------------------------------------------

  /** Loads the newest snapshot and the log that is known to be committed, then takes part in the ensemble. */
  start(onStarted: () => void): void {
    const { snapshot } = this.#restored;
    if (snapshot === 0n) {
      this.#enqueue({ kind: 'run', run: () => this.#begin(onStarted) });
      return;
    }
    loadSnapshot(this.#ports, this.#treeOptions, snapshot, (error, loaded) => {
      this.#guard(() => {
        if (error !== null || loaded === null) throw error ?? new Error('the newest snapshot cannot be read');
        this.#replaceTree(loaded);
      });
      this.#enqueue({ kind: 'run', run: () => this.#begin(onStarted) });
    });
  }

  onTick(): void {
    this.#schedule();
  }

  onPeerConnected(peer: ServerId, incarnation: number): void {
    this.#enqueue({ kind: 'connected', peer, incarnation });
  }

  onPeerDisconnected(peer: ServerId): void {
    this.#enqueue({ kind: 'disconnected', peer });
  }

  onPeerMessage(from: ServerId, message: PeerMessage): void {
    this.#enqueue({ kind: 'message', from, message });
  }

  connectClient(port: ClientPort): ClientConnection {
    const session = this.#pipeline.connect(port);
    return new ClientConnection(session, this.#pipeline, (work) => this.#guard(work));
  }

  /** Hands leadership over if this server leads, answers what is under way, closes its clients' connections, then the disk. */
  stop(onStopped: () => void): void {
    this.#enqueue({ kind: 'run', run: () => this.#beginStop(onStopped) });
  }

  get status(): ReplicaStatus {
    const { tree, watches } = this.#state;
    return {
      zab: this.#zabStatus(),
      applied: tree.lastZxid,
      digest: tree.digest,
      isServing: this.#pipeline.isServing,
      znodeCount: tree.znodeCount,
      dataBytes: tree.approximateDataBytes,
      ephemeralCount: tree.ephemeralCount,
      sessionCount: tree.sessions.count,
      connectionCount: this.#pipeline.connectionCount,
      watchCount: watches.counts.watches,
      watchPathCount: watches.counts.paths,
      watcherCount: watches.counts.watchers,
      outstandingCount: this.#pipeline.outstandingCount,
      counters: this.#pipeline.counters,
      proposalBytes: this.#proposalBytes,
    };
  }

  get connections(): IterableIterator<ClientSession> {
    return this.#pipeline.connections;
  }

  /** For four-letter words and checks: the state as it is now. Read only. */
  get state(): Readonly<ReplicatedState> {
    return this.#state;
  }

  get tracker(): SessionTracker {
    return this.#tracker;
  }

  // --- Inbox and drain --------------------------------------------------------------------------------------------------------

  #enqueue(input: Input): void {
    this.#inbox.push(input);
    this.#schedule();
  }

  #schedule(): void {
    if (this.#isScheduled || this.#isDead) return;
    this.#isScheduled = true;
    this.#ports.schedule(() => {
      this.#isScheduled = false;
      this.#guard(() => this.#drain());
    });
  }

  /** Our own faults end the process: a wrong coordinator is worse than none. */
  #guard(work: () => void): void {
    if (this.#isDead) return;
    try {
      work();
    } catch (error) {
      this.#die(error instanceof Error ? error : new Error(String(error)));
    }
  }

  #die(error: Error): void {
    if (this.#isDead) return;
    this.#isDead = true;
    this.#ports.fatal(error);
  }

  #drain(): void {
    assert(!this.#isDraining, 'one drain at a time');
    this.#isDraining = true;
    this.#advanceTime();
    // What arrives while this runs belongs to the next drain, so that one turn stays bounded.
    const inbox = this.#inbox;
    this.#inbox = [];
    for (let i = 0; i < inbox.length; i += 1) {
      const input = inbox[i];
      if (input !== undefined) this.#handle(input);
      if (this.#isDead) return;
    }
    this.#propose();
    this.#startBarrier();
    this.#maybeTakeSnapshot();
    this.#continueStop();
    this.#pipeline.flushAll();
    this.#isDraining = false;
    if (this.#inbox.length > 0) this.#schedule();
  }

  #handle(input: Input): void {
    switch (input.kind) {
      case 'durable':
        this.#step({ kind: 'durable', sequence: input.sequence });
        return;
      case 'connected':
        this.#incarnations.set(input.peer, input.incarnation);
        this.#step({ kind: 'connected', peer: input.peer });
        return;
      case 'disconnected':
        this.#onDisconnected(input.peer);
        return;
      case 'message':
        this.#onMessage(input.from, input.message);
        return;
      case 'submitted':
        this.#onSubmitted(input.waiting);
        return;
      case 'run':
        input.run();
        return;
      default:
        unreachable(input);
    }
  }

  #step(input: Parameters<Zab['step']>[0]): void {
    const zab = this.#zab;
    if (zab === null) return;
    const effects = this.#effects;
    assert(effects.length === 0, 'effects of one step are carried out before the next');
    zab.step(input, effects);
    for (let i = 0; i < effects.length; i += 1) {
      const effect = effects[i];
      if (effect !== undefined) this.#perform(effect);
    }
    effects.length = 0;
  }

  #perform(effect: ZabEffect): void {
    switch (effect.kind) {
      case 'persist':
        this.#persist(effect);
        return;
      case 'send':
        this.#ports.network.send(effect.to, effect.message);
        return;
      case 'apply':
      case 'roleChanged':
      case 'barrierPassed':
      case 'installSnapshot':
        this.#deferred.push(effect);
        this.#runDeferred();
        return;
      case 'barriersFailed':
        this.#barriers.clear();
        return;
      case 'sendSnapshot':
        this.#sendSnapshot(effect.to, effect.epoch, effect.from);
        return;
      case 'discardStaged':
        this.#receiver.discard();
        this.#heldStream = [];
        return;
      case 'numbered':
        return;
      case 'dropPeer':
        this.#ports.log('warn', 'peer broke the protocol: link closed', { peer: effect.peer, reason: effect.reason });
        this.#ports.network.drop(effect.peer, effect.reason);
        return;
      default:
        unreachable(effect);
    }
  }

  // --- Disk -------------------------------------------------------------------------------------------------------------------

  #persist(effect: Extract<ZabEffect, { kind: 'persist' }>): void {
    const { truncateAfter, entries, epochs, base, clusterId, store } = effect;
    const write: { -readonly [K in keyof DiskWrite]: DiskWrite[K] } = { entries };
    // A new base makes all older records dead: there is nothing left to cut, and the store refuses to cut at a zxid it never held.
    if (truncateAfter !== undefined && base === undefined) write.truncateAfter = truncateAfter;
    if (truncateAfter !== undefined && base === undefined) {
      this.#ports.log('info', 'the tail of the log that was never committed is cut', { after: hex64(truncateAfter) });
    }
    if (epochs !== undefined) write.epochs = epochs;
    if (base !== undefined) write.base = base;
    if (clusterId !== undefined) write.clusterId = clusterId;
    if (store !== undefined) write.mark = store === 'suspect' ? 'suspect' : 'clean';
    // Known to be committed and applied here: after a restart this much of the log needs no leader's word. Never above what this very write leaves in the log.
    const applied = this.#state.tree.lastZxid;
    if (base === undefined && !this.#isLoading && (truncateAfter === undefined || applied <= truncateAfter)) {
      write.committed = applied;
    }
    if (this.#config.mutations.watchFiresBeforeCommit) this.#fireEarly(entries);
    this.#ports.disk.write(write, (error) => {
      if (error !== null) {
        this.#die(error);
        return;
      }
      this.#enqueue({ kind: 'durable', sequence: effect.sequence });
    });
  }

  /** Mutant M18: events as they would be if this were committed already. */
  #fireEarly(entries: readonly { readonly zxid: Zxid; readonly txn: Uint8Array }[]): void {
    for (const { zxid, txn } of entries) {
      if (txn.length === 0) continue;
      const { body } = decodeTxn(txn);
      if (body.kind === 'create')
        this.#pipeline.deliver(zxid, [{ type: EventType.nodeCreated, path: body.path, acl: body.acl }]);
      if (body.kind === 'setData')
        this.#pipeline.deliver(zxid, [{ type: EventType.nodeDataChanged, path: body.path, acl: [] }]);
      if (body.kind === 'delete')
        this.#pipeline.deliver(zxid, [{ type: EventType.nodeDeleted, path: body.path, acl: [] }]);
    }
  }

  // --- Applying ---------------------------------------------------------------------------------------------------------------

  #runDeferred(): void {
    while (!this.#isLoading) {
      const effect = this.#deferred.shift();
      if (effect === undefined) return;
      switch (effect.kind) {
        case 'apply':
          for (const entry of effect.entries) this.#apply(entry.zxid, entry.txn);
          this.#maybeServe();
          break;
        case 'roleChanged':
          this.#onRoleChanged(effect);
          break;
        case 'barrierPassed':
          this.#onBarrierPassed(effect.id, effect.committed);
          break;
        case 'installSnapshot':
          this.#install(effect.zxid);
          break;
        default:
          unreachable(effect);
      }
    }
  }

  #apply(zxid: Zxid, bytes: Uint8Array): void {
    const { tree } = this.#state;
    assert(zxid > tree.lastZxid, 'txns are applied in rising order', { zxid, applied: tree.lastZxid });
    if (bytes.length === 0) {
      // Zab's own entry: it only takes its place in the order.
      tree.apply(zxid, NOTHING, []);
      this.#noteDigest(zxid);
      this.observer?.({ kind: 'applied', zxid, txn: null, result: null, digest: tree.digest });
      return;
    }
    const own = this.#takeProposed(zxid);
    const txn = own ?? decodeTxn(bytes);
    const events: TreeEvent[] = [];
    const result = tree.apply(zxid, txn, events);
    if (own !== null) this.#outstanding.settle(1);
    this.#noteDigest(zxid);
    if (txn.body.kind === 'createSession' && result.code === ErrorCode.ok && this.#role === 'leading') {
      const owner = txn.origin.server as ServerId;
      this.#tracker.add(txn.sessionId, txn.body.timeoutMs, owner, firstAttachment(epochOf(zxid)));
    } else if (txn.body.kind === 'closeSession') {
      this.#tracker.remove(txn.sessionId);
    }
    const isOwn = txn.origin.server === this.#config.id && txn.origin.incarnation === this.#config.incarnation;
    this.#pipeline.onApplied(zxid, txn, result, this.#config.mutations.watchFiresBeforeCommit ? [] : events, isOwn);
    this.observer?.({ kind: 'applied', zxid, txn, result, digest: tree.digest });
  }

  /** The txn this leader proposed with this zxid, which spares decoding it; null for entries of other leaders. */
  #takeProposed(zxid: Zxid): Txn | null {
    if (this.#role !== 'leading' || epochOf(zxid) !== this.#epoch) return null;
    const txn = this.#proposed[this.#proposedHead];
    if (txn === undefined) return null;
    this.#proposedHead += 1;
    if (this.#proposedHead === this.#proposed.length) {
      this.#proposed = [];
      this.#proposedHead = 0;
    } else if (this.#proposedHead >= 4096) {
      this.#proposed = this.#proposed.slice(this.#proposedHead);
      this.#proposedHead = 0;
    }
    return txn;
  }

  #noteDigest(zxid: Zxid): void {
    if (counterOf(zxid) % DIGEST_EVERY !== 0) return;
    this.#digests.set(zxid, this.#state.tree.digest);
    if (this.#digests.size > DIGESTS_KEPT) {
      for (const oldest of this.#digests.keys()) {
        this.#digests.delete(oldest);
        break;
      }
    }
    this.#compareDigest();
  }

  /** Replicas that applied the same txns have the same state; one that differs must not go on. */
  #compareDigest(): void {
    const theirs = this.#leaderDigest;
    if (theirs === null) return;
    const mine = this.#digests.get(theirs.zxid);
    if (mine === undefined) return;
    assert(mine === theirs.digest, 'this server has the same state as its leader at the same zxid', {
      zxid: hex64(theirs.zxid),
      mine: hex64(mine),
      leader: hex64(theirs.digest),
    });
    this.#leaderDigest = null;
  }

  /** From this server's own configuration, not from the log: it is no part of the replicated state until membership can change. */
  #installMembership(): void {
    const { membership } = this.#config;
    if (membership === null) return;
    this.#state.tree.installConfig(new TextEncoder().encode(`${membership}\nversion=0`), NO_ZXID);
  }

  #replaceTree(tree: DataTree): void {
    this.#state.tree = tree;
    this.#outstanding = new Outstanding(tree.sessions);
    this.#installMembership();
  }

  #install(zxid: Zxid): void {
    this.#isLoading = true;
    loadSnapshot(this.#ports, this.#treeOptions, zxid, (error, loaded) => {
      this.#enqueue({
        kind: 'run',
        run: () => {
          if (error !== null || loaded === null) throw error ?? new Error('the installed snapshot cannot be read');
          this.#pipeline.onStateReplaced();
          this.#replaceTree(loaded);
          this.#state.watches = new WatchTable();
          this.#digests.clear();
          this.#leaderDigest = null;
          this.#isLoading = false;
          this.#ports.log('info', "took over the leader's snapshot", { zxid: hex64(zxid) });
          this.observer?.({ kind: 'stateReplaced', zxid, digest: loaded.digest });
          this.#runDeferred();
        },
      });
    });
  }

  // --- Roles ------------------------------------------------------------------------------------------------------------------

  #begin(onStarted: () => void): void {
    const { classification, epochs, clusterId, base, entries } = this.#restored;
    const { tree } = this.#state;
    const committed = this.#restored.committed > tree.lastZxid ? this.#restored.committed : tree.lastZxid;
    for (const entry of entries) {
      if (entry.zxid > tree.lastZxid && entry.zxid <= committed) this.#apply(entry.zxid, entry.txn);
    }
    const hasRecords = entries.length > 0 || base > 0n || tree.lastZxid > 0n;
    const store: StoreKind =
      classification === 'suspect' ? 'suspect' : classification === 'blank' ? 'blank' : hasRecords ? 'used' : 'formed';
    this.#zab = new Zab(
      {
        ...this.#config.zab,
        id: this.#config.id,
        voters: this.#config.voters,
        observers: this.#config.observers,
        seed: this.#config.seed,
        mutations: this.#config.mutations,
      },
      { store, clusterId, epochs, base, entries, committed: tree.lastZxid },
    );
    this.#lastTickMs = this.#ports.clock.nowMs();
    this.#lastTrackerMs = this.#lastTickMs;
    this.#advanceTime();
    onStarted();
  }

  #zabStatus(): ZabStatus {
    if (this.#zab !== null) return this.#zab.status;
    const { epochs, base } = this.#restored;
    const last = this.#restored.entries.at(-1)?.zxid ?? base;
    return {
      role: 'looking',
      phase: 'election',
      serving: false,
      epoch: 0,
      leader: -1,
      acceptedEpoch: epochs.acceptedEpoch,
      currentEpoch: epochs.currentEpoch,
      last,
      durable: last,
      committed: this.#restored.committed,
      base,
      store: this.#restored.classification === 'clean' ? 'used' : this.#restored.classification,
      followers: [],
    };
  }

  #onRoleChanged(effect: Extract<ZabEffect, { kind: 'roleChanged' }>): void {
    const wasLeading = this.#role === 'leading' && this.#zabServing;
    this.#role = effect.role;
    this.#epoch = effect.epoch;
    this.#leader = effect.leader;
    this.#zabServing = effect.serving;
    this.#mustHearLeader = false;
    this.#ports.log('info', roleSentence(effect), {
      role: effect.role,
      epoch: effect.epoch,
      leader: effect.leader,
      zxid: hex64(this.#state.tree.lastZxid),
      reason: effect.reason,
    });
    // A snapshot that is on its way when its leader becomes established goes on (simulator, replica-tiny seed 49).
    if (effect.role !== 'leading') {
      this.#sender.abortAll();
      this.#sendAttempts.clear();
    }
    if (!effect.serving) {
      this.#pipeline.suspend();
      if (wasLeading || effect.role !== 'leading') this.#forgetLeading();
      if (effect.role === 'looking') {
        this.#receiver.discard();
        this.#heldStream = [];
      }
    } else {
      this.#forgetLeading();
      if (effect.role === 'leading') this.#startTracking();
      // Writes are handed over again only when the whole history that came with this leader is applied here: only then is it
      // certain which of them took place.
      this.#serveAfter = this.#zabStatus().last;
      this.#maybeServe();
    }
    this.observer?.({
      kind: 'role',
      role: effect.role,
      epoch: effect.epoch,
      leader: effect.leader,
      serving: effect.serving,
      reason: effect.reason,
    });
  }

  #maybeServe(): void {
    if (!this.#zabServing || this.#pipeline.isServing) return;
    if (this.#state.tree.lastZxid < this.#serveAfter) return;
    this.#pipeline.serve(this.#epoch);
  }

  /** What was prepared but not applied as a leader is void: the history of the next leader tells what took place. */
  #forgetLeading(): void {
    this.#outstanding.clear();
    this.#proposals = [];
    this.#proposed = [];
    this.#proposedHead = 0;
    this.#syncs = [];
    this.#barriers.clear();
    this.#tracker.clear();
  }

  #startTracking(): void {
    this.#lastTrackerMs = this.#ports.clock.nowMs();
    for (const session of this.#state.tree.sessions.all()) this.#tracker.add(session.id, session.timeoutMs, -1, -1n);
  }

  get #isLeading(): boolean {
    return this.#role === 'leading' && this.#zabServing;
  }

  // --- Time -------------------------------------------------------------------------------------------------------------------

  /** Zab learns the time before anything else in a drain, so that a process that stood still steps down before it answers. */
  #advanceTime(): void {
    const nowMs = this.#ports.clock.nowMs();
    const tick = Math.floor(nowMs / this.#config.zabTickMs);
    if (tick === this.#lastTick || this.#zab === null) return;
    const stalledMs = nowMs - this.#lastTickMs;
    this.#lastTick = tick;
    this.#lastTickMs = nowMs;
    this.#ticks += 1;
    if (
      stalledMs > this.#config.zab.syncLimitTicks * this.#config.zabTickMs &&
      (this.#role === 'following' || this.#role === 'observing')
    ) {
      this.#mustHearLeader = true;
      this.#ports.log('warn', 'this process stood still: nothing is answered until the leader is heard', { stalledMs });
    }
    this.#step({ kind: 'tick', tick });
    if (this.#isLeading) this.#expireSessions(nowMs);
    else this.#lastTrackerMs = nowMs;
    if (this.#ticks % REPORT_TICKS === 0) this.#report();
    this.#pipeline.onTick(nowMs);
  }

  /** Before an answer is given outside of a drain: has this process stood still without noticing? */
  #isCurrent(): boolean {
    if (this.#mustHearLeader || this.#isLoading) return false;
    const nowMs = this.#ports.clock.nowMs();
    if (nowMs - this.#lastTickMs <= 2 * this.#config.zabTickMs || this.#isDraining) return this.#pipeline.isServing;
    this.#advanceTime();
    this.#schedule();
    return this.#pipeline.isServing && !this.#mustHearLeader;
  }

  #expireSessions(nowMs: number): void {
    // A stall of this very process is not held against anybody: clients' signs of life wait in the sockets.
    const elapsedMs = Math.min(nowMs - this.#lastTrackerMs, 4 * this.#config.zabTickMs);
    this.#lastTrackerMs = nowMs;
    for (const sessionId of this.#pipeline.takeTouched()) this.#tracker.touch(sessionId);
    for (const sessionId of this.#tracker.advance(elapsedMs)) {
      this.#ports.log('info', 'session expired', { session: hex64(sessionId) });
      this.#prepare({ kind: 'closeSession' }, sessionId, 0, [], NO_ORIGIN);
    }
  }

  #report(): void {
    if (this.#zab === null || !this.#zabServing) return;
    if (this.#role === 'leading') {
      let newest: Zxid | null = null;
      for (const zxid of this.#digests.keys()) newest = zxid;
      if (newest === null) return;
      const digest = this.#digests.get(newest);
      if (digest === undefined) return;
      const message: PeerMessage = { kind: 'digest', zxid: newest, digest };
      for (const follower of this.#zab.status.followers)
        if (follower.inSync) this.#ports.network.send(follower.id, message);
      return;
    }
    if (this.#leader === -1) return;
    const sessionIds = this.#pipeline.takeTouched();
    if (sessionIds.length > 0) this.#ports.network.send(this.#leader, { kind: 'touched', sessionIds });
  }

  // --- Messages ---------------------------------------------------------------------------------------------------------------

  #onDisconnected(peer: ServerId): void {
    this.#sender.abort(peer);
    this.#sendAttempts.delete(peer);
    this.#receiver.discardFrom(peer);
    this.#heldStream = this.#heldStream.filter((held) => held.from !== peer);
    this.#step({ kind: 'disconnected', peer });
  }

  #onMessage(from: ServerId, message: PeerMessage): void {
    if (this.#mustHearLeader && from === this.#leader) {
      this.#mustHearLeader = false;
      this.#pipeline.advanceAll();
    }
    switch (message.kind) {
      case 'request':
        if (this.#isLeading) this.#onRequest(from, message);
        return;
      case 'syncRequest':
        if (this.#isLeading) this.#syncs.push({ from, sequence: message.sequence });
        return;
      case 'revalidate':
        if (this.#isLeading) this.#onRevalidate(from, message.sequence, message.sessionId, message.timeoutMs);
        return;
      case 'touched':
        if (this.#isLeading) for (const sessionId of message.sessionIds) this.#tracker.touch(sessionId);
        return;
      case 'requestRefused':
        if (from === this.#leader) this.#pipeline.onRefused(message.sequence, message.reason);
        return;
      case 'syncDone':
        if (from === this.#leader) this.#pipeline.onSyncDone(message.sequence, message.zxid);
        return;
      case 'revalidated':
        if (from === this.#leader) this.#pipeline.onRevalidated(message.sequence, message.valid, message.attachment);
        return;
      case 'sessionMoved':
        this.#pipeline.onSessionMoved(message.sessionId, message.attachment);
        return;
      case 'digest':
        if (from === this.#leader && this.#zabServing) {
          this.#leaderDigest = { zxid: message.zxid, digest: message.digest };
          this.#compareDigest();
        }
        return;
      case 'snapshotChunk':
        this.#onSnapshotChunk(from, message);
        return;
      default:
        this.#onZabMessage(from, message);
    }
  }

  #onZabMessage(from: ServerId, message: ZabMessage): void {
    if (message.kind === 'synchronizeBySnapshot') {
      this.#receiver.begin(from, message.epoch);
    } else if (this.#receiver.isReceivingFrom(from) && message.kind !== 'vote' && message.kind !== 'heartbeat') {
      // The stream behind a snapshot waits until the snapshot is verified and staged.
      this.#heldStream.push({ from, message });
      return;
    }
    this.#step({ kind: 'received', from, message });
  }

  #onSnapshotChunk(from: ServerId, message: Extract<PeerMessage, { kind: 'snapshotChunk' }>): void {
    this.#receiver.onChunk(from, message, (error) => {
      this.#enqueue({
        kind: 'run',
        run: () => {
          if (error !== null) {
            this.#ports.log('warn', 'the snapshot from the leader cannot be used', { from, error: error.message });
            this.#receiver.discard();
            this.#ports.network.drop(from, 'the snapshot was damaged on its way');
            return;
          }
          this.#step({ kind: 'snapshotStaged', from, epoch: message.epoch, zxid: message.zxid });
          const held = this.#heldStream;
          this.#heldStream = [];
          for (const one of held) this.#onMessage(one.from, one.message);
        },
      });
    });
  }

  #sendSnapshot(to: ServerId, epoch: number, from: Zxid): void {
    // A learner may come again, with a later `from`, while a snapshot for its earlier attempt is still being taken: that one is
    // too old for it (simulator, replica-tiny seed 5301).
    this.#sendAttempt += 1;
    const attempt = this.#sendAttempt;
    this.#sendAttempts.set(to, attempt);
    const isWanted = (): boolean => this.#sendAttempts.get(to) === attempt;
    const send = (zxid: Zxid): void => {
      if (!isWanted()) return;
      assert(zxid >= from, 'a snapshot for a learner reaches into the history in memory');
      this.#ports.log('info', 'sending a snapshot', { to, zxid: hex64(zxid) });
      this.#sender.send(to, epoch, zxid, (isDone) => {
        this.#enqueue({
          kind: 'run',
          run: () => {
            if (!isWanted()) return;
            this.#sendAttempts.delete(to);
            if (isDone) this.#step({ kind: 'snapshotSent', peer: to, epoch, zxid });
            else this.#ports.network.drop(to, 'the snapshot could not be sent');
          },
        });
      });
    };
    const newest = this.#ports.disk.snapshots()[0];
    if (newest !== undefined && newest.zxid >= from) {
      send(newest.zxid);
      return;
    }
    // The newest snapshot is older than the history in memory: a fresh one is taken, behind which the history is complete.
    this.#taker.takeNow((zxid) => send(zxid));
    this.#maybeTakeSnapshot();
  }

  #maybeTakeSnapshot(): void {
    const zab = this.#zab;
    if (zab === null || this.#isLoading) return;
    this.#taker.maybeTake(this.#state.tree, zab.status.durable, (zxid) => {
      this.#enqueue({
        kind: 'run',
        run: () => {
          this.#step({ kind: 'snapshotTaken', zxid });
          this.observer?.({ kind: 'snapshotTaken', zxid });
          const keepFrom = this.#zab?.status.base ?? zxid;
          this.#ports.disk.purge(this.#config.snapshots.retain, keepFrom, (error) => {
            if (error !== null) this.#die(error);
          });
        },
      });
    });
  }

  // --- Writes -----------------------------------------------------------------------------------------------------------------

  #submit(waiting: Waiting): void {
    if (this.#isLeading) {
      this.#enqueue({ kind: 'submitted', waiting });
      return;
    }
    const leader = this.#leader;
    assert(leader !== -1, 'a server that serves knows its leader');
    const connection = waiting.connection;
    switch (waiting.kind) {
      case 'write':
      case 'createSession':
        this.#ports.network.send(leader, {
          kind: 'request',
          sequence: waiting.sequence,
          sessionId: connection.sessionId,
          attachment: connection.attachment,
          cxid: waiting.xid,
          opcode: waiting.opcode,
          identity: connection.identity,
          body: waiting.body,
        });
        return;
      case 'sync':
        this.#ports.network.send(leader, { kind: 'syncRequest', sequence: waiting.sequence });
        return;
      case 'revalidate':
        this.#ports.network.send(leader, {
          kind: 'revalidate',
          sequence: waiting.sequence,
          sessionId: connection.sessionId,
          timeoutMs: connection.timeoutMs,
        });
        return;
      default:
        assert(false, 'reads are not submitted');
    }
  }

  #onSubmitted(waiting: Waiting): void {
    // Leadership may have ended since; then it waits in the pipeline and is handed over again.
    if (!this.#isLeading || waiting.connection.phase === 'closed' || waiting.sentInEpoch !== this.#epoch) return;
    const connection = waiting.connection;
    switch (waiting.kind) {
      case 'write': {
        if (!this.#tracker.admits(connection.sessionId, this.#config.id, connection.attachment)) {
          this.#pipeline.onRefused(waiting.sequence, 'the session moved to another server');
          return;
        }
        const request = waiting.request;
        assert(request !== null, 'a write keeps its request until it is answered');
        this.#prepare(
          request as WriteRequest,
          connection.sessionId,
          waiting.xid,
          connection.identity,
          this.#ownOrigin(waiting),
        );
        return;
      }
      case 'createSession':
        this.#prepareCreateSession(waiting.body, connection.sessionId, this.#ownOrigin(waiting));
        return;
      case 'sync':
        this.#syncs.push({ from: this.#config.id, sequence: waiting.sequence });
        return;
      case 'revalidate':
        this.#onRevalidate(this.#config.id, waiting.sequence, connection.sessionId, connection.timeoutMs);
        return;
      default:
        assert(false, 'reads are not submitted');
    }
  }

  #ownOrigin(waiting: Waiting): Txn['origin'] {
    return { server: this.#config.id, incarnation: this.#config.incarnation, sequence: waiting.sequence };
  }

  #onRequest(from: ServerId, message: ForwardedRequest): void {
    const incarnation = this.#incarnations.get(from);
    assert(incarnation !== undefined, 'a peer that sends is connected');
    const origin = { server: from, incarnation, sequence: message.sequence };
    if (message.opcode === OpCode.createSession) {
      this.#prepareCreateSession(message.body, message.sessionId, origin);
      return;
    }
    if (!this.#tracker.admits(message.sessionId, from, message.attachment)) {
      this.#ports.network.send(from, {
        kind: 'requestRefused',
        sequence: message.sequence,
        reason: 'the session moved to another server',
      });
      return;
    }
    this.#reader.reset(message.body, 0, message.body.length);
    const request = decodeRequest(message.opcode, this.#reader);
    this.#prepare(request as WriteRequest, message.sessionId, message.cxid, message.identity, origin);
  }

  #prepareCreateSession(body: Uint8Array, sessionId: SessionId, origin: Txn['origin']): void {
    this.#reader.reset(body, 0, body.length);
    const timeoutMs = this.#reader.readInt();
    const password = this.#reader.readBufferCopy();
    assert(password !== null, 'a session is created with a password');
    this.#prepare({ kind: 'createSession', timeoutMs, password }, sessionId, 0, [], origin);
  }

  #prepare(
    request: Parameters<typeof prepare>[2],
    sessionId: SessionId,
    cxid: number,
    identity: readonly Id[],
    origin: Txn['origin'],
  ): void {
    assert(this.#isLeading, 'only a leader decides');
    if (request.kind === 'closeSession') this.#tracker.markClosing(sessionId);
    const context: PrepareContext = {
      tree: this.#state.tree,
      outstanding: this.#outstanding,
      skipAcl: this.#config.skipAcl,
    };
    const txn = prepare(context, { sessionId, cxid, identity, origin }, request, this.#ports.clock.wallMs());
    this.#proposals.push(encodeTxn(txn));
    this.#proposed.push(txn);
  }

  #propose(): void {
    if (this.#proposals.length === 0) return;
    const txns = this.#proposals;
    this.#proposals = [];
    assert(this.#isLeading, 'only a leader proposes');
    // One message to the peers carries a bounded number of bytes, whatever has piled up.
    let from = 0;
    let bytes = 0;
    for (let i = 0; i < txns.length; i += 1) {
      const size = txns[i]?.length ?? 0;
      this.#measureProposal(size);
      if (i > from && bytes + size > PROPOSAL_BYTES_MAX) {
        this.#step({ kind: 'proposed', txns: txns.slice(from, i) });
        // The counter of the epoch may be used up: then leadership is over and the rest is handed over again by those who asked.
        if (!this.#isLeading) return;
        from = i;
        bytes = 0;
      }
      bytes += size;
    }
    this.#step({ kind: 'proposed', txns: from === 0 ? txns : txns.slice(from) });
  }

  #measureProposal(bytes: number): void {
    const sizes = this.#proposalBytes;
    sizes.last = bytes;
    if (sizes.min < 0 || bytes < sizes.min) sizes.min = bytes;
    if (bytes > sizes.max) sizes.max = bytes;
  }

  // --- sync and re-attachment -------------------------------------------------------------------------------------------------

  /** One quorum round serves everybody who waits. */
  #startBarrier(): void {
    if (this.#syncs.length === 0 || !this.#isLeading) return;
    const id = this.#nextBarrier;
    this.#nextBarrier += 1;
    this.#barriers.set(id, this.#syncs);
    this.#syncs = [];
    this.#step({ kind: 'barrier', id });
  }

  #onBarrierPassed(id: number, committed: Zxid): void {
    const syncs = this.#barriers.get(id);
    if (syncs === undefined) return;
    this.#barriers.delete(id);
    for (const { from, sequence } of syncs) {
      if (from === this.#config.id) this.#pipeline.onSyncDone(sequence, committed);
      else this.#ports.network.send(from, { kind: 'syncDone', sequence, zxid: committed });
    }
  }

  #onRevalidate(from: ServerId, sequence: number, sessionId: SessionId, timeoutMs: number): void {
    const attached =
      this.#state.tree.sessions.has(sessionId) && !this.#state.tree.sessions.isClosing(sessionId)
        ? this.#tracker.reattach(sessionId, from, timeoutMs, this.#epoch)
        : null;
    const isValid = attached !== null;
    const attachment = attached?.attachment ?? 0n;
    if (isValid && attached.previousOwner !== from) {
      // Everybody: after a change of leader nobody knows where the older attachment is.
      this.#pipeline.onSessionMoved(sessionId, attachment);
      const message: PeerMessage = { kind: 'sessionMoved', sessionId, attachment };
      for (const follower of this.#zabStatus().followers) this.#ports.network.send(follower.id, message);
    }
    if (from === this.#config.id) this.#pipeline.onRevalidated(sequence, isValid, attachment);
    else this.#ports.network.send(from, { kind: 'revalidated', sequence, valid: isValid, attachment });
  }

  // --- Stopping ---------------------------------------------------------------------------------------------------------------

  #beginStop(onStopped: () => void): void {
    if (this.#stopping !== null) return;
    const nowMs = this.#ports.clock.nowMs();
    const patienceMs = 2 * this.#config.zab.syncLimitTicks * this.#config.zabTickMs;
    this.#stopping = { onStopped, phase: 'handover', deadlineMs: nowMs + patienceMs };
    if (this.#isLeading) {
      const followers = this.#zabStatus().followers.filter((one) => one.inSync && !one.observer);
      followers.sort((a, b) => (a.acked < b.acked ? 1 : a.acked > b.acked ? -1 : 0));
      const heir = followers[0];
      if (heir !== undefined) {
        this.#propose();
        this.#step({ kind: 'transfer', to: heir.id });
      }
    }
  }

  #continueStop(): void {
    const stopping = this.#stopping;
    if (stopping === null || stopping.phase === 'done') return;
    const nowMs = this.#ports.clock.nowMs();
    const isLate = nowMs >= stopping.deadlineMs;
    if (stopping.phase === 'handover') {
      const hasFollowers = this.#zabStatus().followers.some((one) => !one.observer);
      const isLeaderOfOthers = this.#role === 'leading' && hasFollowers;
      const isOver = !isLeaderOfOthers && (this.#pipeline.isServing || this.#config.voters.length === 1);
      if (!isOver && !isLate) return;
      stopping.phase = 'answer';
      this.#pipeline.beginStop();
    }
    if (this.#pipeline.pendingCount > 0 && this.#pipeline.isServing && !isLate) return;
    stopping.phase = 'done';
    this.#pipeline.closeAll('this server is stopping');
    this.#isScheduled = true;
    this.#ports.disk.close((error) => {
      if (error !== null) this.#die(error);
      else stopping.onStopped();
    });
  }
}

/** What the socket side holds of a client: frames go in, the pipeline writes to the port. */
export class ClientConnection {
  readonly session: ClientSession;
  readonly #pipeline: Pipeline;
  readonly #guard: (work: () => void) => void;

  constructor(session: ClientSession, pipeline: Pipeline, guard: (work: () => void) => void) {
    this.session = session;
    this.#pipeline = pipeline;
    this.#guard = guard;
  }

  /** One frame without its length. The bytes are not kept. Throws ProtocolError when they are not a request: the caller closes the connection. */
  onFrame(bytes: Uint8Array, start = 0, end: number = bytes.length): void {
    this.#pipeline.onFrame(this.session, bytes, start, end);
  }

  /** After the frames of one chunk: everything answered so far goes out in one write. */
  onChunkEnd(): void {
    this.#pipeline.onChunkEnd(this.session);
  }

  onClosed(): void {
    this.#guard(() => this.#pipeline.onClosed(this.session));
  }
}

function roleSentence(effect: Extract<ZabEffect, { kind: 'roleChanged' }>): string {
  switch (effect.role) {
    case 'looking':
      return 'looking for a leader';
    case 'leading':
      return effect.serving ? 'leading' : 'about to lead';
    case 'following':
      return effect.serving ? `following server ${effect.leader}` : `about to follow server ${effect.leader}`;
    case 'observing':
      return effect.serving ? `observing server ${effect.leader}` : `about to observe server ${effect.leader}`;
    default:
      return unreachable(effect.role);
  }
}
