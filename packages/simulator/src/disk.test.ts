// The simulator's disk keeps the same promises as the real one: it runs the same suite.

import { diskSuite } from '@quorate/storage/disk-suite';
import { Platter, SimDisk } from './disk.ts';
import { Random } from './random.ts';
import { Timeline } from './timeline.ts';

const PROFILE = { latencyUs: 500, stallChance: 0.1, stallUsMax: 10_000, groupsMax: 3 };

diskSuite('SimDisk', {
  create: (serverId) => {
    const timeline = new Timeline();
    const platter = new Platter();
    let life = 0;
    let disk: SimDisk | null = null;
    const settle = (): void => {
      while (timeline.step());
    };
    return Promise.resolve({
      open: ({ windowCount, windowBytes }) => {
        disk?.crash(false);
        life++;
        const mine = life;
        const restored = platter.restore(windowCount, windowBytes);
        const random = new Random(1, 'disk suite', serverId * 100 + life);
        disk = new SimDisk(
          platter,
          (delayUs, work) => {
            timeline.after(delayUs, () => {
              if (life === mine) work();
            });
          },
          (work) => work(),
          random,
          PROFILE,
          {
            onWrite: () => {},
            onBatchStart: () => {},
            onBatchDurable: () => {},
            crashesBeforeDurable: () => false,
            crashesAfterDurable: () => false,
            onBatchAnswered: () => {},
            broken: (what) => {
              throw new Error(what);
            },
          },
        );
        return Promise.resolve({ disk, restored });
      },
      crash: () => {
        disk?.crash(life % 2 === 0);
        disk = null;
        life++;
        return Promise.resolve();
      },
      settle,
      breakDisk: () => disk?.break(),
      remove: () => Promise.resolve(),
    });
  },
});
