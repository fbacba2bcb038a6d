// Finds or brings the programs of other projects that tests and benchmarks can use: Apache ZooKeeper (Maven), toxiproxy and a Go client (Go),
// a Java client (javac), kazoo (Python), node-zookeeper-client (npm). Each answer is { available: true, … } or { available: false, reason }.
// They are kept in ${QUORATE_CACHE:-~/.cache/quorate}. It must never be needed to run Quorate, and it names no registry: the ordinary clients
// (mvn, go, pip, npm) decide where packages come from. A tool is built in a folder of its own and renamed into place, so that
// two processes that bring the same one do not disturb each other.

import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { access, chmod, mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { homedir } from 'node:os';
import { delimiter, dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const execute = promisify(execFile);
const root = resolve(dirname(fileURLToPath(import.meta.url)), '..');
const programs = join(root, 'test', 'conformance', 'third-party');

export const zookeeperVersion = '3.9.5';
export const toxiproxyVersion = 'v2.12.0';
const bringTimeoutMs = 480_000;

/** What the server, its command line and its metrics need at run time; Maven adds what these need themselves. */
const zookeeperArtifacts = [
  ['org.apache.zookeeper', 'zookeeper', zookeeperVersion],
  ['org.xerial.snappy', 'snappy-java', '1.1.10.5'],
  ['io.dropwizard.metrics', 'metrics-core', '4.2.26'],
  ['commons-cli', 'commons-cli', '1.6.0'],
  ['org.eclipse.jetty', 'jetty-server', '9.4.57.v20241219'],
  ['org.eclipse.jetty', 'jetty-servlet', '9.4.57.v20241219'],
  ['com.fasterxml.jackson.core', 'jackson-databind', '2.18.1'],
  ['jline', 'jline', '2.14.6'],
  ['org.slf4j', 'slf4j-simple', '2.0.13'],
];

const cacheFolder = () => process.env.QUORATE_CACHE ?? join(homedir(), '.cache', 'quorate');

const exists = (path) =>
  access(path).then(
    () => true,
    () => false,
  );

async function findCommand(name) {
  for (const folder of (process.env.PATH ?? '').split(delimiter)) {
    if (folder !== '' && (await exists(join(folder, name)))) return join(folder, name);
  }
  return null;
}

async function digestOf(...paths) {
  const hash = createHash('sha256');
  for (const path of paths) hash.update(await readFile(path)).update('\0');
  return hash.digest('hex').slice(0, 12);
}

/** Runs `build(folder)` once and keeps its folder under `name`. Whoever renames first wins, the other copy is thrown away. */
async function keep(name, build) {
  const kept = join(cacheFolder(), name);
  if (await exists(join(kept, 'complete'))) return kept;
  await mkdir(cacheFolder(), { recursive: true });
  const work = await mkdtemp(`${kept}-building-`);
  try {
    await build(work);
    await writeFile(join(work, 'complete'), '');
    await rm(kept, { recursive: true, force: true });
    await rename(work, kept);
  } catch (error) {
    await makeWritable(work);
    await rm(work, { recursive: true, force: true });
    if (!(await exists(join(kept, 'complete')))) throw error;
  }
  return kept;
}

/** Go writes its module cache read-only; a folder like that cannot be removed as it is. */
async function makeWritable(folder) {
  for (const entry of await readdir(folder, { withFileTypes: true }).catch(() => [])) {
    if (!entry.isDirectory()) continue;
    await chmod(join(folder, entry.name), 0o755).catch(() => {});
    await makeWritable(join(folder, entry.name));
  }
}

const call = (command, args, options = {}) =>
  execute(command, args, { timeout: bringTimeoutMs, maxBuffer: 16 * 1024 * 1024, ...options });

const absent = (reason) => ({ available: false, reason });

/** The last lines a failed program printed are what a person needs to see. */
function explain(what, error) {
  const printed = `${error.stderr ?? ''}\n${error.stdout ?? ''}`.trim().split('\n').slice(-4).join(' | ');
  return absent(`${what} failed: ${printed === '' ? error.message : printed}`);
}

const once = new Map();
const memoised = (name, find) => () => {
  if (!once.has(name)) once.set(name, find());
  return once.get(name);
};

async function findZookeeper() {
  const java = await findCommand('java');
  if (java === null) return absent('no java on the PATH');
  const name = `zookeeper-${zookeeperVersion}`;
  if (!(await exists(join(cacheFolder(), name, 'complete'))) && (await findCommand('mvn')) === null) {
    return absent(`no mvn on the PATH to bring Apache ZooKeeper ${zookeeperVersion}`);
  }
  try {
    const folder = await keep(name, bringZookeeper);
    const jars = (await readdir(folder)).filter((file) => file.endsWith('.jar')).sort();
    return {
      available: true,
      java,
      version: zookeeperVersion,
      classPath: jars.map((jar) => join(folder, jar)).join(delimiter),
    };
  } catch (error) {
    return explain('mvn', error);
  }
}

async function bringZookeeper(folder) {
  const dependencies = zookeeperArtifacts.map(
    ([group, artifact, version]) =>
      `<dependency><groupId>${group}</groupId><artifactId>${artifact}</artifactId><version>${version}</version></dependency>`,
  );
  const project = join(folder, 'pom.xml');
  await writeFile(
    project,
    `<project><modelVersion>4.0.0</modelVersion><groupId>quorate</groupId><artifactId>reference</artifactId><version>1</version><dependencies>${dependencies.join('')}</dependencies></project>\n`,
  );
  await call('mvn', ['-q', '-B', '-f', project, 'dependency:copy-dependencies', `-DoutputDirectory=${folder}`]);
}

async function findToxiproxy() {
  const installed = await findCommand('toxiproxy-server');
  if (installed !== null) return { available: true, command: installed };
  const name = `toxiproxy-${toxiproxyVersion}`;
  if (!(await exists(join(cacheFolder(), name, 'complete'))) && (await findCommand('go')) === null) {
    return absent('neither toxiproxy-server nor go on the PATH');
  }
  try {
    const folder = await keep(name, async (work) => {
      const source = `github.com/Shopify/toxiproxy/v2/cmd/server@${toxiproxyVersion}`;
      await call('go', ['install', source], { env: { ...process.env, GOBIN: work } });
    });
    return { available: true, command: join(folder, 'server') };
  } catch (error) {
    return explain('go install', error);
  }
}

async function findKazoo() {
  const python = await findCommand('python3');
  if (python === null) return absent('no python3 on the PATH');
  const requirements = join(programs, 'python', 'requirements.txt');
  try {
    // A virtual environment holds absolute paths, so it is not renamed: it is built in place and marked when it is complete.
    const folder = join(cacheFolder(), `kazoo-${await digestOf(requirements)}`);
    const command = join(folder, 'bin', 'python3');
    if (!(await exists(join(folder, 'complete')))) {
      await mkdir(cacheFolder(), { recursive: true });
      await call(python, ['-m', 'venv', folder]);
      const pip = ['-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', '--requirement', requirements];
      await call(command, pip);
      await writeFile(join(folder, 'complete'), '');
    }
    return { available: true, command, args: [join(programs, 'python', 'stock_client.py')] };
  } catch (error) {
    return explain('python3 -m venv and pip', error);
  }
}

async function findGoClient() {
  const folder = join(programs, 'go');
  const sources = ['go.mod', 'go.sum', 'main.go'].map((file) => join(folder, file));
  const name = `go-client-${await digestOf(...sources)}`;
  if (!(await exists(join(cacheFolder(), name, 'complete'))) && (await findCommand('go')) === null) {
    return absent('no go on the PATH');
  }
  try {
    const kept = await keep(name, async (work) => {
      const env = { ...process.env, GOFLAGS: '-mod=readonly', CGO_ENABLED: '0' };
      await call('go', ['build', '-o', join(work, 'client'), '.'], { cwd: folder, env });
    });
    return { available: true, command: join(kept, 'client'), args: [] };
  } catch (error) {
    return explain('go build', error);
  }
}

async function findJavaClient() {
  const zookeeper = await zookeeperServer();
  if (!zookeeper.available) return zookeeper;
  const source = join(programs, 'java', 'StockClient.java');
  const name = `java-client-${zookeeper.version}-${await digestOf(source)}`;
  if (!(await exists(join(cacheFolder(), name, 'complete'))) && (await findCommand('javac')) === null) {
    return absent('no javac on the PATH');
  }
  try {
    const folder = await keep(name, async (work) => {
      await call('javac', ['-nowarn', '-cp', zookeeper.classPath, '-d', work, source]);
    });
    const classPath = `${folder}${delimiter}${zookeeper.classPath}`;
    const quiet = '-Dorg.slf4j.simpleLogger.defaultLogLevel=error';
    return { available: true, command: zookeeper.java, args: ['-Xmx256m', quiet, '-cp', classPath, 'StockClient'] };
  } catch (error) {
    return explain('javac', error);
  }
}

async function findNodeClient() {
  try {
    createRequire(import.meta.url).resolve('node-zookeeper-client');
  } catch {
    return absent('node-zookeeper-client is not installed (npm install)');
  }
  return { available: true, command: process.execPath, args: [join(programs, 'node', 'stock-client.mjs')] };
}

async function findCommandLine() {
  const zookeeper = await zookeeperServer();
  if (!zookeeper.available) return zookeeper;
  const quiet = '-Dorg.slf4j.simpleLogger.defaultLogLevel=error';
  const args = ['-Xmx256m', quiet, '-cp', zookeeper.classPath, 'org.apache.zookeeper.ZooKeeperMain'];
  return { available: true, command: zookeeper.java, args };
}

async function findNetworkNamespaces() {
  if (process.platform !== 'linux') return absent('network namespaces exist only on Linux');
  if ((await findCommand('ip')) === null) return absent('no ip (iproute2) on the PATH');
  const name = `quorate-probe-${process.pid}`;
  try {
    await call('ip', ['netns', 'add', name]);
    await call('ip', ['netns', 'delete', name]);
    return { available: true };
  } catch (error) {
    return explain('ip netns add', error);
  }
}

async function findSystemdAnalyze() {
  const command = await findCommand('systemd-analyze');
  return command === null ? absent('no systemd-analyze on the PATH') : { available: true, command };
}

export const zookeeperServer = memoised('zookeeper', findZookeeper);
export const zookeeperCommandLine = memoised('command line', findCommandLine);
export const toxiproxyServer = memoised('toxiproxy', findToxiproxy);
export const kazooClient = memoised('kazoo', findKazoo);
export const goClient = memoised('go', findGoClient);
export const javaClient = memoised('java', findJavaClient);
export const nodeClient = memoised('node', findNodeClient);
export const networkNamespaces = memoised('netns', findNetworkNamespaces);
export const systemdAnalyze = memoised('systemd-analyze', findSystemdAnalyze);

export const tools = {
  'Apache ZooKeeper': zookeeperServer,
  'the ZooKeeper command line': zookeeperCommandLine,
  toxiproxy: toxiproxyServer,
  kazoo: kazooClient,
  'the Go client': goClient,
  'the Java client': javaClient,
  'node-zookeeper-client': nodeClient,
  'network namespaces': networkNamespaces,
  'systemd-analyze': systemdAnalyze,
};

/** Brings every tool, one after another, and says in a line each what became of it. */
async function main() {
  let missing = 0;
  for (const [name, find] of Object.entries(tools)) {
    const tool = await find();
    if (!tool.available) missing += 1;
    console.log(tool.available ? `have     ${name}` : `MISSING  ${name}: ${tool.reason}`);
  }
  if (missing > 0 && process.env.CI === 'true') process.exitCode = 1;
}

if (process.argv[1] !== undefined && resolve(process.argv[1]) === fileURLToPath(import.meta.url)) await main();
