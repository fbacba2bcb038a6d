// npm start as a person sees it: the line that says it is usable, a lost leader and its return told in a line each, Ctrl-C that leaves
// nothing running, data that is there the next time, and one clear sentence where it cannot start.
import { execFile, spawn } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { freePorts, waitFor } from '../support/ensemble.ts';

const execute = promisify(execFile);
const root = resolve(import.meta.dirname, '..', '..');
const script = join(root, 'scripts', 'dev-ensemble.mjs');
const program = join(root, 'packages', 'cli', 'bin', 'quorate.mjs');

let folder: string;
const pids = new Set<number>();

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'quorate-start-'));
});

afterAll(async () => {
  for (const pid of pids) if (isRunning(pid)) process.kill(pid, 'SIGKILL');
  await rm(folder, { recursive: true, force: true });
});

function isRunning(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}

const pidOf = async (data: string, id: number): Promise<number> => {
  const pid = Number(await readFile(join(data, `server-${id}`, 'data', 'quorate.pid'), 'utf8'));
  pids.add(pid);
  return pid;
};

type Started = { readonly output: () => string; interrupt(): Promise<number | null> };

function start(...args: string[]): Started {
  const child = spawn(process.execPath, [script, ...args], { cwd: root, stdio: ['ignore', 'pipe', 'pipe'] });
  if (child.pid !== undefined) pids.add(child.pid);
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      output += text;
    });
  }
  const exited = new Promise<number | null>((done) => child.once('exit', done));
  return {
    output: () => output,
    interrupt: () => {
      child.kill('SIGINT');
      return exited;
    },
  };
}

const untilSaid = (started: Started, what: RegExp): Promise<RegExpExecArray> =>
  waitFor(`${what} in what npm start says:\n${started.output()}`, () => what.exec(started.output()), 40_000);

test('it says when it is usable, tells what happens, stops all on Ctrl-C and finds everything again', async () => {
  const data = join(folder, 'data');
  const [clientPort] = await freePorts(1);
  const addresses = [0, 1, 2].map((index) => `127.0.0.1:${Number(clientPort) + index}`).join(',');
  const first = start('--data', data, '--client-port', String(clientPort));
  await untilSaid(first, new RegExp(`^Quorate is ready: ${addresses}$`, 'm'));
  const leader = Number((await untilSaid(first, /server (\d) leads;/))[1]);
  await execute(process.execPath, [program, 'create', '/kept', 'value', '--server', addresses]);

  process.kill(await pidOf(data, leader), 'SIGKILL');
  await untilSaid(first, new RegExp(`server ${leader} is lost: its process ended`));
  const next = Number((await untilSaid(first, new RegExp(`server (\\d) leads now \\(before: server ${leader}\\)`)))[1]);
  expect(next).not.toBe(leader);

  // Started by somebody else, it is recognised, and stopped with the others.
  const outside = spawn(process.execPath, [program, 'server', join(data, `server-${leader}`, 'zoo.cfg')], {
    stdio: 'ignore',
    detached: true,
  });
  outside.unref();
  await untilSaid(first, new RegExp(`server ${leader} is back: it follows`));
  const servers = await Promise.all([1, 2, 3].map((id) => pidOf(data, id)));
  expect(servers[leader - 1]).toBe(outside.pid);
  expect(await first.interrupt()).toBe(0);
  expect(servers.filter(isRunning)).toEqual([]);
  expect(first.output().match(/server \d stopped/g)).toHaveLength(3);

  const edited = join(data, 'server-1', 'zoo.cfg');
  await writeFile(edited, `${await readFile(edited, 'utf8')}# mine\n`);
  const second = start('--data', data);
  await untilSaid(second, /^Quorate is ready/m);
  const { stdout } = await execute(process.execPath, [program, 'get', '/kept', '--server', addresses]);
  expect(stdout).toBe('value');
  expect(await readFile(edited, 'utf8')).toContain('# mine');
  expect(await second.interrupt()).toBe(0);
});

test('a taken port, an unusable folder and a wrong option are one sentence each, and a failure', async () => {
  const [port] = await freePorts(1);
  const taken = createServer();
  await new Promise<void>((done) => taken.listen(port, '127.0.0.1', done));
  const file = join(folder, 'a-file');
  await writeFile(file, '');
  const fresh = join(folder, 'fresh');
  const cases: [string[], RegExp][] = [
    [['--data', fresh, '--client-port', String(port)], new RegExp(`^Port ${port} is taken by another program;.*\n$`)],
    [['--data', join(file, 'below')], /^The folder .* cannot be written \(ENOTDIR\);.*\n$/],
    [['--servers', 'many'], /^--servers must be a whole number between 1 and 9, not "many"\.\n$/],
    [['--data', fresh, '--servers', '5'], /^.* holds an ensemble of 3;.*\n$/],
  ];
  for (const [args, sentence] of cases) {
    const run = execute(process.execPath, [script, ...args], { cwd: root });
    await expect(run).rejects.toMatchObject({ code: 1, stderr: expect.stringMatching(sentence) });
  }
  taken.close();
});
