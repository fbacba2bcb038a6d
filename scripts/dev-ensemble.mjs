// npm start: sets up a fresh clone, runs an ensemble on loopback below one folder, and tells in a line each what happens to it.
// The servers are ordinary ones with ordinary configuration files: each may be stopped and started alone, from outside, and is recognised by
// its pid file. Ctrl-C stops all, also those; the next start finds everything again. It never starts a server again by itself.

import './node-version.mjs';
import { spawn } from 'node:child_process';
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { dirname, join, relative, resolve } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { modeOf } from './ensemble.mjs';
import { build, installPackages, root, SetupError } from './setup.mjs';

const host = '127.0.0.1';
const pollMs = 200;
/** A server that is busy or in an election misses a poll or two; lost is what stays silent longer. */
const silentMsMax = 2_000;
const startMsMax = 30_000;
const quorumIsEnoughMs = 10_000;
const stopMsMax = 15_000;
const serversMax = 9;
const program = join(root, 'packages', 'cli', 'bin', 'quorate.mjs');

const help = `usage: npm start [-- --servers N] [--data DIR] [--client-port PORT]

  --servers N         how many servers (3; 1 is a standalone server)
  --data DIR          where configurations, data and logs are kept (./data)
  --client-port PORT  the first server's port for clients; the others take the next ones (2181)
`;

function readOptions() {
  let values;
  try {
    ({ values } = parseArgs({
      options: {
        servers: { type: 'string' },
        data: { type: 'string', default: 'data' },
        'client-port': { type: 'string' },
        help: { type: 'boolean', short: 'h', default: false },
      },
    }));
  } catch (error) {
    throw new SetupError(`${error.message.split('. ')[0]}. npm start -- --help tells the options.`);
  }
  const whole = (name, min, max) => {
    const text = values[name];
    if (text === undefined) return null;
    const value = Number(text);
    if (/^\d+$/.test(text) && value >= min && value <= max) return value;
    throw new SetupError(`--${name} must be a whole number between ${min} and ${max}, not "${text}".`);
  };
  // Peers take the hundred above the clients' ports, elections the next one.
  const clientPort = whole('client-port', 1, 65_535 - 200 - serversMax);
  // npm runs scripts in the package's folder; a relative folder is meant from where the person is.
  const data = resolve(process.env.INIT_CWD ?? process.cwd(), values.data);
  return { servers: whole('servers', 1, serversMax), clientPort, data, help: values.help };
}

/** server-N folders that hold a configuration, with what it says; their files belong to the user once they are written. */
function findServers(data) {
  if (!existsSync(data)) return [];
  const found = readdirSync(data)
    .map((name) => /^server-(\d+)$/.exec(name))
    .filter((match) => match !== null && existsSync(join(data, match[0], 'zoo.cfg')))
    .map((match) => readServer(Number(match[1]), join(data, match[0])));
  return found.sort((a, b) => a.id - b.id);
}

function readServer(id, folder) {
  const configFile = join(folder, 'zoo.cfg');
  const settings = new Map();
  for (const line of readFileSync(configFile, 'utf8').split('\n')) {
    const match = /^\s*([^#=\s]+)\s*=\s*(.*?)\s*$/.exec(line);
    if (match !== null) settings.set(match[1], match[2]);
  }
  const clientPort = Number(settings.get('clientPort'));
  const dataDirectory = settings.get('dataDir');
  if (!Number.isInteger(clientPort) || clientPort < 1 || dataDirectory === undefined) {
    throw new SetupError(`${configFile} must hold a clientPort and a dataDir; correct it, or remove the folder.`);
  }
  const ownLine = settings.get(`server.${id}`);
  return {
    id,
    configFile,
    clientPort,
    address: settings.get('clientPortAddress') ?? host,
    peerPort: ownLine === undefined ? null : Number(ownLine.split(':')[1]),
    pidFile: join(resolve(folder, dataDirectory), 'quorate.pid'),
    logFile: join(folder, 'server.log'),
    child: null,
    mode: null,
    heardAt: null,
    isLost: false,
  };
}

function writeServers(data, count, clientPort) {
  for (let id = 1; id <= count; id += 1) {
    const folder = join(data, `server-${id}`);
    const dataDirectory = join(folder, 'data');
    mkdirSync(dataDirectory, { recursive: true });
    const peers = Array.from(
      { length: count },
      (_, index) => `server.${index + 1}=${host}:${clientPort + 100 + index}:${clientPort + 200 + index}`,
    );
    const lines = [
      '# Written once by npm start; it is yours from then on.',
      'tickTime=2000',
      'initLimit=10',
      'syncLimit=5',
      `dataDir=${dataDirectory}`,
      `clientPort=${clientPort + id - 1}`,
      `clientPortAddress=${host}`,
      ...(count === 1 ? [] : peers),
    ];
    if (count > 1) writeFileSync(join(dataDirectory, 'myid'), `${id}\n`);
    writeFileSync(join(folder, 'zoo.cfg'), `${lines.join('\n')}\n`);
  }
}

/** Step by step: the recursive mkdir of Node.js 20 never returns where a parent answers ENOENT, as below /proc. */
function makeFolder(path) {
  if (existsSync(path)) return;
  makeFolder(dirname(path));
  mkdirSync(path);
}

/** What is there, or what is asked for where nothing is there. Asking for something else than is there is a mistake to be told. */
function prepareServers({ servers, clientPort, data }) {
  try {
    makeFolder(data);
    const probe = join(data, `.writable-${process.pid}`);
    writeFileSync(probe, '');
    rmSync(probe);
  } catch (error) {
    throw new SetupError(`The folder ${data} cannot be written (${error.code}); choose another one with --data DIR.`);
  }
  const found = findServers(data);
  if (found.length === 0) {
    writeServers(data, servers ?? 3, clientPort ?? 2181);
    return findServers(data);
  }
  if (servers !== null && servers !== found.length) {
    throw new SetupError(
      `${data} holds an ensemble of ${found.length}; start it without --servers ${servers}, or choose another --data DIR.`,
    );
  }
  if (clientPort !== null && clientPort !== found[0].clientPort) {
    throw new SetupError(
      `${data} holds an ensemble at client port ${found[0].clientPort}; start it without --client-port ${clientPort}, or choose another --data DIR.`,
    );
  }
  return found;
}

function isFree(port) {
  return new Promise((done) => {
    const server = createServer();
    server.once('error', (error) => done(error.code));
    server.listen({ port, host, exclusive: true }, () => server.close(() => done(true)));
  });
}

async function checkPorts(servers) {
  for (const server of servers) {
    if (runningPid(server) !== null) continue;
    for (const port of [server.clientPort, server.peerPort]) {
      const free = port === null ? true : await isFree(port);
      if (free === true) continue;
      const why = free === 'EADDRINUSE' ? 'is taken by another program' : `cannot be used (${free})`;
      throw new SetupError(
        `Port ${port} ${why}; stop that, or choose other ports with --client-port PORT and another --data DIR.`,
      );
    }
  }
}

/** The process of a server, whoever started it: its pid file names it, and it runs with this configuration. */
function runningPid(server) {
  let pid;
  try {
    pid = Number(readFileSync(server.pidFile, 'utf8').trim());
    process.kill(pid, 0);
  } catch {
    return null;
  }
  if (!Number.isInteger(pid) || pid < 2) return null;
  try {
    // A pid is used again after its process; where the system tells, only one that runs our configuration counts.
    const words = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
    const folder = readlinkSync(`/proc/${pid}/cwd`);
    return words.some((word) => word.endsWith('.cfg') && resolve(folder, word) === server.configFile) ? pid : null;
  } catch {
    return process.platform === 'linux' ? null : pid;
  }
}

function spawnServer(server) {
  const log = openSync(server.logFile, 'a');
  // A group of its own: Ctrl-C on the terminal reaches us alone, so that the servers stop in order.
  const child = spawn(process.execPath, [program, 'server', server.configFile], {
    stdio: ['ignore', log, log],
    detached: true,
    cwd: root,
  });
  closeSync(log);
  server.child = child;
  child.once('exit', (code, signal) => {
    server.ended = signal ?? code;
    server.child = null;
  });
  child.once('error', () => {
    server.child = null;
  });
}

const isServing = (mode) => ['leader', 'follower', 'observer', 'standalone'].includes(mode);
const isLeading = (mode) => mode === 'leader' || mode === 'standalone';
const verbOf = (mode) =>
  ({ leader: 'leads', follower: 'follows', observer: 'observes', standalone: 'serves alone' })[mode];
const tell = (line) => console.log(`${new Date().toTimeString().slice(0, 8)}  ${line}`);

async function poll(servers) {
  await Promise.all(
    servers.map(async (server) => {
      const mode = await modeOf(server.clientPort, { address: server.address });
      server.mode = isServing(mode) ? mode : null;
      if (server.mode !== null) server.heardAt = performance.now();
    }),
  );
}

function lastLogLine(server) {
  const lines = readFileSync(server.logFile, 'utf8').trimEnd().split('\n');
  const last = lines.at(-1) ?? '';
  try {
    return JSON.parse(last).msg ?? last;
  } catch {
    return last;
  }
}

/** Usable: all serve and one leads; after a while, a quorum is enough. A server that ends while it starts ends the start. */
async function untilReady(servers, stopping) {
  const started = performance.now();
  for (;;) {
    if (stopping()) return false;
    await poll(servers);
    const serving = servers.filter((server) => server.mode !== null).length;
    const hasLeader = servers.some((server) => isLeading(server.mode));
    const waited = performance.now() - started;
    const enough = waited > quorumIsEnoughMs ? Math.floor(servers.length / 2) + 1 : servers.length;
    if (hasLeader && serving >= enough) return true;
    const dead = servers.find((server) => server.ended !== undefined && runningPid(server) === null);
    if (dead !== undefined) throw new SetupError(`Server ${dead.id} ended while it started: ${lastLogLine(dead)}`);
    if (waited > startMsMax) {
      throw new SetupError(
        `The ensemble was not usable within ${startMsMax / 1000} s; ${relative(process.cwd(), servers[0].logFile)} and its siblings say why.`,
      );
    }
    await delay(pollMs);
  }
}

function greet(servers, data) {
  const addresses = servers.map((server) => `${server.address}:${server.clientPort}`);
  const connectString = addresses.join(',');
  const leader = servers.find((server) => isLeading(server.mode));
  console.log(`Quorate is ready: ${connectString}`);
  console.log(`
  server ${leader.id} ${verbOf(leader.mode)}; configurations, data and logs are below ${data}

  kazoo                   client = KazooClient(hosts='${connectString}'); client.start()
  ZooKeeper's Java CLI    zkCli.sh -server ${connectString}
  Go (go-zookeeper/zk)    zk.Connect([]string{${addresses.map((address) => `"${address}"`).join(', ')}}, 10*time.Second)
  TypeScript              const client = await connect('${connectString}')   // from '@quorate/client'
  command line            npx quorate ls / --server ${connectString}

  Ctrl-C stops all servers; npm start finds everything again.
`);
}

/** Tells each change once: who leads, who is lost and why, who is back. */
async function watch(servers, stopping) {
  let leader = servers.find((server) => isLeading(server.mode))?.id ?? null;
  let isWithoutLeader = false;
  for (const server of servers) server.isLost = server.mode === null;
  while (!stopping()) {
    await delay(pollMs);
    await poll(servers);
    if (stopping()) return;
    for (const server of servers) tellOfOne(server);
    const leaders = servers.filter((server) => isLeading(server.mode));
    const [found] = leaders;
    if (leaders.length === 1 && (found.id !== leader || isWithoutLeader)) {
      tell(
        `server ${found.id} leads now${leader === null || leader === found.id ? '' : ` (before: server ${leader})`}`,
      );
      leader = found.id;
      isWithoutLeader = false;
    }
    const heardAt = Math.max(...servers.map((server) => server.heardAt ?? 0));
    if (leaders.length === 0 && !isWithoutLeader && performance.now() - heardAt > silentMsMax) {
      isWithoutLeader = true;
      tell('no server leads: too few are in touch with each other to serve');
    }
  }
}

function tellOfOne(server) {
  if (server.mode !== null) {
    if (server.isLost) tell(`server ${server.id} is back: it ${verbOf(server.mode)}`);
    server.isLost = false;
    server.ended = undefined;
    return;
  }
  if (server.isLost) return;
  const isGone = runningPid(server) === null;
  const silentMs = performance.now() - (server.heardAt ?? 0);
  if (!isGone && silentMs < silentMsMax) return;
  server.isLost = true;
  const how = server.ended === undefined || server.ended === 0 ? '' : ` (${server.ended})`;
  const again = `npx quorate server ${relative(process.cwd(), server.configFile)} starts it again`;
  tell(`server ${server.id} is lost: ${isGone ? `its process ended${how}; ${again}` : 'it does not serve'}`);
}

/** One after the other, the leader last: what is under way is answered. One that does not stop is ended by force, and that is said. */
async function stopAll(servers) {
  await poll(servers);
  const order = [...servers].sort((a, b) => Number(isLeading(a.mode)) - Number(isLeading(b.mode)));
  for (const server of order) {
    const pid = server.child?.pid ?? runningPid(server);
    if (pid === null) continue;
    const isRunning = () => {
      if (server.child !== null) return true;
      return runningPid(server) === pid;
    };
    try {
      process.kill(pid, 'SIGTERM');
      const deadline = performance.now() + stopMsMax;
      while (isRunning() && performance.now() < deadline) await delay(20);
      if (isRunning()) {
        process.kill(pid, 'SIGKILL');
        tell(`server ${server.id} did not stop within ${stopMsMax / 1000} s and was ended by force`);
        continue;
      }
    } catch (error) {
      if (error.code !== 'ESRCH') throw error;
    }
    tell(`server ${server.id} stopped`);
  }
}

async function main() {
  const options = readOptions();
  if (options.help) {
    console.log(help);
    return;
  }
  await installPackages();
  await build();
  const servers = prepareServers(options);
  await checkPorts(servers);

  let isStopping = false;
  const stopping = () => isStopping;
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
    process.on(signal, () => {
      if (!isStopping) console.log('\nStopping all servers…');
      isStopping = true;
    });
  }
  // A reader of our output that goes away must not keep the servers from being stopped.
  process.stdout.on('error', () => {
    isStopping = true;
  });
  const running = servers.filter((server) => runningPid(server) !== null);
  for (const server of running) tell(`server ${server.id} runs already (process ${runningPid(server)})`);
  for (const server of servers) if (!running.includes(server)) spawnServer(server);
  try {
    if (await untilReady(servers, stopping)) {
      greet(servers, options.data);
      await watch(servers, stopping);
    }
  } finally {
    await stopAll(servers);
  }
}

try {
  await main();
  process.exit(0);
} catch (error) {
  if (!(error instanceof SetupError)) throw error;
  console.error(error.message);
  process.exit(1);
}
