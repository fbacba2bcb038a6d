// Records that several requests and responses share, with their codecs.
// Field order is wire order; all integers big-endian two's complement.

import { ProtocolError } from './protocol-error.ts';
import type { JuteReader } from './reader.ts';
import type { JuteWriter } from './writer.ts';
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

const EVENT_TYPES: ReadonlySet<number> = new Set(Object.values(EventType));
const KEEPER_STATES: ReadonlySet<number> = new Set(Object.values(KeeperState));
// perms, and the lengths of two empty strings.
const ACL_BYTES_MIN = 12;

// Id: {scheme: ustring, id: ustring}
export function encodeId(writer: JuteWriter, id: Id): void {
  writer.writeString(id.scheme);
  writer.writeString(id.id);
}

export function decodeId(reader: JuteReader): Id {
  // kazoo writes an empty text as null. Whether an empty scheme or id is legal is decided with the list (-114), not here.
  const scheme = reader.readStringOrNull() ?? '';
  const id = reader.readStringOrNull() ?? '';
  return { scheme, id };
}

// vector<ACL>: {count: int, count * {perms: int, id: Id}}; a null vector is kept apart from an empty one.
export function encodeAcls(writer: JuteWriter, acls: readonly Acl[] | null): void {
  if (acls === null) {
    writer.writeVectorCount(-1);
    return;
  }
  writer.writeVectorCount(acls.length);
  for (const acl of acls) {
    writer.writeInt(acl.perms);
    encodeId(writer, acl.id);
  }
}

export function decodeAcls(reader: JuteReader): Acl[] | null {
  const count = reader.readVectorCount(ACL_BYTES_MIN);
  if (count < 0) return null;
  const acls: Acl[] = [];
  for (let index = 0; index < count; index += 1) {
    const perms = reader.readInt();
    acls.push({ perms, id: decodeId(reader) });
  }
  return acls;
}

// Stat: {czxid: long, mzxid: long, ctime: long, mtime: long, version: int, cversion: int, aversion: int,
//        ephemeralOwner: long, dataLength: int, numChildren: int, pzxid: long}
export function encodeStat(writer: JuteWriter, stat: Stat): void {
  writer.writeZxid(stat.czxid);
  writer.writeZxid(stat.mzxid);
  writer.writeTime(stat.ctime);
  writer.writeTime(stat.mtime);
  writer.writeInt(stat.version);
  writer.writeInt(stat.cversion);
  writer.writeInt(stat.aversion);
  writer.writeLong(stat.ephemeralOwner);
  writer.writeInt(stat.dataLength);
  writer.writeInt(stat.numChildren);
  writer.writeZxid(stat.pzxid);
}

export function decodeStat(reader: JuteReader): Stat {
  // The properties are evaluated in the order they stand here, which is wire order.
  return {
    czxid: reader.readZxid(),
    mzxid: reader.readZxid(),
    ctime: reader.readTime(),
    mtime: reader.readTime(),
    version: reader.readInt(),
    cversion: reader.readInt(),
    aversion: reader.readInt(),
    ephemeralOwner: reader.readLong(),
    dataLength: reader.readInt(),
    numChildren: reader.readInt(),
    pzxid: reader.readZxid(),
  };
}

// WatcherEvent: {type: int, state: int, path: ustring}
export function encodeWatcherEvent(writer: JuteWriter, event: WatchEvent): void {
  writer.writeInt(event.type);
  writer.writeInt(event.state);
  writer.writeString(event.path);
}

export function decodeWatcherEvent(reader: JuteReader): WatchEvent {
  const type = reader.readInt();
  const state = reader.readInt();
  const path = reader.readString();
  if (!isEventType(type)) throw new ProtocolError('marshalling', 'this type of watch event exists');
  if (!isKeeperState(state)) throw new ProtocolError('marshalling', 'this keeper state exists');
  return { type, state, path };
}

function isEventType(value: number): value is EventType {
  return EVENT_TYPES.has(value);
}

function isKeeperState(value: number): value is KeeperState {
  return KEEPER_STATES.has(value);
}
