// Zxid, the 64-bit number that orders every txn: epoch in the high half, counter in the low half.
// Brands are made only here. A zxid never becomes a JavaScript number: from epoch 2^21 on it would lose bits.

/** 64-bit transaction id: epoch (u32, high) and counter (u32, low). */
export type Zxid = bigint & { readonly __brand: 'Zxid' };
/** 64-bit session id, signed as on the wire. */
export type SessionId = bigint & { readonly __brand: 'SessionId' };
/** The N of `server.N`: 0..255. */
export type ServerId = number & { readonly __brand: 'ServerId' };

export const NO_ZXID = 0n as Zxid;

export function makeZxid(epoch: number, counter: number): Zxid {
  return ((BigInt(epoch) << 32n) | BigInt(counter)) as Zxid;
}

export function zxidFrom(value: bigint): Zxid {
  return value as Zxid;
}

export function epochOf(zxid: Zxid): number {
  return Number((zxid >> 32n) & 0xffffffffn);
}

export function counterOf(zxid: Zxid): number {
  return Number(zxid & 0xffffffffn);
}

/** The zxid after `zxid` in the same epoch. The caller rolls the epoch before the counter is exhausted. */
export function nextZxid(zxid: Zxid): Zxid {
  return (zxid + 1n) as Zxid;
}

export function sessionIdFrom(value: bigint): SessionId {
  return BigInt.asIntN(64, value) as SessionId;
}

export function serverIdFrom(value: number): ServerId {
  return value as ServerId;
}

/** `0x` and lower-case hex digits, as ZooKeeper prints zxids and session ids (unsigned). */
export function hex64(value: bigint): string {
  return `0x${BigInt.asUintN(64, value).toString(16)}`;
}
