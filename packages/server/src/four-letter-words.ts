// The four-letter words of ZooKeeper's client port, each a view of one StatusReport: texts as ZooKeeper prints them, since
// monitors parse them (zookeeper-semantics 9.1, 9.2). Must not look at anything but the report and the process itself.

import { readdirSync, readFileSync } from 'node:fs';
import { arch, freemem, homedir, hostname, platform, release, totalmem, userInfo } from 'node:os';
import type { ConnectionReport, StatusReport } from './status-report.ts';

const NOT_SERVING = 'This ZooKeeper instance is not currently serving requests\n';

type Word = { readonly needsService: boolean; readonly text: (report: StatusReport) => string };

const words = {
  ruok: { needsService: false, text: () => 'imok' },
  srvr: { needsService: true, text: (r) => versionLine(r) + summary(r) },
  stat: { needsService: true, text: (r) => `${versionLine(r)}Clients:\n${clientLines(r, briefLine)}\n${summary(r)}` },
  mntr: { needsService: true, text: mntr },
  conf: { needsService: true, text: conf },
  cons: { needsService: true, text: (r) => `${clientLines(r, fullLine)}\n` },
  isro: { needsService: false, text: (r) => (r.isServing ? 'rw' : 'null') },
  envi: { needsService: false, text: environment },
  wchs: {
    needsService: true,
    text: (r) => `${r.watcherCount} connections watching ${r.watchPathCount} paths\nTotal watches:${r.watchCount}\n`,
  },
  dirs: { needsService: true, text: (r) => `datadir_size: ${r.storeBytes}\nlogdir_size: ${r.storeBytes}\n` },
  dump: { needsService: true, text: dump },
} as const satisfies Record<string, Word>;

/** ZooKeeper's other words: known, so that they are answered as it answers a word that is not in the whitelist. */
const UNAVAILABLE: ReadonlySet<string> = new Set(['crst', 'srst', 'wchc', 'wchp', 'gtmk', 'stmk', 'hash']);

const answers: ReadonlyMap<string, Word> = new Map(Object.entries<Word>(words));

/** Whether four bytes are a word, and so no length of a frame. */
export function isFourLetterWord(text: string): boolean {
  return answers.has(text) || UNAVAILABLE.has(text);
}

/** `whitelist` null allows all. The report is gathered only when the word needs it. */
export function answerWord(word: string, whitelist: ReadonlySet<string> | null, gather: () => StatusReport): string {
  const known = answers.get(word);
  const isAllowed = whitelist === null || whitelist.has(word);
  if (known === undefined || !isAllowed) return `${word} is not executed because it is not in the whitelist.\n`;
  const report = gather();
  return known.needsService && !report.isServing ? NOT_SERVING : known.text(report);
}

function versionLine(report: StatusReport): string {
  return `Zookeeper version: ${report.version}\n`;
}

/** Averages as Java prints a double with at most four decimals. */
function decimal(value: number): string {
  const rounded = Math.round(value * 10_000) / 10_000;
  return Number.isInteger(rounded) ? `${rounded}.0` : String(rounded);
}

function summary(r: StatusReport): string {
  const lines = [
    `Latency min/avg/max: ${whole(r.latencyMs.min)}/${decimal(r.latencyMs.avg)}/${whole(r.latencyMs.max)}`,
    `Received: ${r.packetsReceived}`,
    `Sent: ${r.packetsSent}`,
    `Connections: ${r.connectionCount}`,
    `Outstanding: ${r.outstandingCount}`,
    `Zxid: ${r.zxid}`,
    `Mode: ${r.mode}`,
    `Node count: ${r.znodeCount}`,
  ];
  if (r.mode === 'leader') {
    const { last, min, max } = r.proposalBytes;
    lines.push(`Proposal sizes last/min/max: ${last}/${min}/${max}`);
  }
  return joined(lines);
}

function whole(value: number): number {
  return Math.round(value);
}

function joined(lines: readonly string[]): string {
  return lines.map((line) => `${line}\n`).join('');
}

function clientLines(report: StatusReport, line: (connection: ConnectionReport) => string): string {
  return joined(report.connections.map(line));
}

function briefLine(c: ConnectionReport): string {
  return ` /${c.remote}[${c.isReading ? 1 : 0}](queued=${c.queued},recved=${c.received},sent=${c.sent})`;
}

function fullLine(c: ConnectionReport): string {
  const s = c.session;
  if (s === null) return briefLine(c);
  return [
    `${briefLine(c).slice(0, -1)},sid=${s.id}`,
    `lop=${s.lastOperation}`,
    `est=${whole(s.establishedMs)}`,
    `to=${s.timeoutMs}`,
    `lcxid=${s.lastCxid}`,
    `lzxid=${s.lastZxid}`,
    `lresp=${whole(s.lastResponseMs)}`,
    `minlat=${whole(s.minLatencyMs)}`,
    `avglat=${whole(s.avgLatencyMs)}`,
    `maxlat=${whole(s.maxLatencyMs)})`,
  ].join(',');
}

/** Keys whose feature does not exist here say so by ZooKeeper's neutral value; what is not measured is left out. */
function mntr(r: StatusReport): string {
  const values: [string, string | number][] = [
    ['version', r.version],
    ['server_state', r.mode],
    ['peer_state', r.peerState],
    ['avg_latency', decimal(r.latencyMs.avg)],
    ['max_latency', whole(r.latencyMs.max)],
    ['min_latency', whole(r.latencyMs.min)],
    ['packets_received', r.packetsReceived],
    ['packets_sent', r.packetsSent],
    ['num_alive_connections', r.connectionCount],
    ['outstanding_requests', r.outstandingCount],
    ['uptime', whole(r.uptimeMs)],
    ['znode_count', r.znodeCount],
    ['watch_count', r.watchCount],
    ['ephemerals_count', r.ephemeralCount],
    ['approximate_data_size', r.dataBytes],
    ['global_sessions', r.sessions.length],
    ['local_sessions', 0],
    ['connection_drop_probability', '0.0'],
    ['outstanding_tls_handshake', 0],
  ];
  const descriptors = fileDescriptors();
  if (descriptors !== null) {
    values.push(['open_file_descriptor_count', descriptors.open], ['max_file_descriptor_count', descriptors.max]);
  }
  if (r.mode !== 'standalone') values.push(['quorum_size', r.voterCount]);
  else values.splice(2, 1);
  if (r.learners !== null && r.mode === 'leader') {
    values.push(
      ['learners', r.learners.all],
      ['synced_followers', r.learners.syncedFollowers],
      ['synced_non_voting_followers', 0],
      ['synced_observers', r.learners.syncedObservers],
      ['leader_uptime', whole(r.learners.leadingMs)],
      ['last_proposal_size', r.proposalBytes.last],
      ['max_proposal_size', r.proposalBytes.max],
      ['min_proposal_size', r.proposalBytes.min],
    );
  }
  return values.map(([key, value]) => `zk_${key}\t${value}\n`).join('');
}

function fileDescriptors(): { open: number; max: number } | null {
  try {
    const limit = /^Max open files\s+\S+\s+(\d+)/m.exec(readFileSync('/proc/self/limits', 'latin1'));
    return { open: readdirSync('/proc/self/fd').length, max: Number(limit?.[1] ?? -1) };
  } catch {
    // Not on Linux.
    return null;
  }
}

function conf(r: StatusReport): string {
  const c = r.config;
  const lines = [
    `clientPort=${c.clientPort}`,
    'secureClientPort=-1',
    `dataDir=${c.dataDir}`,
    `dataDirSize=${r.storeBytes}`,
    `dataLogDir=${c.dataDir}`,
    `dataLogSize=${r.storeBytes}`,
    `tickTime=${c.tickMs}`,
    `maxClientCnxns=${c.perAddressMax}`,
    `minSessionTimeout=${c.minSessionTimeoutMs}`,
    `maxSessionTimeout=${c.maxSessionTimeoutMs}`,
    `clientPortListenBacklog=${c.backlog}`,
    `serverId=${r.serverId}`,
  ];
  const e = c.ensemble;
  if (e !== null) {
    lines.push(
      `initLimit=${e.initLimit}`,
      `syncLimit=${e.syncLimit}`,
      'electionAlg=3',
      `electionPort=${e.electionPorts}`,
      `quorumPort=${e.peerPorts}`,
      `peerType=${e.isObserver ? 1 : 0}`,
      'membership: ',
      e.membership,
      'version=0',
    );
  }
  return joined(lines);
}

/** Java's names where a monitor may look for them, Node's facts as values. */
function environment(r: StatusReport): string {
  const mib = (bytes: number): string => `${Math.round(bytes / 1024 / 1024)}MB`;
  return joined([
    'Environment:',
    `zookeeper.version=${r.version}`,
    `host.name=${hostname()}`,
    `java.version=Node.js ${process.version}`,
    `os.name=${platform()}`,
    `os.arch=${arch()}`,
    `os.version=${release()}`,
    `user.name=${userName()}`,
    `user.home=${homedir()}`,
    `user.dir=${process.cwd()}`,
    `os.memory.free=${mib(freemem())}`,
    `os.memory.max=${mib(totalmem())}`,
    `os.memory.total=${mib(process.memoryUsage().rss)}`,
  ]);
}

function userName(): string {
  try {
    return userInfo().username;
  } catch {
    // A container's user need not stand in its password file.
    return `uid ${process.getuid?.() ?? 'unknown'}`;
  }
}

function dump(r: StatusReport): string {
  return joined([
    'SessionTracker dump:',
    `Global Sessions(${r.sessions.length}):`,
    ...r.sessions.map((session) => `${session.id}\t${session.timeoutMs}ms`),
    'ephemeral nodes dump:',
    `Sessions with Ephemerals (${r.ephemerals.length}):`,
    ...r.ephemerals.flatMap((owner) => [`${owner.sessionId}:`, ...owner.paths.map((path) => `\t${path}`)]),
    'Connections dump:',
    `Connections Sets (1)/(${r.connections.length}):`,
    ...r.connections.map((connection) => `\t/${connection.remote}`),
  ]);
}
