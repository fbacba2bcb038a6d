// A file of real bytes that reserves disk space: LevelDB needs space even to open, so a start on a full disk gives this up.
// It is written again, in the background, once there is room.

import { randomFillSync } from 'node:crypto';
import { close, existsSync, open, rename, statSync, unlinkSync } from 'node:fs';
import { join } from 'node:path';
import type { Done } from './disk.ts';
import { syncFd, writeAll } from './files.ts';

const PIECE_BYTES = 1024 * 1024;

export const BALLAST_NAME = 'ballast';

/** True when there was something to give up. */
export function releaseBallast(directory: string): boolean {
  let hadAny = false;
  for (const name of [BALLAST_NAME, `${BALLAST_NAME}.tmp`]) {
    const path = join(directory, name);
    if (!existsSync(path)) continue;
    unlinkSync(path);
    hadAny = true;
  }
  return hadAny;
}

export function isBallastWhole(directory: string, sizeBytes: number): boolean {
  const path = join(directory, BALLAST_NAME);
  return existsSync(path) && statSync(path).size >= sizeBytes;
}

/** Random bytes, because a file system that compresses would reserve nothing for zeros. */
export function writeBallast(directory: string, sizeBytes: number, isStopped: () => boolean, done: Done): void {
  const temporary = join(directory, `${BALLAST_NAME}.tmp`);
  const piece = randomFillSync(Buffer.allocUnsafe(PIECE_BYTES));
  open(temporary, 'w', 0o640, (openError, fd) => {
    if (openError !== null) return done(openError);
    const finish = (error: Error | null): void => close(fd, () => done(error));
    const writeOn = (position: number): void => {
      if (isStopped()) {
        finish(null);
        return;
      }
      if (position >= sizeBytes) {
        syncFd(fd, (syncError) => {
          if (syncError !== null) return finish(syncError);
          rename(temporary, join(directory, BALLAST_NAME), (renameError) => finish(renameError));
        });
        return;
      }
      const bytes = piece.subarray(0, Math.min(PIECE_BYTES, sizeBytes - position));
      writeAll(fd, bytes, position, (error) => (error === null ? writeOn(position + bytes.byteLength) : finish(error)));
    };
    writeOn(0);
  });
}
