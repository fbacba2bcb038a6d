// `quorate rolling-restart` under load, with servers that a supervisor starts again, as systemd does: no session ends, nothing acknowledged
// is lost, clients see at worst a lost connection, and leadership is handed over instead of fought for. With our own recorded clients,
// and with genuine clients of other projects that judge themselves.
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import type { Missing, Program } from '../../scripts/tools.mjs';
import { audit, writeGapMs } from '../support/audit.ts';
import { type Ensemble, startEnsemble } from '../support/ensemble.ts';
import { countSaid, logOf, said, startRun } from '../support/run.ts';
import { scale, within } from '../support/scale.ts';
import { runStockClient } from '../support/stock-client.ts';
import { describeWith, goClient, javaClient, kazooClient, nodeClient } from '../support/tools.ts';
import { now } from '../support/traffic.ts';

const command = join(import.meta.dirname, '..', '..', 'packages', 'cli', 'bin', 'quorate.mjs');
/** SIGTERM; whoever supervises the process starts the next one. */
const restartCommand = 'kill -TERM "$(cat "$(dirname {config})/data/quorate.pid")"';

const rounds = 3;
const gapMsMax = 2_000;

/** Starts every server again that ends, until it is released. */
function supervise(ensemble: Ensemble): { release(): void } {
  let isReleased = false;
  const watch = async (id: number): Promise<void> => {
    while (!isReleased) {
      const exit = await ensemble.server(id).exit;
      if (isReleased) return;
      if (exit?.code !== 0) throw new Error(`server ${id} ended with ${exit?.code ?? exit?.signal}`);
      ensemble.spawnServer(id);
    }
  };
  for (const { id } of ensemble.servers) {
    // The restart waits for this server; without it, it fails and names it.
    watch(id).catch((error: unknown) => console.error(error));
  }
  return {
    release: () => {
      isReleased = true;
    },
  };
}

async function rollingRestart(ensemble: Ensemble): Promise<void> {
  const args = ['rolling-restart', ensemble.directory, '--restart-command', restartCommand];
  const child = spawn(process.execPath, [command, ...args, '--wait', String(within(20_000))]);
  const output: string[] = [];
  child.stdout.on('data', (chunk) => output.push(String(chunk)));
  child.stderr.on('data', (chunk) => output.push(String(chunk)));
  const code = await new Promise<number | null>((done) => child.once('close', done));
  if (code !== 0) throw new Error(`the rolling restart ended with ${code}:\n${output.join('')}`);
}

test('three rolling restarts under load lose no session and no write, and hand leadership over', async () => {
  await using run = await startRun();
  const { ensemble, traffic } = run;
  const supervisor = supervise(ensemble);
  const gaps: number[] = [];
  const elections: number[] = [];
  for (let round = 0; round < rounds; round++) {
    await traffic.more(200, 'writes before the restart');
    const from = now();
    const lines = new Map<number, number>();
    for (const { id } of ensemble.servers) lines.set(id, (await logOf(ensemble, id)).length);
    await rollingRestart(ensemble);
    gaps.push(writeGapMs(traffic.recorder.history(), from, now()));
    const leads = ensemble.servers.map(({ id }) => countSaid(ensemble, id, said.leads, lines.get(id)));
    elections.push((await Promise.all(leads)).reduce((sum, count) => sum + count, 0));
  }
  await traffic.more(200, 'writes after the restarts');
  supervisor.release();
  const report = await audit(ensemble, traffic, { writesMin: 2_000, eventsMin: 1_000 });
  console.log(
    `${rounds} rolling restarts: write gaps ${gaps.join(', ')} ms, new leaders ${elections.join(', ')}`,
    report,
  );
  expect(traffic.expirations).toEqual([]);
  // Only the leader's own restart changes the leader.
  expect(elections).toEqual(Array.from({ length: rounds }, () => 1));
  expect(Math.max(...gaps)).toBeLessThanOrEqual(gapMsMax * scale);
});

const clients: readonly [string, Program | Missing][] = [
  ['kazoo (Python)', await kazooClient()],
  ["Apache's Java client", await javaClient()],
  ['go-zookeeper/zk (Go)', await goClient()],
  ['node-zookeeper-client (Node.js)', await nodeClient()],
];

for (const [name, client] of clients) {
  describeWith(name, client, (program) => {
    test('keeps its session and every write through a rolling restart', async () => {
      await using ensemble = await startEnsemble();
      const supervisor = supervise(ensemble);
      const run = await runStockClient(program, ensemble, ['--through-leader-kill'], () => rollingRestart(ensemble));
      supervisor.release();
      expect(run.output).not.toMatch(/^FAILED/m);
      expect(run.code).toBe(0);
      expect(run.proved).toContain('through a leader kill');
      expect(run.killedLeader).toBeNull();
    });
  });
}
