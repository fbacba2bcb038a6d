// The doors of this package: opening a store, and the errors that opening and using it can end in.

export type {
  Disk,
  DiskWrite,
  Done,
  LogEntry,
  RestoredStore,
  SnapshotReader,
  SnapshotWriter,
  StoreClass,
  StoredEpochs,
} from './disk.ts';
export { type OpenDiskOptions, openDisk } from './open-disk.ts';
export { StorageError, type StorageErrorCode } from './storage-error.ts';
export type { StoreLog } from './store-log.ts';
