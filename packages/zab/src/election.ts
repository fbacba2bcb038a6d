// Fast leader election, the looking role: which vote is better, whom this server votes for, and when that is decided.
// A vote promises nothing, so an election may be wrong without harm: discovery asks a quorum again, durably. Must never write.

import { assert } from '@quorate/protocol/assert';
import type { Mutations } from '@quorate/protocol/mutations';
import type { ServerId, Zxid } from '@quorate/protocol/zxid';
import type { Core, Peer } from './core.ts';
import { majorityOf, Tally } from './quorum.ts';

/** A candidate and its log: the epoch it last acknowledged and its last zxid, durable or on the way to its disk. */
export type Vote = {
  readonly candidate: ServerId;
  readonly candidateEpoch: number;
  readonly candidateZxid: Zxid;
  readonly favoured: boolean;
};

/**
 * Positive when `a` beats `b`. A total order over distinct candidates (ZOOKEEPER-1419): epoch, zxid, favourite of a transfer, id.
 * The epoch comes first and is not that of the zxid: a server may have acknowledged a new epoch without a record of it, and then
 * its log, though it ends lower, holds everything that can be committed.
 */
export function compareVotes(a: Vote, b: Vote, mutations: Mutations): number {
  if (mutations.voteIgnoresEpoch) {
    if (a.candidate !== b.candidate) return a.candidate - b.candidate;
    return a.candidateZxid === b.candidateZxid ? 0 : a.candidateZxid > b.candidateZxid ? 1 : -1;
  }
  if (a.candidateEpoch !== b.candidateEpoch) return a.candidateEpoch - b.candidateEpoch;
  if (a.candidateZxid !== b.candidateZxid) return a.candidateZxid > b.candidateZxid ? 1 : -1;
  if (a.favoured !== b.favoured) return a.favoured ? 1 : -1;
  return a.candidate - b.candidate;
}

export class Election {
  readonly kind = 'looking';
  readonly #core: Core;
  /** null: nobody in reach can lead. */
  #proposal: Vote | null;
  /** Tick since which a quorum has agreed with the proposal as it is; null when none does. */
  #agreedTick: number | null = null;

  /** `core.round` is the new round already. `favourite`: whom a leadership transfer is meant for. */
  constructor(core: Core, favourite: ServerId | null) {
    this.#core = core;
    this.#proposal = this.#ownVote(false);
    if (favourite === core.id) {
      this.#proposal = this.#ownVote(true);
    } else if (favourite !== null && this.#proposal !== null && this.#isElectable(favourite)) {
      // Its log is the same as this one: the transfer waited for that.
      this.#proposal = { ...this.#proposal, candidate: favourite, favoured: true };
    }
  }

  get proposal(): Vote | null {
    return this.#proposal;
  }

  /** Looks at all the newest votes; called whenever one of them, a link or the time has changed. Tells whether the own vote did. */
  evaluate(): boolean {
    const core = this.#core;
    assert(core.next === null, 'a server that looks has not decided yet');
    if (this.#joinEstablished()) return false;
    if (!core.mayVote) return false;
    const before = this.#proposal;
    const roundBefore = core.round;
    this.#adoptRound();
    this.#proposal ??= this.#ownVote(false);
    this.#adoptVotes();
    if (this.#proposal !== null && !this.#isElectable(this.#proposal.candidate)) {
      // ZOOKEEPER-569: a candidate that is gone must not be elected again and again. The others are told by a new round.
      core.round += 1;
      this.#proposal = this.#ownVote(false);
    }
    const hasChanged = core.round !== roundBefore || !isSame(this.#proposal, before);
    if (hasChanged) this.#agreedTick = null;
    this.#decide();
    return hasChanged;
  }

  /**
   * A leader that says it is established, and that hears us, is followed without further voting; discovery protects the rest.
   * Of several the one of the highest epoch is right: the others do not know yet that they are deposed.
   */
  #joinEstablished(): boolean {
    const core = this.#core;
    let best: Peer | null = null;
    let bestEpoch = 0;
    for (const peer of core.peers) {
      const vote = peer.vote;
      if (vote === null || vote.state !== 'leading' || vote.establishedEpoch <= bestEpoch) continue;
      if (!peer.isVoter || !core.isMutual(peer)) continue;
      best = peer;
      bestEpoch = vote.establishedEpoch;
    }
    if (best?.vote == null) return false;
    core.next = { kind: 'follow', leader: best.id, round: best.vote.round };
    return true;
  }

  /** Counts: it is a voter, its store may vote, and each of us reaches the other (one-way links elect nobody). */
  #counts(peer: Peer): boolean {
    return peer.isVoter && peer.vote !== null && peer.vote.candidate !== -1 && this.#core.isMutual(peer);
  }

  #isElectable(candidate: ServerId): boolean {
    if (candidate === this.#core.id) return this.#canLead();
    const peer = this.#core.peer(candidate);
    return peer !== undefined && this.#counts(peer);
  }

  /**
   * Whoever leads must reach a quorum itself. Where some links are broken, a server with the best log and too few links would
   * otherwise win the votes of all that reach it, and nobody could lead.
   */
  #canLead(): boolean {
    const core = this.#core;
    let reachable = 1;
    for (const peer of core.peers) if (peer.isVoter && core.isMutual(peer)) reachable += 1;
    return reachable >= majorityOf(core.voterCount);
  }

  /** Rounds only grow (ZOOKEEPER-1514). A leader that is not established yet stands in its round like one that votes for itself. */
  #adoptRound(): void {
    const core = this.#core;
    let round = core.round;
    for (const peer of core.peers) {
      const vote = peer.vote;
      if (vote === null || vote.round <= round || !this.#counts(peer)) continue;
      if (vote.state === 'looking' || vote.state === 'leading') round = vote.round;
    }
    if (round === core.round) return;
    core.round = round;
    this.#proposal = this.#ownVote(false);
  }

  #adoptVotes(): void {
    const core = this.#core;
    for (const peer of core.peers) {
      const vote = peer.vote;
      if (vote === null || vote.candidate === -1 || vote.round !== core.round || !this.#counts(peer)) continue;
      if (vote.state !== 'looking' && vote.state !== 'leading') continue;
      const offered: Vote = {
        candidate: vote.candidate,
        candidateEpoch: vote.candidateEpoch,
        candidateZxid: vote.candidateZxid,
        favoured: vote.favoured,
      };
      if (!this.#isElectable(offered.candidate)) continue;
      // Our own log is known better here than by hearsay; only the preference is news.
      const vetted = offered.candidate === core.id ? this.#ownVote(offered.favoured) : offered;
      if (vetted === null) continue;
      const isBetter = this.#proposal === null || compareVotes(vetted, this.#proposal, core.config.mutations) > 0;
      if (isBetter) this.#proposal = vetted;
    }
  }

  /**
   * At once when every voter that is connected agrees and they are a quorum; else when a quorum has agreed for finalizeTicks, so
   * that a better vote on its way is not missed (ZOOKEEPER-3109).
   */
  #decide(): void {
    const core = this.#core;
    if (this.#proposal === null) return;
    const candidate = this.#proposal.candidate;
    const tally = new Tally();
    tally.add(core.store);
    let isUnanimous = true;
    for (const peer of core.peers) {
      if (!peer.isVoter || !peer.isConnected) continue;
      const vote = peer.vote;
      if (vote === null) {
        isUnanimous = false;
        continue;
      }
      // A server that does not hear us, or that may not vote, is not waited for.
      if (!this.#counts(peer)) continue;
      if (vote.candidate === candidate && vote.round === core.round) tally.add(vote.store);
      else isUnanimous = false;
    }
    if (!tally.suffices(core.voterCount, core.store) || !this.#isStanding(candidate)) {
      this.#agreedTick = null;
      return;
    }
    this.#agreedTick ??= core.tick;
    if (!isUnanimous && core.tick - this.#agreedTick < core.config.finalizeTicks) return;
    core.next = candidate === core.id ? { kind: 'lead' } : { kind: 'follow', leader: candidate, round: core.round };
  }

  /** The candidate itself stands for election in this round (ZOOKEEPER-3537, -131); otherwise discovery would wait for nobody. */
  #isStanding(candidate: ServerId): boolean {
    if (candidate === this.#core.id) return true;
    const vote = this.#core.peer(candidate)?.vote;
    if (vote == null || vote.round !== this.#core.round || vote.candidate !== candidate) return false;
    return vote.state === 'looking' || vote.state === 'leading';
  }

  #ownVote(favoured: boolean): Vote | null {
    const core = this.#core;
    if (!this.#canLead()) return null;
    return {
      candidate: core.id,
      candidateEpoch: core.epochs.currentEpoch,
      candidateZxid: core.history.last,
      favoured,
    };
  }
}

function isSame(a: Vote | null, b: Vote | null): boolean {
  if (a === null || b === null) return a === b;
  return (
    a.candidate === b.candidate &&
    a.candidateEpoch === b.candidateEpoch &&
    a.candidateZxid === b.candidateZxid &&
    a.favoured === b.favoured
  );
}
