// Keys and values of the log's LevelDB database: fixed width, big-endian, each value with a CRC of its own, because LevelDB
// hands out damaged values without a word (F2, F3 of the reliability programme). The CRC of a value covers its key too.
// Nothing here touches the database. Decoders answer null for anything damaged; they never throw on bytes from disk.

import { crc32 } from 'node:zlib';
import { counterOf, epochOf, makeZxid, type ServerId, serverIdFrom, type Zxid } from '@quorate/protocol/zxid';
import type { StoredEpochs } from './disk.ts';

/** Of records, of the state and of the store's format file. */
export const FORMAT_VERSION = 1;

const META_PREFIX = 0x00;
const LOG_PREFIX = 0x10;
export const LOG_KEY_BYTES = 13;
const RECORD_HEADER_BYTES = 14;
const RECORD_TYPE_TXN = 1;

/** One key holds all that is not a record, and every batch rewrites it: a later batch then repairs nothing and hides nothing. */
export const STATE_KEY: Uint8Array = metaKey('state');
/** Every log key of every generation lies in [LOG_START, LOG_END). */
export const LOG_START: Uint8Array = Uint8Array.of(LOG_PREFIX);
export const LOG_END: Uint8Array = Uint8Array.of(LOG_PREFIX + 1);

function metaKey(name: string): Uint8Array {
  return Buffer.concat([Uint8Array.of(META_PREFIX), Buffer.from(name, 'latin1')]);
}

export function logKey(generation: number, zxid: Zxid): Buffer {
  const key = Buffer.allocUnsafe(LOG_KEY_BYTES);
  key[0] = LOG_PREFIX;
  key.writeUInt32BE(generation, 1);
  key.writeUInt32BE(epochOf(zxid), 5);
  key.writeUInt32BE(counterOf(zxid), 9);
  return key;
}

/** null: not a log key of this generation. */
export function decodeLogKey(key: Uint8Array, generation: number): Zxid | null {
  if (key.byteLength !== LOG_KEY_BYTES || key[0] !== LOG_PREFIX) return null;
  const view = new DataView(key.buffer, key.byteOffset, key.byteLength);
  if (view.getUint32(1) !== generation) return null;
  return makeZxid(view.getUint32(5), view.getUint32(9));
}

export function recordBytes(txn: Uint8Array): number {
  return LOG_KEY_BYTES + RECORD_HEADER_BYTES + txn.byteLength;
}

/** crc32 of key and rest | version | type | epoch and counter of the record before | txn. LevelDB copies it at once. */
export class RecordEncoder {
  #scratch = Buffer.allocUnsafe(64 * 1024);

  /** The answer is valid until the next call. */
  encode(key: Uint8Array, prev: Zxid, txn: Uint8Array): Uint8Array {
    const length = RECORD_HEADER_BYTES + txn.byteLength;
    if (length > this.#scratch.byteLength) this.#scratch = Buffer.allocUnsafe(length * 2);
    const value = this.#scratch.subarray(0, length);
    value[4] = FORMAT_VERSION;
    value[5] = RECORD_TYPE_TXN;
    value.writeUInt32BE(epochOf(prev), 6);
    value.writeUInt32BE(counterOf(prev), 10);
    value.set(txn, RECORD_HEADER_BYTES);
    value.writeUInt32BE(crc32(value.subarray(4), crc32(key)), 0);
    return value;
  }
}

export function decodeRecord(key: Uint8Array, value: Uint8Array): { prev: Zxid; txn: Uint8Array } | null {
  if (value.byteLength < RECORD_HEADER_BYTES) return null;
  const view = new DataView(value.buffer, value.byteOffset, value.byteLength);
  if (view.getUint32(0) !== crc32(value.subarray(4), crc32(key))) return null;
  if (value[4] !== FORMAT_VERSION || value[5] !== RECORD_TYPE_TXN) return null;
  return { prev: makeZxid(view.getUint32(6), view.getUint32(10)), txn: value.subarray(RECORD_HEADER_BYTES) };
}

/** blank: nobody ever decided about this store. */
export type StoreMark = 'blank' | 'clean' | 'suspect';
const MARKS: readonly StoreMark[] = ['blank', 'clean', 'suspect'];

export type StoreState = {
  readonly serverId: ServerId;
  /** Counts batches; the witness remembers the last one that resolved. */
  readonly sequence: number;
  /** Records of other generations are dead. */
  readonly generation: number;
  /** The log of this generation starts right behind it. */
  readonly base: Zxid;
  readonly tail: Zxid;
  readonly committed: Zxid;
  readonly epochs: StoredEpochs;
  readonly mark: StoreMark;
  readonly clusterId: string;
};

const STATE_HEADER_BYTES = 60;

export function encodeState(state: StoreState): Uint8Array {
  const clusterId = Buffer.from(state.clusterId, 'utf8');
  const value = Buffer.allocUnsafe(STATE_HEADER_BYTES + clusterId.byteLength);
  value[4] = FORMAT_VERSION;
  value[5] = MARKS.indexOf(state.mark);
  value.writeInt32BE(state.serverId, 6);
  value.writeUInt32BE(Math.floor(state.sequence / 2 ** 32), 10);
  value.writeUInt32BE(state.sequence % 2 ** 32, 14);
  value.writeUInt32BE(state.generation, 18);
  writeZxid(value, 22, state.base);
  writeZxid(value, 30, state.tail);
  writeZxid(value, 38, state.committed);
  value.writeUInt32BE(state.epochs.acceptedEpoch, 46);
  value.writeUInt32BE(state.epochs.currentEpoch, 50);
  value.writeInt32BE(state.epochs.acceptedFrom, 54);
  value.writeUInt16BE(clusterId.byteLength, 58);
  value.set(clusterId, STATE_HEADER_BYTES);
  value.writeUInt32BE(crc32(value.subarray(4), crc32(STATE_KEY)), 0);
  return value;
}

/** null: damaged, or of a version this build does not know. */
export function decodeState(value: Uint8Array): StoreState | null {
  if (value.byteLength < STATE_HEADER_BYTES) return null;
  const view = new DataView(value.buffer, value.byteOffset, value.byteLength);
  if (view.getUint32(0) !== crc32(value.subarray(4), crc32(STATE_KEY))) return null;
  const mark = MARKS[view.getUint8(5)];
  if (view.getUint8(4) !== FORMAT_VERSION || mark === undefined) return null;
  if (value.byteLength !== STATE_HEADER_BYTES + view.getUint16(58)) return null;
  return {
    serverId: serverIdFrom(view.getInt32(6)),
    sequence: view.getUint32(10) * 2 ** 32 + view.getUint32(14),
    generation: view.getUint32(18),
    base: makeZxid(view.getUint32(22), view.getUint32(26)),
    tail: makeZxid(view.getUint32(30), view.getUint32(34)),
    committed: makeZxid(view.getUint32(38), view.getUint32(42)),
    epochs: {
      acceptedEpoch: view.getUint32(46),
      currentEpoch: view.getUint32(50),
      acceptedFrom: serverIdFrom(view.getInt32(54)),
    },
    mark,
    clusterId: Buffer.from(value.buffer, value.byteOffset + STATE_HEADER_BYTES, view.getUint16(58)).toString('utf8'),
  };
}

function writeZxid(into: Buffer, offset: number, zxid: Zxid): void {
  into.writeUInt32BE(epochOf(zxid), offset);
  into.writeUInt32BE(counterOf(zxid), offset + 4);
}
