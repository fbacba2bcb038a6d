// What the simulator drives: one process of one server, either the bare consensus core or a whole replica.
// The environment is all that such a process can see of the world.

import type { Mutations } from '@quorate/protocol/mutations';
import type { ServerId, Zxid } from '@quorate/protocol/zxid';
import type { ClientPort, Clock, LogLevel, Network } from '@quorate/server/ports';
import type { Disk, RestoredStore } from '@quorate/storage/disk';
import type { PeerMessage } from './network.ts';

/** The part of a server's status that invariants compare between servers. */
export type ServerView = {
  readonly role: 'looking' | 'leading' | 'following' | 'observing';
  readonly phase: 'election' | 'discovery' | 'synchronization' | 'broadcast';
  readonly serving: boolean;
  readonly epoch: number;
  readonly leader: number;
  readonly last: Zxid;
  readonly committed: Zxid;
};

/** The server's end of one client connection. */
export type ClientEnd = {
  onFrame(bytes: Uint8Array): void;
  onChunkEnd(): void;
  onClosed(): void;
};

export type Machine = {
  onTick(): void;
  onPeerConnected(peer: ServerId, incarnation: number): void;
  onPeerDisconnected(peer: ServerId): void;
  onPeerMessage(from: ServerId, message: PeerMessage): void;
  /** null until it has loaded its state. */
  view(): ServerView | null;
  /** Asks for txns; how many were taken on (a server that does not lead takes none). */
  propose(payloads: readonly Uint8Array[]): number;
  /** Leader: hand leadership to this follower. */
  transfer(to: ServerId): void;
  /** null: this machine serves no clients. */
  connectClient(port: ClientPort): ClientEnd | null;
};

export type EnsembleShape = {
  readonly voters: readonly ServerId[];
  readonly observers: readonly ServerId[];
};

export type TimingProfile = {
  readonly zabTickMs: number;
  readonly heartbeatTicks: number;
  readonly syncLimitTicks: number;
  readonly initLimitTicks: number;
  readonly finalizeTicks: number;
};

export type LimitProfile = {
  readonly historyCountMax: number;
  readonly counterMax: number;
  /** Bare core: a snapshot after so many applied txns; 0: never by itself. */
  readonly snapshotEvery: number;
  /** Replica: a snapshot when the log has grown by so many bytes. */
  readonly logBytesMin: number;
  readonly chunkBytes: number;
  readonly outstandingMax: number;
  readonly waitWithoutLeaderMs: number;
  readonly tickMs: number;
};

export type MachineEnv = {
  readonly id: ServerId;
  readonly incarnation: number;
  readonly seed: number;
  readonly shape: EnsembleShape;
  readonly timing: TimingProfile;
  readonly limits: LimitProfile;
  readonly mutations: Mutations;
  readonly disk: Disk;
  readonly network: Network;
  readonly clock: Clock;
  readonly restored: RestoredStore;
  schedule(work: () => void): void;
  randomBytes(count: number): Uint8Array;
  log(level: LogLevel, message: string, fields?: Readonly<Record<string, unknown>>): void;
  fatal(error: Error): void;
  /** Begins with the state of this zxid; what is applied from here on comes behind it. */
  onStarted(zxid: Zxid): void;
  /** Loaded: peers may connect from now on. */
  onListening(): void;
  /** txn null: the bytes are those of the log. */
  onApplied(zxid: Zxid, txn: Uint8Array | null, digest: bigint): void;
  /** The live state was replaced by the staged snapshot at this zxid. */
  onInstalled(zxid: Zxid): void;
  /** The leader answered for a txn: whoever asked for it counts on it from now on. */
  onAcknowledged(zxid: Zxid): void;
  witness(name: string): void;
};

export type MachineFactory = (env: MachineEnv) => Machine;
