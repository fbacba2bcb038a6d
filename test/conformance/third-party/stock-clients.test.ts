// Genuine clients of other projects, unchanged, against Quorate and against Apache ZooKeeper with the same programs: what they prove on
// the one they must prove on the other. The programs judge themselves; here they get servers, and a leader that dies.
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Missing, Program } from '../../../scripts/tools.mjs';
import { type Ensemble, startEnsemble } from '../../support/ensemble.ts';
import { runStockClient } from '../../support/stock-client.ts';
import { describeWith, goClient, javaClient, kazooClient, nodeClient, zookeeperServer } from '../../support/tools.ts';
import { startZookeeper } from '../../support/zookeeper.ts';

const clients: readonly [string, Program | Missing, number][] = [
  ['kazoo (Python)', await kazooClient(), 14],
  ["Apache's Java client", await javaClient(), 17],
  ['go-zookeeper/zk (Go)', await goClient(), 14],
  ['node-zookeeper-client (Node.js)', await nodeClient(), 10],
];
const zookeeper = await zookeeperServer();

function defineFor(start: () => Promise<Ensemble>): void {
  let ensemble: Ensemble;
  beforeAll(async () => {
    ensemble = await start();
  });
  afterAll(() => ensemble?.stop());

  for (const [name, client, pointsMin] of clients) {
    describeWith(name, client, (program) => {
      test('proves every point of its script, also when its own server goes away', async () => {
        const run = await runStockClient(program, ensemble, ['--control']);
        expect(run.output).not.toMatch(/^FAILED/m);
        expect(run.code).toBe(0);
        expect(run.proved).toContain('all');
        expect(run.proved.length).toBeGreaterThanOrEqual(pointsMin);
      });

      test('loses and doubles no write when the leader is killed while it writes', async () => {
        const run = await runStockClient(program, ensemble, ['--through-leader-kill']);
        expect(run.output).not.toMatch(/^FAILED/m);
        expect(run.code).toBe(0);
        expect(run.proved).toContain('through a leader kill');
        expect(run.killedLeader).not.toBeNull();
      });
    });
  }
}

describe('stock clients on Quorate', () => {
  defineFor(() => startEnsemble());
});

describeWith('stock clients on Apache ZooKeeper', zookeeper, (jars) => {
  defineFor(() => startZookeeper(jars));
});
