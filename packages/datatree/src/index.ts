// The one door of the datatree package: explicit names, no logic.

export {
  AclTable,
  checkPermission,
  digestOf,
  fixupAcl,
  isOpenAcl,
  isValidId,
  maskAcl,
  OPEN_ACL,
  READ_ACL,
} from './acl.ts';
export type { WatchLists } from './catch-up.ts';
export { catchUp } from './catch-up.ts';
export type { ApplyResult, DataTreeOptions, OperationResult, TreeEvent, TreeWalker } from './data-tree.ts';
export { DataTree, NO_SLOT } from './data-tree.ts';
export type { ChangeRecord } from './outstanding.ts';
export { Outstanding } from './outstanding.ts';
export type { OwnerKind } from './owner.ts';
export { CONTAINER_OWNER, kindOfOwner, ownerOfTtl, TTL_MS_MAX, ttlMsOf } from './owner.ts';
export type { Asker, InternalRequest, PrepareContext } from './prepare.ts';
export { prepare } from './prepare.ts';
export type { Session } from './sessions.ts';
export { SessionTable } from './sessions.ts';
export type { LoadedSnapshot } from './snapshot.ts';
export { beginSnapshot, SNAPSHOT_FORMAT, SnapshotError, SnapshotLoader, SnapshotWalk } from './snapshot.ts';
export type { Origin, Txn, TxnBody } from './txn.ts';
export { decodeTxn, encodeTxn, TXN_FORMAT } from './txn.ts';
export type { DeliverEvent, WatchCounts, WatchKind } from './watch-table.ts';
export { WatchTable } from './watch-table.ts';
