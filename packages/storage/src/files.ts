// The few file operations that Node does not offer whole: complete writes, durable directory entries, durable small files.
// Callbacks where the running server uses them, synchronous where only opening a store does.

import { closeSync, fsync, fsyncSync, openSync, renameSync, statfs, write, writeSync } from 'node:fs';
import { dirname } from 'node:path';
import type { Done } from './disk.ts';

/** fs.write may take less than it was given. */
export function writeAll(fd: number, bytes: Uint8Array, position: number, done: Done): void {
  write(fd, bytes, 0, bytes.byteLength, position, (error, written) => {
    if (error !== null) return done(error);
    if (written === bytes.byteLength) return done(null);
    writeAll(fd, bytes.subarray(written), position + written, done);
  });
}

/** Makes the names in a directory durable: creations, renames and removals are lost without it (F9). */
export function syncDirectorySync(directory: string): void {
  const fd = openSync(directory, 'r');
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

export function syncFd(fd: number, done: Done): void {
  fsync(fd, (error) => done(error));
}

/** Whole and durable, or not there: written to a temporary name, fsynced, renamed, directory fsynced. */
export function replaceFileSync(path: string, bytes: Uint8Array): void {
  const temporary = `${path}.tmp`;
  const fd = openSync(temporary, 'w', 0o640);
  try {
    for (let offset = 0; offset < bytes.byteLength; ) offset += writeSync(fd, bytes, offset);
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
  renameSync(temporary, path);
  syncDirectorySync(dirname(path));
}

/** Bytes an ordinary process may still write to this file system. */
export function readFreeBytes(directory: string, done: (error: Error | null, bytes: number) => void): void {
  statfs(directory, (error, stats) => {
    if (error !== null) return done(error, 0);
    done(null, stats.bavail * stats.bsize);
  });
}
