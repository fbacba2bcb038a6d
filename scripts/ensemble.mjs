// Runs servers on loopback for tests and benchmarks: Quorate's or Apache ZooKeeper's, one or an ensemble, each a real process with an ordinary
// zoo.cfg in a folder of its own. It owns free ports, folders, start, kill -9, freeze, wipe, and the end of everything it started.
// It ends processes by the pid it started, never by name, also when the test that used it dies.

import { spawn } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

const root = resolve(dirname(fileURLToPath(import.meta.url)), '..');
const quorateProgram = join(root, 'packages', 'cli', 'bin', 'quorate.mjs');

const host = '127.0.0.1';
/** Below 32768, where the kernel hands out ports for outgoing connections: those could take a server's port while it is down. */
const portMin = 12_000;
const portMax = 32_700;
const readyTimeoutMs = 60_000;
const stopTimeoutMs = 10_000;
const pollMs = 25;

const live = new Set();
let guarded = false;

/** Whatever ends this process ends its servers; SIGKILL also ends a frozen one. */
function guard() {
  if (guarded) return;
  guarded = true;
  process.on('exit', () => {
    for (const child of live) child.kill('SIGKILL');
  });
  for (const signal of ['SIGTERM', 'SIGHUP']) process.once(signal, () => process.exit(1));
}

function listenOn(port) {
  return new Promise((done) => {
    const server = createServer();
    server.once('error', () => done(null));
    server.listen({ port, host, exclusive: true }, () => done(server));
  });
}

/** `count` different ports that are free now. All are held until the last is found. */
export async function freePorts(count) {
  const held = new Map();
  while (held.size < count) {
    const port = portMin + Math.floor(Math.random() * (portMax - portMin));
    if (held.has(port)) continue;
    const server = await listenOn(port);
    if (server !== null) held.set(port, server);
  }
  await Promise.all([...held.values()].map((server) => new Promise((done) => server.close(done))));
  return [...held.keys()];
}

/** Asks `probe` until it gives something else than null, undefined or false. The message of the failure names what was awaited. */
export async function waitFor(what, probe, timeoutMs = readyTimeoutMs) {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const found = await probe();
    if (found !== null && found !== undefined && found !== false) return found;
    if (performance.now() > deadline) throw new Error(`waited ${timeoutMs} ms for ${what}`);
    await delay(pollMs);
  }
}

/** The answer to a four-letter word, or null where no server answers in time. */
export function fourLetterWord(port, word, { timeoutMs = 1000, address = host } = {}) {
  return new Promise((done) => {
    const chunks = [];
    const socket = connect({ port, host: address });
    const finish = (answer) => {
      socket.destroy();
      done(answer);
    };
    socket.setTimeout(timeoutMs, () => finish(null));
    socket.once('error', () => finish(null));
    socket.once('connect', () => socket.write(word));
    socket.on('data', (chunk) => chunks.push(chunk));
    socket.once('end', () => finish(chunks.length === 0 ? null : Buffer.concat(chunks).toString('utf8')));
    socket.once('close', () => finish(null));
  });
}

/** leader, follower, observer, standalone, or null: does not answer, or answers that it serves nobody. */
export async function modeOf(port, options) {
  const answer = await fourLetterWord(port, 'srvr', options);
  return /^Mode: (\S+)/m.exec(answer ?? '')?.[1] ?? null;
}

function commandOf(ensemble, server) {
  const { zookeeper, jvm, nodeArgs } = ensemble.options;
  if (ensemble.kind === 'quorate') {
    return [process.execPath, [...(nodeArgs ?? []), quorateProgram, 'server', server.configFile]];
  }
  if (!zookeeper?.available) throw new Error('an ensemble of Apache ZooKeeper needs its jars');
  const properties = ['-Dorg.slf4j.simpleLogger.defaultLogLevel=warn', '-Dzookeeper.extendedTypesEnabled=true'];
  const heap = jvm ?? ['-Xms128m', '-Xmx256m'];
  const main = 'org.apache.zookeeper.server.quorum.QuorumPeerMain';
  return [zookeeper.java, [...heap, ...properties, '-cp', zookeeper.classPath, main, server.configFile]];
}

export class Ensemble {
  #temporary;
  #dials = new Map();

  constructor(kind, directory, temporary, servers, options) {
    this.kind = kind;
    this.directory = directory;
    this.servers = servers;
    this.options = options;
    this.#temporary = temporary;
  }

  /** Reserves ports and folders and writes the configurations; starts nothing. */
  static async create(options = {}) {
    const kind = options.kind ?? 'quorate';
    const voters = options.servers ?? 3;
    const count = voters + (options.observers ?? 0);
    const directory = options.directory ?? (await mkdtemp(join(tmpdir(), `${kind}-ensemble-`)));
    const ports = await freePorts(count * 4);
    const servers = Array.from({ length: count }, (_, index) => {
      const folder = join(directory, `server-${index + 1}`);
      const [clientPort, peerPort, electionPort, adminPort] = ports.slice(index * 4, index * 4 + 4);
      return {
        id: index + 1,
        observer: index >= voters,
        clientPort,
        peerPort,
        electionPort,
        adminPort,
        directory: folder,
        dataDirectory: join(folder, 'data'),
        configFile: join(folder, 'zoo.cfg'),
        logFile: join(folder, 'server.log'),
        address: `${host}:${clientPort}`,
        process: null,
      };
    });
    const ensemble = new Ensemble(kind, directory, options.directory === undefined, servers, options);
    await ensemble.writeConfigurations();
    return ensemble;
  }

  /** Creates and starts; what was started is stopped when not all become ready. */
  static async start(options = {}) {
    const ensemble = await Ensemble.create(options);
    try {
      await ensemble.startAll();
    } catch (error) {
      await ensemble.stop();
      throw error;
    }
    return ensemble;
  }

  get connectString() {
    return this.servers.map((server) => server.address).join(',');
  }

  server(id) {
    const found = this.servers.find((server) => server.id === id);
    if (found === undefined) throw new Error(`no server ${id} in this ensemble`);
    return found;
  }

  /** Server `from` will dial `port` to reach server `to`: a proxy stands there. Takes effect when `from` starts next. */
  async dialThrough(from, to, port) {
    this.#dials.set(`${from}>${to}`, port);
    await this.writeConfigurations();
  }

  async writeConfigurations() {
    for (const server of this.servers) {
      await mkdir(server.dataDirectory, { recursive: true });
      await writeFile(join(server.dataDirectory, 'myid'), `${server.id}\n`);
      await writeFile(server.configFile, this.#configurationOf(server));
    }
  }

  #configurationOf(server) {
    const settings = {
      tickTime: 500,
      initLimit: 20,
      syncLimit: 6,
      dataDir: server.dataDirectory,
      clientPort: server.clientPort,
      clientPortAddress: host,
      maxClientCnxns: 0,
      'admin.enableServer': false,
      '4lw.commands.whitelist': '*',
      ...(server.observer ? { peerType: 'observer' } : {}),
      ...this.options.config,
    };
    const lines = Object.entries(settings).map(([key, value]) => `${key}=${value}`);
    if (this.servers.length > 1) {
      for (const other of this.servers) {
        const port = this.#dials.get(`${server.id}>${other.id}`) ?? other.peerPort;
        const role = other.observer ? ':observer' : '';
        lines.push(`server.${other.id}=${host}:${port}:${other.electionPort}${role}`);
      }
    }
    return `${lines.join('\n')}\n`;
  }

  async startAll(timeoutMs = readyTimeoutMs) {
    for (const server of this.servers) this.spawnServer(server.id);
    await this.waitUntilReady(timeoutMs);
  }

  /** Starts one process and does not wait for it. */
  spawnServer(id) {
    const server = this.server(id);
    if (server.process !== null) throw new Error(`server ${id} is running`);
    guard();
    const log = openSync(server.logFile, 'a');
    const [command, args] = commandOf(this, server);
    const env = { ...process.env, NODE_ENV: 'production', ...this.options.env };
    const child = spawn(command, args, { stdio: ['ignore', log, log], cwd: server.directory, env });
    closeSync(log);
    live.add(child);
    server.process = child;
    server.exit = new Promise((done) => {
      const finish = (code, signal) => {
        live.delete(child);
        if (server.process === child) server.process = null;
        done({ code, signal });
      };
      child.once('exit', finish);
      child.once('error', () => finish(null, null));
    });
  }

  /** Starts one server and waits until it has a role. */
  async startServer(id, timeoutMs = readyTimeoutMs) {
    this.spawnServer(id);
    await this.#explain(`server ${id} to have a role`, () => this.modeOf(id), [this.server(id)], timeoutMs);
  }

  /** Ends one server by signal and waits until the process is gone. */
  async kill(id, signal = 'SIGKILL') {
    const server = this.server(id);
    if (server.process === null) return null;
    server.process.kill(signal);
    return server.exit;
  }

  pause(id) {
    this.server(id).process?.kill('SIGSTOP');
  }

  resume(id) {
    this.server(id).process?.kill('SIGCONT');
  }

  async restart(id, signal = 'SIGKILL') {
    await this.kill(id, signal);
    await this.startServer(id);
  }

  /** Empties a stopped server's data folder; its identity stays. */
  async wipe(id) {
    const server = this.server(id);
    if (server.process !== null) throw new Error(`server ${id} is running`);
    await rm(server.dataDirectory, { recursive: true, force: true });
    await mkdir(server.dataDirectory, { recursive: true });
    await writeFile(join(server.dataDirectory, 'myid'), `${server.id}\n`);
  }

  modeOf(id) {
    return modeOf(this.server(id).clientPort);
  }

  /** The id of the server that says it leads; null where none does. Two that say so are an error: at most one may serve. */
  async findLeader() {
    const running = this.servers.filter((server) => server.process !== null);
    const modes = await Promise.all(running.map((server) => this.modeOf(server.id)));
    const leaders = running.filter((_, index) => modes[index] === 'leader' || modes[index] === 'standalone');
    return leaders.length === 1 ? leaders[0].id : null;
  }

  waitForLeader({ otherThan, timeoutMs = readyTimeoutMs } = {}) {
    const probe = async () => {
      const leader = await this.findLeader();
      return leader === otherThan ? null : leader;
    };
    return this.#explain('a leader', probe, this.servers, timeoutMs);
  }

  /** Every running server has a role, and exactly one of them leads. */
  async waitUntilReady(timeoutMs = readyTimeoutMs) {
    const probe = async () => {
      const running = this.servers.filter((server) => server.process !== null);
      const died = this.servers.length - running.length;
      const modes = await Promise.all(running.map((server) => this.modeOf(server.id)));
      const leaders = modes.filter((mode) => mode === 'leader' || mode === 'standalone').length;
      return running.length > 0 && died < this.servers.length && leaders === 1 && !modes.includes(null);
    };
    await this.#explain('one leader and a role for every running server', probe, this.servers, timeoutMs);
  }

  async #explain(what, probe, servers, timeoutMs) {
    try {
      return await waitFor(what, probe, timeoutMs);
    } catch (error) {
      const logs = await Promise.all(servers.map((server) => this.tailOfLog(server.id)));
      throw new Error(`${error.message}\n${logs.join('\n')}`, { cause: error });
    }
  }

  async tailOfLog(id, lines = 12) {
    const text = await readFile(this.server(id).logFile, 'utf8').catch(() => '');
    return `--- server ${id}\n${text.trimEnd().split('\n').slice(-lines).join('\n')}`;
  }

  /** Ends all servers, in order where they can, by force where they do not; removes the folder if this ensemble made it. */
  async stop({ keepFiles = false } = {}) {
    await Promise.all(
      this.servers.map(async (server) => {
        const child = server.process;
        if (child === null) return;
        child.kill('SIGCONT');
        child.kill('SIGTERM');
        const deadline = new AbortController();
        const late = delay(stopTimeoutMs, 'late', { signal: deadline.signal }).catch(() => 'ended');
        if ((await Promise.race([server.exit, late])) === 'late') child.kill('SIGKILL');
        deadline.abort();
        await server.exit;
      }),
    );
    if (this.#temporary && !keepFiles) await rm(this.directory, { recursive: true, force: true });
  }

  [Symbol.asyncDispose]() {
    return this.stop();
  }
}
