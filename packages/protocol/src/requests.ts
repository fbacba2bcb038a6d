// The requests a client may send. `kind` is the operation's name; the number lives in operations.ts.

import type { Acl } from './records.ts';
import type { Zxid } from './zxid.ts';

/** {path: ustring, data: buffer, acl: vector<ACL>, flags: int [, ttl: long for createTTL]} */
export type CreateRequest = {
  readonly kind: 'create' | 'create2' | 'createContainer' | 'createTTL';
  readonly path: string;
  /** null is a value of its own: it comes back as null. */
  readonly data: Uint8Array | null;
  readonly acl: readonly Acl[] | null;
  readonly flags: number;
  /** Milliseconds; -1 unless kind is createTTL. */
  readonly ttl: bigint;
};
export type DeleteRequest = { readonly kind: 'delete'; readonly path: string; readonly version: number };
export type SetDataRequest = {
  readonly kind: 'setData';
  readonly path: string;
  readonly data: Uint8Array | null;
  readonly version: number;
};
export type SetAclRequest = {
  readonly kind: 'setACL';
  readonly path: string;
  readonly acl: readonly Acl[] | null;
  /** Compared with aversion. */
  readonly version: number;
};
export type CheckRequest = { readonly kind: 'check'; readonly path: string; readonly version: number };
export type MultiOperation = CreateRequest | DeleteRequest | SetDataRequest | CheckRequest;
export type MultiRequest = { readonly kind: 'multi'; readonly operations: readonly MultiOperation[] };
export type ReconfigRequest = {
  readonly kind: 'reconfig';
  readonly joiningServers: string | null;
  readonly leavingServers: string | null;
  readonly newMembers: string | null;
  readonly curConfigId: bigint;
};
export type CloseSessionRequest = { readonly kind: 'closeSession' };

/** {path: ustring, watch: boolean} */
export type ReadWithWatchRequest = {
  readonly kind: 'exists' | 'getData' | 'getChildren' | 'getChildren2';
  readonly path: string;
  readonly watch: boolean;
};
export type PathRequest = {
  readonly kind: 'getACL' | 'sync' | 'getAllChildrenNumber' | 'getEphemerals';
  readonly path: string;
};
export type MultiReadOperation = { readonly kind: 'getData' | 'getChildren'; readonly path: string };
export type MultiReadRequest = { readonly kind: 'multiRead'; readonly operations: readonly MultiReadOperation[] };
export type SetWatchesRequest = {
  readonly kind: 'setWatches' | 'setWatches2';
  readonly relativeZxid: Zxid;
  readonly dataWatches: readonly string[];
  readonly existWatches: readonly string[];
  readonly childWatches: readonly string[];
  /** Empty for setWatches. */
  readonly persistentWatches: readonly string[];
  readonly persistentRecursiveWatches: readonly string[];
};
/** mode: AddWatchMode, checked by the decoder. */
export type AddWatchRequest = { readonly kind: 'addWatch'; readonly path: string; readonly mode: number };
/** type: WatcherType, checked by the decoder. */
export type WatchesRequest = {
  readonly kind: 'checkWatches' | 'removeWatches';
  readonly path: string;
  readonly type: number;
};
export type AuthRequest = {
  readonly kind: 'auth';
  readonly type: number;
  readonly scheme: string;
  readonly auth: Uint8Array | null;
};
export type SaslRequest = { readonly kind: 'sasl'; readonly token: Uint8Array | null };
export type EmptyRequest = { readonly kind: 'ping' | 'whoAmI' };

export type WriteRequest =
  | CreateRequest
  | DeleteRequest
  | SetDataRequest
  | SetAclRequest
  | MultiRequest
  | ReconfigRequest
  | CloseSessionRequest;
export type ReadRequest =
  | ReadWithWatchRequest
  | PathRequest
  | MultiReadRequest
  | SetWatchesRequest
  | AddWatchRequest
  | WatchesRequest
  | EmptyRequest;
export type Request = WriteRequest | ReadRequest | AuthRequest | SaslRequest | CheckRequest;
