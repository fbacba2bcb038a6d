// LevelDisk under the contract suite: a crash is a copy of the directory as it lies there, taken while the process still runs.

import { copyFileSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ServerId } from '@quorate/protocol/zxid';
import type { Disk } from './disk.ts';
import { type DiskPlace, diskSuite } from './disk-suite.ts';
import { LevelDisk } from './level-disk.ts';
import { openDisk } from './open-disk.ts';
import { hasCode, StorageError } from './storage-error.ts';

/** Removals go on in other threads meanwhile: a file may be gone when its turn comes. */
function copyAsItLies(from: string, to: string): void {
  mkdirSync(to);
  for (const entry of readdirSync(from, { withFileTypes: true })) {
    if (entry.isDirectory()) {
      copyAsItLies(join(from, entry.name), join(to, entry.name));
      continue;
    }
    try {
      copyFileSync(join(from, entry.name), join(to, entry.name));
    } catch (error) {
      if (!hasCode(error, ['ENOENT'])) throw error;
    }
  }
}

async function createPlace(serverId: ServerId): Promise<DiskPlace> {
  const root = mkdtempSync(join(tmpdir(), 'quorate-disk-'));
  let lives = 0;
  let directory = join(root, 'life-0');
  let disk: Disk | null = null;
  const stop = async (): Promise<void> => {
    const stopped = disk;
    disk = null;
    if (stopped !== null) await new Promise<void>((resolve) => stopped.close(() => resolve()));
  };
  return {
    async open(window) {
      const opened = await openDisk(directory, { serverId, ...window, ballastBytes: 0 });
      const { disk: real } = opened;
      disk = real;
      return opened;
    },
    async crash() {
      lives++;
      const copy = join(root, `life-${lives}`);
      copyAsItLies(directory, copy);
      await stop();
      rmSync(directory, { recursive: true, force: true });
      directory = copy;
    },
    breakDisk() {
      if (!(disk instanceof LevelDisk)) throw new Error('no disk is open');
      disk.fail(new StorageError('STORE_WRITE_FAILED', 'broken by the test'));
    },
    async remove() {
      await stop();
      rmSync(root, { recursive: true, force: true });
    },
  };
}

diskSuite('LevelDisk', { create: createPlace });
