// Wires one server: store, replica, peers, client port; started in this order, stopped in the reverse one.
// It holds the process's timers and the real clock, and decides nothing about requests or consensus.

import { createHash, randomBytes, randomInt } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, unlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { NO_ZXID } from '@quorate/protocol/zxid';
import { type Disk, openDisk, type RestoredStore, StorageError } from '@quorate/storage';
import { ClientListener } from './client-listener.ts';
import { type Config, replicaConfig } from './config.ts';
import { StartError } from './exit-codes.ts';
import { answerWord } from './four-letter-words.ts';
import { PeerTransport } from './peer-transport.ts';
import type { Clock, LogLevel, Network } from './ports.ts';
import { Replica } from './replica.ts';
import { gatherReport, type StatusReport } from './status-report.ts';

export type Log = (level: LogLevel, message: string, fields?: Readonly<Record<string, unknown>>) => void;

export type ServerHooks = {
  readonly log: Log;
  /** A broken invariant or a failed disk, at most once: the process must end. */
  fatal(error: Error): void;
};

export type RunningServer = {
  readonly clientPort: number;
  readonly peerPorts: readonly number[];
  readonly replica: Replica;
  report(): StatusReport;
  /** Hands leadership over, answers what is under way, closes everything in order. */
  stop(): Promise<void>;
};

/** The ZooKeeper release whose behaviour this is, then our own version: clients and monitors parse the first part. */
const ZOOKEEPER_VERSION = '3.9.5';
const STORE_FOLDER = 'store';
const PID_FILE = 'quorate.pid';
const BULK_WINDOW_BYTES = 2 * 1024 * 1024;
const REDIAL_MIN_MS = 50;
/** Half a second at most: a server that comes back is in the ensemble again before anybody misses it. */
const REDIAL_MAX_MS = 500;

const clock: Clock = {
  nowMs: () => performance.now(),
  wallMs: () => Date.now(),
};

export function serverVersion(): string {
  const manifest: unknown = JSON.parse(readFileSync(join(import.meta.dirname, '..', 'package.json'), 'utf8'));
  const isRecord = typeof manifest === 'object' && manifest !== null && 'version' in manifest;
  return `${ZOOKEEPER_VERSION}-quorate-${isRecord ? String(manifest.version) : 'unknown'}, running on Node.js ${process.version}`;
}

export async function startServer(config: Config, hooks: ServerHooks): Promise<RunningServer> {
  const { log } = hooks;
  const startedMs = clock.nowMs();
  const stops: (() => void | Promise<void>)[] = [];
  try {
    const store = await openStore(config, log);
    // Until the replica runs, nobody else closes the disk; after that the replica does.
    let hasReplica = false;
    stops.push(() => (hasReplica ? undefined : closeDisk(store.disk)));
    const pidFile = join(config.dataDir, PID_FILE);
    writeFileSync(pidFile, `${process.pid}\n`);
    stops.push(() => removeFile(pidFile));
    reportStore(store.restored, log);

    const incarnation = randomInt(1, 2 ** 32 - 1);
    let { clusterId } = store.restored;
    const disk = withClusterId(store.disk, (formed) => {
      clusterId = formed;
      log('info', 'this store belongs to an ensemble now', { clusterId });
    });
    // The transport needs the replica and the replica the network: messages before the start have nowhere to go.
    let network: Network | null = null;
    let failStart: ((error: Error) => void) | null = null;
    const replica = new Replica(
      replicaConfig(config, incarnation),
      {
        clock,
        network: {
          send: (to, message) => network?.send(to, message),
          sendBulk: (to, message, onSent) => network?.sendBulk(to, message, onSent),
          drop: (peer, reason) => network?.drop(peer, reason),
        },
        disk,
        schedule: (work) => void setImmediate(work),
        randomBytes: (count) => randomBytes(count),
        sha1Base64: (text) => createHash('sha1').update(text, 'utf8').digest('base64'),
        log,
        fatal: (error) => {
          hooks.fatal(error);
          failStart?.(error);
        },
      },
      store.restored,
    );
    hasReplica = true;
    await new Promise<void>((resolve, reject) => {
      failStart = reject;
      replica.start(resolve);
    });
    const leadingSince = startTicking(config, replica, stops);
    stops.push(() => new Promise<void>((resolve) => replica.stop(resolve)));

    const transport = new PeerTransport(
      {
        id: config.id,
        incarnation,
        listen: config.peers.listen,
        peers: config.peers.others,
        // A store without any record may still take another identity (a leader died while it formed the ensemble): it names none.
        clusterId: () => (replica.status.zab.last === NO_ZXID ? '' : clusterId),
        queueBytesMax: config.peers.queueBytesMax,
        bulkWindowBytes: BULK_WINDOW_BYTES,
        silenceMs: config.peers.silenceMs,
        handshakeMs: config.peers.handshakeMs,
        redialMinMs: REDIAL_MIN_MS,
        redialMaxMs: REDIAL_MAX_MS,
      },
      {
        onConnected: (peer, peerIncarnation) => replica.onPeerConnected(peer, peerIncarnation),
        onDisconnected: (peer) => replica.onPeerDisconnected(peer),
        onMessage: (from, message) => replica.onPeerMessage(from, message),
        log,
      },
    );
    network = transport;
    // The replica hands leadership over through the transport, so that closes behind it.
    insertBeforeLast(stops, () => transport.close());
    await bound('peer', config.peers.listen.map((one) => `${one.host}:${one.port}`).join(', '), transport.start());

    const version = serverVersion();
    const listener: ClientListener = new ClientListener({
      ...config.client,
      connect: (port) => replica.connectClient(port),
      answer: (word) => answerWord(word, config.fourLetterWords, report),
      log,
      fatal: hooks.fatal,
    });
    const report = (): StatusReport =>
      gatherReport({
        version,
        config,
        replica,
        listener,
        startedMs,
        leadingSinceMs: leadingSince,
        nowMs: clock.nowMs,
        wallMs: clock.wallMs,
        storeBytes: () => folderBytes(join(config.dataDir, STORE_FOLDER)),
      });
    insertBeforeLast(stops, () => listener.close());
    stops.push(() => listener.stopAccepting());
    await bound('client', `${config.client.host ?? '*'}:${config.client.port}`, listener.start());
    log('info', 'the server is up', {
      clientPort: listener.port,
      peerPorts: transport.ports,
      standalone: config.isStandalone,
      voters: config.voters,
      observers: config.observers,
      incarnation,
      startMs: Math.round(clock.nowMs() - startedMs),
    });
    return {
      clientPort: listener.port,
      peerPorts: transport.ports,
      replica,
      report,
      stop: () => runStops(stops),
    };
  } catch (error) {
    await runStops(stops);
    throw error;
  }
}

/** Last started, first stopped. */
async function runStops(stops: (() => void | Promise<void>)[]): Promise<void> {
  for (let stop = stops.pop(); stop !== undefined; stop = stops.pop()) await stop();
}

/** For what must end after the step that was added last. */
function insertBeforeLast(stops: (() => void | Promise<void>)[], stop: () => void | Promise<void>): void {
  stops.splice(stops.length - 1, 0, stop);
}

async function openStore(config: Config, log: Log): Promise<{ disk: Disk; restored: RestoredStore }> {
  const { dataDir } = config;
  if (!existsSync(dataDir) && !config.createDataDir) {
    throw new StartError('dataDirUnusable', `dataDir ${dataDir} does not exist, and datadir.autocreate is false`);
  }
  try {
    mkdirSync(dataDir, { recursive: true });
  } catch (cause) {
    throw new StartError('dataDirUnusable', `dataDir ${dataDir} cannot be created: ${textOf(cause)}`, { cause });
  }
  if (existsSync(join(dataDir, 'version-2'))) {
    log('warn', 'the data folder holds a ZooKeeper store, which is not read', { dataDir });
  }
  try {
    return await openDisk(join(dataDir, STORE_FOLDER), {
      serverId: config.id,
      windowCount: config.historyCountMax,
      windowBytes: config.historyBytesMax,
      log,
    });
  } catch (cause) {
    if (!(cause instanceof StorageError)) throw cause;
    const exit = cause.code === 'STORE_FULL' || cause.code === 'STORE_WRITE_FAILED' ? 'diskError' : 'dataDirUnusable';
    throw new StartError(exit, `the store in ${dataDir} cannot be opened (${cause.code}): ${cause.message}`, { cause });
  }
}

function reportStore(restored: RestoredStore, log: Log): void {
  const { classification, reasons, clusterId, epochs } = restored;
  const fields = { clusterId, currentEpoch: epochs.currentEpoch, entries: restored.entries.length };
  if (classification === 'suspect') {
    log(
      'warn',
      'the store is suspect: something it acknowledged may be missing; this server takes no part in votes and waits for a copy from a leader',
      { ...fields, reasons },
    );
    return;
  }
  log('info', classification === 'blank' ? 'the store is new' : 'the store is clean', fields);
}

/** Ticks drive all deadlines; the replica reads the clock itself, so a late tick is harmless. Answers since when this server leads. */
function startTicking(config: Config, replica: Replica, stops: (() => void | Promise<void>)[]): () => number | null {
  let leadingSinceMs: number | null = null;
  const timer = setInterval(() => {
    replica.onTick();
    if (replica.status.zab.role !== 'leading') leadingSinceMs = null;
    else leadingSinceMs ??= clock.nowMs();
  }, config.zabTickMs);
  stops.push(() => clearInterval(timer));
  return () => leadingSinceMs;
}

async function bound(what: string, address: string, listening: Promise<void>): Promise<void> {
  try {
    await listening;
  } catch (cause) {
    throw new StartError('cannotBind', `the ${what} port ${address} cannot be bound: ${textOf(cause)}`, { cause });
  }
}

function textOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function closeDisk(disk: Disk): Promise<void> {
  return new Promise((resolve) => disk.close(() => resolve()));
}

/** The peers' hello carries the cluster id, which the store learns when the ensemble is formed or joined. */
function withClusterId(disk: Disk, onKnown: (clusterId: string) => void): Disk {
  return {
    write: (group, done) => {
      const { clusterId } = group;
      if (clusterId === undefined) {
        disk.write(group, done);
        return;
      }
      disk.write(group, (error) => {
        if (error === null) onKnown(clusterId);
        done(error);
      });
    },
    beginSnapshot: (zxid) => disk.beginSnapshot(zxid),
    stageSnapshot: (zxid) => disk.stageSnapshot(zxid),
    discardStaged: () => disk.discardStaged(),
    snapshots: () => disk.snapshots(),
    openSnapshot: (zxid) => disk.openSnapshot(zxid),
    purge: (retain, keepFrom, done) => disk.purge(retain, keepFrom, done),
    logBytes: () => disk.logBytes(),
    freeBytes: () => disk.freeBytes(),
    close: (done) => disk.close(done),
  };
}

function removeFile(file: string): void {
  if (existsSync(file)) unlinkSync(file);
}

/** A store is a handful of files: walking them costs less than keeping count. Files may vanish meanwhile. */
function folderBytes(folder: string): number {
  let bytes = 0;
  for (const entry of readdirSync(folder, { withFileTypes: true, recursive: true })) {
    if (!entry.isFile()) continue;
    bytes += statSync(join(entry.parentPath, entry.name), { throwIfNoEntry: false })?.size ?? 0;
  }
  return bytes;
}
