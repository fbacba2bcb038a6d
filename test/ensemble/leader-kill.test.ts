// The leader is killed again and again while clients write. Clients of the surviving servers must not notice more than a pause:
// they keep their sockets and every answer; what was acknowledged stays, and nothing happens twice.
import { expect, test } from 'vitest';
import { audit, writeGapMs, writesWithin } from '../support/audit.ts';
import { startEnsemble } from '../support/ensemble.ts';
import { scale, within } from '../support/scale.ts';
import { now, Traffic } from '../support/traffic.ts';

const rounds = 5;
const writesAround = 150;
const gapMsMax = 2_000;

test('five leaders killed under load cost no acknowledged write and no socket of the servers that live', async () => {
  await using ensemble = await startEnsemble();
  const targets = ensemble.servers.map(({ id, clientPort }) => ({ server: id, port: clientPort }));
  const traffic = await Traffic.start({ targets });
  const gaps: number[] = [];
  for (let round = 0; round < rounds; round++) {
    await traffic.more(writesAround, 'writes before the kill');
    const leader = await ensemble.waitForLeader();
    const killedAt = now();
    await ensemble.kill(leader);
    await traffic.more(writesAround, 'writes after the kill', within(15_000));
    await ensemble.waitForLeader({ otherThan: leader, timeoutMs: within(10_000) });
    const until = now();
    const lost = traffic.tap.disconnects.filter(({ at, server }) => at >= killedAt && server !== leader);
    expect(lost).toEqual([]);
    const history = traffic.recorder.history();
    gaps.push(writeGapMs(history, killedAt, until, (op) => op.server !== leader));
    expect(writesWithin(history, killedAt, until)).toBeGreaterThanOrEqual(100);
    await ensemble.startServer(leader);
    await ensemble.waitUntilReady();
  }
  const report = await audit(ensemble, traffic, { writesMin: 2 * rounds * writesAround, eventsMin: 200 });
  console.log(`leader killed ${rounds} times: write gaps ${gaps.join(', ')} ms`, report);
  expect(Math.max(...gaps)).toBeLessThanOrEqual(gapMsMax * scale);
});
