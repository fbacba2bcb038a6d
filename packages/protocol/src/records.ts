// Records that several requests and responses share, with their codecs.
// Field order is wire order; all integers big-endian two's complement.

import type { Zxid } from './zxid.ts';

/** {scheme: ustring, id: ustring} */
export type Id = { readonly scheme: string; readonly id: string };
/** {perms: int, id: Id} */
export type Acl = { readonly perms: number; readonly id: Id };

export const Perms = { READ: 1, WRITE: 2, CREATE: 4, DELETE: 8, ADMIN: 16, ALL: 31 } as const;

/** 68 bytes: czxid mzxid ctime mtime (long), version cversion aversion (int), ephemeralOwner (long), dataLength numChildren (int), pzxid (long). */
export type Stat = {
  readonly czxid: Zxid;
  readonly mzxid: Zxid;
  /** Milliseconds since 1970. */
  readonly ctime: number;
  readonly mtime: number;
  readonly version: number;
  /** Creations plus deletions of children, as clients see it. */
  readonly cversion: number;
  readonly aversion: number;
  /** Session id of the owner; 0 for every other znode. */
  readonly ephemeralOwner: bigint;
  readonly dataLength: number;
  readonly numChildren: number;
  readonly pzxid: Zxid;
};

export const EventType = {
  none: -1,
  nodeCreated: 1,
  nodeDeleted: 2,
  nodeDataChanged: 3,
  nodeChildrenChanged: 4,
  /** Made by clients only. */
  dataWatchRemoved: 5,
  childWatchRemoved: 6,
  persistentWatchRemoved: 7,
} as const;
export type EventType = (typeof EventType)[keyof typeof EventType];

export const KeeperState = {
  unknown: -1,
  disconnected: 0,
  syncConnected: 3,
  authFailed: 4,
  connectedReadOnly: 5,
  saslAuthenticated: 6,
  closed: 7,
  expired: -112,
} as const;
export type KeeperState = (typeof KeeperState)[keyof typeof KeeperState];

/** {type: int, state: int, path: ustring} */
export type WatchEvent = { readonly type: EventType; readonly state: KeeperState; readonly path: string };

export const CreateFlag = {
  persistent: 0,
  ephemeral: 1,
  persistentSequential: 2,
  ephemeralSequential: 3,
  container: 4,
  persistentWithTtl: 5,
  persistentSequentialWithTtl: 6,
} as const;

export const AddWatchMode = { persistent: 0, persistentRecursive: 1 } as const;
export const WatcherType = { children: 1, data: 2, any: 3, persistent: 4, persistentRecursive: 5 } as const;
