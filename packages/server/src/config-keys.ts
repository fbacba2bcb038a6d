// The one table of configuration keys: every key of ZooKeeper's zoo.cfg and Quorate's own, and what this server does with it.
// honoured: it has its effect. accepted: it is valid and changes nothing here, which is said once with the reason.
// refused: ignoring it would be wrong or unsafe, so the start stops. The README's table is made from this one.

import { unreachable } from '@quorate/protocol/assert';

/** Thrown by a parser; the reader adds key, value and line. */
export class ValueError extends Error {
  readonly expected: string;
  constructor(expected: string) {
    super(`expected ${expected}`);
    this.name = 'ValueError';
    this.expected = expected;
  }
}

export type Honoured<T> = {
  readonly status: 'honoured';
  readonly parse: (text: string) => T;
  readonly fallback: T;
  /** The default as a reader sees it. */
  readonly shown: string;
  readonly text: string;
};
export type Accepted = { readonly status: 'accepted'; readonly text: string };
export type Refused = {
  readonly status: 'refused';
  /** Values that ask for nothing. */
  readonly harmless: readonly string[];
  readonly text: string;
};
export type KeySpec = Honoured<unknown> | Accepted | Refused;

function honoured<T>(parse: (text: string) => T, fallback: T, text: string, shown?: string): Honoured<T> {
  return { status: 'honoured', parse, fallback, text, shown: shown ?? (fallback === null ? '' : String(fallback)) };
}

function accepted(text: string): Accepted {
  return { status: 'accepted', text };
}

function refused(text: string, harmless: readonly string[] = []): Refused {
  return { status: 'refused', text, harmless };
}

export function integer(min: number, max: number = Number.MAX_SAFE_INTEGER): (text: string) => number {
  const upTo = max === Number.MAX_SAFE_INTEGER ? `of at least ${min}` : `between ${min} and ${max}`;
  return (text) => {
    const value = /^[+-]?\d{1,16}$/.test(text) ? Number(text) : Number.NaN;
    if (!Number.isSafeInteger(value) || value < min || value > max) throw new ValueError(`a whole number ${upTo}`);
    return value;
  };
}

/** The same, but its absence has a meaning of its own. */
function optional<T>(parse: (text: string) => T): (text: string) => T | null {
  return parse;
}

function oneOf<const T extends string>(...values: readonly T[]): (text: string) => T {
  return (text) => {
    const found = values.find((value) => value.toLowerCase() === text.toLowerCase());
    if (found === undefined) throw new ValueError(`one of ${values.join(', ')}`);
    return found;
  };
}

function flag(text: string): boolean {
  const value = text.toLowerCase();
  if (value === 'true' || value === 'yes') return true;
  if (value === 'false' || value === 'no') return false;
  throw new ValueError('true or false');
}

function text(value: string): string {
  if (value === '') throw new ValueError('a value');
  return value;
}

function superDigest(value: string): string {
  if (!/^super:[A-Za-z0-9+/]{27}=$/.test(value)) throw new ValueError('super:<base64 of a SHA-1>');
  return value;
}

const port = integer(0, 65535);
const ms = integer(1, 0x7fffffff);
const bytes = integer(1);
/** A message of Zab's and a client's frame must fit one frame between servers. */
const frameBytes = integer(1024, 32 * 1024 * 1024);

const THREADS = 'one event loop does the thinking; there are no such threads';
const TLS = 'TLS is not available yet';
const SASL = 'SASL is not available yet';
const WATCHES = 'watch tables have one implementation here';
const ADMIN = 'the admin server is not available yet; no port is opened';
const METRICS = 'the metrics endpoint is not available yet; no port is opened';
const THROTTLE = 'requests are limited by globalOutstandingLimit and the quorate limits alone';
const SNAPSHOTS = 'snapshots follow the growth of the log (quorate.snapshotLogBytesMin)';
const GROUP_COMMIT = 'every write is fsynced, and whatever waits is one group';
const CNXN_THROTTLE = 'connections are limited by maxClientCnxns and maxCnxns alone';
const ELECTION = 'elections follow quorate.electionWaitMs and the votes at hand';
const SYNC_LIMIT = 'synchronisations are sent with backpressure, each at its own pace';
const CHANNELS = 'peer connections never block the server';
const TTL_SHARE = 'containers and TTL znodes are checked once a minute';
const KERBEROS = 'it matters only with SASL, which is not available yet';
const TLS_DETAIL = 'it matters only with TLS, which is not available yet';

export const FOUR_LETTER_DEFAULT = 'ruok,srvr,stat,mntr,conf,cons,isro,envi,wchs,dirs,dump';

export const configKeys = {
  // Basic and limits.
  clientPort: honoured(optional(port), null, 'port for clients; may come from the `server.N` line'),
  clientPortAddress: honoured(optional(text), null, 'address for clients', 'all'),
  secureClientPort: refused(TLS),
  secureClientPortAddress: refused(TLS),
  dataDir: honoured(optional(text), null, 'folder of the store and of `myid`; required'),
  dataLogDir: accepted('the whole store is in dataDir: one LevelDB and the snapshots'),
  tickTime: honoured(ms, 3000, 'ms; unit of session expiry, initLimit and syncLimit'),
  minSessionTimeout: honoured(optional(integer(-1, 0x7fffffff)), null, 'ms', '2 x tickTime'),
  maxSessionTimeout: honoured(optional(integer(-1, 0x7fffffff)), null, 'ms', '20 x tickTime'),
  maxClientCnxns: honoured(integer(0), 60, 'connections per address; 0: no limit'),
  maxCnxns: honoured(integer(0), 0, 'client connections in all; 0: no limit'),
  clientPortListenBacklog: honoured(integer(-1, 65535), -1, 'listen backlog; -1: the system chooses'),
  globalOutstandingLimit: honoured(integer(1), 1000, 'requests that wait for an answer on this server'),
  'jute.maxbuffer': honoured(frameBytes, 1048575, 'bytes of one client frame'),
  'jute.maxbuffer.extrasize': accepted('whatever was admitted can be read back'),
  tcpKeepAlive: accepted('peers are watched by heartbeats'),
  clientTcpKeepAlive: honoured(flag, false, 'TCP keep-alive on client sockets'),
  largeRequestThreshold: accepted(THROTTLE),
  largeRequestMaxBytes: accepted(THROTTLE),
  requestThrottleLimit: accepted(THROTTLE),
  request_throttle_max_requests: accepted(THROTTLE),
  requestThrottleStallTime: accepted(THROTTLE),
  requestThrottleDropStale: accepted(THROTTLE),
  requestStaleLatencyCheck: accepted(THROTTLE),
  requestStaleConnectionCheck: accepted(THROTTLE),
  'request_throttler.shutdownTimeout': accepted(THROTTLE),
  throttledOpWaitTime: accepted(THROTTLE),
  throttled_op_wait_time: accepted(THROTTLE),
  connection_throttle_tokens: accepted(CNXN_THROTTLE),
  connection_throttle_fill_time: accepted(CNXN_THROTTLE),
  connection_throttle_fill_count: accepted(CNXN_THROTTLE),
  connection_throttle_freeze_time: accepted(CNXN_THROTTLE),
  connection_throttle_drop_increase: accepted(CNXN_THROTTLE),
  connection_throttle_drop_decrease: accepted(CNXN_THROTTLE),
  connection_throttle_decrease_ratio: accepted(CNXN_THROTTLE),
  connection_throttle_weight_enabled: accepted(CNXN_THROTTLE),
  connection_throttle_global_session_weight: accepted(CNXN_THROTTLE),
  connection_throttle_local_session_weight: accepted(CNXN_THROTTLE),
  connection_throttle_renew_session_weight: accepted(CNXN_THROTTLE),
  maxResponseCacheSize: accepted('replies are encoded straight from memory'),
  maxGetChildrenResponseCacheSize: accepted('replies are encoded straight from memory'),
  enforceQuota: accepted('quotas are not enforced yet'),
  enableEagerACLCheck: accepted('the leader checks permissions of writes'),
  'nio.numSelectorThreads': accepted(THREADS),
  'nio.numWorkerThreads': accepted(THREADS),
  'nio.directBufferBytes': accepted(THREADS),
  'nio.shutdownTimeout': accepted(THREADS),
  'nio.sessionlessCnxnTimeout': honoured(ms, 10_000, 'ms until a connection without a session is closed'),
  'commitProcessor.numWorkerThreads': accepted(THREADS),
  'commitProcessor.maxReadBatchSize': accepted(THREADS),
  'commitProcessor.maxCommitBatchSize': accepted(THREADS),
  'commitProcessor.shutdownTimeout': accepted(THREADS),
  'netty.advancedFlowControl.enabled': accepted('sockets have flow control always'),
  'netty.server.outstandingHandshake.limit': accepted(TLS_DETAIL),
  'netty.server.earlyDropSecureConnectionHandshakes': accepted(TLS_DETAIL),
  watchManagerName: accepted(WATCHES),
  watcherCleanThreadsNum: accepted(WATCHES),
  watcherCleanThreshold: accepted(WATCHES),
  watcherCleanIntervalInSeconds: accepted(WATCHES),
  maxInProcessingDeadWatchers: accepted(WATCHES),
  bitHashCacheSize: accepted(WATCHES),

  // Storage.
  snapCount: accepted(SNAPSHOTS),
  snapSizeLimitInKb: accepted(SNAPSHOTS),
  txnLogSizeLimitInKb: accepted(SNAPSHOTS),
  preAllocSize: accepted('LevelDB manages its files'),
  commitLogCount: honoured(integer(1), 20_000, 'txns kept in memory, at least, for learners that are a little behind'),
  snapshotSizeFactor: accepted(SYNC_LIMIT),
  'autopurge.snapRetainCount': honoured(integer(3, 1000), 3, 'snapshots that stay'),
  'autopurge.purgeInterval': accepted('the store is purged whenever a snapshot was taken'),
  'fsync.warningthresholdms': accepted('slow fsyncs are seen in the latencies'),
  forceSync: accepted(GROUP_COMMIT),
  flushDelay: accepted(GROUP_COMMIT),
  maxWriteQueuePollTime: accepted(GROUP_COMMIT),
  maxBatchSize: accepted(GROUP_COMMIT),
  'snapshot.compression.method': accepted('snapshots are not compressed'),
  'snapshot.trust.empty': accepted('an empty store is joined by a copy from the leader, never trusted'),
  'serializeLastProcessedZxid.enabled': accepted('a snapshot is at exactly one zxid'),
  'digest.enabled': accepted('the digest is always kept'),
  'closeSessionTxn.enabled': accepted('the closing of a session always lists what it removes'),
  'datadir.autocreate': honoured(flag, true, 'create dataDir when it is missing'),
  'db.autocreate': accepted('an empty store belongs to no ensemble and does not vote until it joined one'),
  extendedTypesEnabled: honoured(flag, false, 'TTL znodes'),
  emulate353TTLNodes: refused('that format of TTL znodes does not exist here', ['false']),
  'znode.container.checkIntervalMs': accepted(TTL_SHARE),
  'znode.container.maxPerMinute': accepted(TTL_SHARE),
  'znode.container.maxNeverUsedIntervalMs': accepted(TTL_SHARE),

  // Ensemble.
  'server.*': honoured(
    text,
    '',
    '`host:peerPort[:electionPort][:role][;[address:]clientPort]`, several addresses with a pipe',
  ),
  initLimit: honoured(
    optional(integer(1, 1_000_000)),
    null,
    'ticks for a learner to synchronise; required in an ensemble',
  ),
  syncLimit: honoured(
    optional(integer(1, 1_000_000)),
    null,
    'ticks; upper bound of quorate.peerSilenceMs; required in an ensemble',
  ),
  connectToLearnerMasterLimit: accepted('connecting has its own back-off'),
  electionAlg: refused('only algorithm 3 exists', ['3']),
  peerType: honoured(
    oneOf('participant', 'observer'),
    'participant',
    'role of this server if its server line names none',
  ),
  'group.*': refused('hierarchical quorums are not available'),
  'weight.*': refused('hierarchical quorums are not available'),
  cnxTimeout: honoured(ms, 1000, 'ms to connect to a peer and exchange hellos'),
  quorumCnxnTimeoutMs: accepted('silence of a peer is quorate.peerSilenceMs'),
  electionPortBindRetry: accepted('the election port is not used; a taken peer port stops the start'),
  'fastleader.minNotificationInterval': accepted(ELECTION),
  'fastleader.maxNotificationInterval': accepted(ELECTION),
  'leader.maxTimeToWaitForEpoch': accepted('initLimit bounds it'),
  leaderServes: accepted('the leader serves clients'),
  standaloneEnabled: honoured(flag, true, 'one server line alone means standalone'),
  reconfigEnabled: accepted('dynamic reconfiguration is not available yet; clients get ReconfigDisabled'),
  dynamicConfigFile: honoured(optional(text), null, 'file with the server lines'),
  localSessionsEnabled: accepted('every session is global, which is stronger'),
  localSessionsUpgradingEnabled: accepted('every session is global, which is stronger'),
  'readonlymode.enabled': accepted('a server without a quorum does not serve'),
  syncEnabled: accepted('observers always keep a log and snapshots'),
  observerMasterPort: accepted('observers follow the leader directly'),
  'observer.reconnectDelayMs': accepted('connecting has its own back-off'),
  'observer.election.DelayMs': accepted(ELECTION),
  'leader.maxConcurrentSnapSyncs': accepted(SYNC_LIMIT),
  'leader.maxConcurrentDiffSyncs': accepted(SYNC_LIMIT),
  quorumListenOnAllIPs: honoured(flag, false, 'the peer port listens on every address'),
  'multiAddress.enabled': accepted('several addresses are always understood'),
  'multiAddress.reachabilityCheckTimeoutMs': accepted('addresses are tried in turn'),
  'multiAddress.reachabilityCheckEnabled': accepted('addresses are tried in turn'),
  'learner.asyncSending': accepted(CHANNELS),
  'learner.closeSocketAsync': accepted(CHANNELS),
  'leader.closeSocketAsync': accepted(CHANNELS),
  forward_learner_requests_to_commit_processor_disabled: accepted(THREADS),
  'follower.skipLearnerRequestToNextProcessor': accepted(THREADS),
  oraclePath: refused('oracles are not available'),

  // Security and operations.
  '4lw.commands.whitelist': honoured(text, FOUR_LETTER_DEFAULT, 'four-letter words that are answered; `*`: all'),
  skipACL: honoured(flag, false, 'no permission is checked', 'no'),
  'authProvider.*': refused(SASL),
  'DigestAuthenticationProvider.superDigest': honoured(
    optional(superDigest),
    null,
    'whoever proves it passes every permission',
  ),
  'DigestAuthenticationProvider.enabled': refused('the digest scheme cannot be switched off', ['true']),
  'DigestAuthenticationProvider.digestAlg': refused('only SHA1 digests are available', ['SHA1', 'SHA-1']),
  'X509AuthenticationProvider.superUser': accepted(TLS_DETAIL),
  superUser: accepted(KERBEROS),
  'IPAuthenticationProvider.usexforwardedfor': accepted(ADMIN),
  'enforce.auth.enabled': refused('enforced authentication is not available yet', ['false']),
  'enforce.auth.schemes': accepted('it matters only with enforce.auth.enabled, which is not available yet'),
  sessionRequireClientSASLAuth: refused(SASL, ['false']),
  allowSaslFailedClients: accepted(KERBEROS),
  ensembleAuthName: refused('the ensemble scheme is not available'),
  'kerberos.removeHostFromPrincipal': accepted(KERBEROS),
  'kerberos.removeRealmFromPrincipal': accepted(KERBEROS),
  'kerberos.canonicalizeHostNames': accepted(KERBEROS),
  serverCnxnFactory: accepted('there is one implementation of sockets'),
  'client.portUnification': refused(TLS, ['false']),
  'client.certReload': accepted(TLS_DETAIL),
  'ssl.*': accepted(TLS_DETAIL),
  'fips-mode': accepted(TLS_DETAIL),
  sslQuorum: refused(TLS, ['false']),
  portUnification: refused(TLS, ['false']),
  sslQuorumReloadCertFiles: accepted(TLS_DETAIL),
  'quorum.auth.enableSasl': refused(SASL, ['false']),
  'quorum.auth.learnerRequireSasl': refused(SASL, ['false']),
  'quorum.auth.serverRequireSasl': refused(SASL, ['false']),
  'quorum.auth.*': accepted(KERBEROS),
  'quorum.cnxn.threads.size': accepted(THREADS),
  'admin.*': accepted(ADMIN),
  'metricsProvider.*': accepted(METRICS),
  'audit.enable': accepted('the audit log is not available yet'),
  'audit.impl.class': accepted('the audit log is not available yet'),
  'jvm.pause.monitor': accepted('there is no JVM'),
  'jvm.pause.warn-threshold.ms': accepted('there is no JVM'),
  'jvm.pause.info-threshold.ms': accepted('there is no JVM'),
  'jvm.pause.sleep.time.ms': accepted('there is no JVM'),

  // Quorate's own.
  'quorate.zabTickMs': honoured(integer(5, 1000), 50, 'ms; the resolution of all deadlines between servers'),
  'quorate.heartbeatMs': honoured(ms, 100, 'ms between two heartbeats'),
  'quorate.peerSilenceMs': honoured(
    optional(ms),
    null,
    'ms after which a silent leader or follower is given up; ZooKeeper waits syncLimit x tickTime',
    'min(syncLimit x tickTime, 700)',
  ),
  'quorate.electionWaitMs': honoured(
    integer(0, 60_000),
    200,
    'ms an election waits for better votes once a quorum agrees',
  ),
  'quorate.peerQueueBytesMax': honoured(
    bytes,
    256 * 1024 * 1024,
    'bytes waiting for one peer; beyond it the link is closed',
  ),
  'quorate.historyBytesMax': honoured(
    bytes,
    32 * 1024 * 1024,
    'bytes of txns kept in memory for learners that are behind',
  ),
  'quorate.connectionOutstandingMax': honoured(integer(1), 1000, 'requests of one connection that wait for an answer'),
  'quorate.outboxBytesMax': honoured(
    bytes,
    64 * 1024 * 1024,
    'reply bytes a client leaves unread before its connection is closed',
  ),
  'quorate.waitWithoutLeaderMs': honoured(ms, 5000, 'ms that clients are kept while there is no leader'),
  'quorate.snapshotLogBytesMin': honoured(
    bytes,
    // 64 MiB are replayed in a second; at 16 MiB snapshots and purges took a fifth of the CPU of a stream of creates.
    64 * 1024 * 1024,
    'bytes of log behind the last snapshot before the next is due',
  ),
  'quorate.logFormat': honoured(oneOf('auto', 'json', 'pretty'), 'auto', 'auto: pretty on a terminal, else JSON lines'),
  'quorate.logLevel': honoured(
    oneOf('debug', 'info', 'warn', 'error', 'fatal'),
    'info',
    'least important level that is logged',
  ),
  'quorate.peerSecretFile': refused('a secret between servers is not available yet'),
} as const satisfies Record<string, KeySpec>;

const NUMBERED: readonly string[] = ['server.*', 'group.*', 'weight.*', 'authProvider.*'];

/** The table as the README shows it. */
export function configTable(): string {
  const rows = ['| key | default | effect |', '| --- | --- | --- |'];
  for (const [key, spec] of Object.entries<KeySpec>(configKeys)) {
    const name = NUMBERED.includes(key) ? key.replace('*', 'N') : key;
    rows.push(`| \`${name}\` | ${spec.status === 'honoured' ? spec.shown : ''} | ${effectOf(spec)} |`);
  }
  return rows.join('\n');
}

function effectOf(spec: KeySpec): string {
  switch (spec.status) {
    case 'honoured':
      return spec.text;
    case 'accepted':
      return `accepted, no effect: ${spec.text}`;
    case 'refused':
      return `refused${spec.harmless.length > 0 ? ` unless ${spec.harmless.join(' or ')}` : ''}: ${spec.text}`;
    default:
      return unreachable(spec);
  }
}
