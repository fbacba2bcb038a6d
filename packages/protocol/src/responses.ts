// What a server answers. A response follows a ReplyHeader with err 0; any other err has no body.

import { unreachable } from './assert.ts';
import type { ErrorCode } from './error-codes.ts';
import { OpCode } from './operations.ts';
import { ProtocolError } from './protocol-error.ts';
import type { JuteReader } from './reader.ts';
import type { Acl, Stat, WatchEvent } from './records.ts';
import { decodeAcls, decodeStat, encodeAcls, encodeStat, encodeWatcherEvent } from './records.ts';
import { encodeMultiHeader, Xid } from './requests.ts';
import type { JuteWriter } from './writer.ts';
import type { Zxid } from './zxid.ts';

export type MultiResult =
  | { readonly kind: 'create'; readonly path: string }
  | { readonly kind: 'create2'; readonly path: string; readonly stat: Stat }
  | { readonly kind: 'delete' | 'check' }
  | { readonly kind: 'setData'; readonly stat: Stat }
  | { readonly kind: 'getData'; readonly data: Uint8Array | null; readonly stat: Stat }
  | { readonly kind: 'getChildren'; readonly children: readonly string[] }
  | { readonly kind: 'error'; readonly code: ErrorCode };

export type Response =
  | { readonly kind: 'create'; readonly path: string }
  | { readonly kind: 'create2' | 'createContainer' | 'createTTL'; readonly path: string; readonly stat: Stat }
  | { readonly kind: 'setData' | 'setACL' | 'exists'; readonly stat: Stat }
  | { readonly kind: 'getData' | 'reconfig'; readonly data: Uint8Array | null; readonly stat: Stat }
  | { readonly kind: 'getChildren'; readonly children: readonly string[] }
  | { readonly kind: 'getChildren2'; readonly children: readonly string[]; readonly stat: Stat }
  | { readonly kind: 'getACL'; readonly acl: readonly Acl[]; readonly stat: Stat }
  | { readonly kind: 'sync'; readonly path: string }
  | { readonly kind: 'getEphemerals'; readonly paths: readonly string[] }
  | { readonly kind: 'getAllChildrenNumber'; readonly total: number }
  | { readonly kind: 'whoAmI'; readonly clients: readonly { readonly scheme: string; readonly user: string }[] }
  | { readonly kind: 'sasl'; readonly token: Uint8Array | null }
  /** addWatch answers ErrorResponse{int err}. */
  | { readonly kind: 'addWatch'; readonly err: number }
  | { readonly kind: 'multi' | 'multiRead'; readonly results: readonly MultiResult[] }
  | {
      readonly kind:
        | 'delete'
        | 'ping'
        | 'auth'
        | 'setWatches'
        | 'setWatches2'
        | 'checkWatches'
        | 'removeWatches'
        | 'closeSession';
    };

export type ResponseKind = Response['kind'];

export type ReplyHeader = {
  readonly xid: number;
  readonly zxid: Zxid;
  /** An ErrorCode, or a number that a newer server made up. */
  readonly err: number;
};

/** Bytes of a ReplyHeader. */
export const REPLY_HEADER_BYTES = 16;

// The type of an entry that failed, and of the header that ends the results.
const MULTI_ERROR = -1;
// Lengths of two empty strings.
const CLIENT_INFO_BYTES_MIN = 8;

// ReplyHeader: {xid: int, zxid: long, err: int}
export function encodeReplyHeader(writer: JuteWriter, xid: number, zxid: bigint, err: number): void {
  writer.writeInt(xid);
  writer.writeZxid(zxid);
  writer.writeInt(err);
}

export function decodeReplyHeader(reader: JuteReader): ReplyHeader {
  const xid = reader.readInt();
  const zxid = reader.readZxid();
  const err = reader.readInt();
  return { xid, zxid, err };
}

/** {ReplyHeader(-1, zxid, 0), WatcherEvent}, without the frame length: encode once, send to every watching connection. */
export function encodeWatchEvent(writer: JuteWriter, event: WatchEvent, zxid: bigint): void {
  encodeReplyHeader(writer, Xid.watchEvent, zxid, 0);
  encodeWatcherEvent(writer, event);
}

/** Writes the record that follows a ReplyHeader with err 0. */
export function encodeResponse(writer: JuteWriter, response: Response): void {
  switch (response.kind) {
    // GetDataResponse: {data: buffer, stat: Stat}
    case 'getData':
    case 'reconfig':
      writer.writeBuffer(response.data);
      encodeStat(writer, response.stat);
      return;
    // ExistsResponse, SetDataResponse, SetACLResponse: {stat: Stat}
    case 'exists':
    case 'setData':
    case 'setACL':
      encodeStat(writer, response.stat);
      return;
    // CreateResponse, SyncResponse: {path: ustring}
    case 'create':
    case 'sync':
      writer.writeString(response.path);
      return;
    // Create2Response: {path: ustring, stat: Stat}
    case 'create2':
    case 'createContainer':
    case 'createTTL':
      writer.writeString(response.path);
      encodeStat(writer, response.stat);
      return;
    // GetChildrenResponse: {children: vector<ustring>}
    case 'getChildren':
      writer.writeStrings(response.children);
      return;
    // GetChildren2Response: {children: vector<ustring>, stat: Stat}
    case 'getChildren2':
      writer.writeStrings(response.children);
      encodeStat(writer, response.stat);
      return;
    // GetACLResponse: {acl: vector<ACL>, stat: Stat}
    case 'getACL':
      encodeAcls(writer, response.acl);
      encodeStat(writer, response.stat);
      return;
    // GetEphemeralsResponse: {ephemerals: vector<ustring>}
    case 'getEphemerals':
      writer.writeStrings(response.paths);
      return;
    // GetAllChildrenNumberResponse: {totalNumber: int}
    case 'getAllChildrenNumber':
      writer.writeInt(response.total);
      return;
    // WhoAmIResponse: {clientInfo: vector<{authScheme: ustring, user: ustring}>}
    case 'whoAmI':
      writer.writeVectorCount(response.clients.length);
      for (const client of response.clients) {
        writer.writeString(client.scheme);
        writer.writeString(client.user);
      }
      return;
    // SetSASLResponse: {token: buffer}
    case 'sasl':
      writer.writeBuffer(response.token);
      return;
    // ErrorResponse: {err: int}
    case 'addWatch':
      writer.writeInt(response.err);
      return;
    // MultiResponse: {n * (MultiHeader(type, false, err), body), MultiHeader(-1, true, -1)}
    case 'multi':
    case 'multiRead':
      for (const result of response.results) encodeMultiResult(writer, result);
      encodeMultiHeader(writer, MULTI_ERROR, true, -1);
      return;
    case 'delete':
    case 'ping':
    case 'auth':
    case 'setWatches':
    case 'setWatches2':
    case 'checkWatches':
    case 'removeWatches':
    case 'closeSession':
      return;
    default:
      unreachable(response);
  }
}

/** Reads the record that follows a ReplyHeader with err 0; the kind is that of the request. Buffers are views. */
export function decodeResponse(kind: ResponseKind, reader: JuteReader): Response {
  switch (kind) {
    case 'getData':
    case 'reconfig': {
      const data = reader.readBuffer();
      return { kind, data, stat: decodeStat(reader) };
    }
    case 'exists':
    case 'setData':
    case 'setACL':
      return { kind, stat: decodeStat(reader) };
    case 'create':
      return { kind, path: reader.readString() };
    case 'sync':
      return { kind, path: reader.readString() };
    case 'create2':
    case 'createContainer':
    case 'createTTL': {
      const path = reader.readString();
      return { kind, path, stat: decodeStat(reader) };
    }
    case 'getChildren':
      return { kind, children: reader.readStrings() };
    case 'getChildren2': {
      const children = reader.readStrings();
      return { kind, children, stat: decodeStat(reader) };
    }
    case 'getACL': {
      const acl = decodeAcls(reader) ?? [];
      return { kind, acl, stat: decodeStat(reader) };
    }
    case 'getEphemerals':
      return { kind, paths: reader.readStrings() };
    case 'getAllChildrenNumber':
      return { kind, total: reader.readInt() };
    case 'whoAmI':
      return { kind, clients: decodeClientInfos(reader) };
    case 'sasl':
      return { kind, token: reader.readBuffer() };
    case 'addWatch':
      return { kind, err: reader.readInt() };
    case 'multi':
    case 'multiRead':
      return { kind, results: decodeMultiResults(reader) };
    case 'delete':
    case 'ping':
    case 'auth':
    case 'setWatches':
    case 'setWatches2':
    case 'checkWatches':
    case 'removeWatches':
    case 'closeSession':
      return { kind };
    default:
      return unreachable(kind);
  }
}

function decodeClientInfos(reader: JuteReader): { scheme: string; user: string }[] {
  const count = reader.readVectorCount(CLIENT_INFO_BYTES_MIN);
  const clients: { scheme: string; user: string }[] = [];
  for (let index = 0; index < count; index += 1) {
    const scheme = reader.readString();
    clients.push({ scheme, user: reader.readString() });
  }
  return clients;
}

function encodeMultiResult(writer: JuteWriter, result: MultiResult): void {
  switch (result.kind) {
    case 'create':
      encodeMultiHeader(writer, OpCode.create, false, 0);
      writer.writeString(result.path);
      return;
    case 'create2':
      encodeMultiHeader(writer, OpCode.create2, false, 0);
      writer.writeString(result.path);
      encodeStat(writer, result.stat);
      return;
    case 'delete':
    case 'check':
      encodeMultiHeader(writer, OpCode[result.kind], false, 0);
      return;
    case 'setData':
      encodeMultiHeader(writer, OpCode.setData, false, 0);
      encodeStat(writer, result.stat);
      return;
    case 'getData':
      encodeMultiHeader(writer, OpCode.getData, false, 0);
      writer.writeBuffer(result.data);
      encodeStat(writer, result.stat);
      return;
    case 'getChildren':
      encodeMultiHeader(writer, OpCode.getChildren, false, 0);
      writer.writeStrings(result.children);
      return;
    // The code stands twice: in the header and as an ErrorResponse.
    case 'error':
      encodeMultiHeader(writer, MULTI_ERROR, false, result.code);
      writer.writeInt(result.code);
      return;
    default:
      unreachable(result);
  }
}

function decodeMultiResults(reader: JuteReader): MultiResult[] {
  const results: MultiResult[] = [];
  for (;;) {
    const type = reader.readInt();
    const isDone = reader.readBool();
    reader.readInt();
    if (isDone) return results;
    results.push(decodeMultiResult(type, reader));
  }
}

function decodeMultiResult(type: number, reader: JuteReader): MultiResult {
  switch (type) {
    case OpCode.create:
      return { kind: 'create', path: reader.readString() };
    case OpCode.create2: {
      const path = reader.readString();
      return { kind: 'create2', path, stat: decodeStat(reader) };
    }
    case OpCode.delete:
      return { kind: 'delete' };
    case OpCode.check:
      return { kind: 'check' };
    case OpCode.setData:
      return { kind: 'setData', stat: decodeStat(reader) };
    case OpCode.getData: {
      const data = reader.readBuffer();
      return { kind: 'getData', data, stat: decodeStat(reader) };
    }
    case OpCode.getChildren:
      return { kind: 'getChildren', children: reader.readStrings() };
    case MULTI_ERROR:
      // A number from the wire: a newer server may know codes that the table lacks.
      return { kind: 'error', code: reader.readInt() as ErrorCode };
    default:
      throw new ProtocolError('marshalling', 'this type of multi result exists');
  }
}
