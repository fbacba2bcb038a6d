// A whole replica as a machine: the same code that runs in production, with the simulator's ports.

import type { ServerId } from '@quorate/protocol';
import type { ClientPort } from '@quorate/server/ports';
import { Replica } from '@quorate/server/replica';
import type { ClientEnd, Machine, MachineEnv, ServerView } from './machine.ts';
import type { PeerMessage } from './network.ts';

/** What clients of a simulated ensemble may ask for. */
export const SESSION_TIMEOUT_MS_MIN = 400;
export const SESSION_TIMEOUT_MS_MAX = 4000;

export class ReplicaMachine implements Machine {
  readonly #replica: Replica;
  #isStarted = false;

  constructor(env: MachineEnv) {
    const { timing, limits, shape } = env;
    this.#replica = new Replica(
      {
        id: env.id,
        voters: shape.voters,
        observers: shape.observers,
        incarnation: env.incarnation,
        seed: env.seed,
        tickMs: limits.tickMs,
        zabTickMs: timing.zabTickMs,
        zab: {
          heartbeatTicks: timing.heartbeatTicks,
          syncLimitTicks: timing.syncLimitTicks,
          initLimitTicks: timing.initLimitTicks,
          finalizeTicks: timing.finalizeTicks,
          historyCountMax: limits.historyCountMax,
          historyBytesMax: 1 << 20,
          counterMax: limits.counterMax,
        },
        minSessionTimeoutMs: SESSION_TIMEOUT_MS_MIN,
        maxSessionTimeoutMs: SESSION_TIMEOUT_MS_MAX,
        limits: {
          maxFrameBytes: 0xfffff,
          outstandingMax: limits.outstandingMax,
          connectionOutstandingMax: limits.outstandingMax,
          outboxBytesMax: 1 << 20,
          waitWithoutLeaderMs: limits.waitWithoutLeaderMs,
        },
        snapshots: {
          logBytesMin: limits.logBytesMin,
          retain: 2,
          chunkBytes: limits.chunkBytes,
          stagger: (env.seed & 0xff) / 256,
        },
        skipAcl: false,
        extendedTypesEnabled: false,
        superDigest: null,
        membership: null,
        mutations: env.mutations,
      },
      {
        clock: env.clock,
        network: env.network,
        disk: env.disk,
        schedule: (work) => env.schedule(work),
        randomBytes: (count) => env.randomBytes(count),
        // No client of the simulator authenticates; a digest id only has to be a function of its text.
        sha1Base64: (text) => `digest of ${text}`,
        log: (level, message, fields) => env.log(level, message, fields),
        fatal: (error) => env.fatal(error),
      },
      env.restored,
    );
    this.#replica.observer = (event) => {
      switch (event.kind) {
        case 'applied':
          env.onApplied(event.zxid, null, event.digest);
          return;
        case 'stateReplaced':
          env.onInstalled(event.zxid);
          return;
        case 'role':
          return;
        case 'snapshotTaken':
          env.witness('snapshot taken');
          return;
      }
    };
    env.onStarted(env.restored.snapshot);
    this.#replica.start(() => {
      this.#isStarted = true;
      env.onListening();
    });
  }

  onTick(): void {
    this.#replica.onTick();
  }

  onPeerConnected(peer: ServerId, incarnation: number): void {
    this.#replica.onPeerConnected(peer, incarnation);
  }

  onPeerDisconnected(peer: ServerId): void {
    this.#replica.onPeerDisconnected(peer);
  }

  onPeerMessage(from: ServerId, message: PeerMessage): void {
    this.#replica.onPeerMessage(from, message);
  }

  view(): ServerView | null {
    if (!this.#isStarted) return null;
    const { zab, isServing } = this.#replica.status;
    // Zab may serve while a snapshot is still being loaded: clients are answered only when the tree is there.
    return zab.serving === isServing ? zab : { ...zab, serving: zab.serving && isServing };
  }

  propose(_payloads: readonly Uint8Array[]): number {
    return 0;
  }

  /** Leadership is handed over when a server stops in order; the replica has no other way to ask for it. */
  transfer(_to: ServerId): void {}

  connectClient(port: ClientPort): ClientEnd | null {
    return this.#replica.connectClient(port);
  }
}
