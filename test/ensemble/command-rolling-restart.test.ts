// `quorate rolling-restart` on three servers under load: every process is replaced, no session ends, no acknowledged write is lost.

import { spawn } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { connect } from '@quorate/client';
import { expect, test } from 'vitest';
import { type Ensemble, startEnsemble, waitFor } from '../support/ensemble.ts';

const COMMAND = join(import.meta.dirname, '../../packages/cli/bin/quorate.mjs');

type Line = { step: string; server: number | null; order?: number[]; leader?: number; mode?: string };

async function rollingRestart(...args: string[]) {
  const child = spawn(process.execPath, [COMMAND, 'rolling-restart', ...args, '--json']);
  let out = '';
  let err = '';
  child.stdout.on('data', (chunk) => {
    out += String(chunk);
  });
  child.stderr.on('data', (chunk) => {
    err += String(chunk);
  });
  const code = await new Promise<number | null>((resolve) => child.on('close', resolve));
  const lines: Line[] = out
    .trim()
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line));
  return { code, lines, err };
}

async function pids(ensemble: Ensemble): Promise<number[]> {
  const texts = ensemble.servers.map(({ dataDirectory }) => readFile(join(dataDirectory, 'quorate.pid'), 'utf8'));
  return (await Promise.all(texts)).map(Number);
}

function isRunning(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}

/** The new processes belong to nobody: they end with the test. */
async function endAll(processes: readonly number[]): Promise<void> {
  for (const pid of processes) if (isRunning(pid)) process.kill(pid, 'SIGTERM');
  await waitFor('the restarted servers to end', () => processes.every((pid) => !isRunning(pid)), 20_000);
}

test('every server is restarted, the leader last, and clients notice at most lost connections', async () => {
  await using ensemble = await startEnsemble();
  const before = await pids(ensemble);
  const leader = await ensemble.findLeader();
  const clients = await Promise.all(
    ensemble.servers.map(() => connect(ensemble.connectString, { sessionTimeoutMs: 8_000 })),
  );
  const sessionIds = clients.map(({ sessionId }) => sessionId);
  let isOver = false;
  const counts = clients.map(() => ({ acknowledged: 0, unknown: 0 }));
  const codes = new Set<string>();
  const load = clients.map(async (client, index) => {
    await client.create(`/load-${index}`, '', { mode: 'ephemeral' });
    const count = counts[index];
    if (count === undefined) throw new Error('each client has its counts');
    while (!isOver) {
      try {
        await client.set(`/load-${index}`, 'x');
        count.acknowledged++;
      } catch (error) {
        codes.add(error instanceof Error && 'code' in error ? String(error.code) : String(error));
        count.unknown++;
      }
    }
  });
  let after: number[] = [];
  try {
    const { code, lines, err } = await rollingRestart(ensemble.directory);
    after = await pids(ensemble);
    expect({ code, err }).toEqual({ code: 0, err: '' });
    isOver = true;
    await Promise.all(load);
    expect(lines[0]).toMatchObject({ step: 'plan', leader });
    expect(lines[0]?.order?.at(-1)).toBe(leader);
    expect(lines.map(({ step }) => step)).toEqual([
      'plan',
      ...['stop', 'start', 'synced', 'stop', 'start', 'synced', 'stop', 'start', 'synced'],
      'done',
    ]);
    expect(before.filter((pid) => after.includes(pid))).toEqual([]);
    expect(clients.map(({ sessionId }) => sessionId)).toEqual(sessionIds);
    expect([...codes].filter((each) => each !== 'connectionLoss')).toEqual([]);
    for (const [index, client] of clients.entries()) {
      await client.sync();
      const stat = await client.exists(`/load-${index}`);
      const { acknowledged, unknown } = counts[index] ?? { acknowledged: 0, unknown: 0 };
      expect(stat?.ephemeralOwner).toBe(sessionIds[index]);
      expect(acknowledged).toBeGreaterThan(20);
      expect(stat?.version).toBeGreaterThanOrEqual(acknowledged);
      expect(stat?.version).toBeLessThanOrEqual(acknowledged + unknown);
    }
  } finally {
    isOver = true;
    await Promise.allSettled(load);
    await Promise.all(clients.map((client) => client.close()));
    await endAll(after);
  }
});

test('nothing is restarted while one server is away', async () => {
  await using ensemble = await startEnsemble();
  const before = await pids(ensemble);
  await ensemble.kill(2);
  const { code, lines, err } = await rollingRestart(ensemble.directory, '--wait', '1500');
  expect(code).toBe(1);
  expect(lines).toEqual([]);
  const { message } = JSON.parse(err).error;
  expect(message).toMatch(/^not in sync after 1500 ms: server 2 at 127\.0\.0\.1:\d+ does not serve: /);
  expect([1, 3].map((id) => before[id - 1]).filter((pid) => pid === undefined || !isRunning(pid))).toEqual([]);
});

test('a restart command that fails ends the restart at its server', async () => {
  await using ensemble = await startEnsemble();
  const leader = await ensemble.findLeader();
  const { code, lines, err } = await rollingRestart(
    ensemble.directory,
    '--restart-command',
    'test {id} = 0 -o ! -f {config}',
  );
  expect(code).toBe(1);
  expect(lines.map(({ step }) => step)).toEqual(['plan', 'restart']);
  expect(JSON.parse(err).error).toMatchObject({
    code: 'restartFailed',
    message: `the command for server ${leader === 1 ? 2 : 1} ended with 1`,
  });
});
