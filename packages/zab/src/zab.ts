// The consensus core's one door: step(input, effects). Owns the present role, and what is the same in every role: links, time,
// votes sent and received, changes of role. Seed and inputs are the whole truth about a run.
// Must never wait, throw for a peer's fault, or know what the bytes it orders mean.

import { assert, unreachable } from '@quorate/protocol/assert';
import type { ServerId } from '@quorate/protocol/zxid';
import { NO_ZXID, serverIdFrom } from '@quorate/protocol/zxid';
import type { Peer } from './core.ts';
import { Core } from './core.ts';
import { Election, type Vote } from './election.ts';
import { Following } from './following.ts';
import { Leading } from './leading.ts';
import type {
  RestoredState,
  StoreKind,
  VoteMessage,
  ZabConfig,
  ZabEffect,
  ZabInput,
  ZabMessage,
  ZabStatus,
} from './messages.ts';

const NOBODY = serverIdFrom(-1);

export class Zab {
  readonly #core: Core;
  #role: Election | Leading | Following;
  /** The own vote differs from what the peers were told. */
  #isVoteNews = true;
  /** Peers that are owed an answer with the own vote. */
  readonly #owed = new Set<ServerId>();
  #hasTicked = false;
  #lastVoteTick = 0;

  constructor(config: ZabConfig, restored: RestoredState) {
    assert(config.heartbeatTicks >= 1, 'heartbeats are at least a tick apart');
    assert(config.syncLimitTicks > 2 * config.heartbeatTicks, 'the silence limit is longer than two heartbeats');
    assert(config.initLimitTicks >= config.syncLimitTicks, 'a synchronisation may take longer than a silence');
    assert(config.counterMax >= 1 && config.counterMax <= 0xffffffff, 'the counter fits its half of the zxid');
    this.#core = new Core(config, restored);
    this.#core.round = 1;
    this.#role = new Election(this.#core, null);
  }

  /** Appends what is to be done about `input`. */
  step(input: ZabInput, effects: ZabEffect[]): void {
    const core = this.#core;
    core.effects = effects;
    let isVoteBusiness = false;
    switch (input.kind) {
      case 'tick':
        this.#onTick(input.tick);
        isVoteBusiness = true;
        break;
      case 'connected':
        this.#onConnected(input.peer);
        isVoteBusiness = true;
        break;
      case 'disconnected':
        this.#onDisconnected(input.peer);
        isVoteBusiness = true;
        break;
      case 'received':
        isVoteBusiness = this.#onReceived(input.from, input.message);
        break;
      case 'proposed':
        assert(this.#role.kind === 'leading', 'only a leader takes proposals');
        this.#role.propose(input.txns);
        break;
      case 'durable': {
        const role = this.#role;
        core.onDurable(input.sequence, (promised) => {
          if (role.kind !== 'looking') role.onPromise(promised);
        });
        if (role.kind !== 'looking' && core.next === null) role.afterDurable();
        isVoteBusiness = role.kind === 'leading' && !role.isEstablished;
        break;
      }
      case 'snapshotSent':
        if (this.#role.kind === 'leading') this.#role.onSnapshotSent(input.peer, input.epoch, input.zxid);
        break;
      case 'snapshotStaged':
        if (this.#role.kind === 'following' || this.#role.kind === 'observing') {
          this.#role.onSnapshotStaged(input.from, input.epoch, input.zxid);
        } else {
          effects.push({ kind: 'discardStaged' });
        }
        break;
      case 'barrier':
        if (this.#role.kind === 'leading') this.#role.barrier(input.id);
        else effects.push({ kind: 'barriersFailed' });
        break;
      case 'snapshotTaken':
        core.onSnapshotTaken(input.zxid);
        if (this.#role.kind === 'leading') this.#role.trim();
        else core.trim(null);
        break;
      case 'transfer':
        if (this.#role.kind === 'leading') this.#role.transfer(input.to);
        break;
      default:
        unreachable(input);
    }
    this.#changeRoles();
    if (isVoteBusiness || this.#isVoteNews) this.#sendVotes();
  }

  get status(): ZabStatus {
    const core = this.#core;
    const role = this.#role;
    return {
      role: role.kind,
      phase: role.kind === 'looking' ? 'election' : role.phase,
      serving: role.kind !== 'looking' && role.isServing,
      epoch: role.kind === 'looking' ? 0 : role.epoch,
      leader: this.#leader(),
      acceptedEpoch: core.epochs.acceptedEpoch,
      currentEpoch: core.epochs.currentEpoch,
      last: core.history.last,
      durable: core.durable,
      committed: core.committed,
      base: core.history.base,
      store: core.store,
      followers: role.kind === 'leading' ? role.followers() : [],
    };
  }

  /** Costs as much as the history is long: for tests and the simulator. */
  checkInvariants(): void {
    this.#core.checkInvariants();
    assert(this.#core.next === null, 'a step ends with its changes of role done');
    if (this.#role.kind !== 'looking') this.#role.checkInvariants();
  }

  #leader(): ServerId | -1 {
    const role = this.#role;
    if (role.kind === 'looking') return -1;
    return role.kind === 'leading' ? this.#core.id : role.leader;
  }

  // --- time

  #onTick(tick: number): void {
    const core = this.#core;
    if (!this.#hasTicked) {
      this.#hasTicked = true;
      core.tick = tick;
      this.#lastVoteTick = tick;
      return;
    }
    assert(tick >= core.tick, 'time does not run backwards');
    const passed = tick - core.tick;
    if (passed === 0) return;
    const jump = this.#forgive(passed);
    core.tick = tick;
    if (this.#role.kind !== 'looking') this.#role.onTick(jump);
  }

  /**
   * Ticks come in one leap when this process was not running. Peers may have spoken meanwhile, unheard, so the time is not held
   * against them; after a long one they get two heartbeats to speak again. A leader judges itself more strictly than that.
   */
  #forgive(passed: number): number {
    const core = this.#core;
    const { heartbeatTicks, syncLimitTicks } = core.config;
    if (passed <= heartbeatTicks) return 0;
    const tick = core.tick + passed;
    const oldest = tick - syncLimitTicks + 2 * heartbeatTicks;
    for (const peer of core.peers) {
      if (!peer.hasBeenHeard) continue;
      const shifted = peer.heardTick + passed;
      peer.heardTick = passed > syncLimitTicks && shifted > oldest ? oldest : shifted;
    }
    return passed;
  }

  // --- links

  #onConnected(id: ServerId): void {
    const peer = this.#core.peer(id);
    if (peer === undefined) return;
    assert(!peer.isConnected, 'a link is made once');
    peer.isConnected = true;
    this.#owed.add(id);
    if (this.#role.kind === 'looking') this.#evaluate();
  }

  #onDisconnected(id: ServerId): void {
    const core = this.#core;
    const peer = core.peer(id);
    if (peer === undefined || !peer.isConnected) return;
    peer.isConnected = false;
    peer.hasBeenHeard = false;
    peer.vote = null;
    peer.toldHears = false;
    peer.waitingInfo = null;
    this.#owed.delete(id);
    const role = this.#role;
    if (role.kind === 'looking') this.#evaluate();
    else if (role.kind === 'leading') role.onDisconnected(id);
    else if (role.leader === id) core.look('the link to the leader is lost');
  }

  /** Tells whether votes may be due. */
  #onReceived(from: ServerId, message: ZabMessage): boolean {
    const core = this.#core;
    const peer = core.peer(from);
    // Of a link that is gone, or of a stranger.
    if (peer === undefined || !peer.isConnected) return false;
    const isNews = !peer.hasBeenHeard;
    peer.hasBeenHeard = true;
    peer.heardTick = core.tick;
    if (message.kind === 'vote') {
      this.#onVote(peer, message);
      return true;
    }
    const role = this.#role;
    if (message.kind === 'followerInfo') {
      if (!this.#isPlausible(peer, message.observer)) return isNews;
      this.#noteStore(peer, message.store);
      if (role.kind !== 'leading') {
        peer.waitingInfo = message;
        return isNews;
      }
    }
    if (role.kind !== 'looking') role.onMessage(from, message);
    return isNews;
  }

  #isPlausible(peer: Peer, isObserver: boolean): boolean {
    if (isObserver === !peer.isVoter) return true;
    this.#core.drop(peer.id, 'is an observer by its own configuration or ours, not by both');
    return false;
  }

  // --- votes

  #onVote(peer: Peer, vote: VoteMessage): void {
    const core = this.#core;
    peer.vote = vote;
    this.#noteStore(peer, vote.store);
    const role = this.#role;
    // Whoever looks is answered, unless it knows as much already.
    if (vote.state === 'looking' && (role.kind !== 'looking' || vote.round < core.round)) this.#owed.add(peer.id);
    if (role.kind === 'looking') this.#evaluate();
    else if (role.kind === 'leading') this.#checkDeposed(role, peer, vote);
    else if (role.leader === peer.id) role.onLeaderVote();
  }

  /** A later epoch is established: a quorum has left this leader behind. Its own silence limit would find out later. */
  #checkDeposed(role: Leading, peer: Peer, vote: VoteMessage): void {
    if (!peer.isVoter || vote.state !== 'leading' || vote.establishedEpoch === 0) return;
    if (vote.establishedEpoch > role.epoch) this.#core.look(`server ${peer.id} leads epoch ${vote.establishedEpoch}`);
  }

  #noteStore(peer: Peer, store: StoreKind): void {
    if (!peer.isVoter || (store !== 'used' && store !== 'suspect')) return;
    if (this.#core.sawUsedVoter) return;
    this.#core.sawUsedVoter = true;
    this.#isVoteNews = true;
  }

  #evaluate(): void {
    if (this.#role.kind === 'looking' && this.#core.next === null && this.#role.evaluate()) this.#isVoteNews = true;
  }

  #voteFor(peer: Peer): VoteMessage {
    const core = this.#core;
    const role = this.#role;
    const vote = this.#ownVote();
    return {
      kind: 'vote',
      state: role.kind,
      round: core.round,
      candidate: vote?.candidate ?? NOBODY,
      candidateEpoch: vote?.candidateEpoch ?? 0,
      candidateZxid: vote?.candidateZxid ?? NO_ZXID,
      favoured: vote?.favoured ?? false,
      establishedEpoch: role.kind === 'leading' && role.isEstablished ? role.epoch : 0,
      store: core.store,
      hearsYou: core.hears(peer),
    };
  }

  #ownVote(): Vote | null {
    const core = this.#core;
    const role = this.#role;
    if (!core.mayVote) return null;
    if (role.kind === 'looking') return role.proposal;
    return {
      candidate: role.kind === 'leading' ? core.id : role.leader,
      candidateEpoch: core.epochs.currentEpoch,
      candidateZxid: core.history.last,
      favoured: false,
    };
  }

  #sendVotes(): void {
    const core = this.#core;
    const isDue = core.tick - this.#lastVoteTick >= core.config.heartbeatTicks;
    const isForAll = isDue || this.#isVoteNews;
    if (isForAll) this.#lastVoteTick = core.tick;
    for (const peer of core.peers) {
      if (!peer.isConnected) continue;
      const hears = core.hears(peer);
      if (!isForAll && hears === peer.toldHears && !this.#owed.has(peer.id)) continue;
      peer.toldHears = hears;
      core.send(peer.id, this.#voteFor(peer));
    }
    this.#owed.clear();
    this.#isVoteNews = false;
  }

  // --- roles

  /** Each turn ends one role and begins another. It settles: an election that decides at once leads or follows, and waits. */
  #changeRoles(): void {
    const core = this.#core;
    for (;;) {
      if (core.next === null && this.#role.kind === 'looking') this.#evaluate();
      const { next } = core;
      if (next === null) return;
      core.next = null;
      if (this.#role.kind !== 'looking') this.#role.end();
      core.generation += 1;
      this.#isVoteNews = true;
      switch (next.kind) {
        case 'look':
          if (!next.isSameRound) core.round += 1;
          this.#role = new Election(core, next.favourite);
          core.tellRole('looking', 0, -1, false, next.reason);
          break;
        case 'lead': {
          const role = new Leading(core);
          this.#role = role;
          core.tellRole('leading', 0, core.id, false, 'elected');
          role.begin();
          break;
        }
        case 'follow': {
          core.round = next.round;
          const role = new Following(core, next.leader);
          this.#role = role;
          core.tellRole(role.kind, 0, next.leader, false, 'elected another');
          role.begin();
          break;
        }
        default:
          unreachable(next);
      }
    }
  }
}
