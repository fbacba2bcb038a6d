// The requests a client may send. `kind` is the operation's name; the number lives in operations.ts.

import { unreachable } from './assert.ts';
import type { OpName } from './operations.ts';
import { OpCode } from './operations.ts';
import { ProtocolError } from './protocol-error.ts';
import type { JuteReader } from './reader.ts';
import type { Acl } from './records.ts';
import { AddWatchMode, CreateFlag, decodeAcls, encodeAcls, WatcherType } from './records.ts';
import type { JuteWriter } from './writer.ts';
import type { Zxid } from './zxid.ts';

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

/** xids with a meaning of their own. A server answers only ping by constant; every other xid is echoed. */
export const Xid = { watchEvent: -1, ping: -2, auth: -4, setWatches: -8 } as const;

export type RequestHeader = { readonly xid: number; readonly opcode: number };

const NO_TTL = -1n;
// The type of the header that ends a multi, and the err that every header of a request carries.
const MULTI_END = -1;
const MULTI_HEADER_ERR = -1;

// RequestHeader: {xid: int, type: int}
export function encodeRequestHeader(writer: JuteWriter, xid: number, name: OpName): void {
  writer.writeInt(xid);
  writer.writeInt(OpCode[name]);
}

export function decodeRequestHeader(reader: JuteReader): RequestHeader {
  const xid = reader.readInt();
  const opcode = reader.readInt();
  return { xid, opcode };
}

/**
 * Reads the record behind a request header. Buffers in the request are views of the chunk. A ProtocolError with code
 * 'unknownOpcode' means that this opcode is not for clients at all; every other code that the record is broken.
 */
export function decodeRequest(opcode: number, reader: JuteReader): Request {
  switch (opcode) {
    case OpCode.getData:
      return decodeReadWithWatch('getData', reader);
    case OpCode.exists:
      return decodeReadWithWatch('exists', reader);
    case OpCode.getChildren:
      return decodeReadWithWatch('getChildren', reader);
    case OpCode.getChildren2:
      return decodeReadWithWatch('getChildren2', reader);
    case OpCode.setData:
      return decodeSetData(reader);
    case OpCode.create:
      return decodeCreate('create', reader);
    case OpCode.create2:
      return decodeCreate('create2', reader);
    case OpCode.createContainer:
      return decodeCreate('createContainer', reader);
    case OpCode.createTTL:
      return decodeCreate('createTTL', reader);
    case OpCode.delete:
      return decodeDelete(reader);
    case OpCode.multi:
      return decodeMulti(reader);
    case OpCode.multiRead:
      return decodeMultiRead(reader);
    case OpCode.ping:
      return { kind: 'ping' };
    case OpCode.whoAmI:
      return { kind: 'whoAmI' };
    case OpCode.sync:
      return decodePathRequest('sync', reader);
    case OpCode.getACL:
      return decodePathRequest('getACL', reader);
    case OpCode.getAllChildrenNumber:
      return decodePathRequest('getAllChildrenNumber', reader);
    case OpCode.getEphemerals:
      return decodePathRequest('getEphemerals', reader);
    case OpCode.setACL:
      return decodeSetAcl(reader);
    case OpCode.addWatch:
      return decodeAddWatch(reader);
    case OpCode.setWatches:
      return decodeSetWatches('setWatches', reader);
    case OpCode.setWatches2:
      return decodeSetWatches('setWatches2', reader);
    case OpCode.checkWatches:
      return decodeWatchesRequest('checkWatches', reader);
    case OpCode.removeWatches:
      return decodeWatchesRequest('removeWatches', reader);
    case OpCode.closeSession:
      return { kind: 'closeSession' };
    case OpCode.auth:
      return decodeAuth(reader);
    case OpCode.sasl:
      return { kind: 'sasl', token: reader.readBuffer() };
    case OpCode.reconfig:
      return decodeReconfig(reader);
    default:
      // Among them check (only inside a multi), createSession and deleteContainer (only among servers).
      throw new ProtocolError('unknownOpcode', 'this opcode is for clients');
  }
}

/** Writes the record that follows the request header. */
export function encodeRequest(writer: JuteWriter, request: Request): void {
  switch (request.kind) {
    case 'exists':
    case 'getData':
    case 'getChildren':
    case 'getChildren2':
      writer.writeString(request.path);
      writer.writeBool(request.watch);
      return;
    case 'create':
    case 'create2':
    case 'createContainer':
    case 'createTTL':
    case 'delete':
    case 'setData':
    case 'check':
      encodeMultiOperation(writer, request);
      return;
    case 'multi':
      for (const operation of request.operations) {
        encodeMultiHeader(writer, OpCode[operation.kind], false, MULTI_HEADER_ERR);
        encodeMultiOperation(writer, operation);
      }
      encodeMultiHeader(writer, MULTI_END, true, MULTI_HEADER_ERR);
      return;
    case 'multiRead':
      for (const operation of request.operations) {
        encodeMultiHeader(writer, OpCode[operation.kind], false, MULTI_HEADER_ERR);
        writer.writeString(operation.path);
        writer.writeBool(false);
      }
      encodeMultiHeader(writer, MULTI_END, true, MULTI_HEADER_ERR);
      return;
    case 'getACL':
    case 'sync':
    case 'getAllChildrenNumber':
    case 'getEphemerals':
      writer.writeString(request.path);
      return;
    case 'setACL':
      writer.writeString(request.path);
      encodeAcls(writer, request.acl);
      writer.writeInt(request.version);
      return;
    case 'reconfig':
      writer.writeString(request.joiningServers);
      writer.writeString(request.leavingServers);
      writer.writeString(request.newMembers);
      writer.writeLong(request.curConfigId);
      return;
    case 'setWatches':
    case 'setWatches2':
      encodeSetWatches(writer, request);
      return;
    case 'addWatch':
      writer.writeString(request.path);
      writer.writeInt(request.mode);
      return;
    case 'checkWatches':
    case 'removeWatches':
      writer.writeString(request.path);
      writer.writeInt(request.type);
      return;
    case 'auth':
      writer.writeInt(request.type);
      writer.writeString(request.scheme);
      writer.writeBuffer(request.auth);
      return;
    case 'sasl':
      writer.writeBuffer(request.token);
      return;
    case 'ping':
    case 'whoAmI':
    case 'closeSession':
      return;
    default:
      unreachable(request);
  }
}

// MultiHeader: {type: int, done: boolean, err: int}
export function encodeMultiHeader(writer: JuteWriter, type: number, isDone: boolean, err: number): void {
  writer.writeInt(type);
  writer.writeBool(isDone);
  writer.writeInt(err);
}

// ExistsRequest, GetDataRequest, GetChildrenRequest, GetChildren2Request: {path: ustring, watch: boolean}
function decodeReadWithWatch(kind: ReadWithWatchRequest['kind'], reader: JuteReader): ReadWithWatchRequest {
  const path = reader.readString();
  const watch = reader.readBool();
  return { kind, path, watch };
}

// GetACLRequest, SyncRequest, GetAllChildrenNumberRequest: {path: ustring}; GetEphemeralsRequest: {prefixPath: ustring}
function decodePathRequest(kind: PathRequest['kind'], reader: JuteReader): PathRequest {
  // Without a prefix getEphemerals means all of them.
  const path = kind === 'getEphemerals' ? (reader.readStringOrNull() ?? '') : reader.readString();
  return { kind, path };
}

// CreateRequest: {path: ustring, data: buffer, acl: vector<ACL>, flags: int}; CreateTTLRequest: the same + {ttl: long}
function decodeCreate(kind: CreateRequest['kind'], reader: JuteReader): CreateRequest {
  const path = reader.readString();
  const data = reader.readBuffer();
  const acl = decodeAcls(reader);
  const flags = reader.readInt();
  const ttl = kind === 'createTTL' ? reader.readLong() : NO_TTL;
  return { kind, path, data, acl, flags, ttl };
}

// DeleteRequest: {path: ustring, version: int}
function decodeDelete(reader: JuteReader): DeleteRequest {
  const path = reader.readString();
  return { kind: 'delete', path, version: reader.readInt() };
}

// SetDataRequest: {path: ustring, data: buffer, version: int}
function decodeSetData(reader: JuteReader): SetDataRequest {
  const path = reader.readString();
  const data = reader.readBuffer();
  return { kind: 'setData', path, data, version: reader.readInt() };
}

// CheckVersionRequest: {path: ustring, version: int}
function decodeCheck(reader: JuteReader): CheckRequest {
  const path = reader.readString();
  return { kind: 'check', path, version: reader.readInt() };
}

// SetACLRequest: {path: ustring, acl: vector<ACL>, version: int}
function decodeSetAcl(reader: JuteReader): SetAclRequest {
  const path = reader.readString();
  const acl = decodeAcls(reader);
  return { kind: 'setACL', path, acl, version: reader.readInt() };
}

// ReconfigRequest: {joiningServers: ustring, leavingServers: ustring, newMembers: ustring, curConfigId: long}
function decodeReconfig(reader: JuteReader): ReconfigRequest {
  const joiningServers = reader.readStringOrNull();
  const leavingServers = reader.readStringOrNull();
  const newMembers = reader.readStringOrNull();
  return { kind: 'reconfig', joiningServers, leavingServers, newMembers, curConfigId: reader.readLong() };
}

// SetWatches: {relativeZxid: long, dataWatches, existWatches, childWatches: vector<ustring>}
// SetWatches2: SetWatches + {persistentWatches, persistentRecursiveWatches: vector<ustring>}
function decodeSetWatches(kind: SetWatchesRequest['kind'], reader: JuteReader): SetWatchesRequest {
  const isLong = kind === 'setWatches2';
  return {
    kind,
    relativeZxid: reader.readZxid(),
    dataWatches: reader.readStrings(),
    existWatches: reader.readStrings(),
    childWatches: reader.readStrings(),
    persistentWatches: isLong ? reader.readStrings() : [],
    persistentRecursiveWatches: isLong ? reader.readStrings() : [],
  };
}

function encodeSetWatches(writer: JuteWriter, request: SetWatchesRequest): void {
  writer.writeZxid(request.relativeZxid);
  writer.writeStrings(request.dataWatches);
  writer.writeStrings(request.existWatches);
  writer.writeStrings(request.childWatches);
  if (request.kind === 'setWatches') return;
  writer.writeStrings(request.persistentWatches);
  writer.writeStrings(request.persistentRecursiveWatches);
}

// AddWatchRequest: {path: ustring, mode: int}
function decodeAddWatch(reader: JuteReader): AddWatchRequest {
  const path = reader.readString();
  const mode = reader.readInt();
  if (mode !== AddWatchMode.persistent && mode !== AddWatchMode.persistentRecursive) {
    throw new ProtocolError('marshalling', 'this mode of addWatch exists');
  }
  return { kind: 'addWatch', path, mode };
}

// CheckWatchesRequest, RemoveWatchesRequest: {path: ustring, type: int}
function decodeWatchesRequest(kind: WatchesRequest['kind'], reader: JuteReader): WatchesRequest {
  const path = reader.readString();
  const type = reader.readInt();
  if (type < WatcherType.children || type > WatcherType.persistentRecursive) {
    throw new ProtocolError('marshalling', 'this type of watch exists');
  }
  return { kind, path, type };
}

// AuthPacket: {type: int, scheme: ustring, auth: buffer}
function decodeAuth(reader: JuteReader): AuthRequest {
  const type = reader.readInt();
  const scheme = reader.readString();
  return { kind: 'auth', type, scheme, auth: reader.readBuffer() };
}

function encodeMultiOperation(writer: JuteWriter, operation: MultiOperation): void {
  switch (operation.kind) {
    case 'create':
    case 'create2':
    case 'createContainer':
    case 'createTTL':
      writer.writeString(operation.path);
      writer.writeBuffer(operation.data);
      encodeAcls(writer, operation.acl);
      writer.writeInt(operation.flags);
      if (operation.kind === 'createTTL') writer.writeLong(operation.ttl);
      return;
    case 'delete':
    case 'check':
      writer.writeString(operation.path);
      writer.writeInt(operation.version);
      return;
    case 'setData':
      writer.writeString(operation.path);
      writer.writeBuffer(operation.data);
      writer.writeInt(operation.version);
      return;
    default:
      unreachable(operation);
  }
}

// MultiOperationRecord: {n * (MultiHeader(type, false, -1), record of that type), MultiHeader(-1, true, -1)}
// Writes: create, create2, createContainer, createTTL, delete, setData, check. No other type, no reads among them.
function decodeMulti(reader: JuteReader): MultiRequest {
  const operations: MultiOperation[] = [];
  for (;;) {
    const type = reader.readInt();
    const isDone = reader.readBool();
    reader.readInt();
    if (isDone) return { kind: 'multi', operations };
    operations.push(decodeMultiOperation(type, reader));
  }
}

function decodeMultiOperation(type: number, reader: JuteReader): MultiOperation {
  switch (type) {
    case OpCode.create:
      return retypeCreate(decodeCreate('create', reader));
    case OpCode.create2:
      return retypeCreate(decodeCreate('create2', reader));
    case OpCode.createContainer:
      return retypeCreate(decodeCreate('createContainer', reader));
    case OpCode.createTTL:
      return retypeCreate(decodeCreate('createTTL', reader));
    case OpCode.delete:
      return decodeDelete(reader);
    case OpCode.setData:
      return decodeSetData(reader);
    case OpCode.check:
      return decodeCheck(reader);
    default:
      throw new ProtocolError('marshalling', 'a multi holds writes only');
  }
}

// Inside a multi the flag has a say in what a create is (ZooKeeper's MultiOperationRecord and Op). The record without a
// TTL: a container flag makes it createContainer, a TTL flag or an illegal one makes the whole multi unreadable. The
// record with a TTL: without a TTL flag it is one of the others, and an illegal flag is left for prepare to refuse.
function retypeCreate(operation: CreateRequest): CreateRequest {
  const { kind, path, data, acl, flags } = operation;
  switch (flags) {
    case CreateFlag.persistent:
    case CreateFlag.ephemeral:
    case CreateFlag.persistentSequential:
    case CreateFlag.ephemeralSequential:
      if (kind !== 'createTTL') return operation;
      return { kind: 'create', path, data, acl, flags, ttl: NO_TTL };
    case CreateFlag.container:
      return { kind: 'createContainer', path, data, acl, flags, ttl: NO_TTL };
    case CreateFlag.persistentWithTtl:
    case CreateFlag.persistentSequentialWithTtl:
      if (kind === 'createTTL') return operation;
      throw new ProtocolError('marshalling', 'a create with a TTL flag carries a TTL');
    default:
      if (kind === 'createTTL') return { kind: 'create', path, data, acl, flags, ttl: NO_TTL };
      throw new ProtocolError('marshalling', 'this create flag exists');
  }
}

// MultiOperationRecord of reads: getData and getChildren, {path: ustring, watch: boolean}. No watches are set.
function decodeMultiRead(reader: JuteReader): MultiReadRequest {
  const operations: MultiReadOperation[] = [];
  for (;;) {
    const type = reader.readInt();
    const isDone = reader.readBool();
    reader.readInt();
    if (isDone) return { kind: 'multiRead', operations };
    if (type !== OpCode.getData && type !== OpCode.getChildren) {
      throw new ProtocolError('marshalling', 'a multiRead holds getData and getChildren only');
    }
    const path = reader.readString();
    reader.readBool();
    operations.push({ kind: type === OpCode.getData ? 'getData' : 'getChildren', path });
  }
}
