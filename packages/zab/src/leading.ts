// The leader's side of the three phases: discovery (a new epoch, promised by a quorum), synchronization (every learner's log is
// brought in line with this one), broadcast (propose, count, commit). One object per leadership.
// Must never count a learner that may not count, and never its own disk before the disk has answered.

import { assert } from '@quorate/protocol/assert';
import type { ServerId, Zxid } from '@quorate/protocol/zxid';
import { counterOf, epochOf, hex64, makeZxid, NO_ZXID, nextZxid } from '@quorate/protocol/zxid';
import type { Core, Promised } from './core.ts';
import { NO_ENTRIES, NOTHING } from './core.ts';
import type { Entry, StoreKind, ZabMessage } from './messages.ts';
import { highestReachedBy, majorityOf, Tally } from './quorum.ts';

type MessageOf<K extends ZabMessage['kind']> = Extract<ZabMessage, { kind: K }>;

/** Entries of one synchronisation travel in messages of about this size. */
const HISTORY_CHUNK_BYTES_MAX = 1024 * 1024;

/**
 * asked: sent FOLLOWERINFO. invited: got LEADERINFO. promised: sent ACKEPOCH. copying: a snapshot is on its way to it.
 * synced: got NEWLEADER, and from that cut on every proposal. acked: acknowledged it. serving: got UPTODATE.
 */
type Stage = 'asked' | 'invited' | 'promised' | 'copying' | 'synced' | 'acked' | 'serving';

type Learner = {
  readonly id: ServerId;
  readonly isVoter: boolean;
  readonly session: number;
  readonly acceptedEpoch: number;
  readonly needsSnapshot: boolean;
  store: StoreKind;
  /** Its promises and acks count in quorums: a voter whose store has forgotten nothing. */
  counts: boolean;
  stage: Stage;
  /** Its ACKEPOCH counts: the epoch was not promised to another server. */
  hasPromised: boolean;
  lastZxid: Zxid;
  /** `last` of its NEWLEADER. */
  cut: Zxid;
  /** Everything up to here is durable on it. */
  acked: Zxid;
  /** Newest heartbeat it has answered. */
  sequence: number;
  /** Tick of the last sign that it follows this leadership. */
  heardTick: number;
  /** Tick of the last step forward in its synchronisation, or in its acks. */
  progressTick: number;
  /** Pins the history while a snapshot is on its way. */
  pin: Zxid | null;
  /** For a voter that does not count: it counts again when something behind this is committed. */
  readmitAfter: Zxid | null;
  /** Tick of its NEWLEADER ack. */
  ackedTick: number;
  isReadmitting: boolean;
};

type Transfer = { readonly to: ServerId; readonly deadlineTick: number };

export class Leading {
  readonly kind = 'leading';
  readonly #core: Core;
  readonly #learners = new Map<ServerId, Learner>();
  /** Those behind their cut, in the order of joining: they get every proposal and commit. */
  #streaming: Learner[] = [];
  #epoch = 0;
  #phase: 'gathering' | 'promising' | 'synchronizing' | 'established' = 'gathering';
  /** This server's own promise of the epoch is durable: only then may others be asked for theirs. */
  #isEpochDurable = false;
  /** This server's own acknowledgement of NEWLEADER. */
  #hasOwnAck = false;
  /** The ensemble is being formed: every voter is needed, not just a quorum. */
  #isForming = false;
  #deadlineTick: number;
  readonly #startTick: number;
  #establishedTick = 0;
  #sentSequence = 0;
  #lastHeartbeatTick: number;
  /** Highest heartbeat that a quorum has answered. */
  #confirmedSequence = 0;
  #barriers: { readonly id: number; readonly sequence: number }[] = [];
  #transfer: Transfer | null = null;
  readonly #ackScratch: Zxid[] = [];
  readonly #numberScratch: number[] = [];

  constructor(core: Core) {
    this.#core = core;
    this.#startTick = core.tick;
    this.#lastHeartbeatTick = core.tick;
    // Two servers that wait for each other's followers must not give up in step for ever.
    this.#deadlineTick = core.tick + core.config.initLimitTicks + core.random(core.config.heartbeatTicks + 1);
  }

  /** Those who asked while this server was still looking. */
  begin(): void {
    for (const peer of this.#core.peers) {
      const info = peer.waitingInfo;
      peer.waitingInfo = null;
      if (info !== null) this.#onFollowerInfo(peer.id, peer.isVoter, info);
    }
    this.#maybeProposeEpoch();
  }

  get epoch(): number {
    return this.#epoch;
  }

  get isEstablished(): boolean {
    return this.#phase === 'established';
  }

  /** Proposals are taken. */
  get isServing(): boolean {
    return this.#phase === 'established' && this.#transfer === null;
  }

  get phase(): 'discovery' | 'synchronization' | 'broadcast' {
    if (this.#phase === 'established') return 'broadcast';
    return this.#phase === 'synchronizing' ? 'synchronization' : 'discovery';
  }

  followers(): { id: ServerId; inSync: boolean; acked: Zxid; observer: boolean }[] {
    const list = [];
    for (const learner of this.#learners.values()) {
      const inSync = learner.stage === 'serving';
      list.push({ id: learner.id, inSync, acked: learner.acked, observer: !learner.isVoter });
    }
    return list;
  }

  onMessage(from: ServerId, message: ZabMessage): void {
    if (message.kind === 'followerInfo') {
      const peer = this.#core.peer(from);
      if (peer !== undefined) this.#onFollowerInfo(from, peer.isVoter, message);
      return;
    }
    // Without a request in this leadership a learner has nothing to say to it: what comes belongs to an earlier one.
    const learner = this.#learners.get(from);
    if (learner === undefined) return;
    switch (message.kind) {
      case 'ackEpoch':
        this.#onAckEpoch(learner, message);
        return;
      case 'ackNewLeader':
        this.#onAckNewLeader(learner, message);
        return;
      case 'ack':
        this.#onAck(learner, message);
        return;
      case 'heartbeatAck':
        this.#onHeartbeatAck(learner, message);
        return;
      case 'readmitted':
        this.#onReadmitted(learner, message);
        return;
      default:
        // Words of a leader: the sender believes to lead. Which of us does is for the votes to settle.
        return;
    }
  }

  onDisconnected(peer: ServerId): void {
    this.#forget(peer);
  }

  /** What was lost with leadership. */
  end(): void {
    if (this.#barriers.length > 0) this.#core.effects.push({ kind: 'barriersFailed' });
    this.#barriers = [];
  }

  // --- discovery

  #onFollowerInfo(from: ServerId, isVoter: boolean, info: MessageOf<'followerInfo'>): void {
    const core = this.#core;
    const previous = this.#learners.get(from);
    if (previous?.stage === 'copying') {
      // Bytes of the abandoned snapshot are still on this link; only a new link is free of them.
      this.#forget(from);
      core.drop(from, 'asked again in the middle of a snapshot');
      return;
    }
    this.#forget(from);
    if (this.#epoch > 0 && info.acceptedEpoch > this.#epoch) {
      // It has promised a later epoch, to a leader that came to nothing. It can never follow this one, so a new epoch is due.
      core.look(`server ${from} has promised epoch ${info.acceptedEpoch}`);
      return;
    }
    const learner: Learner = {
      id: from,
      isVoter,
      session: info.session,
      acceptedEpoch: info.acceptedEpoch,
      needsSnapshot: info.needsSnapshot,
      store: info.store,
      counts: isVoter && this.#mayCount(info.store),
      stage: 'asked',
      hasPromised: false,
      lastZxid: NO_ZXID,
      cut: NO_ZXID,
      acked: NO_ZXID,
      sequence: 0,
      heardTick: core.tick,
      progressTick: core.tick,
      pin: null,
      readmitAfter: null,
      ackedTick: 0,
      isReadmitting: false,
    };
    this.#learners.set(from, learner);
    if (this.#phase === 'gathering') this.#maybeProposeEpoch();
    else this.#maybeInvite(learner);
  }

  /** A blank store counts only while the ensemble may still be new; once this leader is past that, it is a wiped one. */
  #mayCount(store: StoreKind): boolean {
    if (store === 'suspect') return false;
    if (store !== 'blank') return true;
    if (this.#core.sawUsedVoter || this.#core.store === 'used') return false;
    return this.#phase === 'gathering' || this.#phase === 'promising';
  }

  /** Voters that count and for which `holds` is true, this server included. */
  #tally(holds: (learner: Learner) => boolean): Tally {
    const tally = new Tally();
    tally.add(this.#core.store);
    for (const learner of this.#learners.values()) {
      if (learner.counts && holds(learner)) tally.add(learner.store);
    }
    return tally;
  }

  #maybeProposeEpoch(): void {
    const core = this.#core;
    if (this.#phase !== 'gathering') return;
    if (!this.#tally(() => true).suffices(core.voterCount, core.store)) return;
    let accepted = core.epochs.acceptedEpoch;
    for (const learner of this.#learners.values()) {
      if (learner.acceptedEpoch > accepted) accepted = learner.acceptedEpoch;
    }
    this.#epoch = accepted + 1;
    assert(this.#epoch <= 0xffffffff, 'the epoch fits its half of the zxid');
    this.#phase = 'promising';
    this.#progress();
    // Durable before anybody hears of it: after a crash this server must not propose the same epoch again (ZOOKEEPER-1291).
    core.persist(
      {
        entries: NO_ENTRIES,
        epochs: {
          acceptedEpoch: this.#epoch,
          acceptedFrom: core.id,
          currentEpoch: core.epochs.currentEpoch,
        },
      },
      { kind: 'ownAcceptedEpoch' },
    );
  }

  /** Learners that do not count have no part in making the epoch: they wait until it is established. */
  #maybeInvite(learner: Learner): void {
    if (!this.#isEpochDurable || learner.stage !== 'asked') return;
    if (!learner.counts && !this.isEstablished) return;
    learner.stage = 'invited';
    learner.progressTick = this.#core.tick;
    this.#core.send(learner.id, {
      kind: 'leaderInfo',
      session: learner.session,
      epoch: this.#epoch,
      clusterId: this.#identity(),
    });
  }

  /** A new ensemble gets its name from the leader that forms it; from then on everybody keeps it. */
  #identity(): string {
    const { clusterId, config } = this.#core;
    if (clusterId !== '') return clusterId;
    let a = 0x811c9dc5 ^ config.seed;
    let b = 0x9dc5811c ^ this.#epoch;
    for (const id of [config.id, ...config.voters]) {
      a = Math.imul(a ^ id, 0x01000193) >>> 0;
      b = Math.imul(b ^ a, 0x85ebca6b) >>> 0;
      b = (b ^ (b >>> 13)) >>> 0;
    }
    return (a >>> 0).toString(16).padStart(8, '0') + (b >>> 0).toString(16).padStart(8, '0');
  }

  #onAckEpoch(learner: Learner, message: MessageOf<'ackEpoch'>): void {
    const core = this.#core;
    if (message.epoch !== this.#epoch || learner.stage !== 'invited') return;
    this.#heard(learner);
    learner.progressTick = core.tick;
    learner.stage = 'promised';
    learner.hasPromised = message.counted;
    learner.lastZxid = message.lastZxid;
    this.#progress();
    if (this.isEstablished) {
      this.#synchronize(learner);
      return;
    }
    if (learner.counts && message.counted && this.#isBehind(message)) {
      // Zab: the leader of an epoch holds the most recent history of the quorum that promised it.
      core.look(`server ${learner.id} holds a more recent history`);
      return;
    }
    if (this.#phase === 'synchronizing') {
      if (learner.counts) this.#synchronize(learner);
    } else {
      this.#maybeSynchronize();
    }
  }

  #isBehind(theirs: MessageOf<'ackEpoch'>): boolean {
    const { config, epochs, history } = this.#core;
    if (config.mutations.voteIgnoresEpoch) return false;
    if (theirs.currentEpoch !== epochs.currentEpoch) return theirs.currentEpoch > epochs.currentEpoch;
    return theirs.lastZxid > history.last;
  }

  // --- synchronization

  #maybeSynchronize(): void {
    const core = this.#core;
    if (this.#phase !== 'promising' || !this.#isEpochDurable) return;
    const tally = this.#tally((learner) => learner.hasPromised);
    if (!tally.suffices(core.voterCount, core.store)) return;
    this.#phase = 'synchronizing';
    this.#isForming = !(core.store !== 'blank' && tally.isMajority(core.voterCount));
    if (!this.#isForming) {
      // A quorum that remembers stands without them, so the blank stores among the learners count as wiped.
      for (const learner of this.#learners.values()) if (learner.store === 'blank') learner.counts = false;
    }
    core.persist(
      {
        entries: NO_ENTRIES,
        epochs: { ...core.epochs, currentEpoch: this.#epoch },
        ...(core.clusterId === '' ? { clusterId: this.#identity() } : {}),
        ...(core.store === 'blank' ? { store: 'formed' as const } : {}),
      },
      { kind: 'ownCurrentEpoch' },
    );
    for (const learner of this.#learners.values()) {
      if (learner.stage === 'promised' && learner.counts) this.#synchronize(learner);
    }
  }

  #synchronize(learner: Learner): void {
    const core = this.#core;
    assert(learner.stage === 'promised', 'a learner promises the epoch before it is synchronised');
    assert(core.epochs.currentEpoch === this.#epoch, 'the epoch is written before learners are synchronised to it');
    learner.progressTick = core.tick;
    const plan = learner.needsSnapshot ? ({ mode: 'snapshot' } as const) : core.history.planFor(learner.lastZxid);
    if (plan.mode === 'snapshot') {
      const from = core.history.base;
      learner.stage = 'copying';
      learner.pin = from;
      core.send(learner.id, { kind: 'synchronizeBySnapshot', epoch: this.#epoch, zxid: from });
      core.effects.push({ kind: 'sendSnapshot', to: learner.id, epoch: this.#epoch, from });
      return;
    }
    core.send(learner.id, { kind: 'synchronize', epoch: this.#epoch, mode: plan.mode, keep: plan.keep });
    this.#cut(learner, plan.keep);
  }

  onSnapshotSent(peer: ServerId, epoch: number, zxid: Zxid): void {
    const learner = this.#learners.get(peer);
    // The learner or the leadership for which it was sent may be gone.
    if (learner === undefined || learner.stage !== 'copying' || epoch !== this.#epoch) return;
    assert(learner.pin !== null && zxid >= learner.pin, 'a snapshot is not older than what was asked for', zxid);
    assert(zxid <= this.#core.committed, 'a snapshot holds only what is committed', zxid);
    learner.pin = null;
    learner.progressTick = this.#core.tick;
    this.#cut(learner, zxid);
  }

  /**
   * Everything behind `after`, then NEWLEADER; and from this very point on the learner gets what is proposed. Nothing can come in
   * between, because all of it happens in one step (ZOOKEEPER-962, -3104, and the ambiguities found by the TLA+ models). The
   * whole log is sent, committed or not: once a quorum holds it, it is committed.
   */
  #cut(learner: Learner, after: Zxid): void {
    const core = this.#core;
    const { last } = core.history;
    if (last > after) {
      let entries: Entry[] = [];
      let bytes = 0;
      for (const entry of core.history.between(after, last)) {
        if (entries.length > 0 && bytes + entry.txn.length > HISTORY_CHUNK_BYTES_MAX) {
          core.send(learner.id, { kind: 'history', epoch: this.#epoch, entries });
          entries = [];
          bytes = 0;
        }
        entries.push(entry);
        bytes += entry.txn.length;
      }
      core.send(learner.id, { kind: 'history', epoch: this.#epoch, entries });
    }
    core.send(learner.id, { kind: 'newLeader', epoch: this.#epoch, last, counted: learner.counts });
    learner.stage = 'synced';
    learner.cut = last;
    this.#streaming.push(learner);
  }

  #onAckNewLeader(learner: Learner, message: MessageOf<'ackNewLeader'>): void {
    const core = this.#core;
    if (message.epoch !== this.#epoch || learner.stage !== 'synced') return;
    if (message.last !== learner.cut) {
      this.#dismiss(learner, 'acknowledged another synchronisation than its own');
      return;
    }
    this.#heard(learner);
    learner.progressTick = core.tick;
    learner.stage = 'acked';
    learner.ackedTick = core.tick;
    learner.acked = message.last;
    this.#progress();
    if (!learner.counts && learner.isVoter) learner.readmitAfter = core.history.last;
    if (!this.isEstablished) {
      this.#maybeEstablish();
      return;
    }
    if (learner.counts) this.#maybeCommit();
    this.#maybeTellUpToDate(learner);
  }

  #maybeEstablish(): void {
    const core = this.#core;
    if (this.#phase !== 'synchronizing' || !this.#hasOwnAck) return;
    const tally = this.#tally((learner) => learner.stage === 'acked');
    if (this.#isForming ? !tally.isFormation(core.voterCount) : !tally.isMajority(core.voterCount)) return;
    assert(core.epochs.currentEpoch === this.#epoch, 'a leader is established in its own epoch');
    assert(core.isAllDurable || core.config.mutations.acceptStaleCompletion, 'its own history is durable');
    this.#phase = 'established';
    this.#establishedTick = core.tick;
    if (this.#isForming) {
      for (const learner of this.#learners.values()) if (learner.counts) learner.store = 'formed';
    }
    for (const learner of this.#learners.values()) learner.heardTick = core.tick;
    // The history this leader brought along is held by a quorum in its epoch now: it is committed, whoever proposed it.
    core.raiseCommitted(core.history.last);
    core.applyCommitted();
    core.tellRole('leading', this.#epoch, core.id, true, 'a quorum acknowledged the epoch');
    for (const learner of this.#learners.values()) {
      if (learner.stage === 'acked') this.#maybeTellUpToDate(learner);
      else if (learner.stage === 'promised') this.#synchronize(learner);
      else this.#maybeInvite(learner);
    }
    this.#heartbeat();
  }

  /** Not before its cut is committed: a learner that serves knows the fate of everything it was given. */
  #maybeTellUpToDate(learner: Learner): void {
    const { committed } = this.#core;
    if (!this.isEstablished || learner.stage !== 'acked' || committed < learner.cut) return;
    learner.stage = 'serving';
    this.#core.send(learner.id, { kind: 'upToDate', epoch: this.#epoch, committed });
  }

  // --- broadcast

  propose(txns: readonly Uint8Array[]): void {
    const core = this.#core;
    assert(this.isServing, 'only a leader that serves takes proposals');
    assert(txns.length > 0, 'there is something to propose');
    const { last } = core.history;
    const counter = epochOf(last) === this.#epoch ? counterOf(last) : 0;
    if (counter + txns.length > core.config.counterMax) {
      // Rather nothing than a zxid of the next epoch (ZOOKEEPER-1277).
      core.look('the counter of the epoch is used up', core.id);
      return;
    }
    const entries = this.#append(txns);
    const first = entries[0];
    assert(first !== undefined, 'a proposal has entries');
    core.effects.push({ kind: 'numbered', first: first.zxid, last: core.history.last });
    this.#broadcast(entries);
    if (counter + txns.length === core.config.counterMax) core.look('the counter of the epoch is used up', core.id);
  }

  #append(txns: readonly Uint8Array[]): Entry[] {
    const { history } = this.#core;
    const entries: Entry[] = [];
    let prev = history.last;
    for (const txn of txns) {
      // Counter 0 stands for NEWLEADER, as ZooKeeper has it.
      const zxid = epochOf(prev) === this.#epoch ? nextZxid(prev) : makeZxid(this.#epoch, 1);
      const entry: Entry = { zxid, prev, txn };
      history.append(entry);
      entries.push(entry);
      prev = zxid;
    }
    return entries;
  }

  /** Proposals leave before the own disk has answered; the own ack counts only then. One message object for all learners. */
  #broadcast(entries: readonly Entry[]): void {
    const core = this.#core;
    core.persistEntries(entries, NOTHING);
    const message: ZabMessage = { kind: 'propose', epoch: this.#epoch, entries, committed: core.committed };
    for (const learner of this.#streaming) {
      if (learner.acked >= (entries[0]?.prev ?? NO_ZXID)) learner.progressTick = core.tick;
      core.send(learner.id, message);
    }
    if (core.config.mutations.leaderCountsItselfEarly) this.#maybeCommit();
  }

  #onAck(learner: Learner, message: MessageOf<'ack'>): void {
    if (message.epoch !== this.#epoch || (learner.stage !== 'acked' && learner.stage !== 'serving')) return;
    if (message.zxid > this.#core.history.last || message.zxid < learner.acked) {
      this.#dismiss(learner, 'acknowledged what was not proposed');
      return;
    }
    this.#heard(learner);
    learner.progressTick = this.#core.tick;
    learner.acked = message.zxid;
    if (learner.counts && message.zxid > this.#core.committed) this.#maybeCommit();
    if (this.#transfer !== null) this.#maybeHandOver();
  }

  /** Commits everything that a quorum holds. Acks are cumulative, so order needs no further check. */
  #maybeCommit(): void {
    const core = this.#core;
    if (!this.isEstablished) return;
    const scratch = this.#ackScratch;
    scratch.length = 0;
    scratch.push(core.config.mutations.leaderCountsItselfEarly ? core.history.last : core.durable);
    for (const learner of this.#streaming) if (learner.counts) scratch.push(learner.acked);
    while (scratch.length < core.voterCount) scratch.push(NO_ZXID);
    const need = majorityOf(core.voterCount) - (core.config.mutations.commitBelowQuorum ? 1 : 0);
    const held = highestReachedBy(scratch, Math.max(need, 1));
    if (held <= core.committed) return;
    core.raiseCommitted(held);
    core.applyCommitted();
    const message: ZabMessage = { kind: 'commit', epoch: this.#epoch, zxid: held };
    for (const learner of this.#streaming) {
      core.send(learner.id, message);
      if (learner.stage === 'acked') this.#maybeTellUpToDate(learner);
      if (learner.readmitAfter !== null) this.#maybeReadmit(learner);
    }
    this.trim();
    if (this.#transfer !== null) this.#maybeHandOver();
  }

  trim(): void {
    let pin: Zxid | null = null;
    for (const learner of this.#learners.values()) {
      if (learner.pin !== null && (pin === null || learner.pin < pin)) pin = learner.pin;
    }
    this.#core.trim(pin);
  }

  // --- readmission of a voter that has forgotten

  /**
   * The quorum that committed something behind its NEWLEADER ack did not need it, and all of that quorum were still in this epoch
   * then. Whatever it once promised and forgot, it promised to a leader that this quorum has left behind.
   */
  #maybeReadmit(learner: Learner): void {
    if (learner.readmitAfter === null || learner.isReadmitting || learner.counts) return;
    if (this.#core.committed <= learner.readmitAfter) return;
    learner.isReadmitting = true;
    this.#core.send(learner.id, { kind: 'readmit', epoch: this.#epoch });
  }

  #onReadmitted(learner: Learner, message: MessageOf<'readmitted'>): void {
    if (message.epoch !== this.#epoch || !learner.isReadmitting || learner.counts) return;
    this.#heard(learner);
    learner.counts = true;
    learner.store = 'used';
    learner.isReadmitting = false;
    learner.readmitAfter = null;
    this.#maybeCommit();
  }

  // --- the disk

  onPromise(promised: Promised): void {
    switch (promised.kind) {
      case 'ownAcceptedEpoch':
        this.#isEpochDurable = true;
        this.#progress();
        for (const learner of this.#learners.values()) this.#maybeInvite(learner);
        this.#maybeSynchronize();
        return;
      case 'ownCurrentEpoch':
        this.#hasOwnAck = true;
        this.#progress();
        this.#maybeEstablish();
        return;
      default:
        // Of an earlier role: only a mutant lets it get here.
        return;
    }
  }

  afterDurable(): void {
    if (this.#core.durable > this.#core.committed) this.#maybeCommit();
    if (this.#transfer !== null) this.#maybeHandOver();
  }

  // --- barriers and heartbeats

  /** One round serves all that wait: while one is under way the next comes when it is answered. */
  barrier(id: number): void {
    if (!this.isEstablished) {
      this.#core.effects.push({ kind: 'barriersFailed' });
      return;
    }
    const isRoundUnderWay = this.#confirmedSequence < this.#sentSequence;
    this.#barriers.push({ id, sequence: this.#sentSequence + 1 });
    if (!isRoundUnderWay) this.#heartbeat();
  }

  #heartbeat(): void {
    const core = this.#core;
    this.#sentSequence += 1;
    this.#lastHeartbeatTick = core.tick;
    const message: ZabMessage = { kind: 'heartbeat', epoch: this.#epoch, sequence: this.#sentSequence };
    for (const learner of this.#learners.values()) {
      if (learner.stage !== 'asked') core.send(learner.id, message);
    }
    if (this.isEstablished) this.#maybeConfirm();
  }

  #onHeartbeatAck(learner: Learner, message: MessageOf<'heartbeatAck'>): void {
    if (message.epoch !== this.#epoch || message.sequence > this.#sentSequence) return;
    this.#heard(learner);
    if (message.sequence <= learner.sequence) return;
    learner.sequence = message.sequence;
    if (learner.counts && this.isEstablished) this.#maybeConfirm();
  }

  /**
   * A quorum answered a heartbeat that was sent after the barrier was asked for, each while it still followed this epoch. A newer
   * leader needs a promise of one of them, given later: nothing it commits is older than the barrier.
   */
  #maybeConfirm(): void {
    const confirmed = this.#reachedByQuorum((learner) => learner.sequence, this.#sentSequence, 0);
    if (confirmed <= this.#confirmedSequence) return;
    this.#confirmedSequence = confirmed;
    let passed = 0;
    for (const barrier of this.#barriers) {
      if (barrier.sequence > confirmed) break;
      passed += 1;
      this.#core.effects.push({ kind: 'barrierPassed', id: barrier.id, committed: this.#core.committed });
    }
    if (passed > 0) this.#barriers.splice(0, passed);
    // Those that came meanwhile wait for a round that has not begun.
    const waiting = this.#barriers[0];
    if (waiting !== undefined && waiting.sequence > this.#sentSequence) this.#heartbeat();
  }

  #reachedByQuorum(value: (learner: Learner) => number, own: number, absent: number): number {
    const scratch = this.#numberScratch;
    scratch.length = 0;
    scratch.push(own);
    for (const learner of this.#learners.values()) if (learner.counts) scratch.push(value(learner));
    while (scratch.length < this.#core.voterCount) scratch.push(absent);
    return highestReachedBy(scratch, majorityOf(this.#core.voterCount));
  }

  // --- time

  /** `jump`: ticks that passed without this server running, beyond the usual one. */
  onTick(jump: number): void {
    const core = this.#core;
    const { config, tick } = core;
    if (this.isEstablished) {
      // First of all: after a long sleep this server may have been replaced, so it leads no longer before it looks at anything else.
      const heardTick = this.#reachedByQuorum((learner) => learner.heardTick, tick, this.#establishedTick);
      if (tick - heardTick > config.syncLimitTicks) {
        core.look('heard no quorum within the limit');
        return;
      }
      if (this.#transfer !== null && tick > this.#transfer.deadlineTick) {
        core.look('the leadership transfer took too long');
        return;
      }
    } else if (this.#isLate(jump)) {
      return;
    }
    if (this.#epoch > 0 && this.#isEpochDurable && tick - this.#lastHeartbeatTick >= config.heartbeatTicks)
      this.#heartbeat();
    for (const learner of this.#learners.values()) this.#checkLearner(learner, jump);
  }

  /** Gives up when the epoch is not established in time. */
  #isLate(jump: number): boolean {
    const core = this.#core;
    this.#deadlineTick += jump;
    // A large snapshot may take longer than any limit; the learner that takes it is alive (ZOOKEEPER-1697).
    for (const learner of this.#learners.values()) {
      if (learner.counts && learner.stage === 'copying' && this.#hasOwnAck) this.#progress();
    }
    if (core.tick >= this.#deadlineTick) {
      core.look('no quorum within the limit for discovery and synchronization');
      return true;
    }
    if (this.#phase !== 'gathering') return false;
    // Elected, yet the followers do not come while others would vote: they know something better, or a newer round.
    const patience = 3 * core.config.finalizeTicks + core.config.heartbeatTicks;
    if (core.tick - this.#startTick <= patience) return false;
    for (const peer of core.peers) {
      if (!peer.isVoter || peer.vote === null || this.#learners.has(peer.id)) continue;
      if (peer.vote.state === 'looking' && peer.vote.candidate !== -1 && core.isMutual(peer)) {
        if (peer.vote.round > core.round) core.round = peer.vote.round - 1;
        core.look('the followers do not come');
        return true;
      }
    }
    return false;
  }

  #progress(): void {
    const deadline = this.#core.tick + this.#core.config.initLimitTicks;
    if (deadline > this.#deadlineTick) this.#deadlineTick = deadline;
  }

  #checkLearner(learner: Learner, jump: number): void {
    const core = this.#core;
    const { config, tick, history } = core;
    const peer = core.peer(learner.id);
    learner.progressTick += jump;
    if (peer === undefined || !core.hears(peer)) {
      this.#dismiss(learner, 'not heard within the limit');
      return;
    }
    if (learner.stage === 'asked') return;
    if (learner.stage !== 'invited' && tick - learner.heardTick > config.syncLimitTicks + jump) {
      this.#dismiss(learner, 'does not follow any more');
      return;
    }
    if (learner.stage === 'copying') return;
    const isWaitedFor =
      learner.stage === 'serving' ? learner.isVoter && learner.acked < history.last : learner.stage !== 'acked';
    if (!isWaitedFor) {
      learner.progressTick = tick;
    } else if (tick - learner.progressTick > config.initLimitTicks) {
      this.#dismiss(learner, 'does not keep up');
      return;
    }
    if (learner.readmitAfter !== null && !learner.isReadmitting && this.isServing) {
      // Nobody writes: an entry without content does.
      const isIdle = history.last <= learner.readmitAfter;
      if (isIdle && tick - learner.ackedTick >= config.heartbeatTicks) this.#proposeNothing();
    }
  }

  #proposeNothing(): void {
    const core = this.#core;
    const { last } = core.history;
    if (epochOf(last) === this.#epoch && counterOf(last) >= core.config.counterMax) return;
    this.#broadcast(this.#append([new Uint8Array(0)]));
  }

  // --- leadership transfer

  transfer(to: ServerId): void {
    const core = this.#core;
    const learner = this.#learners.get(to);
    if (!this.isServing || learner === undefined || !learner.counts || learner.stage !== 'serving') return;
    this.#transfer = { to, deadlineTick: core.tick + core.config.syncLimitTicks };
    core.tellRole('leading', this.#epoch, core.id, false, `handing over to ${to}`);
    this.#maybeHandOver();
  }

  /** Waits until all is committed as well: then every proposal of this leader has its answer before leadership changes. */
  #maybeHandOver(): void {
    const core = this.#core;
    const transfer = this.#transfer;
    if (transfer === null || core.next !== null) return;
    const learner = this.#learners.get(transfer.to);
    if (learner === undefined) {
      core.look('the server that was to take over is gone');
      return;
    }
    if (learner.acked < core.history.last || core.committed < core.history.last) return;
    core.send(transfer.to, { kind: 'takeOver', epoch: this.#epoch, last: core.history.last });
    core.look(`handed over to ${transfer.to}`, transfer.to);
  }

  // --- learners

  #heard(learner: Learner): void {
    learner.heardTick = this.#core.tick;
  }

  #forget(id: ServerId): void {
    const learner = this.#learners.get(id);
    if (learner === undefined) return;
    this.#learners.delete(id);
    this.#streaming = this.#streaming.filter((other) => other !== learner);
    if (learner.pin !== null) this.trim();
  }

  #dismiss(learner: Learner, why: string): void {
    this.#forget(learner.id);
    this.#core.drop(learner.id, why);
  }

  checkInvariants(): void {
    const core = this.#core;
    if (this.#phase === 'established') {
      assert(core.epochs.currentEpoch === this.#epoch, 'a leader is established in its own epoch');
      assert(core.durable >= NO_ZXID, 'there is a log');
    }
    if (this.#phase !== 'gathering') {
      assert(core.epochs.acceptedEpoch === this.#epoch, 'a leader promises its epoch to itself');
      assert(core.epochs.acceptedFrom === core.id, 'a leader promises its epoch to itself');
    }
    for (const learner of this.#learners.values()) {
      assert(learner.acked <= core.history.last, 'acked <= last', hex64(learner.acked));
      assert(!learner.counts || learner.isVoter, 'only voters count');
      assert(learner.pin === null || learner.pin >= core.history.base, 'a pin holds the window');
    }
  }
}
