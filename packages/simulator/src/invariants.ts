// The properties of Zab and of durability, checked from outside while the run goes on: by what servers send, write and apply.
// Names are those of ZooKeeper's TLA+ specifications where these have one. Nothing here is asked of the code under test
// but its status; the logs are the simulator's own disks.

import type { ServerId, Zxid } from '@quorate/protocol/zxid';
import { epochOf, NO_ZXID, zxidFrom } from '@quorate/protocol/zxid';
import type { DiskWrite, LogEntry } from '@quorate/storage/disk';
import type { LogImage, Platter } from './disk.ts';
import type { ServerView } from './machine.ts';
import type { PeerMessage } from './network.ts';

export type Violation = { readonly invariant: string; readonly detail: string };

export type ServerProbe = {
  readonly id: ServerId;
  readonly isVoter: boolean;
  readonly platter: Platter;
  /** The log that all accepted writes would give; null while the process is dead. */
  logical(): LogImage | null;
  view(): ServerView | null;
};

type Committed = { readonly zxid: Zxid; readonly txn: Uint8Array; readonly digest: bigint };

type Track = {
  readonly probe: ServerProbe;
  /** Index into the committed sequence of the last txn applied; -1 for none. */
  appliedIndex: number;
  /** The furthest it was in this life; a snapshot may take it back for a moment, but not while it serves. */
  appliedMax: number;
  heldBefore: number;
  acceptedEpoch: number;
  currentEpoch: number;
  ledEpoch: number;
};

function z(zxid: bigint): string {
  return `${zxid >> 32n}:${zxid & 0xffffffffn}`;
}

export function sameBytes(left: Uint8Array, right: Uint8Array): boolean {
  if (left.length !== right.length) return false;
  for (let i = 0; i < left.length; i++) if (left[i] !== right[i]) return false;
  return true;
}

export class Invariants {
  readonly committed: Committed[] = [];
  readonly acknowledged = new Set<Zxid>();
  readonly #indexOf = new Map<Zxid, number>();
  readonly #written = new Map<Zxid, LogEntry>();
  readonly #tracks = new Map<ServerId, Track>();
  readonly #epochLeader = new Map<number, ServerId>();
  readonly #fail: (violation: Violation) => void;
  readonly #witness: (name: string) => void;
  readonly #quorum: number;
  #claimed: Zxid = NO_ZXID;

  constructor(voterCount: number, fail: (violation: Violation) => void, witness: (name: string) => void) {
    this.#quorum = Math.floor(voterCount / 2) + 1;
    this.#fail = fail;
    this.#witness = witness;
  }

  add(probe: ServerProbe): void {
    this.#tracks.set(probe.id, {
      probe,
      appliedIndex: -1,
      appliedMax: -1,
      heldBefore: -1,
      acceptedEpoch: 0,
      currentEpoch: 0,
      ledEpoch: -1,
    });
  }

  #track(id: ServerId): Track {
    const track = this.#tracks.get(id);
    if (track === undefined) throw new RangeError('unknown server');
    return track;
  }

  #report(invariant: string, detail: string): void {
    this.#fail({ invariant, detail });
  }

  /** The last committed txn with a zxid of at most `zxid`; -1 if none. */
  indexUpTo(zxid: Zxid): number {
    let low = 0;
    let high = this.committed.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      const at = this.committed[middle];
      if (at !== undefined && at.zxid <= zxid) low = middle + 1;
      else high = middle;
    }
    return low - 1;
  }

  /** How far this log agrees with the committed sequence: index of the last committed txn it holds. */
  heldIndex(image: LogImage, snapshot: Zxid): number {
    const floor = this.indexUpTo(image.base > snapshot ? image.base : snapshot);
    for (let i = image.entries.length - 1; i >= 0; i--) {
      const entry = image.entries[i];
      if (entry === undefined) break;
      const index = this.#indexOf.get(entry.zxid);
      if (index === undefined) continue;
      const committed = this.committed[index];
      if (committed !== undefined && sameBytes(committed.txn, entry.txn)) return Math.max(index, floor);
    }
    return floor;
  }

  #heldDurably(track: Track): number {
    return this.heldIndex(track.probe.platter.durable, track.probe.platter.snapshots[0]?.zxid ?? NO_ZXID);
  }

  #holdersOf(zxid: Zxid): number {
    let count = 0;
    for (const { probe } of this.#tracks.values()) {
      if (!probe.isVoter) continue;
      const { durable, damaged, snapshots } = probe.platter;
      // A damaged disk held it when it acked; that it may be gone is what keeps this server from voting.
      if (damaged || durable.base >= zxid || (snapshots[0]?.zxid ?? NO_ZXID) >= zxid) count++;
      else if (durable.find(zxid) !== undefined) count++;
    }
    return count;
  }

  onWrite(id: ServerId, write: DiskWrite, logical: LogImage): void {
    let previous: Zxid | null = null;
    const firstIndex = logical.entries.length - write.entries.length;
    if (write.entries.length > 0) previous = logical.entries[firstIndex - 1]?.zxid ?? logical.base;
    for (const entry of write.entries) {
      if (entry.prev !== previous || entry.zxid <= entry.prev) {
        this.#report(
          'LogContiguity',
          `server ${id} writes ${z(entry.zxid)} (after ${z(entry.prev)}) behind ${z(previous ?? NO_ZXID)}`,
        );
      }
      previous = entry.zxid;
      const known = this.#written.get(entry.zxid);
      if (known === undefined) this.#written.set(entry.zxid, entry);
      else if (known.prev !== entry.prev || !sameBytes(known.txn, entry.txn)) {
        this.#report('Integrity', `server ${id} writes another txn as ${z(entry.zxid)}`);
      }
    }
    if (write.truncateAfter !== undefined && write.base === undefined) this.#witness('TRUNC');
    if (write.base !== undefined) this.#witness('SNAP');
  }

  beforeBatch(id: ServerId): void {
    const track = this.#track(id);
    track.heldBefore = this.#heldDurably(track);
  }

  onBatchDurable(id: ServerId, writes: readonly DiskWrite[]): void {
    const track = this.#track(id);
    const image = track.probe.platter.durable;
    const held = this.#heldDurably(track);
    if (held < track.heldBefore) {
      const lost = this.committed[track.heldBefore];
      this.#report('CommittedLogDurability', `server ${id} removed committed ${z(lost?.zxid ?? NO_ZXID)} from its log`);
    }
    const { acceptedEpoch, currentEpoch } = image.epochs;
    if (acceptedEpoch < track.acceptedEpoch || currentEpoch < track.currentEpoch || acceptedEpoch < currentEpoch) {
      this.#report(
        'EpochOrder',
        `server ${id}: accepted ${track.acceptedEpoch}->${acceptedEpoch}, current ${track.currentEpoch}->${currentEpoch}`,
      );
    }
    if (writes.some((write) => write.entries.length > 0) && epochOf(image.last) > currentEpoch) {
      this.#report('EpochOrder', `server ${id}: log at ${z(image.last)} above current epoch ${currentEpoch}`);
    }
    if (currentEpoch > track.currentEpoch) {
      // Who established epoch e holds all that was committed before e: that is what its vote will claim after a crash.
      const needed = this.indexUpTo(zxidFrom((BigInt(currentEpoch) << 32n) - 1n));
      if (held < needed) {
        this.#report(
          'LeaderLogCompleteness',
          `server ${id} has durable epoch ${currentEpoch} without committed ${z(this.committed[needed]?.zxid ?? NO_ZXID)}`,
        );
      }
    }
    track.acceptedEpoch = acceptedEpoch;
    track.currentEpoch = currentEpoch;
  }

  /** The disk was replaced or damaged between two lives of the process. */
  onDamaged(id: ServerId): void {
    const track = this.#track(id);
    track.acceptedEpoch = track.probe.platter.durable.epochs.acceptedEpoch;
    track.currentEpoch = track.probe.platter.durable.epochs.currentEpoch;
  }

  onSend(from: ServerId, to: ServerId, message: PeerMessage): void {
    const track = this.#track(from);
    const { durable } = track.probe.platter;
    switch (message.kind) {
      case 'ack':
        if (!this.#holds(track, message.zxid)) {
          this.#report('AckDurable', `server ${from} acks ${z(message.zxid)}, its disk ends at ${z(durable.last)}`);
        }
        return;
      case 'ackNewLeader': {
        if (!this.#holds(track, message.last) || durable.epochs.currentEpoch !== message.epoch) {
          this.#report(
            'AckDurable',
            `server ${from} acks NEWLEADER ${message.epoch} with ${z(message.last)}; its disk has epoch ${durable.epochs.currentEpoch} and ends at ${z(durable.last)}`,
          );
        }
        this.#checkSameLog(track, to, message.epoch);
        return;
      }
      case 'ackEpoch':
        if (message.counted && durable.epochs.acceptedEpoch < message.epoch) {
          this.#report(
            'AckDurable',
            `server ${from} promises epoch ${message.epoch}; its disk has ${durable.epochs.acceptedEpoch}`,
          );
        }
        return;
      case 'readmitted':
        if (durable.mark !== 'clean')
          this.#report('AckDurable', `server ${from} says it is readmitted, its disk is ${durable.mark}`);
        return;
      case 'synchronize':
        this.#witness(message.mode === 'diff' ? 'DIFF' : 'TRUNC sent');
        return;
      case 'synchronizeBySnapshot':
        this.#witness('SNAP sent');
        return;
      case 'commit':
        this.#checkQuorum(from, message.zxid);
        return;
      case 'propose':
      case 'upToDate':
        this.#checkQuorum(from, message.committed);
        return;
      default:
        return;
    }
  }

  #holds(track: Track, zxid: Zxid): boolean {
    const { durable, snapshots } = track.probe.platter;
    return zxid <= durable.base || zxid <= (snapshots[0]?.zxid ?? NO_ZXID) || durable.find(zxid) !== undefined;
  }

  #checkQuorum(from: ServerId, zxid: Zxid): void {
    if (zxid <= this.#claimed) return;
    this.#claimed = zxid;
    const holders = this.#holdersOf(zxid);
    if (holders < this.#quorum) {
      this.#report('QuorumDurable', `server ${from} says that ${z(zxid)} is committed; ${holders} disks hold it`);
    }
    if (holders === this.#quorum) this.#witness('commit by minimal quorum');
  }

  /** ProcessConsistency: a follower that passed NEWLEADER holds a prefix of its leader's log. */
  #checkSameLog(follower: Track, leaderId: ServerId, epoch: number): void {
    const leader = this.#track(leaderId).probe;
    const view = leader.view();
    const theirs = leader.logical();
    if (view === null || theirs === null || view.role !== 'leading' || view.epoch !== epoch) return;
    const mine = follower.probe.platter.durable;
    for (let i = mine.entries.length - 1; i >= 0; i--) {
      const entry = mine.entries[i];
      if (entry === undefined || entry.zxid <= theirs.base) return;
      const other = theirs.find(entry.zxid);
      if (other === undefined || other.prev !== entry.prev || !sameBytes(other.txn, entry.txn)) {
        this.#report(
          'ProcessConsistency',
          `server ${follower.probe.id} holds ${z(entry.zxid)}, its leader ${leaderId} does not`,
        );
        return;
      }
    }
  }

  onStarted(id: ServerId, zxid: Zxid): void {
    const track = this.#track(id);
    track.appliedIndex = this.indexUpTo(zxid);
    track.appliedMax = -1;
    track.ledEpoch = -1;
  }

  onInstalled(id: ServerId, zxid: Zxid): void {
    const track = this.#track(id);
    track.appliedMax = Math.max(track.appliedMax, track.appliedIndex);
    track.appliedIndex = this.indexUpTo(zxid);
  }

  /** True when this txn was never applied anywhere before: it is now the committed sequence's newest. */
  onApplied(id: ServerId, zxid: Zxid, given: Uint8Array | null, digest: bigint): boolean {
    const txn = given ?? this.#written.get(zxid)?.txn ?? new Uint8Array(0);
    const track = this.#track(id);
    const index = track.appliedIndex + 1;
    track.appliedIndex = index;
    const known = this.committed[index];
    if (known !== undefined) {
      if (known.zxid !== zxid) {
        const invariant = this.#indexOf.has(zxid) ? 'TotalOrder' : 'Agreement';
        this.#report(invariant, `server ${id} applies ${z(zxid)} where ${z(known.zxid)} was applied`);
      } else if (!sameBytes(known.txn, txn)) {
        this.#report('Agreement', `server ${id} applies another txn as ${z(zxid)}`);
      } else if (known.digest !== digest) {
        this.#report(
          'StateDigest',
          `server ${id} differs at ${z(zxid)}: ${known.digest.toString(16)} and ${digest.toString(16)}`,
        );
      }
      return false;
    }
    const last = this.committed.at(-1)?.zxid ?? NO_ZXID;
    if (zxid <= last) this.#report('GlobalPrimaryOrder', `server ${id} applies ${z(zxid)} after ${z(last)}`);
    const proposal = this.#written.get(zxid);
    if (proposal === undefined || !sameBytes(proposal.txn, txn)) {
      this.#report('Integrity', `server ${id} applies ${z(zxid)}, which nobody proposed so`);
    }
    this.#indexOf.set(zxid, this.committed.length);
    this.committed.push({ zxid, txn: txn.slice(), digest });
    const holders = this.#holdersOf(zxid);
    if (holders < this.#quorum)
      this.#report('QuorumDurable', `server ${id} applies ${z(zxid)}; ${holders} disks hold it`);
    return true;
  }

  onAcknowledged(zxid: Zxid): void {
    this.acknowledged.add(zxid);
    if (!this.#indexOf.has(zxid)) this.#report('AckDurable', `${z(zxid)} was acknowledged but not committed`);
  }

  /** After each step of this server. */
  afterStep(id: ServerId): void {
    const track = this.#track(id);
    const view = track.probe.view();
    if (view?.serving === true && track.appliedIndex < track.appliedMax) {
      this.#report('PrefixConsistency', `server ${id} serves a state older than one it had in the same life`);
    }
    if (view === null || view.role !== 'leading') {
      track.ledEpoch = -1;
      return;
    }
    if (view.phase === 'synchronization' || view.phase === 'broadcast') {
      for (const other of this.#tracks.values()) {
        if (other === track) continue;
        const theirs = other.probe.view();
        if (theirs === null || theirs.role !== 'leading') continue;
        if (theirs.phase !== 'synchronization' && theirs.phase !== 'broadcast') continue;
        this.#witness('two self-believed leaders');
        if (theirs.epoch === view.epoch) {
          this.#report('Leadership1', `servers ${id} and ${other.probe.id} both lead epoch ${view.epoch}`);
        }
      }
    }
    if (view.serving && view.epoch !== track.ledEpoch) {
      track.ledEpoch = view.epoch;
      this.#onEstablished(track, view);
    }
  }

  #onEstablished(track: Track, view: ServerView): void {
    const id = track.probe.id;
    const before = this.#epochLeader.get(view.epoch);
    if (before !== undefined && before !== id) {
      this.#report('Leadership2', `epoch ${view.epoch} was led by ${before}, now by ${id}`);
    }
    this.#epochLeader.set(view.epoch, id);
    this.#witness('leader established');
    const logical = track.probe.logical();
    if (logical === null) return;
    // A deposed leader may learn late that its epoch was established; only what was committed before its epoch binds it.
    const held = this.heldIndex(logical, track.probe.platter.snapshots[0]?.zxid ?? NO_ZXID);
    const needed = this.indexUpTo(zxidFrom((BigInt(view.epoch) << 32n) - 1n));
    if (held < needed) {
      const missing = this.committed[held + 1]?.zxid ?? NO_ZXID;
      this.#report('LeaderLogCompleteness', `leader ${id} of epoch ${view.epoch} lacks committed ${z(missing)}`);
    }
  }

  /** Full sweep: every disk's log is contiguous, and every committed txn is on a quorum of disks. */
  sweep(): void {
    for (const { probe } of this.#tracks.values()) {
      const image = probe.platter.durable;
      let previous = image.base;
      for (const entry of image.entries) {
        if (entry.prev !== previous) {
          this.#report('LogContiguity', `server ${probe.id}: ${z(entry.zxid)} follows ${z(previous)} on disk`);
          return;
        }
        previous = entry.zxid;
      }
    }
    const newest = this.committed.at(-1);
    if (newest !== undefined && this.#holdersOf(newest.zxid) < this.#quorum) {
      this.#report('CommittedLogDurability', `${z(newest.zxid)} is on ${this.#holdersOf(newest.zxid)} disks only`);
    }
  }

  /** The bytes that were proposed with this zxid. */
  proposalOf(zxid: Zxid): Uint8Array | null {
    return this.#written.get(zxid)?.txn ?? null;
  }

  appliedIndex(id: ServerId): number {
    return this.#track(id).appliedIndex;
  }

  get leaderEpochs(): ReadonlyMap<number, ServerId> {
    return this.#epochLeader;
  }
}
