// Txns: the absolute results that the leader decided. They are data, safe to apply twice, and never contain their own zxid.

import type { Acl, ErrorCode, SessionId } from '@quorate/protocol';

/** Where a write came from: the forwarding server, its incarnation, a number that never repeats within it. sequence 0: internal. */
export type Origin = { readonly server: number; readonly incarnation: number; readonly sequence: number };

export type TxnBody =
  | {
      readonly kind: 'create';
      readonly path: string;
      readonly data: Uint8Array | null;
      readonly acl: readonly Acl[];
      /** Stored ephemeralOwner: 0, a session id, the container mark, or 0xff.. with a TTL (zookeeper-semantics 3.1). */
      readonly owner: bigint;
      /** The parent's stored cversion after this create: absolute. */
      readonly parentCVersion: number;
    }
  | { readonly kind: 'delete'; readonly path: string }
  | { readonly kind: 'setData'; readonly path: string; readonly data: Uint8Array | null; readonly version: number }
  | { readonly kind: 'setACL'; readonly path: string; readonly acl: readonly Acl[]; readonly aversion: number }
  /** Part of a multi only: it held when the leader decided. */
  | { readonly kind: 'check'; readonly path: string }
  | {
      readonly kind: 'createSession';
      readonly timeoutMs: number;
      /** 16 bytes, chosen by the server that the client is connected to. */
      readonly password: Uint8Array;
    }
  /** paths: the session's ephemerals in creation order. */
  | { readonly kind: 'closeSession'; readonly paths: readonly string[] }
  | { readonly kind: 'multi'; readonly operations: readonly TxnBody[] }
  /** A failed multi: one code per operation; the state is unchanged. */
  | { readonly kind: 'multiError'; readonly codes: readonly ErrorCode[] }
  | { readonly kind: 'error'; readonly code: ErrorCode };

export type Txn = {
  readonly origin: Origin;
  /** The session that asked, or that is created or closed. 0n for internal ones. */
  readonly sessionId: SessionId;
  readonly cxid: number;
  /** The leader's wall clock, ms since 1970: ctime and mtime. */
  readonly timeMs: number;
  readonly body: TxnBody;
};
