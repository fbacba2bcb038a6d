// PeerMessage <-> bytes. Owns the frame (length, checksum, body), the numeric tags and the range of every field.
// Bytes of a peer are never trusted: a body is walked before msgpackr sees it, so that no length in it can allocate anything,
// and every field is checked afterwards. Whatever arrives, decoding gives a message or throws a PeerProtocolError, nothing else.
// Must never give meaning to a message: which of them are legal now is Zab's and the replica's business.

import { crc32 } from 'node:zlib';
import type { Id } from '@quorate/protocol';
import { assert, unreachable } from '@quorate/protocol/assert';
import {
  type ServerId,
  type SessionId,
  serverIdFrom,
  sessionIdFrom,
  type Zxid,
  zxidFrom,
} from '@quorate/protocol/zxid';
import type { Entry, StoreKind, VoteState } from '@quorate/zab';
import { Packr, RESERVE_START_SPACE } from 'msgpackr';
import type { PeerMessage } from './peer-messages.ts';

/** A peer's bytes cannot be understood, or a message of ours does not fit a frame. Closes that link and nothing else. */
export class PeerProtocolError extends Error {
  readonly code: 'frame' | 'checksum' | 'message';
  constructor(code: 'frame' | 'checksum' | 'message', message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'PeerProtocolError';
    this.code = code;
  }
}

/** The version in the hello. It grows when a message or the frame changes its form. */
export const PEER_PROTOCOL_VERSION = 1;
/** Largest body of a frame. */
export const PEER_FRAME_BYTES_MAX = 64 * 1024 * 1024;
export const PEER_FRAME_HEADER_BYTES = 8;

const U32_MAX = 0xffffffff;
const U64_MAX = 0xffffffffffffffffn;
const TEXT_MAX = 4096;
const CLUSTER_ID_MAX = 128;
const IDENTITY_COUNT_MAX = 1024;

// Order is the wire's; only append.
const VOTE_STATES: readonly VoteState[] = ['looking', 'leading', 'following', 'observing'];
const STORE_KINDS: readonly StoreKind[] = ['blank', 'formed', 'used', 'suspect'];
const SYNC_MODES: readonly ('diff' | 'trunc')[] = ['diff', 'trunc'];

/** First element of every body. A number is never reused for another form. */
const Tag = {
  vote: 1,
  followerInfo: 2,
  leaderInfo: 3,
  ackEpoch: 4,
  synchronize: 5,
  synchronizeBySnapshot: 6,
  history: 7,
  newLeader: 8,
  ackNewLeader: 9,
  upToDate: 10,
  propose: 11,
  ack: 12,
  commit: 13,
  heartbeat: 14,
  heartbeatAck: 15,
  readmit: 16,
  readmitted: 17,
  takeOver: 18,
  request: 32,
  requestRefused: 33,
  syncRequest: 34,
  syncDone: 35,
  revalidate: 36,
  revalidated: 37,
  sessionMoved: 38,
  touched: 39,
  digest: 40,
  snapshotChunk: 41,
} as const satisfies Record<PeerMessage['kind'], number>;

type Value = number | bigint | boolean | string | Uint8Array;

// variableMapSize and records are off: a body is one flat array of scalars, which is what `walk` below enforces.
const packr = new Packr({ useRecords: false, int64AsType: 'bigint', copyBuffers: false });

/** The whole frame, header included. Throws PeerProtocolError when it would exceed the frame limit. */
export function encodePeerMessage(message: PeerMessage): Uint8Array {
  return frameOf(fieldsOf(message));
}

/** One flat array of scalars as a frame; the transport's hello uses it too. */
export function frameOf(fields: readonly Value[]): Uint8Array {
  const bytes = packr.pack(fields, RESERVE_START_SPACE | PEER_FRAME_HEADER_BYTES);
  const body = bytes.subarray(PEER_FRAME_HEADER_BYTES);
  if (body.length > PEER_FRAME_BYTES_MAX) throw new PeerProtocolError('frame', 'a message exceeds the frame limit');
  bytes.writeUInt32BE(body.length, 0);
  bytes.writeUInt32BE(crc32(body), 4);
  return bytes;
}

function fieldsOf(m: PeerMessage): Value[] {
  switch (m.kind) {
    case 'vote':
      return [
        Tag.vote,
        VOTE_STATES.indexOf(m.state),
        m.round,
        m.candidate,
        m.candidateEpoch,
        m.candidateZxid,
        m.favoured,
        m.establishedEpoch,
        STORE_KINDS.indexOf(m.store),
        m.hearsYou,
      ];
    case 'followerInfo':
      return [Tag.followerInfo, m.session, m.acceptedEpoch, m.observer, STORE_KINDS.indexOf(m.store), m.needsSnapshot];
    case 'leaderInfo':
      return [Tag.leaderInfo, m.session, m.epoch, m.clusterId];
    case 'ackEpoch':
      return [Tag.ackEpoch, m.epoch, m.currentEpoch, m.lastZxid, m.counted];
    case 'synchronize':
      return [Tag.synchronize, m.epoch, SYNC_MODES.indexOf(m.mode), m.keep];
    case 'synchronizeBySnapshot':
      return [Tag.synchronizeBySnapshot, m.epoch, m.zxid];
    case 'history':
      return withEntries([Tag.history, m.epoch], m.entries);
    case 'newLeader':
      return [Tag.newLeader, m.epoch, m.last, m.counted];
    case 'ackNewLeader':
      return [Tag.ackNewLeader, m.epoch, m.last];
    case 'upToDate':
      return [Tag.upToDate, m.epoch, m.committed];
    case 'propose':
      return withEntries([Tag.propose, m.epoch, m.committed], m.entries);
    case 'ack':
      return [Tag.ack, m.epoch, m.zxid];
    case 'commit':
      return [Tag.commit, m.epoch, m.zxid];
    case 'heartbeat':
      return [Tag.heartbeat, m.epoch, m.sequence];
    case 'heartbeatAck':
      return [Tag.heartbeatAck, m.epoch, m.sequence];
    case 'readmit':
      return [Tag.readmit, m.epoch];
    case 'readmitted':
      return [Tag.readmitted, m.epoch];
    case 'takeOver':
      return [Tag.takeOver, m.epoch, m.last];
    case 'request': {
      const fields: Value[] = [Tag.request, m.sequence, m.sessionId, m.attachment, m.cxid, m.opcode, m.body];
      for (const id of m.identity) fields.push(id.scheme, id.id);
      return fields;
    }
    case 'requestRefused':
      return [Tag.requestRefused, m.sequence, m.reason.slice(0, TEXT_MAX)];
    case 'syncRequest':
      return [Tag.syncRequest, m.sequence];
    case 'syncDone':
      return [Tag.syncDone, m.sequence, m.zxid];
    case 'revalidate':
      return [Tag.revalidate, m.sequence, m.sessionId, m.timeoutMs];
    case 'revalidated':
      return [Tag.revalidated, m.sequence, m.valid, m.attachment];
    case 'sessionMoved':
      return [Tag.sessionMoved, m.sessionId, m.attachment];
    case 'touched':
      return [Tag.touched, ...m.sessionIds];
    case 'digest':
      return [Tag.digest, m.zxid, m.digest];
    case 'snapshotChunk':
      return [Tag.snapshotChunk, m.epoch, m.zxid, m.index, m.last, m.bytes];
    default:
      return unreachable(m);
  }
}

function withEntries(fields: Value[], entries: readonly Entry[]): Value[] {
  for (const entry of entries) fields.push(entry.zxid, entry.prev, entry.txn);
  return fields;
}

/** `body` is a frame without its header. Byte fields of the result are views of it. */
export function decodePeerMessage(body: Uint8Array): PeerMessage {
  const fields = new Fields(body);
  const tag = fields.uint(255);
  const message = decodeTagged(tag, fields);
  fields.end();
  return message;
}

function decodeTagged(tag: number, f: Fields): PeerMessage {
  switch (tag) {
    case Tag.vote:
      return {
        kind: 'vote',
        state: f.oneOf(VOTE_STATES),
        round: f.count(),
        candidate: f.serverId(-1),
        candidateEpoch: f.uint(),
        candidateZxid: f.zxid(),
        favoured: f.bool(),
        establishedEpoch: f.uint(),
        store: f.oneOf(STORE_KINDS),
        hearsYou: f.bool(),
      };
    case Tag.followerInfo:
      return {
        kind: 'followerInfo',
        session: f.count(),
        acceptedEpoch: f.uint(),
        observer: f.bool(),
        store: f.oneOf(STORE_KINDS),
        needsSnapshot: f.bool(),
      };
    case Tag.leaderInfo:
      return { kind: 'leaderInfo', session: f.count(), epoch: f.uint(), clusterId: f.text(CLUSTER_ID_MAX) };
    case Tag.ackEpoch:
      return { kind: 'ackEpoch', epoch: f.uint(), currentEpoch: f.uint(), lastZxid: f.zxid(), counted: f.bool() };
    case Tag.synchronize:
      return { kind: 'synchronize', epoch: f.uint(), mode: f.oneOf(SYNC_MODES), keep: f.zxid() };
    case Tag.synchronizeBySnapshot:
      return { kind: 'synchronizeBySnapshot', epoch: f.uint(), zxid: f.zxid() };
    case Tag.history:
      return { kind: 'history', epoch: f.uint(), entries: f.entries() };
    case Tag.newLeader:
      return { kind: 'newLeader', epoch: f.uint(), last: f.zxid(), counted: f.bool() };
    case Tag.ackNewLeader:
      return { kind: 'ackNewLeader', epoch: f.uint(), last: f.zxid() };
    case Tag.upToDate:
      return { kind: 'upToDate', epoch: f.uint(), committed: f.zxid() };
    case Tag.propose: {
      const epoch = f.uint();
      const committed = f.zxid();
      return { kind: 'propose', epoch, entries: f.entries(), committed };
    }
    case Tag.ack:
      return { kind: 'ack', epoch: f.uint(), zxid: f.zxid() };
    case Tag.commit:
      return { kind: 'commit', epoch: f.uint(), zxid: f.zxid() };
    case Tag.heartbeat:
      return { kind: 'heartbeat', epoch: f.uint(), sequence: f.count() };
    case Tag.heartbeatAck:
      return { kind: 'heartbeatAck', epoch: f.uint(), sequence: f.count() };
    case Tag.readmit:
      return { kind: 'readmit', epoch: f.uint() };
    case Tag.readmitted:
      return { kind: 'readmitted', epoch: f.uint() };
    case Tag.takeOver:
      return { kind: 'takeOver', epoch: f.uint(), last: f.zxid() };
    case Tag.request: {
      const sequence = f.count();
      const sessionId = f.sessionId();
      const attachment = f.i64();
      const cxid = f.int();
      const opcode = f.int();
      const body = f.bytes();
      return { kind: 'request', sequence, sessionId, attachment, cxid, opcode, identity: f.identity(), body };
    }
    case Tag.requestRefused:
      return { kind: 'requestRefused', sequence: f.count(), reason: f.text(TEXT_MAX) };
    case Tag.syncRequest:
      return { kind: 'syncRequest', sequence: f.count() };
    case Tag.syncDone:
      return { kind: 'syncDone', sequence: f.count(), zxid: f.zxid() };
    case Tag.revalidate:
      return {
        kind: 'revalidate',
        sequence: f.count(),
        sessionId: f.sessionId(),
        timeoutMs: f.int(),
      };
    case Tag.revalidated:
      return { kind: 'revalidated', sequence: f.count(), valid: f.bool(), attachment: f.i64() };
    case Tag.sessionMoved:
      return { kind: 'sessionMoved', sessionId: f.sessionId(), attachment: f.i64() };
    case Tag.touched:
      return { kind: 'touched', sessionIds: f.sessionIds() };
    case Tag.digest:
      return { kind: 'digest', zxid: f.zxid(), digest: f.u64() };
    case Tag.snapshotChunk:
      return {
        kind: 'snapshotChunk',
        epoch: f.uint(),
        zxid: f.zxid(),
        index: f.uint(),
        last: f.bool(),
        bytes: f.bytes(),
      };
    default:
      throw new PeerProtocolError('message', `unknown message tag ${tag}`);
  }
}

/** The scalars of one body, taken in order; every getter checks type and range. */
export class Fields {
  readonly #values: readonly unknown[];
  #next = 0;

  constructor(body: Uint8Array) {
    walk(body);
    let values: unknown;
    try {
      values = packr.unpack(body);
    } catch (cause) {
      throw new PeerProtocolError('message', 'the body is not MessagePack', { cause });
    }
    if (!Array.isArray(values)) throw new PeerProtocolError('message', 'the body is not an array');
    this.#values = values;
  }

  #take(): unknown {
    if (this.#next >= this.#values.length) throw new PeerProtocolError('message', 'a field is missing');
    const value = this.#values[this.#next];
    this.#next += 1;
    return value;
  }

  #integer(min: number, max: number): number {
    const value = this.#take();
    if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < min || value > max) {
      throw new PeerProtocolError('message', `field ${this.#next} is not an integer of its range`);
    }
    return value;
  }

  #bigint(min: bigint, max: bigint): bigint {
    const value = this.#take();
    if (typeof value !== 'bigint' || value < min || value > max) {
      throw new PeerProtocolError('message', `field ${this.#next} is not a 64-bit integer of its range`);
    }
    return value;
  }

  get #left(): number {
    return this.#values.length - this.#next;
  }

  uint(max: number = U32_MAX): number {
    return this.#integer(0, max);
  }

  int(): number {
    return this.#integer(-0x80000000, 0x7fffffff);
  }

  /** Sequences and rounds: they outgrow 32 bits in a long life. */
  count(): number {
    return this.#integer(0, Number.MAX_SAFE_INTEGER);
  }

  serverId(min: 0 | -1 = 0): ServerId {
    return serverIdFrom(this.#integer(min, 255));
  }

  u64(): bigint {
    return this.#bigint(0n, U64_MAX);
  }

  zxid(): Zxid {
    return zxidFrom(this.u64());
  }

  sessionId(): SessionId {
    return sessionIdFrom(this.i64());
  }

  i64(): bigint {
    return this.#bigint(-0x8000000000000000n, 0x7fffffffffffffffn);
  }

  bool(): boolean {
    const value = this.#take();
    if (typeof value !== 'boolean') throw new PeerProtocolError('message', `field ${this.#next} is not a boolean`);
    return value;
  }

  text(lengthMax: number): string {
    const value = this.#take();
    if (typeof value !== 'string' || value.length > lengthMax) {
      throw new PeerProtocolError('message', `field ${this.#next} is not a text of at most ${lengthMax} characters`);
    }
    return value;
  }

  bytes(): Uint8Array {
    const value = this.#take();
    if (!(value instanceof Uint8Array)) throw new PeerProtocolError('message', `field ${this.#next} is not bytes`);
    return value;
  }

  oneOf<T>(table: readonly T[]): T {
    const value = table[this.uint(255)];
    if (value === undefined) throw new PeerProtocolError('message', `field ${this.#next} is not one of its values`);
    return value;
  }

  /** All that is left, as entries. */
  entries(): Entry[] {
    if (this.#left % 3 !== 0) throw new PeerProtocolError('message', 'an entry is incomplete');
    const entries: Entry[] = [];
    while (this.#left > 0) {
      const zxid = this.zxid();
      const prev = this.zxid();
      if (prev >= zxid) throw new PeerProtocolError('message', 'an entry does not come after the one before it');
      entries.push({ zxid, prev, txn: this.bytes() });
    }
    return entries;
  }

  /** All that is left, as scheme and id pairs. */
  identity(): Id[] {
    if (this.#left % 2 !== 0 || this.#left > 2 * IDENTITY_COUNT_MAX) {
      throw new PeerProtocolError('message', 'the identity is not a list of pairs');
    }
    const identity: Id[] = [];
    while (this.#left > 0) {
      const scheme = this.text(U32_MAX);
      identity.push({ scheme, id: this.text(U32_MAX) });
    }
    return identity;
  }

  sessionIds(): SessionId[] {
    const ids: SessionId[] = [];
    while (this.#left > 0) ids.push(this.sessionId());
    return ids;
  }

  end(): void {
    if (this.#left !== 0) throw new PeerProtocolError('message', 'the message has fields too many');
  }
}

/**
 * Accepts exactly one array of scalars that fills the body. msgpackr allocates an array by the count it reads and knows maps,
 * extensions and records; walking the types first costs about as much as a checksum and leaves none of that reachable.
 */
function walk(body: Uint8Array): void {
  const view = new DataView(body.buffer, body.byteOffset, body.byteLength);
  const end = body.length;
  if (end === 0) throw new PeerProtocolError('message', 'the body is empty');
  let at = 0;
  let count = 0;
  const first = view.getUint8(0);
  if (first >= 0x90 && first <= 0x9f) {
    count = first & 0x0f;
    at = 1;
  } else if (first === 0xdc && end >= 3) {
    count = view.getUint16(1);
    at = 3;
  } else if (first === 0xdd && end >= 5) {
    count = view.getUint32(1);
    at = 5;
  } else {
    throw new PeerProtocolError('message', 'the body is not an array');
  }
  for (let i = 0; i < count; i++) {
    if (at >= end) throw new PeerProtocolError('message', 'the body ends early');
    at = afterScalar(view, at, end);
    if (at > end) throw new PeerProtocolError('message', 'the body ends early');
  }
  if (at !== end) throw new PeerProtocolError('message', 'the body is longer than its array');
}

/** Where the scalar at `at` ends; beyond `end` when it is cut off. */
function afterScalar(view: DataView, at: number, end: number): number {
  const type = view.getUint8(at);
  if (type <= 0x7f || type >= 0xe0) return at + 1;
  if (type >= 0xa0 && type <= 0xbf) return at + 1 + (type & 0x1f);
  switch (type) {
    case 0xc2: // false
    case 0xc3: // true
      return at + 1;
    case 0xcc: // u8
    case 0xd0: // i8
      return at + 2;
    case 0xcd: // u16
    case 0xd1: // i16
      return at + 3;
    case 0xce: // u32
    case 0xd2: // i32
      return at + 5;
    case 0xcb: // f64: integers above 32 bits
    case 0xcf: // u64
    case 0xd3: // i64
      return at + 9;
    case 0xc4: // bin8
    case 0xd9: // str8
      return at + 2 <= end ? at + 2 + view.getUint8(at + 1) : end + 1;
    case 0xc5: // bin16
    case 0xda: // str16
      return at + 3 <= end ? at + 3 + view.getUint16(at + 1) : end + 1;
    case 0xc6: // bin32
    case 0xdb: // str32
      return at + 5 <= end ? at + 5 + view.getUint32(at + 1) : end + 1;
    default:
      throw new PeerProtocolError('message', `type ${type} has no place in a message`);
  }
}

/** Bytes that are kept until a frame is whole start at this size; an announced length alone never allocates more. */
const ASSEMBLY_BYTES_MIN = 64 * 1024;

/** Cuts a byte stream into checked bodies. Bodies inside one chunk are views of it; others are views of their own buffer. */
export class PeerFrameDecoder {
  /** May be raised between frames: a hello is small, a message may be large. */
  frameBytesMax: number;
  #held: Uint8Array = new Uint8Array(0);
  #heldLength = 0;

  constructor(frameBytesMax: number = PEER_FRAME_BYTES_MAX) {
    this.frameBytesMax = frameBytesMax;
  }

  /** Calls `onBody` for each whole frame, in order. */
  push(chunk: Uint8Array, onBody: (body: Uint8Array) => void): void {
    let rest = chunk;
    while (this.#heldLength > 0 && rest.length > 0) {
      // A frame is under assembly: take only what it still lacks.
      const wanted = this.#wanted();
      const part = rest.subarray(0, wanted - this.#heldLength);
      this.#hold(part, wanted);
      rest = rest.subarray(part.length);
      // A header that has just become whole may make `wanted` grow. A body is never empty, so a header alone is no frame.
      if (this.#heldLength < wanted || wanted === PEER_FRAME_HEADER_BYTES) continue;
      const frame = this.#held.subarray(0, wanted);
      this.#held = new Uint8Array(0);
      this.#heldLength = 0;
      onBody(checked(frame));
    }
    while (rest.length >= PEER_FRAME_HEADER_BYTES) {
      const total = PEER_FRAME_HEADER_BYTES + this.#lengthOf(rest);
      if (rest.length < total) break;
      const frame = rest.subarray(0, total);
      rest = rest.subarray(total);
      onBody(checked(frame));
    }
    if (rest.length === 0) return;
    assert(this.#heldLength === 0, 'nothing is under assembly when the rest of a chunk is kept');
    this.#hold(rest, rest.length);
  }

  /** Total bytes that the frame under assembly needs; the header's own size until that is complete. */
  #wanted(): number {
    if (this.#heldLength < PEER_FRAME_HEADER_BYTES) return PEER_FRAME_HEADER_BYTES;
    return PEER_FRAME_HEADER_BYTES + this.#lengthOf(this.#held);
  }

  #lengthOf(header: Uint8Array): number {
    const length = readU32(header, 0);
    if (length === 0 || length > this.frameBytesMax) {
      throw new PeerProtocolError('frame', `a frame of ${length} bytes is outside the limits`);
    }
    return length;
  }

  /** Grows by doubling towards `wanted`, so that memory follows the bytes that came, not the length that was announced. */
  #hold(part: Uint8Array, wanted: number): void {
    const length = this.#heldLength + part.length;
    if (length > this.#held.length) {
      const size = Math.min(Math.max(length, 2 * this.#held.length, ASSEMBLY_BYTES_MIN), Math.max(length, wanted));
      const grown = new Uint8Array(size);
      grown.set(this.#held.subarray(0, this.#heldLength));
      this.#held = grown;
    }
    this.#held.set(part, this.#heldLength);
    this.#heldLength = length;
  }
}

function checked(frame: Uint8Array): Uint8Array {
  const body = frame.subarray(PEER_FRAME_HEADER_BYTES);
  if (crc32(body) !== readU32(frame, 4)) throw new PeerProtocolError('checksum', 'a frame fails its checksum');
  return body;
}

function readU32(bytes: Uint8Array, at: number): number {
  // Plain arithmetic: a DataView per frame cost as much as the checksum of a small one.
  const high = ((bytes[at] ?? 0) << 24) | ((bytes[at + 1] ?? 0) << 16);
  return (high | ((bytes[at + 2] ?? 0) << 8) | (bytes[at + 3] ?? 0)) >>> 0;
}
