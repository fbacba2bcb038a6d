// The three unions of the consensus core: what servers say to each other, what goes into Zab.step, what comes out.
// Everything is plain data. Payloads of entries are opaque bytes; an empty payload is a no-op that only takes its place in the order.

import type { Mutations } from '@quorate/protocol/mutations';
import type { ServerId, Zxid } from '@quorate/protocol/zxid';

/** One record of the log. `prev` is the zxid of the record before it, which makes a hole detectable everywhere. */
export type Entry = { readonly zxid: Zxid; readonly prev: Zxid; readonly txn: Uint8Array };

/** blank: nothing on disk, ever. formed: has an identity, no record yet. used: has records or a snapshot. suspect: something it once acked may be missing. */
export type StoreKind = 'blank' | 'formed' | 'used' | 'suspect';

export type Epochs = {
  /** Highest epoch promised. Always >= currentEpoch. */
  readonly acceptedEpoch: number;
  /** The server to whom acceptedEpoch was promised; the same leader may ask again after a lost connection. */
  readonly acceptedFrom: ServerId;
  /** Epoch whose NEWLEADER this server acknowledged. */
  readonly currentEpoch: number;
};

export type VoteState = 'looking' | 'leading' | 'following' | 'observing';

/** Sent on the vote channel in every state, on change and on every tick: it is vote, answer and link heartbeat in one. */
export type VoteMessage = {
  readonly kind: 'vote';
  readonly state: VoteState;
  /** Logical election round of the sender. */
  readonly round: number;
  /** Whom the sender votes for, or follows. -1: nobody (observers, stores that may not vote). */
  readonly candidate: ServerId;
  readonly candidateEpoch: number;
  readonly candidateZxid: Zxid;
  /** The candidate is the favourite of a leadership transfer: between equal logs it wins before the higher id does. */
  readonly favoured: boolean;
  /** The epoch the sender leads, once it is established; 0 from everybody else. */
  readonly establishedEpoch: number;
  readonly store: StoreKind;
  /** The sender has heard the receiver lately. Votes of a server that cannot hear us are not counted (one-way links). */
  readonly hearsYou: boolean;
};

export type ZabMessage =
  | VoteMessage
  /** learner -> leader, opens discovery. */
  | {
      readonly kind: 'followerInfo';
      /** Counts the learner's attempts; the answer carries it, so that what belongs to an attempt given up is not taken for this one's. */
      readonly session: number;
      readonly acceptedEpoch: number;
      readonly observer: boolean;
      readonly store: StoreKind;
      /** The learner cannot use DIFF or TRUNC (its log does not hold what it was asked to keep, or it is suspect). */
      readonly needsSnapshot: boolean;
    }
  /** leader -> learner. */
  | {
      readonly kind: 'leaderInfo';
      readonly session: number;
      readonly epoch: number;
      readonly clusterId: string;
    }
  /** learner -> leader, a promise: acceptedEpoch is durable. counted is false when it was promised to another server. */
  | {
      readonly kind: 'ackEpoch';
      readonly epoch: number;
      readonly currentEpoch: number;
      readonly lastZxid: Zxid;
      readonly counted: boolean;
    }
  /** leader -> learner, opens synchronization: cut the log after `keep`, then take the entries. */
  | {
      readonly kind: 'synchronize';
      readonly epoch: number;
      readonly mode: 'diff' | 'trunc';
      readonly keep: Zxid;
    }
  /**
   * leader -> learner, when the transfer begins: a snapshot at `zxid` or above follows as bytes (outside Zab); the entries
   * behind it and NEWLEADER come after it.
   */
  | { readonly kind: 'synchronizeBySnapshot'; readonly epoch: number; readonly zxid: Zxid }
  /** leader -> learner: a part of the history to stage; any number of them. */
  | { readonly kind: 'history'; readonly epoch: number; readonly entries: readonly Entry[] }
  /**
   * leader -> learner: the staged synchronisation ends at `last`. A voter whose acks do not count (it was wiped or is suspect)
   * learns it by `counted`: its store stays suspect until it is readmitted.
   */
  | { readonly kind: 'newLeader'; readonly epoch: number; readonly last: Zxid; readonly counted: boolean }
  /** learner -> leader, a promise: everything up to `last` and currentEpoch = epoch are durable. */
  | { readonly kind: 'ackNewLeader'; readonly epoch: number; readonly last: Zxid }
  /** leader -> learner: serve; everything up to `committed` is committed, which is at least the `last` of NEWLEADER. */
  | { readonly kind: 'upToDate'; readonly epoch: number; readonly committed: Zxid }
  /** leader -> learner (voters and observers alike; observers do not ack). */
  | {
      readonly kind: 'propose';
      readonly epoch: number;
      readonly entries: readonly Entry[];
      readonly committed: Zxid;
    }
  /** follower -> leader, a promise: everything up to `zxid` is durable. Cumulative. */
  | { readonly kind: 'ack'; readonly epoch: number; readonly zxid: Zxid }
  /** leader -> learner. Cumulative. */
  | { readonly kind: 'commit'; readonly epoch: number; readonly zxid: Zxid }
  /** leader -> learner, on every heartbeat interval and for barriers. Travels on the vote channel, so it carries nothing whose order matters. */
  | { readonly kind: 'heartbeat'; readonly epoch: number; readonly sequence: number }
  /** learner -> leader. */
  | { readonly kind: 'heartbeatAck'; readonly epoch: number; readonly sequence: number }
  /** leader -> suspect or wiped learner: a txn of this epoch committed without counting it; it may vote again. */
  | { readonly kind: 'readmit'; readonly epoch: number }
  /** learner -> leader, a promise: its store is durably marked as clean. */
  | { readonly kind: 'readmitted'; readonly epoch: number }
  /** leader -> follower: start an election in which you are the favourite; sent once it holds everything (leadership transfer). */
  | { readonly kind: 'takeOver'; readonly epoch: number; readonly last: Zxid };

export type ZabConfig = {
  readonly id: ServerId;
  readonly voters: readonly ServerId[];
  readonly observers: readonly ServerId[];
  /** Seeds the election's jitter. */
  readonly seed: number;
  /** All in ticks of `ZabInput.tick`. */
  readonly heartbeatTicks: number;
  /** A leader that has not heard a quorum, or a learner that has not heard its leader, for so long gives up. */
  readonly syncLimitTicks: number;
  /** Limit for discovery and synchronization. */
  readonly initLimitTicks: number;
  /** How long an election waits for better votes after a quorum agrees, when some connected voter has not agreed. */
  readonly finalizeTicks: number;
  /** The in-memory history keeps at least so many entries (count) or bytes for DIFF. */
  readonly historyCountMax: number;
  readonly historyBytesMax: number;
  /** The epoch rolls when the counter reaches this; 0xffffffff except in tests. */
  readonly counterMax: number;
  readonly mutations: Mutations;
};

/** What was on disk at start. */
export type RestoredState = {
  readonly store: StoreKind;
  /** Empty until the ensemble was formed. */
  readonly clusterId: string;
  readonly epochs: Epochs;
  /** The zxid just before the first entry: base of the window, at most the newest snapshot's zxid or below. */
  readonly base: Zxid;
  /** Contiguous, each entry's prev is the zxid before it (the first one's is `base`). */
  readonly entries: readonly Entry[];
  /** Known to be committed; already applied by the driver. base <= committed <= last. */
  readonly committed: Zxid;
};

export type ZabInput =
  /** `tick` counts up by the driver's monotonic clock and is given first in each drain, so that time is never behind. It may jump. */
  | { readonly kind: 'tick'; readonly tick: number }
  | { readonly kind: 'connected'; readonly peer: ServerId }
  | { readonly kind: 'disconnected'; readonly peer: ServerId }
  | { readonly kind: 'received'; readonly from: ServerId; readonly message: ZabMessage }
  /**
   * Only while leading and established (status.serving). They get consecutive zxids in this order. When the counter of the epoch
   * has no room for them they are not taken: no `numbered`, leadership ends in this step, and they never take place.
   */
  | { readonly kind: 'proposed'; readonly txns: readonly Uint8Array[] }
  /** All persist effects up to and including this sequence are durable. */
  | { readonly kind: 'durable'; readonly sequence: number }
  /** Leader: the snapshot asked for by sendSnapshot is streamed to `peer`; it is at `zxid`. */
  | { readonly kind: 'snapshotSent'; readonly peer: ServerId; readonly epoch: number; readonly zxid: Zxid }
  /** Learner: the announced snapshot is received, verified and staged. */
  | { readonly kind: 'snapshotStaged'; readonly from: ServerId; readonly epoch: number; readonly zxid: Zxid }
  /** Leader: confirm with a quorum that it still leads; answered by `barrierPassed` or, if leadership ends, `barriersFailed`. */
  | { readonly kind: 'barrier'; readonly id: number }
  /** In any role: a snapshot at `zxid` exists and is verified: a good moment to bring the history within its limits. */
  | { readonly kind: 'snapshotTaken'; readonly zxid: Zxid }
  /** Leader: hand leadership to `to` (a follower in sync). Proposals stop being accepted until it is over. */
  | { readonly kind: 'transfer'; readonly to: ServerId };

export type Role = 'looking' | 'leading' | 'following' | 'observing';

/**
 * One atomic, ordered disk write. The driver runs persists strictly in order; `sequence` grows by one.
 * The fields are applied together: cut the log, add the entries, set epochs, switch to the staged snapshot, mark the store.
 */
export type PersistEffect = {
  readonly kind: 'persist';
  readonly sequence: number;
  /** Remove every record with a zxid above this one. With `base` it equals it. */
  readonly truncateAfter?: Zxid;
  readonly entries: readonly Entry[];
  readonly epochs?: Epochs;
  /** Use the staged snapshot at this zxid as the new base: every older record is dead. */
  readonly base?: Zxid;
  /** Identity, written once when the ensemble is formed or joined. */
  readonly clusterId?: string;
  /** The store's new classification, durable with the rest. */
  readonly store?: StoreKind;
};

export type ZabEffect =
  | PersistEffect
  | { readonly kind: 'send'; readonly to: ServerId; readonly message: ZabMessage }
  /** Committed, in order, each exactly once per process life (after installSnapshot: from behind the snapshot). */
  | { readonly kind: 'apply'; readonly entries: readonly Entry[] }
  /** Leader: stream a snapshot with zxid >= `from` to `to`, taking one first if all are older, then give snapshotSent. History above `from` stays until then. */
  | { readonly kind: 'sendSnapshot'; readonly to: ServerId; readonly epoch: number; readonly from: Zxid }
  /** Learner: the staged snapshot at `zxid` became the base; replace the live tree by it. Emitted by the step that received the durable input. */
  | { readonly kind: 'installSnapshot'; readonly zxid: Zxid }
  /** Learner: throw away what was staged; it will never be used. */
  | { readonly kind: 'discardStaged' }
  /**
   * `serving` is true when the role is usable: leader established, learner got UPTODATE. Everything up to the cut of its
   * synchronisation (leader: everything it held when it was elected) is committed then, and the apply effects for it came before
   * this effect. A learner may hold proposals behind the cut that are not committed yet.
   */
  | {
      readonly kind: 'roleChanged';
      readonly role: Role;
      readonly epoch: number;
      readonly leader: ServerId | -1;
      readonly serving: boolean;
      /** For the log: why, in a few words. */
      readonly reason: string;
    }
  | { readonly kind: 'barrierPassed'; readonly id: number; readonly committed: Zxid }
  | { readonly kind: 'barriersFailed' }
  /** Zxids given to the txns of a `proposed` input, in order: first..last. */
  | { readonly kind: 'numbered'; readonly first: Zxid; readonly last: Zxid }
  /** A peer broke the protocol; the driver closes the link to it and logs once. */
  | { readonly kind: 'dropPeer'; readonly peer: ServerId; readonly reason: string };

export type ZabStatus = {
  readonly role: Role;
  readonly phase: 'election' | 'discovery' | 'synchronization' | 'broadcast';
  readonly serving: boolean;
  readonly epoch: number;
  readonly leader: ServerId | -1;
  readonly acceptedEpoch: number;
  readonly currentEpoch: number;
  readonly last: Zxid;
  readonly durable: Zxid;
  readonly committed: Zxid;
  readonly base: Zxid;
  readonly store: StoreKind;
  /** Voters (and observers) in sync with this leader; empty unless leading. */
  readonly followers: readonly {
    readonly id: ServerId;
    readonly inSync: boolean;
    readonly acked: Zxid;
    readonly observer: boolean;
  }[];
};
