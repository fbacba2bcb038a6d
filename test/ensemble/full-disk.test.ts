// One server's disk fills up under load. It must end by itself, with its own exit code and a line that says why, and acknowledge nothing
// that was not durable; the others go on. With room again it comes back with everything. The disk is a small tmpfs of its own.
import { execFileSync } from 'node:child_process';
import { mkdtemp, rm, statfs, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { audit, unansweredOn, writeGapMs } from '../support/audit.ts';
import { createEnsemble, type Ensemble, waitFor } from '../support/ensemble.ts';
import { logOf, runOn } from '../support/run.ts';
import { scale, within } from '../support/scale.ts';
import { describeWith } from '../support/tools.ts';
import { now } from '../support/traffic.ts';

const diskMb = 96;
/** What is left beside the filler: less than a few seconds of traffic. */
const leftBytes = 512 * 1024;
const gapMsMax = 2_000;
const diskFullExit = 20;

type Mounts = { readonly available: true };

/** Whether this process may mount: tried, not guessed. */
async function mounts(): Promise<Mounts | { readonly available: false; readonly reason: string }> {
  const folder = await mkdtemp(join(tmpdir(), 'quorate-mount-'));
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', folder], { stdio: 'pipe' });
    execFileSync('umount', [folder], { stdio: 'pipe' });
    return { available: true };
  } catch (error) {
    return {
      available: false,
      reason: `no tmpfs can be mounted here: ${error instanceof Error ? error.message : error}`,
    };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** The data folder of `id` becomes a disk of its own. */
async function mountDisk(ensemble: Ensemble, id: number): Promise<AsyncDisposable> {
  const { dataDirectory } = ensemble.server(id);
  execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${diskMb}m`, 'tmpfs', dataDirectory]);
  await ensemble.writeConfigurations();
  return {
    async [Symbol.asyncDispose]() {
      execFileSync('umount', ['-l', dataDirectory]);
      await rm(ensemble.directory, { recursive: true, force: true });
    },
  };
}

describeWith<Mounts>('a disk of its own', await mounts(), () => {
  for (const role of ['follower', 'leader'] as const) {
    test(`that is full ends the ${role} with its own exit code; nothing acknowledged is lost, and it comes back`, async () => {
      const directory = await mkdtemp(join(tmpdir(), 'quorate-full-disk-'));
      const ensemble = await createEnsemble({ directory });
      const small = 2;
      await using _disk = await mountDisk(ensemble, small);
      await ensemble.startAll(within(30_000));
      await using run = await runOn(ensemble);
      const { traffic } = run;
      await traffic.more(200, 'writes before the disk is full');
      await waitFor(
        `server ${small} to be a ${role}`,
        async () => {
          const leader = await ensemble.findLeader();
          if (leader === null) return false;
          if ((leader === small) === (role === 'leader')) return true;
          await ensemble.restart(leader);
          return false;
        },
        within(40_000),
      );
      const { dataDirectory, exit } = ensemble.server(small);
      const filler = join(dataDirectory, 'filler');
      const lines = (await logOf(ensemble, small)).length;
      const others = ensemble.servers.map(({ id }) => id).filter((id) => id !== small);
      const filledAt = now();
      const { bavail, bsize } = await statfs(dataDirectory);
      await writeFile(filler, Buffer.alloc(bavail * bsize - leftBytes, 1));
      let hasEnded = false;
      exit?.then(() => {
        hasEnded = true;
      });
      // Larger values than those of the traffic, so that it does not take long.
      const heavy = await traffic.client('heavy', others);
      await heavy.create('/t/heavy', '');
      for (let index = 0; !hasEnded && index < 400; index++)
        await heavy.set('/t/heavy', Buffer.alloc(8_192, 1 + (index % 250)));
      await waitFor('the server with the full disk to end', () => hasEnded, within(20_000));
      await heavy.close();
      expect(await exit).toEqual({ code: diskFullExit, signal: null });
      const last = (await logOf(ensemble, small)).slice(lines).filter(({ level }) => level >= 60);
      expect(last.map(({ msg }) => msg).join('\n')).toMatch(/disk is full/);
      await traffic.more(200, 'writes without the full one', within(15_000));
      const history = traffic.recorder.history();
      const gap = writeGapMs(history, filledAt, now(), (op) => op.server !== small);
      expect(traffic.tap.lostConnections(others, filledAt)).toEqual([]);
      expect(unansweredOn(history, others, filledAt)).toEqual([]);

      await rm(filler);
      await ensemble.startServer(small, within(20_000));
      await traffic.more(200, 'writes with all three again');
      const report = await audit(ensemble, traffic, { writesMin: 800, eventsMin: 300 });
      console.log(`disk of the ${role} full: write gap of the others ${gap} ms`, report);
      expect(gap).toBeLessThanOrEqual(gapMsMax * scale);
    });
  }
});
