// The leader is killed again and again while clients write. Clients of the surviving servers must not notice more than a pause:
// they keep their sockets and get every answer; what was acknowledged stays, and nothing happens twice.
import { expect, test } from 'vitest';
import { audit, unansweredOn, writeGapMs, writesWithin } from '../support/audit.ts';
import { startRun } from '../support/run.ts';
import { scale, within } from '../support/scale.ts';
import { now } from '../support/traffic.ts';

const rounds = 5;
const writesAround = 200;
const gapMsMax = 2_000;

test('five leaders killed under load cost no acknowledged write, and no socket or answer of the servers that live', async () => {
  await using run = await startRun();
  const { ensemble, traffic } = run;
  const gaps: number[] = [];
  // One client vanishes without a word: in the end its ephemeral must be gone from every server, or the audit does not end well.
  const ghost = await traffic.client('ghost');
  await ghost.create('/t/eph/of-the-ghost', '', { mode: 'ephemeral' });
  traffic.tap.silence('ghost');
  for (let round = 0; round < rounds; round++) {
    await traffic.more(writesAround, 'writes before the kill');
    const leader = await ensemble.waitForLeader();
    const killedAt = now();
    await ensemble.kill(leader);
    await traffic.more(writesAround, 'writes after the kill', within(15_000));
    await ensemble.waitForLeader({ otherThan: leader, timeoutMs: within(10_000) });
    const until = now();
    const history = traffic.recorder.history();
    const survivors = ensemble.servers.map(({ id }) => id).filter((id) => id !== leader);
    expect(traffic.tap.lostConnections(survivors, killedAt)).toEqual([]);
    expect(unansweredOn(history, survivors, killedAt)).toEqual([]);
    expect(writesWithin(history, killedAt, until)).toBeGreaterThanOrEqual(100);
    gaps.push(writeGapMs(history, killedAt, until, (op) => op.server !== leader));
    await ensemble.startServer(leader, within(20_000));
    await ensemble.waitUntilReady(within(20_000));
  }
  const report = await audit(ensemble, traffic, { writesMin: 2_000, eventsMin: 1_000 });
  await ghost.close();
  console.log(`leader killed ${rounds} times: write gaps ${gaps.join(', ')} ms`, report);
  expect(traffic.expirations).toEqual([]);
  expect(Math.max(...gaps)).toBeLessThanOrEqual(gapMsMax * scale);
});
