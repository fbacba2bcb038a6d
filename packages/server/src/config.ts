// zoo.cfg, myid and the dynamic file -> one readonly Config, parsed and validated once. Nobody else reads configuration.
// A wrong value stops the start with key, value, line and what was expected; an unknown key is a warning with the nearest known name.
// What each key means here is config-keys.ts's table; this file holds what keys mean together.

import { existsSync, readFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { NO_MUTATIONS } from '@quorate/protocol';
import { type ServerId, serverIdFrom } from '@quorate/protocol/zxid';
import { configKeys, type Honoured, integer, type KeySpec, ValueError } from './config-keys.ts';
import type { Address } from './peer-transport.ts';
import type { LogLevel } from './ports.ts';
import { type Property, parseProperties } from './properties.ts';
import type { ReplicaConfig } from './replica.ts';

export class ConfigError extends Error {
  readonly key: string;
  readonly value: string;
  readonly expected: string;
  /** File and line, as `zoo.cfg:12`; the file alone when a key is missing. */
  readonly where: string;
  constructor(key: string, value: string, expected: string, where: string) {
    super(`${where}: ${value === '' ? `${key} is missing` : `${key}=${value}`}: expected ${expected}`);
    this.name = 'ConfigError';
    this.key = key;
    this.value = value;
    this.expected = expected;
    this.where = where;
  }
}

export type ServerRole = 'participant' | 'observer';

/** One `server.N` line. */
export type ServerLine = {
  readonly id: ServerId;
  readonly peerAddresses: readonly Address[];
  readonly electionPorts: readonly (number | null)[];
  readonly role: ServerRole;
  readonly client: { readonly host: string | null; readonly port: number } | null;
};

/** What the start has to tell the operator; logged once there is a logger. */
export type Notice = {
  readonly level: LogLevel;
  readonly message: string;
  readonly fields: Readonly<Record<string, unknown>>;
};

export type Config = {
  readonly file: string;
  readonly id: ServerId;
  readonly isStandalone: boolean;
  /** Empty when standalone without server lines. */
  readonly servers: ReadonlyMap<ServerId, ServerLine>;
  readonly voters: readonly ServerId[];
  readonly observers: readonly ServerId[];
  readonly dataDir: string;
  readonly createDataDir: boolean;
  readonly tickMs: number;
  readonly minSessionTimeoutMs: number;
  readonly maxSessionTimeoutMs: number;
  /** 0 when standalone. */
  readonly initLimit: number;
  readonly syncLimit: number;
  readonly client: {
    /** null: all addresses. */
    readonly host: string | null;
    readonly port: number;
    readonly backlog: number;
    readonly perAddressMax: number;
    readonly connectionsMax: number;
    readonly frameBytesMax: number;
    readonly sessionlessMs: number;
    readonly keepAlive: boolean;
    readonly outboxBytesMax: number;
  };
  readonly peers: {
    readonly listen: readonly Address[];
    readonly others: ReadonlyMap<ServerId, readonly Address[]>;
    readonly handshakeMs: number;
    readonly silenceMs: number;
    readonly queueBytesMax: number;
  };
  readonly zabTickMs: number;
  readonly heartbeatMs: number;
  readonly peerSilenceMs: number;
  readonly electionWaitMs: number;
  readonly historyCountMax: number;
  readonly historyBytesMax: number;
  readonly outstandingMax: number;
  readonly connectionOutstandingMax: number;
  readonly waitWithoutLeaderMs: number;
  readonly snapshotLogBytesMin: number;
  readonly snapshotRetain: number;
  readonly skipAcl: boolean;
  readonly extendedTypesEnabled: boolean;
  readonly superDigest: string | null;
  /** null: all. */
  readonly fourLetterWords: ReadonlySet<string> | null;
  readonly logFormat: 'auto' | 'json' | 'pretty';
  readonly logLevel: LogLevel;
  readonly notices: readonly Notice[];
};

const DEFAULT_PEER_SILENCE_MS = 700;
const SNAPSHOT_CHUNK_BYTES = 256 * 1024;
/** Without server lines the id appears in session ids only. */
const STANDALONE_ID = 1;
/** The transport gives up a half-open link later than Zab gives up the peer, and not sooner than this. */
const LINK_SILENCE_MS_MIN = 2000;

export function loadConfig(file: string): Config {
  const path = resolve(file);
  const read = new Reading(path);
  const membership = readMembership(read);
  const dataDir = resolve(read.required(configKeys.dataDir));
  const tickMs = read.value(configKeys.tickTime);
  const id = readMyId(read, dataDir, membership.servers);
  const { servers } = membership;
  const mine = servers.get(id);
  if (servers.size > 0 && mine === undefined) {
    throw new ConfigError('myid', String(id), `one of ${[...servers.keys()].join(', ')}`, join(dataDir, 'myid'));
  }
  const lines = [...servers.values()];
  const observers = lines.filter((line) => line.role === 'observer').map((line) => line.id);
  const voters = servers.size === 0 ? [id] : lines.filter((line) => line.role === 'participant').map((line) => line.id);
  if (voters.length === 0) throw new ConfigError('server.N', 'observers only', 'a participant', path);
  const isStandalone = servers.size <= 1 && read.value(configKeys.standaloneEnabled);
  checkRole(read, mine);
  if (voters.length === 2 || (voters.length > 2 && voters.length % 2 === 0)) {
    read.notice('warn', 'an even number of voters survives no more failures than one voter less', {
      voters: voters.length,
    });
  }

  const { host, port } = readClientAddress(read, mine);
  const session = readSessionTimeouts(read, tickMs);
  const isEnsemble = !isStandalone;
  const initLimit = isEnsemble ? read.required(configKeys.initLimit) : (read.value(configKeys.initLimit) ?? 0);
  const syncLimit = isEnsemble ? read.required(configKeys.syncLimit) : (read.value(configKeys.syncLimit) ?? 0);
  const timing = readTiming(read, isEnsemble ? syncLimit * tickMs : Number.POSITIVE_INFINITY);
  const historyBytesMax = read.value(configKeys['quorate.historyBytesMax']);
  const queueBytesMax = read.value(configKeys['quorate.peerQueueBytesMax']);
  if (queueBytesMax < 2 * historyBytesMax) {
    read.fail(
      configKeys['quorate.peerQueueBytesMax'],
      'at least twice quorate.historyBytesMax, or no learner could catch up',
    );
  }
  const others = new Map(lines.filter((line) => line.id !== id).map((line) => [line.id, line.peerAddresses]));
  const listenOnAll = read.value(configKeys.quorumListenOnAllIPs);
  const listen = (mine?.peerAddresses ?? []).map((address) => (listenOnAll ? { ...address, host: '' } : address));

  return Object.freeze({
    file: path,
    id,
    isStandalone,
    servers,
    voters,
    observers,
    dataDir,
    createDataDir: read.value(configKeys['datadir.autocreate']),
    tickMs,
    ...session,
    initLimit,
    syncLimit,
    client: {
      host,
      port,
      backlog: read.value(configKeys.clientPortListenBacklog),
      perAddressMax: read.value(configKeys.maxClientCnxns),
      connectionsMax: read.value(configKeys.maxCnxns),
      frameBytesMax: read.value(configKeys['jute.maxbuffer']),
      sessionlessMs: read.value(configKeys['nio.sessionlessCnxnTimeout']),
      keepAlive: read.value(configKeys.clientTcpKeepAlive),
      outboxBytesMax: read.value(configKeys['quorate.outboxBytesMax']),
    },
    peers: {
      listen: others.size === 0 ? [] : listen,
      others,
      handshakeMs: read.value(configKeys.cnxTimeout),
      silenceMs: Math.max(LINK_SILENCE_MS_MIN, 2 * timing.peerSilenceMs),
      queueBytesMax,
    },
    ...timing,
    historyCountMax: read.value(configKeys.commitLogCount),
    historyBytesMax,
    outstandingMax: read.value(configKeys.globalOutstandingLimit),
    connectionOutstandingMax: read.value(configKeys['quorate.connectionOutstandingMax']),
    waitWithoutLeaderMs: read.value(configKeys['quorate.waitWithoutLeaderMs']),
    snapshotLogBytesMin: read.value(configKeys['quorate.snapshotLogBytesMin']),
    snapshotRetain: read.value(configKeys['autopurge.snapRetainCount']),
    skipAcl: read.value(configKeys.skipACL),
    extendedTypesEnabled: read.value(configKeys.extendedTypesEnabled),
    superDigest: read.value(configKeys['DigestAuthenticationProvider.superDigest']),
    fourLetterWords: readWhitelist(read.value(configKeys['4lw.commands.whitelist'])),
    logFormat: read.value(configKeys['quorate.logFormat']),
    logLevel: read.value(configKeys['quorate.logLevel']),
    notices: read.notices,
  });
}

/** What of it a replica needs. `incarnation` differs at each process start; it also seeds the election's jitter. */
export function replicaConfig(config: Config, incarnation: number): ReplicaConfig {
  const { zabTickMs } = config;
  const ticks = (ms: number): number => Math.max(1, Math.ceil(ms / zabTickMs));
  const place = config.voters.concat(config.observers).indexOf(config.id);
  return {
    id: config.id,
    voters: config.voters,
    observers: config.observers,
    incarnation,
    seed: incarnation,
    tickMs: config.tickMs,
    zabTickMs,
    zab: {
      heartbeatTicks: ticks(config.heartbeatMs),
      syncLimitTicks: ticks(config.peerSilenceMs),
      // A synchronisation may take longer than a silence, whatever the ticks say.
      initLimitTicks: ticks(Math.max(config.initLimit * config.tickMs, config.peerSilenceMs)),
      finalizeTicks: Math.ceil(config.electionWaitMs / zabTickMs),
      historyCountMax: config.historyCountMax,
      historyBytesMax: config.historyBytesMax,
      counterMax: 0xffffffff,
    },
    minSessionTimeoutMs: config.minSessionTimeoutMs,
    maxSessionTimeoutMs: config.maxSessionTimeoutMs,
    limits: {
      maxFrameBytes: config.client.frameBytesMax,
      outstandingMax: config.outstandingMax,
      connectionOutstandingMax: config.connectionOutstandingMax,
      outboxBytesMax: config.client.outboxBytesMax,
      waitWithoutLeaderMs: config.waitWithoutLeaderMs,
    },
    snapshots: {
      logBytesMin: config.snapshotLogBytesMin,
      retain: config.snapshotRetain,
      chunkBytes: SNAPSHOT_CHUNK_BYTES,
      stagger: place / (config.voters.length + config.observers.length),
    },
    skipAcl: config.skipAcl,
    extendedTypesEnabled: config.extendedTypesEnabled,
    superDigest: config.superDigest,
    membership: config.voters.length + config.observers.length > 1 ? membershipText(config) : null,
    mutations: NO_MUTATIONS,
  };
}

/** `server.N=...` lines as ZooKeeper prints them, sorted as text: the `membership` of the word conf. */
export function membershipText(config: Config): string {
  const lines = [...config.servers.values()].map((server) => {
    const addresses = server.peerAddresses.map(({ host, port }, i) => {
      const election = server.electionPorts[i] ?? null;
      return `${bracketed(host)}:${port}${election === null ? '' : `:${election}`}`;
    });
    const client = server.client;
    const clientPart =
      client === null ? '' : `;${client.host === null ? '0.0.0.0' : bracketed(client.host)}:${client.port}`;
    return `server.${server.id}=${addresses.join('|')}:${server.role}${clientPart}`;
  });
  return lines.toSorted().join('\n');
}

function bracketed(host: string): string {
  return host.includes(':') ? `[${host}]` : host;
}

// The raw keys.

type RawValue = Property & { readonly where: string };

/** The keys of the files, known and spelt as in the table; hands out parsed values. */
class Reading {
  readonly file: string;
  readonly notices: Notice[] = [];
  readonly #raw = new Map<string, RawValue>();
  readonly #names = new Map<KeySpec, string>();

  constructor(file: string) {
    this.file = file;
    for (const [name, spec] of Object.entries<KeySpec>(configKeys)) {
      // Some keys share one spec object only if the table is wrong; each call of honoured makes a new one.
      if (spec.status === 'honoured') this.#names.set(spec, name);
    }
    for (const property of parseProperties(readText(file))) this.#take(property, file);
  }

  notice(level: LogLevel, message: string, fields: Readonly<Record<string, unknown>> = {}): void {
    this.notices.push({ level, message, fields });
  }

  /** The parsed value, or the default. */
  value<T>(spec: Honoured<T>): T {
    const raw = this.raw(spec);
    return raw === undefined ? spec.fallback : parsed(spec.parse, raw.key, raw.value, raw.where);
  }

  required<T>(spec: Honoured<T | null>): T {
    const value = this.value(spec);
    if (value === null) throw new ConfigError(this.#nameOf(spec), '', 'a value', this.file);
    return value;
  }

  raw(spec: Honoured<unknown>): RawValue | undefined {
    return this.#raw.get(this.#nameOf(spec));
  }

  fail(spec: Honoured<unknown>, expected: string): never {
    const raw = this.raw(spec);
    throw new ConfigError(this.#nameOf(spec), raw?.value ?? spec.shown, expected, raw?.where ?? this.file);
  }

  /** Every `server.N` property. */
  serverLines(): RawValue[] {
    return [...this.#raw.values()].filter((raw) => raw.key.startsWith('server.'));
  }

  #nameOf(spec: KeySpec): string {
    const name = this.#names.get(spec);
    if (name === undefined) throw new Error('a spec of the table has a name');
    return name;
  }

  #take(property: Property, file: string): void {
    const where = `${file}:${property.line}`;
    // ZooKeeper documents many keys as system properties, with this prefix.
    const short = property.key.replace(/^zookeeper\./, '');
    const spec = specOf(short);
    if (spec === null) {
      const nearest = nearestKey(short);
      const hint = nearest === null ? {} : { nearest };
      this.notice('warn', 'an unknown key of the configuration is ignored', { key: property.key, where, ...hint });
      return;
    }
    if (spec.status === 'refused') {
      if (!spec.harmless.some((value) => value.toLowerCase() === property.value.toLowerCase())) {
        const expected =
          spec.harmless.length > 0 ? `${spec.harmless.join(' or ')} (${spec.text})` : `no such key (${spec.text})`;
        throw new ConfigError(short, property.value, expected, where);
      }
      return;
    }
    if (spec.status === 'accepted') {
      this.notice('info', 'a key of the configuration has no effect here', { key: short, reason: spec.text });
      return;
    }
    if (property.value === '') throw new ConfigError(short, '', 'a value', where);
    const before = this.#raw.get(short);
    if (before !== undefined) {
      this.notice('warn', 'a key of the configuration stands there twice; the later one counts', { key: short, where });
    }
    this.#raw.set(short, { ...property, key: short, where });
  }

  /** Adds the dynamic file, which holds membership and nothing else. */
  takeDynamic(file: string): void {
    if (this.serverLines().length > 0) {
      this.fail(
        configKeys.dynamicConfigFile,
        'server lines either in the dynamic file or in the main file, not in both',
      );
    }
    for (const property of parseProperties(readText(file))) {
      if (property.key === 'version') continue;
      if (!/^(server|group|weight)\./.test(property.key)) {
        throw new ConfigError(
          property.key,
          property.value,
          'server lines and a version only',
          `${file}:${property.line}`,
        );
      }
      this.#take(property, file);
    }
  }
}

function readText(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (cause) {
    const code = cause instanceof Error && 'code' in cause ? String(cause.code) : 'unknown error';
    throw new ConfigError('configuration file', code, 'a readable file', file);
  }
}

function parsed<T>(parse: (text: string) => T, key: string, value: string, where: string): T {
  try {
    return parse(value);
  } catch (error) {
    if (error instanceof ValueError) throw new ConfigError(key, value, error.expected, where);
    throw error;
  }
}

const specs: ReadonlyMap<string, KeySpec> = new Map(Object.entries<KeySpec>(configKeys));

/** The spec of a key: its own, or that of its family (`ssl.*`). */
function specOf(key: string): KeySpec | null {
  if (key.includes('*')) return null;
  const own = specs.get(key);
  if (own !== undefined) return own;
  for (let dot = key.lastIndexOf('.'); dot > 0; dot = key.lastIndexOf('.', dot - 1)) {
    const family = specs.get(`${key.slice(0, dot)}.*`);
    if (family !== undefined) return family;
  }
  return null;
}

/** The known key that differs by the fewest letters, if it is near enough to be a slip. */
function nearestKey(key: string): string | null {
  let nearest: string | null = null;
  let best = Math.max(2, Math.floor(key.length / 3)) + 1;
  for (const known of specs.keys()) {
    if (known.endsWith('.*')) continue;
    const distance = editDistance(key.toLowerCase(), known.toLowerCase());
    if (distance < best) {
      best = distance;
      nearest = known;
    }
  }
  return nearest;
}

function editDistance(a: string, b: string): number {
  let previous = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const replaced = (previous[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      row.push(Math.min(replaced, (previous[j] ?? 0) + 1, (row[j - 1] ?? 0) + 1));
    }
    previous = row;
  }
  return previous[b.length] ?? 0;
}

// Keys that mean something together.

function readMembership(read: Reading): { servers: ReadonlyMap<ServerId, ServerLine> } {
  const dynamic = read.value(configKeys.dynamicConfigFile);
  if (dynamic !== null) read.takeDynamic(resolve(dirname(read.file), dynamic));
  const servers = new Map<ServerId, ServerLine>();
  const seen = new Map<string, ServerId>();
  const byId = read.serverLines().map((raw) => ({
    id: serverIdFrom(parsed(integer(0, 255), raw.key, raw.key.slice('server.'.length), raw.where)),
    raw,
  }));
  for (const { id, raw } of byId.toSorted((a, b) => a.id - b.id)) {
    if (servers.has(id)) throw new ConfigError(raw.key, raw.value, 'each server once', raw.where);
    const line = parsed((text) => parseServerLine(id, text), raw.key, raw.value, raw.where);
    for (const { host, port } of line.peerAddresses) {
      const other = seen.get(`${host}:${port}`);
      if (other !== undefined) {
        throw new ConfigError(raw.key, raw.value, `an address that server.${other} does not have`, raw.where);
      }
      seen.set(`${host}:${port}`, id);
    }
    servers.set(id, line);
  }
  return { servers };
}

const SERVER_LINE =
  'host:peerPort[:electionPort][:participant|observer][;[address:]clientPort], hosts of IPv6 in brackets';

/** `host:port[:port][:role]`, several with `|` between them, then `;[address:]clientPort`. */
export function parseServerLine(id: ServerId, text: string): ServerLine {
  const [addressPart = '', clientPart, ...extra] = text.split(';');
  if (extra.length > 0) throw new ValueError(SERVER_LINE);
  const peerAddresses: Address[] = [];
  const electionPorts: (number | null)[] = [];
  let role: ServerRole | null = null;
  for (const part of addressPart.split('|')) {
    const { host, fields } = splitHost(part.trim());
    const last = fields.at(-1)?.toLowerCase();
    if (last === 'participant' || last === 'observer') {
      if (role !== null && role !== last) throw new ValueError('one role');
      role = last;
      fields.pop();
    }
    const [port, electionPort, ...rest] = fields.map((field) => integer(1, 65535)(field));
    if (host === '' || port === undefined || rest.length > 0) throw new ValueError(SERVER_LINE);
    peerAddresses.push({ host, port });
    electionPorts.push(electionPort ?? null);
  }
  return { id, peerAddresses, electionPorts, role: role ?? 'participant', client: parseClientPart(clientPart?.trim()) };
}

function parseClientPart(text: string | undefined): ServerLine['client'] {
  if (text === undefined || text === '') return null;
  if (/^\d+$/.test(text)) return { host: null, port: integer(1, 65535)(text) };
  const { host, fields } = splitHost(text);
  const [port, ...rest] = fields;
  if (host === '' || port === undefined || rest.length > 0) throw new ValueError(SERVER_LINE);
  return { host, port: integer(1, 65535)(port) };
}

function splitHost(text: string): { host: string; fields: string[] } {
  if (!text.startsWith('[')) {
    const [host = '', ...fields] = text.split(':');
    return { host: host.trim(), fields };
  }
  const end = text.indexOf(']');
  if (end < 0 || text[end + 1] !== ':') throw new ValueError(SERVER_LINE);
  return { host: text.slice(1, end), fields: text.slice(end + 2).split(':') };
}

function readMyId(read: Reading, dataDir: string, servers: ReadonlyMap<ServerId, ServerLine>): ServerId {
  const file = join(dataDir, 'myid');
  if (!existsSync(file)) {
    if (servers.size <= 1 && read.value(configKeys.standaloneEnabled)) {
      const [only] = servers.keys();
      return only ?? serverIdFrom(STANDALONE_ID);
    }
    throw new ConfigError('myid', '', `a file with this server's number`, file);
  }
  return serverIdFrom(parsed(integer(0, 255), 'myid', readText(file).trim(), file));
}

function checkRole(read: Reading, mine: ServerLine | undefined): void {
  const peerType = read.value(configKeys.peerType);
  if (mine === undefined || mine.role === peerType || read.raw(configKeys.peerType) === undefined) return;
  read.notice('warn', 'peerType differs from the role in the server line, which counts', { peerType, role: mine.role });
}

function readClientAddress(read: Reading, mine: ServerLine | undefined): { host: string | null; port: number } {
  const port = read.value(configKeys.clientPort);
  const host = read.value(configKeys.clientPortAddress);
  const own = mine?.client ?? null;
  if (host !== null && port === null)
    throw new ConfigError('clientPort', '', 'a port beside clientPortAddress', read.file);
  if (own !== null && port !== null && port !== own.port) {
    read.fail(configKeys.clientPort, `${own.port}, as in the line of server.${mine?.id}`);
  }
  if (own !== null && host !== null && own.host !== null && own.host !== host) {
    read.fail(configKeys.clientPortAddress, `${own.host}, as in the line of server.${mine?.id}`);
  }
  const effective = own?.port ?? port;
  if (effective === null) throw new ConfigError('clientPort', '', 'a port, here or in the server line', read.file);
  return { host: own?.host ?? host, port: effective };
}

function readSessionTimeouts(
  read: Reading,
  tickMs: number,
): { minSessionTimeoutMs: number; maxSessionTimeoutMs: number } {
  const orTicks = (value: number | null, ticks: number): number =>
    value === null || value === -1 ? ticks * tickMs : value;
  const minSessionTimeoutMs = orTicks(read.value(configKeys.minSessionTimeout), 2);
  const maxSessionTimeoutMs = orTicks(read.value(configKeys.maxSessionTimeout), 20);
  if (minSessionTimeoutMs > maxSessionTimeoutMs) {
    const spec =
      read.raw(configKeys.minSessionTimeout) === undefined
        ? configKeys.maxSessionTimeout
        : configKeys.minSessionTimeout;
    read.fail(spec, `minSessionTimeout (${minSessionTimeoutMs}) not above maxSessionTimeout (${maxSessionTimeoutMs})`);
  }
  return { minSessionTimeoutMs, maxSessionTimeoutMs };
}

type Timing = {
  readonly zabTickMs: number;
  readonly heartbeatMs: number;
  readonly peerSilenceMs: number;
  readonly electionWaitMs: number;
};

/** `syncMs` is ZooKeeper's limit: 10 s with usual values, in which nobody can write. Silence is noticed sooner here. */
function readTiming(read: Reading, syncMs: number): Timing {
  const zabTickMs = read.value(configKeys['quorate.zabTickMs']);
  const heartbeatMs = read.value(configKeys['quorate.heartbeatMs']);
  const electionWaitMs = read.value(configKeys['quorate.electionWaitMs']);
  const peerSilenceMs = read.value(configKeys['quorate.peerSilenceMs']) ?? Math.min(syncMs, DEFAULT_PEER_SILENCE_MS);
  if (peerSilenceMs < 3 * Math.max(heartbeatMs, zabTickMs)) {
    read.fail(configKeys['quorate.peerSilenceMs'], 'at least three heartbeats and three ticks');
  }
  return { zabTickMs, heartbeatMs, peerSilenceMs, electionWaitMs };
}

function readWhitelist(text: string): ReadonlySet<string> | null {
  const words = text.split(',').map((word) => word.trim());
  if (words.includes('*')) return null;
  return new Set([...words.filter((word) => word !== ''), 'srvr']);
}
