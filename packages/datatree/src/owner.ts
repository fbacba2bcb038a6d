// What a znode's stored owner means: nothing, a session, a container, or a TTL (zookeeper-semantics 3.1).
// The forms share 64 bits, so every reader must ask here, with the flag that says whether TTLs exist.

export type OwnerKind = 'persistent' | 'ephemeral' | 'container' | 'ttl';

export const CONTAINER_OWNER = -0x8000000000000000n;
export const TTL_MS_MAX = 0xffffffffffn;
// 0xff in the top byte, as a signed 64-bit number.
const TTL_MARK = -0x0100000000000000n;

export function kindOfOwner(owner: bigint, extendedTypesEnabled: boolean): OwnerKind {
  if (owner === 0n) return 'persistent';
  if (owner === CONTAINER_OWNER) return 'container';
  if (extendedTypesEnabled && owner < 0n && owner >= TTL_MARK) return 'ttl';
  return 'ephemeral';
}

/** `ttlMs` is in 1 .. TTL_MS_MAX. */
export function ownerOfTtl(ttlMs: bigint): bigint {
  return TTL_MARK | ttlMs;
}

export function ttlMsOf(owner: bigint): number {
  return Number(owner & TTL_MS_MAX);
}
