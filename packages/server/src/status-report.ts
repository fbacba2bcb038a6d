// What a server tells people about itself, as one plain record: four-letter words are only views of it.
// Gathering it costs time proportional to connections and sessions, so it is gathered on demand and never kept.

import { hex64 } from '@quorate/protocol/zxid';
import type { ClientListener } from './client-listener.ts';
import { type Config, membershipText } from './config.ts';
import type { Replica } from './replica.ts';

export type ServerMode = 'standalone' | 'leader' | 'follower' | 'observer' | 'looking';

export type ConnectionReport = {
  /** As ZooKeeper prints it: `127.0.0.1:50000`. */
  readonly remote: string;
  readonly isReading: boolean;
  readonly queued: number;
  readonly received: number;
  readonly sent: number;
  /** null: no session yet. */
  readonly session: {
    readonly id: string;
    readonly lastOperation: string;
    readonly establishedMs: number;
    readonly timeoutMs: number;
    readonly lastCxid: string;
    readonly lastZxid: string;
    readonly lastResponseMs: number;
    readonly minLatencyMs: number;
    readonly avgLatencyMs: number;
    readonly maxLatencyMs: number;
  } | null;
};

export type StatusReport = {
  /** Begins with the version of ZooKeeper whose behaviour this is: clients and monitors parse it. */
  readonly version: string;
  readonly serverId: number;
  readonly isServing: boolean;
  readonly mode: ServerMode;
  /** `leading - broadcast` and the like. */
  readonly peerState: string;
  readonly epoch: number;
  readonly zxid: string;
  readonly latencyMs: { readonly min: number; readonly avg: number; readonly max: number };
  readonly packetsReceived: number;
  readonly packetsSent: number;
  readonly connections: readonly ConnectionReport[];
  readonly connectionCount: number;
  readonly outstandingCount: number;
  readonly uptimeMs: number;
  readonly znodeCount: number;
  readonly dataBytes: number;
  readonly ephemeralCount: number;
  readonly watchCount: number;
  readonly watchPathCount: number;
  readonly watcherCount: number;
  readonly sessions: readonly { readonly id: string; readonly timeoutMs: number }[];
  readonly ephemerals: readonly { readonly sessionId: string; readonly paths: readonly string[] }[];
  readonly proposalBytes: { readonly last: number; readonly min: number; readonly max: number };
  /** null unless leading. */
  readonly learners: {
    readonly all: number;
    readonly syncedFollowers: number;
    readonly syncedObservers: number;
    readonly leadingMs: number;
  } | null;
  readonly voterCount: number;
  readonly storeBytes: number;
  readonly config: {
    readonly clientPort: number;
    readonly dataDir: string;
    readonly tickMs: number;
    readonly perAddressMax: number;
    readonly minSessionTimeoutMs: number;
    readonly maxSessionTimeoutMs: number;
    readonly backlog: number;
    /** null when standalone. */
    readonly ensemble: {
      readonly initLimit: number;
      readonly syncLimit: number;
      readonly electionPorts: string;
      readonly peerPorts: string;
      readonly isObserver: boolean;
      readonly membership: string;
    } | null;
  };
};

export type ReportSources = {
  readonly version: string;
  readonly config: Config;
  readonly replica: Replica;
  readonly listener: ClientListener;
  readonly startedMs: number;
  /** When this server began to lead; null while it does not. */
  readonly leadingSinceMs: () => number | null;
  readonly nowMs: () => number;
  readonly wallMs: () => number;
  readonly storeBytes: () => number;
};

export function gatherReport(sources: ReportSources): StatusReport {
  const { config, replica, listener } = sources;
  const status = replica.status;
  const { zab, counters } = status;
  const nowMs = sources.nowMs();
  const leadingSinceMs = sources.leadingSinceMs();
  const isLeading = zab.role === 'leading';
  const inSync = zab.followers.filter((one) => one.inSync);
  return {
    version: sources.version,
    serverId: config.id,
    isServing: status.isServing,
    mode: modeOf(config, zab.role),
    peerState: `${zab.role} - ${zab.phase}`,
    epoch: zab.epoch,
    zxid: hex64(status.applied),
    latencyMs: {
      min: counters.latencyMinMs,
      avg: counters.latencyCount === 0 ? 0 : counters.latencySumMs / counters.latencyCount,
      max: counters.latencyMaxMs,
    },
    packetsReceived: counters.packetsReceived,
    packetsSent: counters.packetsSent,
    connections: listener.connectionReports(nowMs, sources.wallMs()),
    connectionCount: listener.connectionCount,
    outstandingCount: status.outstandingCount,
    uptimeMs: nowMs - sources.startedMs,
    znodeCount: status.znodeCount,
    dataBytes: status.dataBytes,
    ephemeralCount: status.ephemeralCount,
    watchCount: status.watchCount,
    watchPathCount: status.watchPathCount,
    watcherCount: status.watcherCount,
    ...sessionsOf(replica),
    proposalBytes: status.proposalBytes,
    learners: isLeading
      ? {
          all: zab.followers.length,
          syncedFollowers: inSync.filter((one) => !one.observer).length,
          syncedObservers: inSync.filter((one) => one.observer).length,
          leadingMs: leadingSinceMs === null ? 0 : nowMs - leadingSinceMs,
        }
      : null,
    voterCount: config.voters.length,
    storeBytes: sources.storeBytes(),
    config: configReport(config),
  };
}

function modeOf(config: Config, role: 'looking' | 'leading' | 'following' | 'observing'): ServerMode {
  if (config.isStandalone) return 'standalone';
  if (role === 'leading') return 'leader';
  if (role === 'following') return 'follower';
  return role === 'observing' ? 'observer' : 'looking';
}

function sessionsOf(replica: Replica): Pick<StatusReport, 'sessions' | 'ephemerals'> {
  const { tree } = replica.state;
  const sessions = Array.from(tree.sessions.all(), ({ id, timeoutMs }) => ({ id: hex64(id), timeoutMs }));
  const ephemerals = Array.from(tree.ephemeralOwners(), (owner) => ({
    sessionId: hex64(owner),
    paths: [...tree.ephemeralsOf(owner)],
  })).filter((one) => one.paths.length > 0);
  return { sessions, ephemerals };
}

function configReport(config: Config): StatusReport['config'] {
  const mine = config.servers.get(config.id);
  const { port, perAddressMax, backlog } = config.client;
  return {
    clientPort: port,
    dataDir: config.dataDir,
    tickMs: config.tickMs,
    perAddressMax,
    minSessionTimeoutMs: config.minSessionTimeoutMs,
    maxSessionTimeoutMs: config.maxSessionTimeoutMs,
    backlog,
    ensemble:
      config.isStandalone || mine === undefined
        ? null
        : {
            initLimit: config.initLimit,
            syncLimit: config.syncLimit,
            electionPorts: mine.electionPorts.filter((one) => one !== null).join('|'),
            peerPorts: mine.peerAddresses.map((one) => one.port).join('|'),
            isObserver: mine.role === 'observer',
            membership: membershipText(config),
          },
  };
}
