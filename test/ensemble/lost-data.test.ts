// A server comes back with less than it had: an emptied data folder, or an absence longer than the others' window of history.
// It gets a snapshot from the leader. Until then an emptied one has no vote: what it once promised is forgotten, so it must not elect.
import { expect, test } from 'vitest';
import { audit } from '../support/audit.ts';
import { waitFor } from '../support/ensemble.ts';
import { countSaid, logOf, said, startRun } from '../support/run.ts';
import { within } from '../support/scale.ts';

const writesAround = 250;
const windowTxns = 100;
/**
 * The leader keeps so little in memory that whoever misses more than the window needs a snapshot. Snapshots are taken often, and the
 * log behind them is purged, so these audits do without the whole log: counters, linearizability, order and watches decide.
 */
const config = {
  commitLogCount: windowTxns,
  'quorate.historyBytesMax': 4_096,
  'quorate.snapshotLogBytesMin': 16_384,
  'autopurge.snapRetainCount': 100,
};

test('an emptied server has no vote before it took over a snapshot, and serves again after it', async () => {
  await using run = await startRun({ ensemble: { config } });
  const { ensemble, traffic } = run;
  await traffic.more(writesAround, 'writes before the loss');
  const leader = await ensemble.waitForLeader();
  const [emptied, other] = ensemble.servers.map(({ id }) => id).filter((id) => id !== leader);
  if (emptied === undefined || other === undefined) throw new Error('three servers have two followers');
  await ensemble.kill(emptied);
  await traffic.more(writesAround, 'writes without the emptied server');
  await ensemble.wipe(emptied);
  // The leader goes too: of the three, one holds everything, one nothing. These two must not become an ensemble.
  await ensemble.kill(leader);
  const lines = (await logOf(ensemble, emptied)).length;
  ensemble.spawnServer(emptied);
  const hasVoted = async (): Promise<boolean> => {
    const modes = await Promise.all([ensemble.modeOf(emptied), ensemble.modeOf(other)]);
    return modes.some((mode) => mode !== null);
  };
  await waitFor(
    'the emptied server to meet the other one',
    async () => (await countSaid(ensemble, emptied, 'the link to a peer is up', lines)) > 0,
    within(20_000),
  );
  // By now every answer that was under way when the leader died has arrived.
  const before = traffic.acknowledged;
  // An election takes a fraction of a second; ten times that is a long time to see none.
  await expect(waitFor('an election that must not be', hasVoted, within(3_000))).rejects.toThrow('waited');
  expect(traffic.acknowledged).toBe(before);

  await ensemble.startServer(leader, within(20_000));
  await ensemble.waitUntilReady(within(20_000));
  expect(await countSaid(ensemble, emptied, said.tookSnapshot, lines)).toBe(1);
  await traffic.more(writesAround, 'writes with all three again');
  // It counts again: with another one gone, the two of them go on.
  await ensemble.kill(other);
  await traffic.more(writesAround, 'writes with the vote of the server that was emptied', within(15_000));
  await ensemble.startServer(other, within(20_000));
  const report = await audit(ensemble, traffic, { writesMin: 1_000, eventsMin: 500, isLogWhole: false });
  console.log('a data folder emptied', report);
});

test('a server that was away for longer than the window of history comes back by a snapshot', async () => {
  await using run = await startRun({ ensemble: { config } });
  const { ensemble, traffic } = run;
  await traffic.more(writesAround, 'writes before the absence');
  const leader = await ensemble.waitForLeader();
  const away = ensemble.servers.map(({ id }) => id).find((id) => id !== leader);
  if (away === undefined) throw new Error('three servers have a follower');
  const lines = (await logOf(ensemble, away)).length;
  await ensemble.kill(away);
  await traffic.more(10 * windowTxns, 'writes beyond the window');
  await ensemble.startServer(away, within(20_000));
  expect(await countSaid(ensemble, away, said.tookSnapshot, lines)).toBe(1);
  await traffic.more(writesAround, 'writes with all three again');
  const report = await audit(ensemble, traffic, { writesMin: 1_000, eventsMin: 500, isLogWhole: false });
  console.log('an absence beyond the window of history', report);
});
