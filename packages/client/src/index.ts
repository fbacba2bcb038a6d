// The one door of the client package: explicit names, no logic.

export type { Acl, ErrorName, Id, SessionId, Stat, Zxid } from '@quorate/protocol';
export { Perms } from '@quorate/protocol';
export type {
  AddWatchOptions,
  CallOptions,
  ClientOptions,
  CreateDetails,
  CreateMode,
  CreateOptions,
  Data,
  Operation,
  OperationResult,
  OperationResults,
  ReadOperation,
  ReadResult,
  RemoveWatchesOptions,
  VersionOptions,
  Watch,
  WatchOptions,
} from './client.ts';
export { Client, CREATOR_ALL_ACL, connect, OPEN_ACL, READ_ACL } from './client.ts';
export type { Clock, Timer } from './clock.ts';
export { MultiError, WatchOverflowError, ZkError } from './errors.ts';
export type { HostProvider, ServerAddress } from './servers.ts';
export { formatAddress, parseConnectString, roundRobin } from './servers.ts';
export type { Credentials, SessionState } from './session.ts';
export type {
  PersistentWatch,
  RemoveWatchesKind,
  SessionEvent,
  WatchedEvent,
  Watcher,
  WatchRemovedEvent,
  ZnodeEvent,
  ZnodeEventKind,
} from './watches.ts';
