// The leader stands still (SIGSTOP) for longer than its deadline, the others go on without it, and it wakes up with requests waiting in
// its sockets. It must not answer any of them as the leader that it was: no old value, no word that it leads, no write of its own.
import { operationsOf } from '@quorate/checker';
import { expect, test } from 'vitest';
import { audit, isAcknowledged, writeGapMs } from '../support/audit.ts';
import { fourLetterWord } from '../support/ensemble.ts';
import { countSaid, logOf, said, startRun } from '../support/run.ts';
import { scale, within } from '../support/scale.ts';
import { now } from '../support/traffic.ts';

const writesAround = 250;
const gapMsMax = 3_000;
const rounds = 2;

test('a leader that was frozen beyond its deadline does not answer as leader when it wakes', async () => {
  await using run = await startRun();
  const { ensemble, traffic } = run;
  const gaps: number[] = [];
  for (let round = 0; round < rounds; round++) {
    await traffic.more(writesAround, 'writes before the freeze');
    const leader = await ensemble.waitForLeader();
    const others = ensemble.servers.map(({ id }) => id).filter((id) => id !== leader);
    const path = `/t/frozen-${round}`;
    const writer = await traffic.client(`writer-${round}`, others);
    await writer.create(path, 'before');
    const asker = await traffic.client(`asker-${round}`, [leader]);
    await asker.sync(path);

    const lines = (await logOf(ensemble, leader)).length;
    const frozenAt = now();
    ensemble.pause(leader);
    // These lie in the frozen server's sockets when it wakes.
    const answers = Promise.allSettled([
      asker.get(path),
      asker.set(path, 'by the frozen leader', { version: 0 }),
      asker.sync(path),
      asker.get(path),
    ]);
    const modeOnWaking = fourLetterWord(ensemble.server(leader).clientPort, 'srvr', { timeoutMs: within(20_000) });
    await ensemble.waitForLeader({ otherThan: leader, timeoutMs: within(20_000) }).catch((cause: unknown) => {
      throw new Error('the others elected nobody', { cause });
    });
    await writer.set(path, 'after');
    await traffic.more(writesAround, 'writes without the frozen leader', within(15_000));
    gaps.push(writeGapMs(traffic.recorder.history(), frozenAt, now(), (op) => op.server !== leader));
    ensemble.resume(leader);

    expect(await modeOnWaking).not.toMatch(/^Mode: (leader|standalone)/m);
    await answers;
    await ensemble.waitUntilReady(within(20_000));
    expect(await countSaid(ensemble, leader, said.lostLeader, lines)).toBeGreaterThanOrEqual(1);
    await traffic.more(writesAround, 'writes with all three again');
    const asked = operationsOf(traffic.recorder.history()).filter(
      (op) => op.client === `asker-${round}` && op.call >= frozenAt && op.outcome !== 'unknown',
    );
    for (const op of asked) if (op.kind === 'getData') expect(op.result?.data).toBe('after');
    // The value was changed under a newer leader before: version 0 is gone, so this write can be acknowledged to nobody.
    expect(asked.filter(isAcknowledged)).toEqual([]);
    expect((await writer.get(path)).data?.toString()).toBe('after');
    await Promise.all([writer.close(), asker.close()]);
  }
  const report = await audit(ensemble, traffic, { writesMin: 1_000, eventsMin: 500 });
  console.log(`leader frozen ${rounds} times: write gaps ${gaps.join(', ')} ms`, report);
  expect(Math.max(...gaps)).toBeLessThanOrEqual(gapMsMax * scale);
});
