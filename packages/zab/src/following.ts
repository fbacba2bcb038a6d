// The learner's side of the three phases, for followers and observers: promise the epoch, stage one whole synchronisation and
// make it durable in one write, then append, acknowledge and apply. One object per attempt to follow somebody.
// Must never change the log before NEWLEADER, and never acknowledge what the disk has not.

import { assert } from '@quorate/protocol/assert';
import type { ServerId, Zxid } from '@quorate/protocol/zxid';
import { epochOf, NO_ZXID } from '@quorate/protocol/zxid';
import type { Change, Core, Promised } from './core.ts';
import { NO_ENTRIES, NOTHING } from './core.ts';
import type { Entry, StoreKind, ZabMessage } from './messages.ts';

type MessageOf<K extends ZabMessage['kind']> = Extract<ZabMessage, { kind: K }>;

/**
 * asking: FOLLOWERINFO is out. promising: the epoch is on its way to the disk. waiting: ACKEPOCH is out. staging: the
 * synchronisation comes in. writing: NEWLEADER came, the one write is on its way. acked: it is durable. serving: UPTODATE came.
 */
type Stage = 'asking' | 'promising' | 'waiting' | 'staging' | 'writing' | 'acked' | 'serving';

/** What a synchronisation has brought so far. Nothing of it touches the log before it is whole. */
type Staged = {
  /** Cut the log behind this; null: a snapshot replaces it. */
  readonly keep: Zxid | null;
  readonly entries: Entry[];
  /** Zxid of the last staged entry; before the first one that of `keep`, and null as long as the snapshot's is unknown. */
  last: Zxid | null;
  snapshot: Zxid | null;
  newLeader: MessageOf<'newLeader'> | null;
  /** Proposals that came before the snapshot was ready. */
  readonly early: MessageOf<'propose'>[];
};

export class Following {
  readonly kind: 'following' | 'observing';
  readonly leader: ServerId;
  readonly #core: Core;
  readonly #session: number;
  #stage: Stage = 'asking';
  #epoch = 0;
  #staged: Staged | null = null;
  /** A staged snapshot exists that no write refers to yet. */
  #hasUnusedSnapshot = false;
  /** The leader's ensemble; ours from NEWLEADER on. */
  #clusterId = '';
  #cut: Zxid = NO_ZXID;
  /** Newest commit heard of; applied when this server serves. */
  #commitHeard: Zxid = NO_ZXID;
  /** Highest zxid made durable by the present step and not acknowledged yet. */
  #ackDue: Zxid | null = null;
  #deadlineTick: number;

  constructor(core: Core, leader: ServerId) {
    this.#core = core;
    this.kind = core.isVoter ? 'following' : 'observing';
    this.leader = leader;
    core.session += 1;
    this.#session = core.session;
    this.#deadlineTick = core.tick + core.config.initLimitTicks;
  }

  begin(): void {
    const core = this.#core;
    core.send(this.leader, {
      kind: 'followerInfo',
      session: this.#session,
      acceptedEpoch: core.epochs.acceptedEpoch,
      observer: !core.isVoter,
      store: core.store,
      needsSnapshot: core.needsSnapshot,
    });
  }

  get epoch(): number {
    return this.#epoch;
  }

  get isServing(): boolean {
    return this.#stage === 'serving';
  }

  get phase(): 'discovery' | 'synchronization' | 'broadcast' {
    if (this.#stage === 'serving') return 'broadcast';
    return this.#stage === 'asking' || this.#stage === 'promising' ? 'discovery' : 'synchronization';
  }

  end(): void {
    if (this.#hasUnusedSnapshot) this.#core.effects.push({ kind: 'discardStaged' });
    this.#hasUnusedSnapshot = false;
  }

  onMessage(from: ServerId, message: ZabMessage): void {
    if (from !== this.leader) return;
    // Until LEADERINFO answers this very attempt, what comes belongs to an earlier one.
    if (message.kind === 'leaderInfo') {
      this.#onLeaderInfo(message);
      return;
    }
    if (this.#stage === 'asking') return;
    switch (message.kind) {
      case 'heartbeat':
        // An answer says: this server follows the epoch, and has promised no later one.
        if (message.epoch === this.#epoch) this.#core.send(this.leader, { ...message, kind: 'heartbeatAck' });
        return;
      case 'synchronize':
        this.#onSynchronize(message);
        return;
      case 'synchronizeBySnapshot':
        this.#onSynchronizeBySnapshot(message);
        return;
      case 'history':
        this.#onHistory(message);
        return;
      case 'newLeader':
        this.#onNewLeader(message);
        return;
      case 'upToDate':
        this.#onUpToDate(message);
        return;
      case 'propose':
        this.#onPropose(message);
        return;
      case 'commit':
        if (message.epoch === this.#epoch) this.#onCommitted(message.zxid);
        return;
      case 'readmit':
        this.#onReadmit(message);
        return;
      case 'takeOver':
        this.#onTakeOver(message);
        return;
      default:
        return;
    }
  }

  // --- discovery

  #onLeaderInfo(message: MessageOf<'leaderInfo'>): void {
    const core = this.#core;
    if (message.session !== this.#session || this.#stage !== 'asking') return;
    // A leader that died while it formed the ensemble may have left its identity on one disk only. A store without any record has
    // nothing to lose by taking the one that the others have formed since (simulator, tiny seeds 337 and 1256).
    if (
      core.clusterId !== '' &&
      message.clusterId !== core.clusterId &&
      !(core.store === 'formed' && core.history.last === NO_ZXID)
    ) {
      this.#leave('belongs to another ensemble');
      return;
    }
    const { epochs } = core;
    if (message.epoch < epochs.acceptedEpoch) {
      this.#leave('leads an epoch below the promised one');
      return;
    }
    this.#epoch = message.epoch;
    this.#stage = 'promising';
    this.#progress();
    // Two leaders may come to the same number. Only the first one's quorum may count this promise, else both could establish it.
    const isNew = message.epoch > epochs.acceptedEpoch;
    const counted = core.isVoter && (isNew || epochs.acceptedFrom === this.leader);
    const promised = { acceptedEpoch: message.epoch, acceptedFrom: this.leader, currentEpoch: epochs.currentEpoch };
    // Written also when nothing changes: the first write of it may still be on its way.
    core.persist(
      { entries: NO_ENTRIES, epochs: counted ? promised : epochs },
      { kind: 'ackEpoch', currentEpoch: epochs.currentEpoch, lastZxid: core.history.last, counted },
    );
    this.#clusterId = message.clusterId;
  }

  // --- synchronization

  #onSynchronize(message: MessageOf<'synchronize'>): void {
    const core = this.#core;
    if (message.epoch !== this.#epoch || this.#stage !== 'waiting') {
      this.#leave('synchronises out of turn');
      return;
    }
    this.#progress();
    const { keep } = message;
    // A clean log is never cut below what is committed: that would be a lost commit, and going on would hide it.
    assert(keep >= core.committed, 'a synchronisation keeps everything that is committed', keep);
    if (!core.history.has(keep)) {
      // The leader's log has a record there that this one never had.
      core.needsSnapshot = true;
      core.look('the log lacks the record to keep');
      return;
    }
    this.#stage = 'staging';
    this.#staged = { keep, entries: [], last: keep, snapshot: null, newLeader: null, early: [] };
  }

  #onSynchronizeBySnapshot(message: MessageOf<'synchronizeBySnapshot'>): void {
    if (message.epoch !== this.#epoch || this.#stage !== 'waiting') {
      this.#leave('synchronises out of turn');
      return;
    }
    this.#progress();
    this.#stage = 'staging';
    this.#staged = { keep: null, entries: [], last: null, snapshot: null, newLeader: null, early: [] };
  }

  onSnapshotStaged(from: ServerId, epoch: number, zxid: Zxid): void {
    const staged = this.#staged;
    const isExpected = from === this.leader && epoch === this.#epoch && this.#stage === 'staging';
    if (!isExpected || staged === null || staged.keep !== null) {
      // For an attempt that was given up.
      if (!this.#hasUnusedSnapshot) this.#core.effects.push({ kind: 'discardStaged' });
      return;
    }
    this.#hasUnusedSnapshot = true;
    this.#progress();
    staged.snapshot = zxid;
    this.#maybeWrite();
  }

  #onHistory(message: MessageOf<'history'>): void {
    const staged = this.#staged;
    if (message.epoch !== this.#epoch || staged === null || staged.newLeader !== null) {
      this.#leave('sends history out of turn');
      return;
    }
    this.#progress();
    for (const entry of message.entries) {
      const isNext = (staged.last === null || entry.prev === staged.last) && entry.zxid > entry.prev;
      if (!isNext || epochOf(entry.zxid) > this.#epoch) {
        this.#leave('sends a history with a gap');
        return;
      }
      staged.entries.push(entry);
      staged.last = entry.zxid;
    }
  }

  #onNewLeader(message: MessageOf<'newLeader'>): void {
    const staged = this.#staged;
    if (message.epoch !== this.#epoch || staged === null || staged.newLeader !== null) {
      this.#leave('sends NEWLEADER out of turn');
      return;
    }
    this.#progress();
    if (staged.last !== null && staged.last !== message.last) {
      this.#leave('ends the history at another zxid than it says');
      return;
    }
    staged.newLeader = message;
    this.#maybeWrite();
  }

  /** Everything is here: one write for all of it, history and epoch together (ZOOKEEPER-3911, -4643, -4646, -5094). */
  #maybeWrite(): void {
    const core = this.#core;
    const staged = this.#staged;
    if (staged === null || staged.newLeader === null) return;
    const { newLeader, entries } = staged;
    const keep = staged.keep ?? staged.snapshot;
    if (keep === null) return;
    if ((entries[0]?.prev ?? newLeader.last) !== keep) {
      this.#leave('sends a history that does not follow its snapshot');
      return;
    }
    this.#staged = null;
    this.#stage = 'writing';
    this.#cut = newLeader.last;
    this.#writeSynchronisation(keep, staged.snapshot !== null, entries, newLeader.counted);
    for (const propose of staged.early) if (core.next === null) this.#onPropose(propose);
  }

  #writeSynchronisation(keep: Zxid, isSnapshot: boolean, entries: readonly Entry[], counted: boolean): void {
    const core = this.#core;
    const { history } = core;
    const isCut = isSnapshot || history.last > keep;
    const truncateAfter = isSnapshot ? keep : isCut ? this.#cutOnDisk(keep) : null;
    if (isSnapshot) {
      core.lowerDurable(keep);
      history.reset(keep);
    } else if (isCut) {
      core.lowerDurable(keep);
      history.truncateAfter(keep);
    }
    for (const entry of entries) history.append(entry);
    if (isSnapshot) {
      this.#hasUnusedSnapshot = false;
      core.rebaseCommitted(keep);
    }
    core.needsSnapshot = false;

    const epochs = { acceptedEpoch: this.#epoch, acceptedFrom: this.leader, currentEpoch: this.#epoch };
    const store = this.#storeAfter(counted);
    // A wiped store holds records from here on and would pass for a clean one after a crash: it is marked in the same write.
    if (store === 'suspect') core.store = 'suspect';
    const { config } = core;
    let change: Change = {
      ...(truncateAfter === null ? {} : { truncateAfter }),
      entries,
      epochs,
      ...(isSnapshot ? { base: keep } : {}),
      ...(core.clusterId !== this.#clusterId ? { clusterId: this.#clusterId } : {}),
      ...(store === null ? {} : { store }),
    };
    if (config.mutations.epochBeforeHistory) {
      core.persist({ entries: NO_ENTRIES, epochs }, NOTHING);
      change = { ...change, epochs };
    }
    core.persist(change, { kind: 'ackNewLeader', last: this.#cut });
    if (config.mutations.newLeaderAckEarly) {
      core.send(this.leader, { kind: 'ackNewLeader', epoch: this.#epoch, last: this.#cut });
    }
  }

  /** The record behind which the disk is cut. */
  #cutOnDisk(keep: Zxid): Zxid {
    const { config, history } = this.#core;
    if (config.mutations.truncRemovesOneTooMany) return history.before(keep);
    if (config.mutations.truncKeepsOneTooMany) return history.after(keep);
    return keep;
  }

  /** What this synchronisation makes of the store; null: nothing new. */
  #storeAfter(counted: boolean): StoreKind | null {
    const core = this.#core;
    if (!core.isVoter) return core.store === 'used' ? null : 'used';
    if (!counted) return core.store === 'suspect' ? null : 'suspect';
    const hasRecords = core.history.last > NO_ZXID;
    if (hasRecords) return core.store === 'used' ? null : 'used';
    return core.store === 'blank' ? 'formed' : null;
  }

  #onUpToDate(message: MessageOf<'upToDate'>): void {
    const core = this.#core;
    if (message.epoch !== this.#epoch || this.#stage !== 'acked') {
      this.#leave('sends UPTODATE out of turn');
      return;
    }
    const committed = message.committed > this.#commitHeard ? message.committed : this.#commitHeard;
    if (message.committed < this.#cut || committed > core.history.last) {
      this.#leave('sends UPTODATE with a commit that does not fit');
      return;
    }
    this.#stage = 'serving';
    core.raiseCommitted(committed);
    core.applyCommitted();
    core.tellRole(this.kind, this.#epoch, this.leader, true, 'in sync with the leader');
  }

  // --- broadcast

  #onPropose(message: MessageOf<'propose'>): void {
    const core = this.#core;
    if (message.epoch !== this.#epoch) return;
    if (this.#stage === 'staging' && this.#staged?.newLeader != null) {
      this.#staged.early.push(message);
      return;
    }
    if (this.#stage !== 'writing' && this.#stage !== 'acked' && this.#stage !== 'serving') {
      this.#leave('proposes before NEWLEADER');
      return;
    }
    const { history } = core;
    for (const entry of message.entries) {
      if (entry.prev !== history.last || entry.zxid <= entry.prev || epochOf(entry.zxid) !== this.#epoch) {
        this.#leave('proposes with a gap');
        return;
      }
      history.append(entry);
    }
    core.persistEntries(message.entries, { kind: 'ack', zxid: history.last });
    if (core.config.mutations.ackBeforeDurable && core.isVoter && this.#stage !== 'writing') {
      core.send(this.leader, { kind: 'ack', epoch: this.#epoch, zxid: history.last });
    }
    this.#onCommitted(message.committed);
  }

  #onCommitted(zxid: Zxid): void {
    const core = this.#core;
    if (zxid > core.history.last && this.#stage === 'serving') {
      this.#leave('commits what it has not proposed');
      return;
    }
    if (zxid > this.#commitHeard) this.#commitHeard = zxid;
    if (this.#stage !== 'serving' || zxid <= core.committed) return;
    core.raiseCommitted(zxid);
    core.applyCommitted();
    core.trim(null);
  }

  #onReadmit(message: MessageOf<'readmit'>): void {
    const core = this.#core;
    if (message.epoch !== this.#epoch || core.store !== 'suspect') return;
    core.persist({ entries: NO_ENTRIES, store: 'used' }, { kind: 'readmitted' });
  }

  #onTakeOver(message: MessageOf<'takeOver'>): void {
    const core = this.#core;
    if (message.epoch !== this.#epoch || this.#stage !== 'serving' || !core.mayVote) return;
    if (message.last !== core.history.last) return;
    core.look('takes over from the leader', core.id);
  }

  // --- the disk: the only place where a promise leaves

  onPromise(promised: Promised): void {
    const core = this.#core;
    switch (promised.kind) {
      case 'ackEpoch':
        if (this.#stage !== 'promising') return;
        this.#stage = 'waiting';
        this.#progress();
        core.send(this.leader, {
          kind: 'ackEpoch',
          epoch: this.#epoch,
          currentEpoch: promised.currentEpoch,
          lastZxid: promised.lastZxid,
          counted: promised.counted,
        });
        return;
      case 'ackNewLeader':
        if (this.#stage !== 'writing') return;
        this.#stage = 'acked';
        this.#progress();
        assert(promised.last <= core.durable || core.config.mutations.acceptStaleCompletion, 'acked <= durable');
        if (!core.config.mutations.newLeaderAckEarly) {
          core.send(this.leader, { kind: 'ackNewLeader', epoch: this.#epoch, last: promised.last });
        }
        return;
      case 'ack':
        // One acknowledgement for all that a step has made durable; it is cumulative.
        this.#ackDue = promised.zxid;
        return;
      case 'readmitted':
        core.send(this.leader, { kind: 'readmitted', epoch: this.#epoch });
        return;
      default:
        return;
    }
  }

  afterDurable(): void {
    const zxid = this.#ackDue;
    this.#ackDue = null;
    if (zxid === null || !this.#core.isVoter || this.#core.config.mutations.ackBeforeDurable) return;
    assert(zxid <= this.#core.durable || this.#core.config.mutations.acceptStaleCompletion, 'acked <= durable', zxid);
    this.#core.send(this.leader, { kind: 'ack', epoch: this.#epoch, zxid });
  }

  // --- time and the leader's votes

  onTick(jump: number): void {
    const core = this.#core;
    const peer = core.peer(this.leader);
    if (peer === undefined || !core.hears(peer)) {
      core.look('the leader is silent');
      return;
    }
    this.#deadlineTick += jump;
    // While a snapshot comes in the leader's heartbeats are enough; the transfer's own stalls break the link.
    if (this.#stage === 'staging' && this.#staged?.keep === null) this.#progress();
    if (this.#stage !== 'serving' && core.tick >= this.#deadlineTick) {
      core.look('not in sync within the limit');
    }
  }

  /** The leader votes again, or leads anew: what it said before is void (ZOOKEEPER-1818). */
  onLeaderVote(): void {
    const vote = this.#core.peer(this.leader)?.vote;
    if (vote == null) return;
    const isStanding = vote.state === 'leading' || (vote.state === 'looking' && vote.candidate === this.leader);
    if (vote.round !== this.#core.round) {
      this.#core.look('the leader does not lead any more');
    } else if (!isStanding) {
      // It found a better candidate before it decided. The round goes on without us having left it.
      this.#core.lookAgain('the elected server votes for another');
    }
  }

  #progress(): void {
    this.#deadlineTick = this.#core.tick + this.#core.config.initLimitTicks;
  }

  #leave(why: string): void {
    this.#core.drop(this.leader, why);
    this.#core.look(`server ${this.leader} ${why}`);
  }

  checkInvariants(): void {
    const core = this.#core;
    if (this.#stage === 'asking') return;
    if (this.#stage === 'writing' || this.#stage === 'acked' || this.#stage === 'serving') {
      assert(core.epochs.currentEpoch === this.#epoch, "a synchronised learner is in its leader's epoch");
    }
    if (this.#stage === 'serving') assert(core.committed >= this.#cut, 'a learner that serves has applied its cut');
  }
}
