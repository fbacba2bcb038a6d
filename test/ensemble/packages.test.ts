// What a person installs on a machine: the packed packages in an empty folder, away from this checkout, run a server; the systemd unit is
// one that systemd takes; and three machines, made of network namespaces with an address each, are an ensemble that outlives its leader.
import { execFile, spawn } from 'node:child_process';
import { copyFile, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { freePorts, waitFor } from '../support/ensemble.ts';
import { describeWith, networkNamespaces, systemdAnalyze } from '../support/tools.ts';

const execute = promisify(execFile);
const root = resolve(import.meta.dirname, '..', '..');
const systemd = await systemdAnalyze();
const namespaces = await networkNamespaces();

let folder: string;
let program: string;
const ends: (() => Promise<void>)[] = [];

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'quorate-install-'));
  const packed = join(folder, 'packed');
  await execute(process.execPath, [join(root, 'scripts', 'pack.mjs'), packed]);
  const files = (await readdir(packed)).map((file) => join(packed, file));
  await writeFile(join(folder, 'package.json'), '{ "private": true }\n');
  await execute('npm', ['install', '--omit=dev', '--no-audit', '--no-fund', ...files], { cwd: folder });
  program = join(folder, 'node_modules', '.bin', 'quorate');
});

afterAll(async () => {
  for (const end of ends.reverse()) await end();
  await rm(folder, { recursive: true, force: true });
});

/** Runs a server until the test is over, and answers with what ends it. */
function startServer(command: string, args: readonly string[]): () => Promise<void> {
  const child = spawn(command, args, { stdio: ['ignore', 'ignore', 'inherit'] });
  const exited = new Promise<void>((done) => {
    child.once('exit', () => done());
    child.once('error', () => done());
  });
  const end = async (): Promise<void> => {
    child.kill('SIGKILL');
    await exited;
  };
  ends.push(end);
  process.once('exit', () => child.kill('SIGKILL'));
  return end;
}

describe('the packages, installed in an empty folder', () => {
  test('carry no source and no test', async () => {
    const server = join(folder, 'node_modules', '@quorate', 'server');
    const files = await readdir(server, { recursive: true });
    expect(files.filter((file) => /\.test\.|(?<!\.d)\.ts$/.test(file) && !file.startsWith('node_modules'))).toEqual([]);
    expect(files).toContain('README.md');
  });

  test('run a standalone server that keeps what it was told', async () => {
    const [port] = await freePorts(1);
    const data = join(folder, 'standalone');
    const config = join(folder, 'standalone.cfg');
    await writeFile(config, `dataDir=${data}\nclientPort=${port}\nclientPortAddress=127.0.0.1\n`);
    const server = ['--server', `127.0.0.1:${port}`];
    const end = startServer(process.execPath, [program, 'server', config]);
    await execute(process.execPath, [program, 'create', '/kept', 'value', ...server]);
    await end();
    startServer(process.execPath, [program, 'server', config]);
    const { stdout } = await execute(process.execPath, [program, 'get', '/kept', ...server]);
    expect(stdout).toBe('value');
  });

  test('a wrong value stops the start with the key, the value and what was expected', async () => {
    const config = join(folder, 'wrong.cfg');
    await writeFile(config, `dataDir=${join(folder, 'wrong')}\nclientPort=many\n`);
    const run = execute(process.execPath, [program, 'server', config]);
    await expect(run).rejects.toMatchObject({ code: 2, stderr: expect.stringMatching(/clientPort.*many.*expected/) });
  });
});

describeWith('the systemd unit', systemd, ({ command }) => {
  test('is one that systemd takes without a word', async () => {
    const unit = join(folder, 'quorate.service');
    await copyFile(join(root, 'deploy', 'systemd', 'quorate.service'), unit);
    const { stdout, stderr } = await execute(command, ['verify', unit]);
    // Only lines about this unit: a machine may have faults of its own.
    expect(`${stdout}${stderr}`.split('\n').filter((line) => line.includes('quorate'))).toEqual([]);
  });
});

describeWith('three machines', namespaces, () => {
  const machines = [1, 2, 3].map((id) => ({
    id,
    namespace: `quorate-${process.pid}-${id}`,
    link: `qr${process.pid % 100_000}-${id}`,
    address: `10.214.7.${id}`,
  }));
  const bridge = { namespace: `quorate-${process.pid}-0`, name: 'quorate' };
  const ip = (...args: string[]): Promise<unknown> => execute('ip', args);
  const inside = (namespace: string, ...args: string[]): string[] => ['netns', 'exec', namespace, ...args];

  /** A switch in a namespace of its own, so that nothing of this machine's network is touched. */
  beforeAll(async () => {
    for (const { namespace } of [bridge, ...machines]) {
      await ip('netns', 'add', namespace);
      ends.push(async () => void (await ip('netns', 'delete', namespace)));
      await ip('-n', namespace, 'link', 'set', 'lo', 'up');
    }
    await ip('-n', bridge.namespace, 'link', 'add', bridge.name, 'type', 'bridge');
    await ip('-n', bridge.namespace, 'link', 'set', bridge.name, 'up');
    for (const { namespace, link, address } of machines) {
      const peer = ['type', 'veth', 'peer', 'name', 'eth0', 'netns', namespace];
      await ip('-n', bridge.namespace, 'link', 'add', link, ...peer);
      await ip('-n', bridge.namespace, 'link', 'set', link, 'master', bridge.name, 'up');
      await ip('-n', namespace, 'address', 'add', `${address}/24`, 'dev', 'eth0');
      await ip('-n', namespace, 'link', 'set', 'eth0', 'up');
    }
  });

  const quorate = async (machine: (typeof machines)[number], ...args: string[]): Promise<string> =>
    (await execute('ip', inside(machine.namespace, process.execPath, program, ...args))).stdout;

  /** Who says of itself that it leads, asked from its own machine. */
  const findLeader = async (among: typeof machines): Promise<(typeof machines)[number] | null> => {
    for (const machine of among) {
      const answer = await quorate(machine, 'status', '--server', `${machine.address}:2181`, '--json').catch(() => '');
      if (/"(mode|role)":\s*"lead(er|ing)"/.test(answer)) return machine;
    }
    return null;
  };

  test('are an ensemble that outlives its leader, with the configuration of deploy/', async () => {
    const running = new Map<number, () => Promise<void>>();
    const text = await readFile(join(root, 'deploy', 'zoo.cfg'), 'utf8');
    for (const machine of machines) {
      const data = join(folder, `machine-${machine.id}`);
      const config = join(folder, `machine-${machine.id}.cfg`);
      await mkdir(data);
      await writeFile(join(data, 'myid'), `${machine.id}\n`);
      const named = text.replaceAll(/quorate(\d):/g, (_, id: string) => `10.214.7.${id}:`);
      await writeFile(config, named.replace('/var/lib/quorate', data));
      const args = inside(machine.namespace, process.execPath, program, 'server', config);
      running.set(machine.id, startServer('ip', args));
    }
    const everywhere = ['--server', machines.map(({ address }) => `${address}:2181`).join(',')];
    const leader = await waitFor('a leader', () => findLeader(machines), 60_000);
    const [elsewhere] = machines.filter((machine) => machine !== leader);
    if (elsewhere === undefined) throw new Error('there are three machines');
    await quorate(elsewhere, 'create', '/kept', 'value', ...everywhere);
    await running.get(leader.id)?.();
    const rest = machines.filter((machine) => machine !== leader);
    await waitFor('another leader', () => findLeader(rest), 60_000);
    expect(await quorate(elsewhere, 'get', '/kept', ...everywhere)).toBe('value');
    await quorate(elsewhere, 'set', '/kept', 'later', ...everywhere);
    expect(await quorate(elsewhere, 'get', '/kept', ...everywhere)).toBe('later');
  });
});
