// A follower dies. The clients of the other two must not notice anything: no lost socket, no lost answer, hardly a pause.
// Back after a short absence it catches up by DIFF: neither a snapshot nor a cut of its log is needed.
import { expect, test } from 'vitest';
import { audit, unansweredOn, writeGapMs, writesWithin } from '../support/audit.ts';
import { countSaid, logOf, said, startRun } from '../support/run.ts';
import { scale, within } from '../support/scale.ts';
import { now } from '../support/traffic.ts';

const writesAround = 250;
const gapMsMax = 500;

test('each follower killed under load goes unnoticed by the clients of the others and comes back by DIFF', async () => {
  await using run = await startRun();
  const { ensemble, traffic } = run;
  const leader = await ensemble.waitForLeader();
  const followers = ensemble.servers.map(({ id }) => id).filter((id) => id !== leader);
  const gaps: number[] = [];
  for (const follower of followers) {
    await traffic.more(writesAround, 'writes before the kill');
    const lines = (await logOf(ensemble, follower)).length;
    const killedAt = now();
    await ensemble.kill(follower);
    await traffic.more(writesAround, 'writes while the follower is away', within(15_000));
    const until = now();
    const history = traffic.recorder.history();
    const others = ensemble.servers.map(({ id }) => id).filter((id) => id !== follower);
    expect(traffic.tap.lostConnections(others, killedAt)).toEqual([]);
    expect(unansweredOn(history, others, killedAt)).toEqual([]);
    expect(writesWithin(history, killedAt, until)).toBeGreaterThanOrEqual(100);
    gaps.push(writeGapMs(history, killedAt, until, (op) => op.server !== follower));
    await ensemble.startServer(follower, within(20_000));
    expect(await ensemble.findLeader()).toBe(leader);
    expect(await countSaid(ensemble, follower, said.tookSnapshot, lines)).toBe(0);
    expect(await countSaid(ensemble, follower, said.cutTail, lines)).toBe(0);
  }
  await traffic.more(writesAround, 'writes with all three again');
  const report = await audit(ensemble, traffic, { writesMin: 1_000, eventsMin: 500 });
  console.log(`followers killed: write gaps of the others ${gaps.join(', ')} ms`, report);
  expect(traffic.expirations).toEqual([]);
  expect(Math.max(...gaps)).toBeLessThanOrEqual(gapMsMax * scale);
});
