// What servers say to each other: Zab's messages and the replica's own. Which channel each kind takes is decided here.

import type { Id, SessionId, Zxid } from '@quorate/protocol';
import type { ZabMessage } from '@quorate/zab';

/** A write or sync that a learner forwards for one of its clients. `sequence` never repeats within the sender's incarnation. */
export type ForwardedRequest = {
  readonly kind: 'request';
  readonly sequence: number;
  readonly sessionId: SessionId;
  /** Which attachment of the session sends it: a number that grows over all leaders. A lower one than the leader knows has been moved. */
  readonly attachment: bigint;
  readonly cxid: number;
  readonly opcode: number;
  readonly identity: readonly Id[];
  /** The request record as the client sent it, without header. For createSession: timeout (int), then the 16-byte password. */
  readonly body: Uint8Array;
};

export type ReplicaMessage =
  | ForwardedRequest
  /** leader -> learner: the request with this sequence takes no place in the order; its connection is closed (a session that moved). */
  | { readonly kind: 'requestRefused'; readonly sequence: number; readonly reason: string }
  /** learner -> leader: `sync` of a client: answer when everything committed before now is known. */
  | { readonly kind: 'syncRequest'; readonly sequence: number }
  | { readonly kind: 'syncDone'; readonly sequence: number; readonly zxid: Zxid }
  /** learner -> leader: a client that knows the password wants to re-attach a session. */
  | {
      readonly kind: 'revalidate';
      readonly sequence: number;
      readonly sessionId: SessionId;
      readonly timeoutMs: number;
    }
  /** leader -> learner: valid, and from now on this attachment owns the session; or not (expired, closing). */
  | { readonly kind: 'revalidated'; readonly sequence: number; readonly valid: boolean; readonly attachment: bigint }
  /** leader -> learner: the session belongs to `attachment` now; close a connection here that has a lower one. */
  | { readonly kind: 'sessionMoved'; readonly sessionId: SessionId; readonly attachment: bigint }
  /** learner -> leader: sessions heard since the last report. */
  | { readonly kind: 'touched'; readonly sessionIds: readonly SessionId[] }
  /** leader -> learner: the state's digest at a zxid. A learner that differs at the same zxid stops. */
  | { readonly kind: 'digest'; readonly zxid: Zxid; readonly digest: bigint }
  /** leader -> learner: bytes of the snapshot announced by synchronizeBySnapshot. */
  | {
      readonly kind: 'snapshotChunk';
      readonly epoch: number;
      readonly zxid: Zxid;
      readonly index: number;
      readonly last: boolean;
      readonly bytes: Uint8Array;
    };

export type PeerMessage = ZabMessage | ReplicaMessage;

/** vote: votes and heartbeats, never behind bulk data. stream: everything whose order matters. */
export function channelOf(message: PeerMessage): 'vote' | 'stream' {
  switch (message.kind) {
    case 'vote':
    case 'heartbeat':
    case 'heartbeatAck':
      return 'vote';
    default:
      return 'stream';
  }
}
