// Links that are neither up nor down: slow ones, flapping ones, ones that break in the middle of a frame, between servers and in front of
// clients. The leader that still reaches a quorum stays; the traffic goes on; no session is lost for it.
import { randomBytes } from 'node:crypto';
import { expect, test } from 'vitest';
import { audit, unansweredOn, writeGapMs, writesWithin } from '../support/audit.ts';
import { waitFor } from '../support/ensemble.ts';
import { type LinkedRun, silence, startLinkedRun } from '../support/links.ts';
import { countSaid, logOf, said } from '../support/run.ts';
import { scale, within } from '../support/scale.ts';
import { describeWith, toxiproxyServer } from '../support/tools.ts';
import { now } from '../support/traffic.ts';

const writesAround = 200;
const gapMsMax = 1_500;

async function rolesOf({ ensemble }: LinkedRun): Promise<{ leader: number; follower: number; other: number }> {
  const leader = await ensemble.waitForLeader();
  const [follower, other] = ensemble.servers.map(({ id }) => id).filter((id) => id !== leader);
  if (follower === undefined || other === undefined) throw new Error('three servers have two followers');
  return { leader, follower, other };
}

/** A window of traffic under a fault, and its longest pause for the clients of these servers. */
async function windowOf(run: LinkedRun, servers: readonly number[], during: () => Promise<void>): Promise<number> {
  const from = now();
  await during();
  const until = now();
  const history = run.traffic.recorder.history();
  expect(writesWithin(history, from, until)).toBeGreaterThanOrEqual(100);
  expect(run.traffic.tap.lostConnections(servers, from)).toEqual([]);
  expect(unansweredOn(history, servers, from)).toEqual([]);
  return writeGapMs(history, from, until, (op) => servers.includes(op.server));
}

describeWith('a bad link', await toxiproxyServer(), ({ command }) => {
  test('that is slow holds up neither the others nor the leader, not even while a snapshot trickles through it', async () => {
    // The fresh copy does not fit the window of history, so it comes as a snapshot.
    const config = { commitLogCount: 50, 'quorate.historyBytesMax': 4_096, 'quorate.snapshotLogBytesMin': 65_536 };
    await using run = await startLinkedRun(command, { ensemble: { config } });
    const { ensemble, traffic, links } = run;
    await traffic.more(writesAround, 'writes before the fault');
    const { leader, follower, other } = await rolesOf(run);

    await links.poison(leader, follower, { type: 'latency', attributes: { latency: 150, jitter: 50 } });
    await links.poison(follower, leader, { type: 'latency', attributes: { latency: 150, jitter: 50 } });
    const late = await windowOf(run, [leader, other], () =>
      traffic.more(writesAround, 'writes over a late link', within(15_000)),
    );
    expect(await ensemble.findLeader()).toBe(leader);
    await links.heal();

    // Noise cannot be packed: half a megabyte takes seconds at this rate, and heartbeats must get through beside it.
    const filler = await traffic.client('filler');
    for (let index = 0; index < 4; index++) await filler.create(`/t/noise-${index}`, randomBytes(128 * 1024));
    await filler.close();
    await links.kill(follower);
    await ensemble.wipe(follower);
    const lines = (await logOf(ensemble, follower)).length;
    await links.poison(leader, follower, { type: 'bandwidth', attributes: { rate: 192 } });
    const slow = await windowOf(run, [leader, other], async () => {
      await links.start(follower);
      await traffic.more(writesAround, 'writes beside the snapshot', within(15_000));
    });
    expect(await countSaid(ensemble, follower, said.tookSnapshot, lines)).toBe(1);
    expect(await ensemble.findLeader()).toBe(leader);
    expect(await links.connectionsRoundTheProxies()).toEqual([]);
    await links.heal();
    await ensemble.waitUntilReady(within(20_000));
    await traffic.more(writesAround, 'writes after the healing');
    const report = await audit(ensemble, traffic, { writesMin: 1_000, eventsMin: 500, isLogWhole: false });
    console.log(`slow links: write gaps ${late} ms (late), ${slow} ms (beside a snapshot)`, report);
    expect(Math.max(late, slow)).toBeLessThanOrEqual(gapMsMax * scale);
  });

  test('that flaps ten times between the leader and a follower leaves the leader in place', async () => {
    await using run = await startLinkedRun(command);
    const { ensemble, traffic, links } = run;
    await traffic.more(writesAround, 'writes before the fault');
    const { leader, follower, other } = await rolesOf(run);
    const gap = await windowOf(run, [leader, other], async () => {
      for (let flap = 0; flap < 10; flap++) {
        await links.cut(leader, follower);
        await traffic.more(30, 'writes without the link');
        await links.join(leader, follower);
        await traffic.more(30, 'writes with the link');
      }
    });
    expect(await ensemble.findLeader()).toBe(leader);
    expect(await links.connectionsRoundTheProxies()).toEqual([]);
    await ensemble.waitUntilReady(within(20_000));
    await traffic.more(writesAround, 'writes after the flapping');
    const report = await audit(ensemble, traffic, { writesMin: 800, eventsMin: 500 });
    console.log(`link flapped ten times: write gap of the others ${gap} ms`, report);
    expect(traffic.expirations).toEqual([]);
    expect(gap).toBeLessThanOrEqual(gapMsMax * scale);
  });

  test('that breaks in the middle of frames, and chops them, corrupts nothing', async () => {
    await using run = await startLinkedRun(command);
    const { ensemble, traffic, links } = run;
    await traffic.more(writesAround, 'writes before the fault');
    const { leader, follower, other } = await rolesOf(run);
    const gap = await windowOf(run, [leader, other], async () => {
      for (const bytes of [1, 777, 4_099, 10_007]) {
        const lines = (await logOf(ensemble, follower)).length;
        await links.poison(leader, follower, { type: 'limit_data', attributes: { bytes } });
        await links.poison(follower, leader, { type: 'limit_data', attributes: { bytes } });
        await waitFor(
          'the link to break',
          async () => (await countSaid(ensemble, follower, 'the link to a peer is lost', lines)) > 0,
          within(15_000),
        );
        await traffic.more(30, 'writes without the link');
        await links.heal();
        await ensemble.waitUntilReady(within(20_000));
      }
      const chop = { type: 'slicer', attributes: { average_size: 24, size_variation: 16, delay: 100 } } as const;
      await links.poison(leader, other, chop);
      await links.poison(other, leader, chop);
      await traffic.more(60, 'writes in slices');
      await links.heal();
    });
    await ensemble.waitUntilReady(within(20_000));
    await traffic.more(writesAround, 'writes after the healing');
    const report = await audit(ensemble, traffic, { writesMin: 600, eventsMin: 500 });
    console.log(`frames cut and sliced: write gap ${gap} ms`, report);
    expect(traffic.expirations).toEqual([]);
    expect(gap).toBeLessThanOrEqual(gapMsMax * scale);
  });

  test('in front of clients moves their sessions to another server, with ephemerals and watches', async () => {
    await using run = await startLinkedRun(command);
    const { ensemble, traffic, links } = run;
    await traffic.more(writesAround, 'writes before the fault');
    const { leader, follower, other } = await rolesOf(run);
    const mover = await traffic.client('mover', [follower, other]);
    const created = await mover.create('/t/eph/of-the-mover', 'here', { mode: 'ephemeral' });
    await mover.create('/t/moved', 'unchanged');
    let isTold = false;
    await mover.get('/t/moved', {
      watch: (event) => {
        isTold ||= event.kind === 'nodeDataChanged';
      },
    });
    const session = mover.sessionId;
    const before = mover.server;
    // What the server sends gets lost: the socket stays, the client must find out by itself.
    await links.poisonClients(follower, 'downstream', silence);
    await traffic.more(writesAround, 'writes beside the silence', within(20_000));
    await waitFor('the session to move', () => mover.state === 'connected' && mover.server !== before, within(20_000));
    expect(mover.sessionId).toBe(session);
    expect((await mover.exists(created.path))?.ephemeralOwner).toBe(session);
    const changer = await traffic.client('changer', [leader]);
    await changer.set('/t/moved', 'changed');
    await waitFor('the watch to fire', () => isTold, within(10_000));
    await links.heal();
    // And a connection that ends within a frame, again and again, while requests are on their way.
    for (const bytes of [1_000, 5_000, 20_000]) {
      await links.poisonClients(other, 'downstream', { type: 'limit_data', attributes: { bytes } });
      await traffic.more(40, 'writes over torn connections', within(15_000));
      await links.heal();
    }
    await traffic.more(writesAround, 'writes after the healing', within(20_000));
    await Promise.all([mover.close(), changer.close()]);
    const report = await audit(ensemble, traffic, { writesMin: 600, eventsMin: 500 });
    console.log('client links silent and torn', report);
  });
});
