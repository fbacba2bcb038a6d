// setWatches and setWatches2: what a client missed while it was away fires now, the rest is registered (DataTree#setWatches).
// No path validation and no ACL check, as in ZooKeeper; events go out before the reply.

import { EventType, type Zxid } from '@quorate/protocol';
import { type DataTree, NO_SLOT } from './data-tree.ts';
import type { DeliverEvent, WatchTable } from './watch-table.ts';

export type WatchLists = {
  readonly dataWatches: readonly string[];
  readonly existWatches: readonly string[];
  readonly childWatches: readonly string[];
  readonly persistentWatches: readonly string[];
  readonly persistentRecursiveWatches: readonly string[];
};

/** `relativeZxid`: the last zxid that the client has seen. A change at exactly that zxid was seen. */
export function catchUp(
  tree: DataTree,
  table: WatchTable,
  watcher: number,
  lists: WatchLists,
  relativeZxid: Zxid,
  deliver: DeliverEvent,
): void {
  for (const path of lists.dataWatches) {
    const slot = tree.find(path);
    if (slot === NO_SLOT) deliver(watcher, EventType.nodeDeleted, path);
    else if (tree.mzxidOf(slot) > relativeZxid) deliver(watcher, EventType.nodeDataChanged, path);
    else table.add(watcher, path, 'data');
  }
  for (const path of lists.existWatches) {
    if (tree.find(path) !== NO_SLOT) deliver(watcher, EventType.nodeCreated, path);
    else table.add(watcher, path, 'data');
  }
  for (const path of lists.childWatches) {
    const slot = tree.find(path);
    if (slot === NO_SLOT) deliver(watcher, EventType.nodeDeleted, path);
    else if (tree.pzxidOf(slot) > relativeZxid) deliver(watcher, EventType.nodeChildrenChanged, path);
    else table.add(watcher, path, 'child');
  }
  for (const path of lists.persistentWatches) table.add(watcher, path, 'persistent');
  for (const path of lists.persistentRecursiveWatches) table.add(watcher, path, 'persistentRecursive');
}
