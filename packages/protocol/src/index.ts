// The one door of the protocol package: explicit names, no logic.

export { AssertionError, assert, unreachable } from './assert.ts';
export type { ErrorName } from './error-codes.ts';
export { ErrorCode, errorMeanings, errorNameOf } from './error-codes.ts';
export type { FrameHandler } from './framing.ts';
export { FrameDecoder, MAX_FRAME_BYTES_DEFAULT } from './framing.ts';
export type { ConnectRequest, ConnectResponse } from './handshake.ts';
export {
  decodeConnectRequest,
  decodeConnectResponse,
  encodeConnectRequest,
  encodeConnectResponse,
  refusedConnectResponse,
  SESSION_PASSWORD_BYTES,
} from './handshake.ts';
export type { Mutations } from './mutations.ts';
export { NO_MUTATIONS } from './mutations.ts';
export type { OpClass, OpName } from './operations.ts';
export { OpCode, opClasses, opNameOf } from './operations.ts';
export { isSpecialPath, nameOf, parentOf, sequenceSuffix, validatePath } from './path.ts';
export type { ProtocolErrorName } from './protocol-error.ts';
export { ProtocolError } from './protocol-error.ts';
export { JuteReader } from './reader.ts';
export type { Acl, Id, Stat, WatchEvent } from './records.ts';
export {
  AddWatchMode,
  CreateFlag,
  decodeAcls,
  decodeId,
  decodeStat,
  decodeWatcherEvent,
  EventType,
  encodeAcls,
  encodeId,
  encodeStat,
  encodeWatcherEvent,
  KeeperState,
  Perms,
  WatcherType,
} from './records.ts';
export type {
  AddWatchRequest,
  AuthRequest,
  CheckRequest,
  CloseSessionRequest,
  CreateRequest,
  DeleteRequest,
  EmptyRequest,
  MultiOperation,
  MultiReadOperation,
  MultiReadRequest,
  MultiRequest,
  PathRequest,
  ReadRequest,
  ReadWithWatchRequest,
  ReconfigRequest,
  Request,
  RequestHeader,
  SaslRequest,
  SetAclRequest,
  SetDataRequest,
  SetWatchesRequest,
  WatchesRequest,
  WriteRequest,
} from './requests.ts';
export { decodeRequest, decodeRequestHeader, encodeRequest, encodeRequestHeader, Xid } from './requests.ts';
export type { MultiResult, ReplyHeader, Response, ResponseKind } from './responses.ts';
export {
  decodeReplyHeader,
  decodeResponse,
  encodeReplyHeader,
  encodeResponse,
  encodeWatchEvent,
  REPLY_HEADER_BYTES,
} from './responses.ts';
export { JuteWriter } from './writer.ts';
export type { ServerId, SessionId, Zxid } from './zxid.ts';
export {
  counterOf,
  epochOf,
  hex64,
  makeZxid,
  NO_ZXID,
  nextZxid,
  serverIdFrom,
  sessionIdFrom,
  zxidFrom,
} from './zxid.ts';
