// All three servers are killed in the same moment, in the middle of traffic, and started again: everything acknowledged is there,
// and the sessions go on, because nobody was there to expire them.
import { expect, test } from 'vitest';
import { audit } from '../support/audit.ts';
import { startRun } from '../support/run.ts';
import { within } from '../support/scale.ts';

const rounds = 2;
const writesAround = 300;

test('all servers killed at once and started again hold everything that was acknowledged', async () => {
  await using run = await startRun();
  const { ensemble, traffic } = run;
  for (let round = 0; round < rounds; round++) {
    await traffic.more(writesAround, 'writes before the kill');
    await Promise.all(ensemble.servers.map(({ id }) => ensemble.kill(id)));
    await ensemble.startAll(within(20_000));
    await traffic.more(writesAround, 'writes after the start', within(20_000));
  }
  const report = await audit(ensemble, traffic, { writesMin: 1_000, eventsMin: 500 });
  console.log(`all servers killed ${rounds} times`, report);
  expect(traffic.expirations).toEqual([]);
});
