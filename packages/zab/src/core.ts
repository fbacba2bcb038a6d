// What every role of a server shares: its log and promises on disk, its links to peers, time, and the list of effects.
// The promise rule lives here: what a write in flight allows to be said is kept with it and handed to the role when it is durable.
// Must never decide anything about leadership; that is for election, leading and following.

import { assert } from '@quorate/protocol/assert';
import type { ServerId, Zxid } from '@quorate/protocol/zxid';
import { epochOf } from '@quorate/protocol/zxid';
import { History } from './history.ts';
import type {
  Entry,
  Epochs,
  PersistEffect,
  RestoredState,
  Role,
  StoreKind,
  VoteMessage,
  ZabConfig,
  ZabEffect,
  ZabMessage,
} from './messages.ts';

/** The link to one other server, and what was last heard on it. Nothing here survives the link. */
export type Peer = {
  readonly id: ServerId;
  readonly isVoter: boolean;
  isConnected: boolean;
  /** Tick of the last message; only meaningful once something was heard. */
  heardTick: number;
  hasBeenHeard: boolean;
  vote: VoteMessage | null;
  /** What our last vote to it claimed, so that a change is told at once. */
  toldHears: boolean;
  /** A request to be led that came before this server led: kept until it does. */
  waitingInfo: Extract<ZabMessage, { kind: 'followerInfo' }> | null;
};

/** What a role may say or count once a write is durable. */
export type Promised =
  | { readonly kind: 'ownAcceptedEpoch' | 'ownCurrentEpoch' | 'readmitted' | 'nothing' }
  | { readonly kind: 'ackEpoch'; readonly currentEpoch: number; readonly lastZxid: Zxid; readonly counted: boolean }
  | { readonly kind: 'ackNewLeader'; readonly last: Zxid }
  | { readonly kind: 'ack'; readonly zxid: Zxid };

export const NOTHING: Promised = { kind: 'nothing' };

/** A write in flight. */
type Pending = {
  readonly sequence: number;
  /** Which role asked for it: a role that has ended makes no promises (ZOOKEEPER-4712). */
  readonly generation: number;
  /** Last zxid of the log after this write. Lowered when a later write cuts the log below it. */
  last: Zxid;
  readonly install: Zxid | null;
  readonly store: StoreKind | null;
  readonly promised: Promised;
};

export type Change = {
  readonly truncateAfter?: Zxid;
  readonly entries: readonly Entry[];
  readonly epochs?: Epochs;
  readonly base?: Zxid;
  readonly clusterId?: string;
  readonly store?: StoreKind;
};

/** What a role asks to become; carried out when its step is over, so that no handler finds its role gone under its feet. */
export type Next =
  | {
      readonly kind: 'look';
      readonly reason: string;
      readonly favourite: ServerId | null;
      /** The election that made this role is not over yet; a new round would only disturb it. */
      readonly isSameRound: boolean;
    }
  | { readonly kind: 'lead' }
  | { readonly kind: 'follow'; readonly leader: ServerId; readonly round: number };

export const NO_ENTRIES: readonly Entry[] = [];

export class Core {
  readonly config: ZabConfig;
  readonly id: ServerId;
  readonly isVoter: boolean;
  readonly history: History;
  readonly peers: readonly Peer[];
  readonly #peersById = new Map<ServerId, Peer>();
  /** Effects of the step under way. */
  effects: ZabEffect[] = [];
  next: Next | null = null;
  /** Grows with every change of role. */
  generation = 0;
  tick = 0;
  /** Logical round of the elections; the roles that follow an election keep its round. */
  round = 0;
  epochs: Epochs;
  store: StoreKind;
  clusterId: string;
  /** A voter with records, or one that has lost some, was seen: a blank store here is a wiped one. */
  sawUsedVoter = false;
  /** The next synchronisation must be by snapshot. */
  needsSnapshot: boolean;
  /** Counts this server's attempts to follow somebody. */
  session = 0;
  #committed: Zxid;
  /** Everything up to here was given to the driver by apply effects or installed with a snapshot. */
  #applied: Zxid;
  #durable: Zxid;
  #pending: Pending[] = [];
  #pendingHead = 0;
  #askedSequence = 0;
  #durableSequence = 0;
  /** Writes with a snapshot as their new base that are in flight: until they are durable nothing can be applied. */
  #installCount = 0;
  #randomState: number;

  constructor(config: ZabConfig, restored: RestoredState) {
    const { committed } = restored;
    this.config = config;
    this.id = config.id;
    this.isVoter = config.voters.includes(config.id);
    assert(this.isVoter || config.observers.includes(config.id), 'this server is a member of its ensemble');
    assert(
      new Set([...config.voters, ...config.observers]).size === config.voters.length + config.observers.length,
      'each server is listed once',
    );
    const peers: Peer[] = [];
    for (const id of [...config.voters, ...config.observers]) {
      if (id === config.id) continue;
      peers.push({
        id,
        isVoter: config.voters.includes(id),
        isConnected: false,
        heardTick: 0,
        hasBeenHeard: false,
        vote: null,
        toldHears: false,
        waitingInfo: null,
      });
    }
    this.peers = peers;
    for (const peer of peers) this.#peersById.set(peer.id, peer);

    this.history = new History(restored.base);
    for (const entry of restored.entries) this.history.append(entry);
    assert(restored.base <= committed, 'the window starts at or below what is committed');
    if (restored.store === 'suspect' && committed > this.history.last) this.history.reset(committed);
    assert(committed <= this.history.last, 'a snapshot is kept only when the log reaches it');
    this.epochs = restored.store === 'suspect' ? raised(restored.epochs, epochOf(this.history.last)) : restored.epochs;
    assert(this.epochs.acceptedEpoch >= this.epochs.currentEpoch, 'an established epoch was promised before');
    assert(this.epochs.currentEpoch >= epochOf(this.history.last), 'records belong to epochs that were acknowledged');
    this.store = restored.store;
    this.clusterId = restored.clusterId;
    this.needsSnapshot = restored.store === 'suspect';
    this.#committed = committed;
    this.#applied = committed;
    this.#durable = this.history.last;
    // Any seed is fine; the mix keeps neighbouring seeds apart and the state away from zero.
    this.#randomState = (Math.imul(config.seed ^ 0x9e3779b9, 0x85ebca6b) ^ Math.imul(config.id + 1, 0xc2b2ae35)) | 1;
  }

  get committed(): Zxid {
    return this.#committed;
  }

  get applied(): Zxid {
    return this.#applied;
  }

  get durable(): Zxid {
    return this.#durable;
  }

  get voterCount(): number {
    return this.config.voters.length;
  }

  /** A store that has forgotten acknowledgements neither votes nor counts (reliability programme 3.6). */
  get mayVote(): boolean {
    if (!this.isVoter) return false;
    if (this.store === 'blank') return !this.sawUsedVoter;
    return this.store !== 'suspect';
  }

  /** 0 <= result < bound, the same in every run with the same seed (xorshift32). */
  random(bound: number): number {
    let x = this.#randomState;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#randomState = x;
    return (x >>> 0) % bound;
  }

  // --- links

  peer(id: ServerId): Peer | undefined {
    return this.#peersById.get(id);
  }

  /** Something came from it on this link, lately: it reaches us. */
  hears(peer: Peer): boolean {
    return peer.isConnected && peer.hasBeenHeard && this.tick - peer.heardTick <= this.config.syncLimitTicks;
  }

  /** Both reach each other, as far as is known. */
  isMutual(peer: Peer): boolean {
    return this.hears(peer) && peer.vote?.hearsYou === true;
  }

  send(to: ServerId, message: ZabMessage): void {
    this.effects.push({ kind: 'send', to, message });
  }

  drop(peer: ServerId, reason: string): void {
    this.effects.push({ kind: 'dropPeer', peer, reason });
  }

  // --- the disk

  /** Asks for one atomic write. `promised` is handed to the role that asked, by the step that learns of its durability. */
  persist(change: Change, promised: Promised): number {
    this.#askedSequence += 1;
    const effect: PersistEffect = { kind: 'persist', sequence: this.#askedSequence, ...change };
    this.effects.push(effect);
    if (change.epochs !== undefined) {
      assert(change.epochs.acceptedEpoch >= this.epochs.acceptedEpoch, 'a promised epoch is never taken back');
      assert(change.epochs.acceptedEpoch >= change.epochs.currentEpoch, 'an established epoch was promised before');
      this.epochs = change.epochs;
    }
    if (change.clusterId !== undefined) this.clusterId = change.clusterId;
    if (change.base !== undefined) this.#installCount += 1;
    this.#pending.push({
      sequence: this.#askedSequence,
      generation: this.generation,
      last: this.history.last,
      install: change.base ?? null,
      store: change.store ?? null,
      promised,
    });
    return this.#askedSequence;
  }

  /** The usual write: entries already appended to the history. */
  persistEntries(entries: readonly Entry[], promised: Promised): void {
    if (this.store === 'used' || this.store === 'suspect') {
      this.persist({ entries }, promised);
      return;
    }
    // The first records of a new ensemble. From now on a blank store elsewhere is a wiped one.
    this.store = 'used';
    this.persist({ entries, store: 'used' }, promised);
  }

  /** What was durable beyond `keep` is about to be cut or replaced. */
  lowerDurable(keep: Zxid): void {
    if (this.#durable > keep) this.#durable = keep;
    for (let i = this.#pendingHead; i < this.#pending.length; i += 1) {
      const pending = this.#pending[i];
      if (pending !== undefined && pending.last > keep) pending.last = keep;
    }
  }

  /** Facts about the disk are taken up whoever asked for the write; promises only by the role that did. */
  onDurable(sequence: number, onPromise: (promised: Promised) => void): void {
    assert(sequence <= this.#askedSequence, 'only what was asked for becomes durable', sequence);
    assert(sequence > this.#durableSequence, 'durability grows', sequence);
    this.#durableSequence = sequence;
    for (
      let pending = this.#pending[this.#pendingHead];
      pending !== undefined;
      pending = this.#pending[this.#pendingHead]
    ) {
      if (pending.sequence > sequence) break;
      this.#pendingHead += 1;
      if (pending.last > this.#durable) this.#durable = pending.last;
      if (pending.store !== null) this.store = pending.store;
      if (pending.install !== null) this.#onInstalled(pending.install);
      const isOfThisRole = pending.generation === this.generation || this.config.mutations.acceptStaleCompletion;
      if (isOfThisRole && this.next === null) onPromise(pending.promised);
    }
    if (this.#pendingHead === this.#pending.length) {
      this.#pending.length = 0;
      this.#pendingHead = 0;
    } else if (this.#pendingHead >= 256) {
      this.#pending = this.#pending.slice(this.#pendingHead);
      this.#pendingHead = 0;
    }
  }

  #onInstalled(zxid: Zxid): void {
    assert(this.#installCount > 0, 'an installed snapshot was asked for');
    this.#installCount -= 1;
    this.effects.push({ kind: 'installSnapshot', zxid });
    this.#applied = zxid;
  }

  /** Every write asked for so far is durable. */
  get isAllDurable(): boolean {
    return this.#durableSequence === this.#askedSequence;
  }

  // --- commit and apply

  /**
   * Everything up to `zxid` is committed. It may run ahead of this server's own disk: a quorum elsewhere is enough. The tree may
   * then be ahead of the disk too, which is right for reads, and stays right through a crash: what is committed is in the log of
   * every later leader, so it comes back by the next synchronisation and is never cut.
   */
  raiseCommitted(zxid: Zxid): void {
    assert(zxid <= this.history.last, 'what is committed is in the log', zxid);
    if (zxid > this.#committed) this.#committed = zxid;
  }

  /** After a snapshot became the base. What was known to be committed is behind it, or was only believed by a suspect store. */
  rebaseCommitted(base: Zxid): void {
    if (this.#committed < base || this.store === 'suspect' || this.store === 'blank') this.#committed = base;
    assert(this.#committed <= this.history.last, 'a synchronisation never removes what is committed', this.#committed);
  }

  applyCommitted(): void {
    if (this.#installCount > 0 || this.#committed <= this.#applied) return;
    const entries = this.history.between(this.#applied, this.#committed);
    assert(entries[0]?.prev === this.#applied, 'what is applied follows what was applied before');
    this.effects.push({ kind: 'apply', entries });
    this.#applied = this.#committed;
  }

  onSnapshotTaken(zxid: Zxid): void {
    assert(zxid <= this.#applied, 'a snapshot holds only what was applied');
  }

  /**
   * `pin`: nothing above it may go, because a learner waits for a snapshot at or above it. Otherwise the window's limits alone decide:
   * who is further behind gets a snapshot that is taken for it, so memory does not grow with the log behind the newest one.
   */
  trim(pin: Zxid | null): void {
    const limit = pin !== null && pin < this.#applied ? pin : this.#applied;
    this.history.trim(limit, this.config.historyCountMax, this.config.historyBytesMax);
  }

  // --- roles

  look(reason: string, favourite: ServerId | null = null): void {
    this.next ??= { kind: 'look', reason, favourite, isSameRound: false };
  }

  lookAgain(reason: string): void {
    this.next ??= { kind: 'look', reason, favourite: null, isSameRound: true };
  }

  tellRole(role: Role, epoch: number, leader: ServerId | -1, serving: boolean, reason: string): void {
    this.effects.push({ kind: 'roleChanged', role, epoch, leader, serving, reason });
  }

  checkInvariants(): void {
    this.history.checkInvariants();
    assert(this.history.base <= this.#committed, 'base <= committed');
    assert(this.#committed <= this.history.last, 'committed <= last');
    assert(this.#installCount > 0 || this.#applied <= this.#committed, 'applied <= committed');
    assert(this.#installCount > 0 || this.history.base <= this.#applied, 'base <= applied');
    // durable and committed are not ordered: a quorum elsewhere is enough to commit.
    assert(this.#durable <= this.history.last, 'durable <= last');
    assert(!this.isAllDurable || this.#durable === this.history.last, 'without a write in flight all is durable');
    assert(this.epochs.acceptedEpoch >= this.epochs.currentEpoch, 'acceptedEpoch >= currentEpoch');
    assert(this.epochs.currentEpoch >= epochOf(this.history.last), 'currentEpoch >= epoch of the last record');
  }
}

/** A suspect store may have lost its epochs and kept records: those prove that their epoch was acknowledged. */
function raised(epochs: Epochs, recordEpoch: number): Epochs {
  const currentEpoch = Math.max(epochs.currentEpoch, recordEpoch);
  return { ...epochs, currentEpoch, acceptedEpoch: Math.max(epochs.acceptedEpoch, currentEpoch) };
}
