// The replicated state of one server: znodes, their ACLs, and (by reference) the session table; and the one way to change
// it, apply. It owns slots and slabs: per znode, V8's heap holds the name and its map entry, nothing else; no caller may
// keep a view of a znode's data beyond the next apply. It never decides (prepare does), never throws for a logged txn,
// and knows no clock: the same txns give the same tree, digest and events on every server.

import {
  type Acl,
  ErrorCode,
  EventType,
  type JuteWriter,
  type Mutations,
  NO_MUTATIONS,
  NO_ZXID,
  type SessionId,
  type Stat,
  sessionIdFrom,
  type Zxid,
  zxidFrom,
} from '@quorate/protocol';
import { assert, unreachable } from '@quorate/protocol/assert';
import { AclTable, OPEN_ACL, READ_ACL } from './acl.ts';
import { crcOfBytes, crcOfText, crcOfWord, mix32 } from './crc32.ts';
import { kindOfOwner } from './owner.ts';
import { SessionTable } from './sessions.ts';
import { Slabs } from './slabs.ts';
import type { Txn, TxnBody } from './txn.ts';

/** What happened to a znode, in firing order. `acl` decides who may see it (READ): the list as it was at that moment. */
export type TreeEvent = { readonly type: EventType; readonly path: string; readonly acl: readonly Acl[] };

/** What a reply needs. `slot` serves writeStat until the next apply; in a multi `stat` holds what it was after this operation. */
export type OperationResult = {
  readonly kind: TxnBody['kind'];
  readonly code: ErrorCode;
  readonly path: string;
  readonly slot: number;
  readonly stat: Stat | null;
};
/** `operations` is empty unless kind is multi (all took place) or multiError (none did; each carries its code). */
export type ApplyResult = OperationResult & { readonly operations: readonly OperationResult[] };

/** Told before a znode changes or goes, and after one was made: how a snapshot stays at its zxid. */
export type TreeWalker = { beforeChange(slot: number): void; onCreated(slot: number): void };

export type DataTreeOptions = {
  readonly sessions?: SessionTable;
  readonly mutations?: Mutations;
  /** TTL owners exist only then; otherwise an owner 0xff... is a session id. */
  readonly extendedTypesEnabled?: boolean;
};

export const NO_SLOT = -1;
/** Bytes of writeFields: what the digest covers beside path and data, in the same order. */
export const FIELDS_BYTES = 60;

const ROOT = 0;
// Small enough that an empty tree costs little; the simulator makes thousands.
const CHUNK_SHIFT = 10;
const CHUNK_SLOTS = 1 << CHUNK_SHIFT;
const CHUNK_MASK = CHUNK_SLOTS - 1;
const CVERSION_MAX = 0x7fffffff;
const TWO_TO_32 = 4294967296;

const LONGS = 4;
const CZXID = 0;
const MZXID = 1;
const PZXID = 2;
const OWNER = 3;

const TIMES = 2;
const CTIME = 0;
const MTIME = 1;

const INTS = 13;
const VERSION = 0;
const CVERSION = 1;
const AVERSION = 2;
const ACL_ID = 3;
const PARENT = 4;
/** Where the data is, and how long: -1 null. */
const DATA = 5;
const DATA_LENGTH = 6;
/** Index of the map of children; -1 while there is none. */
const CHILDREN = 7;
const DESCENDANTS = 8;
/** CRC32 of the path; of path and data; of path, data and Stat: each goes on from the one before. */
const PATH_CRC = 9;
const BODY_CRC = 10;
const ZNODE_CRC = 11;
/** 1 once the path to the root is known; 0 while a snapshot is being loaded and the parent is still to come. */
const IS_LINKED = 12;

/** PARENT of a free slot, whose DATA is then the next free one; of the root; of a slot that a loader has reserved. */
const FREE = -2;
const NO_PARENT = -1;
const RESERVED = -3;

// Words of a 64-bit field as this machine stores them.
const LOW = new Uint8Array(new Uint32Array([1]).buffer)[0] === 1 ? 0 : 1;
const HIGH = 1 - LOW;

class Chunk {
  readonly longs = new BigInt64Array(LONGS * CHUNK_SLOTS);
  readonly longWords = new Int32Array(this.longs.buffer);
  readonly times = new Float64Array(TIMES * CHUNK_SLOTS);
  readonly ints = new Int32Array(INTS * CHUNK_SLOTS);
  readonly names: string[] = new Array<string>(CHUNK_SLOTS).fill('');
}

type ChildMap = Map<string, number>;

const NO_OPERATIONS: readonly OperationResult[] = Object.freeze([]);
const NO_NAMES: readonly string[] = Object.freeze([]);

// From this length on V8 makes a slice that keeps the whole path alive; see ownName.
const SLICED_CHARS_MIN = 13;
let nameScratch = Buffer.allocUnsafeSlow(1024);

/** The last component of a path as a string of its own, so that the tree does not keep every path in memory. */
function ownName(path: string, start: number): string {
  const name = path.slice(start);
  if (name.length < SLICED_CHARS_MIN) return name;
  const bytesMax = name.length * 3;
  if (nameScratch.length < bytesMax) nameScratch = Buffer.allocUnsafeSlow(bytesMax);
  const length = nameScratch.write(name, 0, 'utf8');
  // One byte per character: ASCII, and the quicker of two native calls. UTF-16 keeps whatever else a name may hold.
  if (length === name.length) return nameScratch.toString('latin1', 0, length);
  return nameScratch.toString('utf16le', 0, nameScratch.write(name, 0, 'utf16le'));
}

export class DataTree {
  readonly sessions: SessionTable;
  readonly mutations: Mutations;
  readonly extendedTypesEnabled: boolean;
  readonly #chunks: Chunk[] = [];
  readonly #slabs = new Slabs();
  readonly #acls = new AclTable();
  readonly #maps: (ChildMap | null)[] = [];
  readonly #freeMaps: number[] = [];
  readonly #ephemerals = new Map<SessionId, Set<number>>();
  /** Containers and TTL znodes. */
  readonly #expirables = new Set<number>();
  readonly #walkers: TreeWalker[] = [];
  #lastZxid: Zxid = NO_ZXID;
  #slotCount = 0;
  #freeHead = NO_SLOT;
  #znodeCount = 0;
  #linkedCount = 0;
  #dataBytes = 0;
  #pathChars = 0;
  #digestLow = 0;
  #digestHigh = 0;
  #ephemeralCount = 0;
  /** `/zookeeper/config` is written by each server from its own configuration: not part of the digest. */
  #configSlot = NO_SLOT;

  /** The tree of a new ensemble: the root and the reserved subtree. */
  constructor(options: DataTreeOptions = {}) {
    this.sessions = options.sessions ?? new SessionTable();
    this.mutations = options.mutations ?? NO_MUTATIONS;
    this.extendedTypesEnabled = options.extendedTypesEnabled ?? false;
    const root = this.#allocate();
    assert(root === ROOT, 'the root is the first slot');
    this.#fill(root, NO_PARENT, '', null, OPEN_ACL);
    const reserved = this.#allocate();
    this.#fill(reserved, root, 'zookeeper', null, OPEN_ACL);
    this.#fill(this.#allocate(), reserved, 'quota', null, OPEN_ACL);
    const config = this.#allocate();
    this.#fill(config, reserved, 'config', null, READ_ACL);
    // ZooKeeper sets this ACL through its setACL from version -1 on, and stock clients can see that.
    this.#chunk(config).ints[(config & CHUNK_MASK) * INTS + AVERSION] = -1;
  }

  /** A tree without a single znode, to be filled by restore. */
  static blank(lastZxid: Zxid, options: DataTreeOptions = {}): DataTree {
    const tree = new DataTree(options);
    for (const slot of [3, 2, 1, ROOT]) tree.#release(slot);
    tree.#configSlot = NO_SLOT;
    tree.#freeHead = NO_SLOT;
    tree.#slotCount = 0;
    tree.#lastZxid = lastZxid;
    assert(tree.#znodeCount === 0, 'a blank tree has no znode');
    assert(tree.#digestLow === 0 && tree.#digestHigh === 0, 'a blank tree has digest zero');
    return tree;
  }

  // ---- reading -------------------------------------------------------------------------------------------------

  /** The zxid of the last txn applied. */
  get lastZxid(): Zxid {
    return this.#lastZxid;
  }

  /** Znodes, the root included once (ZooKeeper's own count is one higher: it counts the root under two names). */
  get znodeCount(): number {
    return this.#znodeCount;
  }

  get ephemeralCount(): number {
    return this.#ephemeralCount;
  }

  /** Path characters plus data bytes, as ZooKeeper's approximate_data_size counts them. */
  get approximateDataBytes(): number {
    return this.#pathChars + this.#dataBytes;
  }

  /** 64 bits over znodes (ACLs included) and sessions: equal for equal states, independent of how they came about. */
  get digest(): bigint {
    const low = (this.#digestLow + this.sessions.digestLow) >>> 0;
    const high = (this.#digestHigh + this.sessions.digestHigh) >>> 0;
    return (BigInt(high) << 32n) | BigInt(low);
  }

  /** The slot of a znode, or -1. `""` is the root too; any malformed path is simply not there. */
  find(path: string): number {
    return this.#walk(path, path.length);
  }

  /** A view, valid until the next apply; null is a value of its own. */
  dataOf(slot: number): Uint8Array | null {
    const ints = this.#chunk(slot).ints;
    const at = (slot & CHUNK_MASK) * INTS;
    const length = ints[at + DATA_LENGTH] ?? 0;
    if (length < 0) return null;
    return length === 0 ? EMPTY : this.#slabs.view(ints[at + DATA] ?? 0, length);
  }

  aclOf(slot: number): readonly Acl[] {
    return this.#acls.get(this.#int(slot, ACL_ID));
  }

  statOf(slot: number): Stat {
    const { longs, times, ints } = this.#chunk(slot);
    const index = slot & CHUNK_MASK;
    const childCount = this.childCount(slot);
    const length = ints[index * INTS + DATA_LENGTH] ?? 0;
    return {
      czxid: zxidFrom(longs[index * LONGS + CZXID] ?? 0n),
      mzxid: zxidFrom(longs[index * LONGS + MZXID] ?? 0n),
      ctime: times[index * TIMES + CTIME] ?? 0,
      mtime: times[index * TIMES + MTIME] ?? 0,
      version: ints[index * INTS + VERSION] ?? 0,
      cversion: visibleCVersion(ints[index * INTS + CVERSION] ?? 0, childCount),
      aversion: ints[index * INTS + AVERSION] ?? 0,
      ephemeralOwner: this.#visibleOwner(longs[index * LONGS + OWNER] ?? 0n),
      dataLength: Math.max(length, 0),
      numChildren: childCount,
      pzxid: zxidFrom(longs[index * LONGS + PZXID] ?? 0n),
    };
  }

  /** The 68 bytes of Stat, without an object or a bigint on the way. */
  writeStat(slot: number, writer: JuteWriter): void {
    const { longWords, longs, times, ints } = this.#chunk(slot);
    const index = slot & CHUNK_MASK;
    const long = index * LONGS;
    const int = index * INTS;
    const word = long * 2;
    const childCount = this.childCount(slot);
    const length = ints[int + DATA_LENGTH] ?? 0;
    writer.writeInt(longWords[word + CZXID * 2 + HIGH] ?? 0);
    writer.writeInt(longWords[word + CZXID * 2 + LOW] ?? 0);
    writer.writeInt(longWords[word + MZXID * 2 + HIGH] ?? 0);
    writer.writeInt(longWords[word + MZXID * 2 + LOW] ?? 0);
    writer.writeTime(times[index * TIMES + CTIME] ?? 0);
    writer.writeTime(times[index * TIMES + MTIME] ?? 0);
    writer.writeInt(ints[int + VERSION] ?? 0);
    writer.writeInt(visibleCVersion(ints[int + CVERSION] ?? 0, childCount));
    writer.writeInt(ints[int + AVERSION] ?? 0);
    const ownerHigh = longWords[word + OWNER * 2 + HIGH] ?? 0;
    const ownerLow = longWords[word + OWNER * 2 + LOW] ?? 0;
    if (ownerHigh === 0 && ownerLow === 0) {
      writer.writeInt(0);
      writer.writeInt(0);
    } else {
      writer.writeLong(this.#visibleOwner(longs[long + OWNER] ?? 0n));
    }
    writer.writeInt(Math.max(length, 0));
    writer.writeInt(childCount);
    writer.writeInt(longWords[word + PZXID * 2 + HIGH] ?? 0);
    writer.writeInt(longWords[word + PZXID * 2 + LOW] ?? 0);
  }

  /** The data as a jute buffer. */
  writeData(slot: number, writer: JuteWriter): void {
    writer.writeBuffer(this.dataOf(slot));
  }

  childCount(slot: number): number {
    const map = this.#int(slot, CHILDREN);
    return map < 0 ? 0 : this.#map(map).size;
  }

  /** Names, in creation order. */
  children(slot: number): Iterable<string> {
    const map = this.#int(slot, CHILDREN);
    return map < 0 ? NO_NAMES : this.#map(map).keys();
  }

  /** Everything below, the znode itself excluded. Kept with every create and delete, so the answer costs nothing. */
  countDescendants(slot: number): number {
    return this.#int(slot, DESCENDANTS);
  }

  /** As clients see it: the owning session, or 0n. */
  ephemeralOwnerOf(slot: number): bigint {
    return this.#visibleOwner(this.ownerOf(slot));
  }

  /** As stored: a session id, the container mark, a TTL, or 0n. */
  ownerOf(slot: number): bigint {
    return this.#chunk(slot).longs[(slot & CHUNK_MASK) * LONGS + OWNER] ?? 0n;
  }

  versionOf(slot: number): number {
    return this.#int(slot, VERSION);
  }

  /** Children ever created: the sequence counter. */
  storedCVersionOf(slot: number): number {
    return this.#int(slot, CVERSION);
  }

  aversionOf(slot: number): number {
    return this.#int(slot, AVERSION);
  }

  czxidOf(slot: number): Zxid {
    return zxidFrom(this.#chunk(slot).longs[(slot & CHUNK_MASK) * LONGS + CZXID] ?? 0n);
  }

  mzxidOf(slot: number): Zxid {
    return zxidFrom(this.#chunk(slot).longs[(slot & CHUNK_MASK) * LONGS + MZXID] ?? 0n);
  }

  pzxidOf(slot: number): Zxid {
    return zxidFrom(this.#chunk(slot).longs[(slot & CHUNK_MASK) * LONGS + PZXID] ?? 0n);
  }

  mtimeOf(slot: number): number {
    return this.#chunk(slot).times[(slot & CHUNK_MASK) * TIMES + MTIME] ?? 0;
  }

  pathOf(slot: number): string {
    let path = '';
    let at = slot;
    while (at !== ROOT) {
      path = `/${this.nameOf(at)}${path}`;
      at = this.parentOf(at);
      assert(at >= 0, 'every znode hangs below the root', slot);
    }
    return path === '' ? '/' : path;
  }

  nameOf(slot: number): string {
    return this.#chunk(slot).names[slot & CHUNK_MASK] ?? '';
  }

  /** The parent's slot; -1 for the root. */
  parentOf(slot: number): number {
    return this.#int(slot, PARENT);
  }

  /** Paths of the session's ephemerals, in creation order. Not to be interleaved with apply. */
  *ephemeralsOf(sessionId: SessionId): Iterable<string> {
    const slots = this.#ephemerals.get(sessionId);
    if (slots === undefined) return;
    for (const slot of slots) yield this.pathOf(slot);
  }

  /** Sessions that own a znode. */
  ephemeralOwners(): Iterable<SessionId> {
    return this.#ephemerals.keys();
  }

  /** Slots of containers and TTL znodes, in creation order. */
  expirables(): Iterable<number> {
    return this.#expirables;
  }

  /** ACL lists in use and how many znodes use each: for tests and metrics. */
  aclCounts(): Iterable<{ readonly acl: readonly Acl[]; readonly count: number }> {
    return this.#acls.counts();
  }

  /** Slots ever used are 0 .. slotCount - 1. */
  get slotCount(): number {
    return this.#slotCount;
  }

  isLive(slot: number): boolean {
    return slot >= 0 && slot < this.#slotCount && this.#int(slot, PARENT) >= NO_PARENT;
  }

  /** CRC32 of path, data and Stat: ZooKeeper's node digest, the znode's share of `digest` before its ACL is mixed in. */
  crcOf(slot: number): number {
    return this.#int(slot, ZNODE_CRC) >>> 0;
  }

  /** A number that equals another znode's exactly when their ACL lists are equal, as long as both live. */
  aclIdOf(slot: number): number {
    return this.#int(slot, ACL_ID);
  }

  // ---- changing ------------------------------------------------------------------------------------------------

  /** Changes the tree and the sessions by one committed txn and appends what fires, in firing order. A txn that was applied before changes nothing. */
  apply(zxid: Zxid, txn: Txn, events: TreeEvent[]): ApplyResult {
    if (zxid <= this.#lastZxid) return REPEATED;
    const result = this.#applyBody(zxid, txn, txn.body, events);
    // After the whole txn: a multi is never half visible at its zxid.
    this.#lastZxid = zxid;
    return result;
  }

  /** This server's own configuration text, shown at /zookeeper/config. Local: neither replicated nor in the digest. */
  installConfig(data: Uint8Array | null, configVersion: Zxid): void {
    const slot = this.#configSlot;
    assert(slot !== NO_SLOT, 'the reserved subtree is always there');
    for (const walker of this.#walkers) walker.beforeChange(slot);
    this.#writeData(slot, data);
    const { longs, ints } = this.#chunk(slot);
    longs[(slot & CHUNK_MASK) * LONGS + MZXID] = configVersion;
    ints[(slot & CHUNK_MASK) * INTS + VERSION] = -1;
    this.#mix(slot);
  }

  addWalker(walker: TreeWalker): void {
    this.#walkers.push(walker);
  }

  removeWalker(walker: TreeWalker): void {
    const at = this.#walkers.indexOf(walker);
    if (at !== -1) this.#walkers.splice(at, 1);
  }

  #applyBody(zxid: Zxid, txn: Txn, body: TxnBody, events: TreeEvent[]): ApplyResult {
    switch (body.kind) {
      case 'create':
        return this.#applyCreate(zxid, txn.timeMs, body, events);
      case 'delete':
        return this.#applyDelete(zxid, body.path, events);
      case 'setData':
        return this.#applySetData(zxid, txn.timeMs, body, events);
      case 'setACL':
        return this.#applySetAcl(body);
      case 'check':
        return resultOf('check', ErrorCode.ok, body.path, NO_SLOT);
      case 'createSession':
        this.sessions.create(txn.sessionId, body.timeoutMs, body.password);
        return resultOf('createSession', ErrorCode.ok, '', NO_SLOT);
      case 'closeSession':
        return this.#applyCloseSession(zxid, txn.sessionId, body.paths, events);
      case 'multi':
        return this.#applyMulti(zxid, txn, body.operations, events);
      case 'multiError':
        return multiErrorOf(body.codes);
      case 'error':
        return resultOf('error', body.code, '', NO_SLOT);
      default:
        return unreachable(body);
    }
  }

  #applyCreate(zxid: Zxid, timeMs: number, body: TxnBody & { kind: 'create' }, events: TreeEvent[]): ApplyResult {
    const { path } = body;
    const cut = path.lastIndexOf('/');
    const parent = this.#walk(path, cut);
    if (cut < 0 || cut === path.length - 1) return resultOf('create', ErrorCode.badArguments, path, NO_SLOT);
    if (parent === NO_SLOT) return resultOf('create', ErrorCode.noNode, path, NO_SLOT);
    const name = ownName(path, cut + 1);
    this.#beforeChange(parent);
    const { longs, ints } = this.#chunk(parent);
    const index = parent & CHUNK_MASK;
    // Absolute and only upwards, so that applying a prefix of the log again converges.
    if (body.parentCVersion > (ints[index * INTS + CVERSION] ?? 0)) {
      ints[index * INTS + CVERSION] = Math.min(body.parentCVersion, CVERSION_MAX);
    }
    if (zxid > (longs[index * LONGS + PZXID] ?? 0n)) longs[index * LONGS + PZXID] = zxid;
    const existing = this.#childOf(parent, name);
    if (existing !== undefined) {
      this.#mix(parent);
      this.#beforeChange(existing);
      this.#replaceAcl(existing, body.acl);
      this.#mix(existing);
      return resultOf('create', ErrorCode.nodeExists, path, existing);
    }
    this.#mix(parent);
    const slot = this.#allocate();
    const chunk = this.#chunk(slot);
    const own = slot & CHUNK_MASK;
    chunk.longs.fill(zxid, own * LONGS, own * LONGS + OWNER);
    chunk.longs[own * LONGS + OWNER] = body.owner;
    chunk.times[own * TIMES + CTIME] = timeMs;
    chunk.times[own * TIMES + MTIME] = timeMs;
    this.#fill(slot, parent, name, body.data, body.acl);
    for (const walker of this.#walkers) walker.onCreated(slot);
    events.push({ type: EventType.nodeCreated, path, acl: this.aclOf(slot) });
    events.push({ type: EventType.nodeChildrenChanged, path: parentPath(path, cut), acl: this.aclOf(parent) });
    return resultOf('create', ErrorCode.ok, path, slot);
  }

  #applyDelete(zxid: Zxid, path: string, events: TreeEvent[]): ApplyResult {
    const slot = this.find(path);
    if (slot === ROOT) return resultOf('delete', ErrorCode.badArguments, path, NO_SLOT);
    if (slot === NO_SLOT) {
      // A replica that no longer has the child still learns when the parent changed last.
      const parent = this.#walk(path, path.lastIndexOf('/'));
      if (parent !== NO_SLOT) this.#raisePzxid(parent, zxid);
      return resultOf('delete', ErrorCode.noNode, path, NO_SLOT);
    }
    if (this.childCount(slot) > 0) return resultOf('delete', ErrorCode.notEmpty, path, slot);
    this.#remove(zxid, slot, path, events);
    return resultOf('delete', ErrorCode.ok, path, NO_SLOT);
  }

  #applySetData(zxid: Zxid, timeMs: number, body: TxnBody & { kind: 'setData' }, events: TreeEvent[]): ApplyResult {
    const slot = this.find(body.path);
    if (slot === NO_SLOT) return resultOf('setData', ErrorCode.noNode, body.path, NO_SLOT);
    this.#beforeChange(slot);
    this.#writeData(slot, body.data);
    const { longs, times, ints } = this.#chunk(slot);
    const index = slot & CHUNK_MASK;
    ints[index * INTS + VERSION] = body.version;
    longs[index * LONGS + MZXID] = zxid;
    times[index * TIMES + MTIME] = timeMs;
    this.#mix(slot);
    events.push({ type: EventType.nodeDataChanged, path: body.path, acl: this.aclOf(slot) });
    return resultOf('setData', ErrorCode.ok, body.path, slot);
  }

  #applySetAcl(body: TxnBody & { kind: 'setACL' }): ApplyResult {
    const slot = this.find(body.path);
    if (slot === NO_SLOT) return resultOf('setACL', ErrorCode.noNode, body.path, NO_SLOT);
    this.#beforeChange(slot);
    this.#replaceAcl(slot, body.acl);
    this.#chunk(slot).ints[(slot & CHUNK_MASK) * INTS + AVERSION] = body.aversion;
    this.#mix(slot);
    return resultOf('setACL', ErrorCode.ok, body.path, slot);
  }

  #applyCloseSession(zxid: Zxid, sessionId: SessionId, paths: readonly string[], events: TreeEvent[]): ApplyResult {
    for (const path of paths) {
      const slot = this.find(path);
      if (slot === NO_SLOT) {
        const parent = this.#walk(path, path.lastIndexOf('/'));
        if (parent !== NO_SLOT) this.#raisePzxid(parent, zxid);
      } else if (this.#isEphemeralOf(slot, sessionId) && this.childCount(slot) === 0) {
        this.#remove(zxid, slot, path, events);
      }
    }
    // The list is complete when the leader decides; should one be left all the same, it may not outlive its session.
    // Youngest first: a child is younger than its parent. One with others' children stays; nobody can decide that either.
    const left = [...(this.#ephemerals.get(sessionId) ?? [])].reverse();
    for (const slot of left) if (this.childCount(slot) === 0) this.#remove(zxid, slot, this.pathOf(slot), events);
    this.sessions.close(sessionId);
    return resultOf('closeSession', ErrorCode.ok, '', NO_SLOT);
  }

  #applyMulti(zxid: Zxid, txn: Txn, operations: readonly TxnBody[], events: TreeEvent[]): ApplyResult {
    const failedAt = operations.findIndex((operation) => operation.kind === 'error');
    if (failedAt !== -1 && !this.mutations.multiNotAtomic) return multiErrorOf(codesOf(operations, failedAt));
    const results: OperationResult[] = [];
    for (const operation of operations) {
      const { kind, code, path, slot } = this.#applyBody(zxid, txn, operation, events);
      results.push({ kind, code, path, slot, stat: slot === NO_SLOT ? null : this.statOf(slot) });
    }
    if (failedAt !== -1) return multiErrorOf(codesOf(operations, failedAt));
    return { kind: 'multi', code: ErrorCode.ok, path: '', slot: NO_SLOT, stat: null, operations: results };
  }

  #remove(zxid: Zxid, slot: number, path: string, events: TreeEvent[]): void {
    assert(slot !== ROOT, 'the root is never removed');
    assert(this.childCount(slot) === 0, 'only a znode without children is removed', path);
    const parent = this.parentOf(slot);
    const acl = this.aclOf(slot);
    for (const walker of this.#walkers) walker.beforeChange(slot);
    this.#beforeChange(parent);
    this.#release(slot);
    const { longs } = this.#chunk(parent);
    const pzxid = (parent & CHUNK_MASK) * LONGS + PZXID;
    if (zxid > (longs[pzxid] ?? 0n)) longs[pzxid] = zxid;
    this.#mix(parent);
    events.push({ type: EventType.nodeDeleted, path, acl });
    events.push({
      type: EventType.nodeChildrenChanged,
      path: parentPath(path, path.lastIndexOf('/')),
      acl: this.aclOf(parent),
    });
  }

  #raisePzxid(slot: number, zxid: Zxid): void {
    const { longs } = this.#chunk(slot);
    const at = (slot & CHUNK_MASK) * LONGS + PZXID;
    if (zxid <= (longs[at] ?? 0n)) return;
    this.#beforeChange(slot);
    longs[at] = zxid;
    this.#mix(slot);
  }

  // ---- restoring: a snapshot's records in any order -----------------------------------------------------------------

  /** A slot whose znode comes later; it may already be named as a parent. */
  reserve(): number {
    const slot = this.#allocate();
    this.#setInt(slot, PARENT, RESERVED);
    return slot;
  }

  /** Fills a reserved slot. `fields` holds what writeFields wrote, from `at` on. */
  restore(
    slot: number,
    parent: number,
    name: string,
    data: Uint8Array | null,
    acl: readonly Acl[],
    fields: DataView,
    at: number,
  ): void {
    assert(this.#int(slot, PARENT) === RESERVED, 'a slot is restored once');
    assert((slot === ROOT) === (parent === NO_PARENT), 'the root and only the root has no parent');
    const { longs, times, ints } = this.#chunk(slot);
    const index = slot & CHUNK_MASK;
    longs[index * LONGS + CZXID] = fields.getBigInt64(at);
    longs[index * LONGS + MZXID] = fields.getBigInt64(at + 8);
    longs[index * LONGS + PZXID] = fields.getBigInt64(at + 16);
    times[index * TIMES + CTIME] = fields.getInt32(at + 24) * TWO_TO_32 + fields.getUint32(at + 28);
    times[index * TIMES + MTIME] = fields.getInt32(at + 32) * TWO_TO_32 + fields.getUint32(at + 36);
    longs[index * LONGS + OWNER] = fields.getBigInt64(at + 52);
    this.#fill(slot, parent, name, data, acl, false);
    ints[index * INTS + VERSION] = fields.getInt32(at + 40);
    ints[index * INTS + CVERSION] = fields.getInt32(at + 44);
    ints[index * INTS + AVERSION] = fields.getInt32(at + 48);
    if (parent === NO_PARENT || this.#int(parent, IS_LINKED) === 1) this.#linkAll(slot);
  }

  /** Records come in any order; ephemerals of a session are listed in creation order. Those of one multi share a zxid and stay as they came. */
  orderEphemerals(): void {
    for (const [sessionId, slots] of this.#ephemerals) {
      if (slots.size < 2) continue;
      const order = [...slots].sort((a, b) => compareZxids(this.czxidOf(a), this.czxidOf(b)));
      this.#ephemerals.set(sessionId, new Set(order));
    }
  }

  /** True when every restored znode hangs below the root, and no slot is still waiting for its record. */
  get isComplete(): boolean {
    return this.#znodeCount > 0 && this.#linkedCount === this.#slotCount && this.#configSlot !== NO_SLOT;
  }

  /** czxid, mzxid, pzxid, ctime, mtime, version, stored cversion, aversion, stored owner: FIELDS_BYTES bytes. */
  writeFields(slot: number, into: DataView, at: number): void {
    const { longs, times, ints } = this.#chunk(slot);
    const index = slot & CHUNK_MASK;
    const ctime = times[index * TIMES + CTIME] ?? 0;
    const mtime = times[index * TIMES + MTIME] ?? 0;
    into.setBigInt64(at, longs[index * LONGS + CZXID] ?? 0n);
    into.setBigInt64(at + 8, longs[index * LONGS + MZXID] ?? 0n);
    into.setBigInt64(at + 16, longs[index * LONGS + PZXID] ?? 0n);
    into.setInt32(at + 24, Math.floor(ctime / TWO_TO_32));
    into.setInt32(at + 28, ctime);
    into.setInt32(at + 32, Math.floor(mtime / TWO_TO_32));
    into.setInt32(at + 36, mtime);
    into.setInt32(at + 40, ints[index * INTS + VERSION] ?? 0);
    into.setInt32(at + 44, ints[index * INTS + CVERSION] ?? 0);
    into.setInt32(at + 48, ints[index * INTS + AVERSION] ?? 0);
    into.setBigInt64(at + 52, longs[index * LONGS + OWNER] ?? 0n);
  }

  // ---- slots ---------------------------------------------------------------------------------------------------

  #chunk(slot: number): Chunk {
    const chunk = this.#chunks[slot >> CHUNK_SHIFT];
    assert(chunk !== undefined, 'a slot number comes from this tree');
    return chunk;
  }

  #int(slot: number, field: number): number {
    return this.#chunk(slot).ints[(slot & CHUNK_MASK) * INTS + field] ?? 0;
  }

  #setInt(slot: number, field: number, value: number): void {
    this.#chunk(slot).ints[(slot & CHUNK_MASK) * INTS + field] = value;
  }

  #map(index: number): ChildMap {
    const map = this.#maps[index];
    assert(map !== undefined && map !== null, 'a znode with children has their map');
    return map;
  }

  #childOf(slot: number, name: string): number | undefined {
    const map = this.#int(slot, CHILDREN);
    return map < 0 ? undefined : this.#map(map).get(name);
  }

  /** Follows the first `end` characters of `path`. */
  #walk(path: string, end: number): number {
    if (end < 0) return NO_SLOT;
    if (end === 0) return ROOT;
    if (path.charCodeAt(0) !== 0x2f) return NO_SLOT;
    if (end === 1) return ROOT;
    let slot = ROOT;
    let start = 1;
    for (;;) {
      let stop = path.indexOf('/', start);
      if (stop === -1 || stop > end) stop = end;
      const child = this.#childOf(slot, path.slice(start, stop));
      if (child === undefined) return NO_SLOT;
      if (stop === end) return child;
      slot = child;
      start = stop + 1;
    }
  }

  #allocate(): number {
    const slot = this.#freeHead;
    if (slot !== NO_SLOT) {
      assert(this.#int(slot, PARENT) === FREE, 'a free slot is free');
      this.#freeHead = this.#int(slot, DATA);
      this.#setInt(slot, IS_LINKED, 0);
      return slot;
    }
    const fresh = this.#slotCount;
    this.#slotCount += 1;
    if (this.#chunks.length << CHUNK_SHIFT < this.#slotCount) this.#chunks.push(new Chunk());
    this.#setInt(fresh, IS_LINKED, 0);
    this.#setInt(fresh, CHILDREN, -1);
    return fresh;
  }

  /** Makes a znode of an allocated slot whose 64-bit fields and times are set; the versions start at 0. */
  #fill(
    slot: number,
    parent: number,
    name: string,
    data: Uint8Array | null,
    acl: readonly Acl[],
    linkNow = true,
  ): void {
    const { longs, ints, names } = this.#chunk(slot);
    const index = slot & CHUNK_MASK;
    const at = index * INTS;
    // A reserved slot may already have children; any other has none, and says so since it was allocated.
    const children = ints[at + CHILDREN] ?? -1;
    ints.fill(0, at, at + INTS);
    ints[at + PARENT] = parent;
    ints[at + CHILDREN] = children;
    ints[at + ACL_ID] = this.#acls.acquire(acl);
    ints[at + DATA_LENGTH] = data === null ? -1 : data.length;
    ints[at + DATA] = data === null || data.length === 0 ? 0 : this.#slabs.store(data);
    names[index] = name;
    if (data !== null) this.#dataBytes += data.length;
    this.#znodeCount += 1;
    const owner = longs[index * LONGS + OWNER] ?? 0n;
    if (owner !== 0n) this.#enterOwner(slot, owner);
    if (parent !== NO_PARENT) this.#attach(parent, name, slot);
    if (linkNow) this.#link(slot);
  }

  /** The parent is linked: now the path is known, and with it everything that depends on it. */
  #link(slot: number): void {
    const { ints, names } = this.#chunk(slot);
    const at = (slot & CHUNK_MASK) * INTS;
    const parent = ints[at + PARENT] ?? NO_PARENT;
    const name = names[slot & CHUNK_MASK] ?? '';
    ints[at + IS_LINKED] = 1;
    this.#linkedCount += 1;
    if (parent === NO_PARENT) {
      // ZooKeeper counts the root's two names, "" and "/".
      this.#pathChars += 1;
    } else {
      ints[at + PATH_CRC] = crcOfText(crcOfText(this.#int(parent, PATH_CRC), '/'), name);
      let depthChars = 0;
      for (let above = parent; above !== NO_PARENT; above = this.#int(above, PARENT)) {
        const chunk = this.#chunk(above);
        const descendants = (above & CHUNK_MASK) * INTS + DESCENDANTS;
        chunk.ints[descendants] = (chunk.ints[descendants] ?? 0) + 1;
        depthChars += above === ROOT ? 0 : (chunk.names[above & CHUNK_MASK]?.length ?? 0) + 1;
      }
      this.#pathChars += depthChars + name.length + 1;
      if (name === 'config' && this.#isReservedRoot(parent)) this.#configSlot = slot;
    }
    ints[at + BODY_CRC] = crcOfBytes(ints[at + PATH_CRC] ?? 0, this.dataOf(slot) ?? EMPTY);
    this.#mix(slot);
  }

  #isReservedRoot(slot: number): boolean {
    return this.parentOf(slot) === ROOT && this.nameOf(slot) === 'zookeeper';
  }

  /** Links `slot` and everything below it that was restored before it. */
  #linkAll(slot: number): void {
    const waiting = [slot];
    for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
      this.#link(next);
      const map = this.#int(next, CHILDREN);
      if (map >= 0) for (const child of this.#map(map).values()) waiting.push(child);
    }
  }

  #attach(parent: number, name: string, slot: number): void {
    let index = this.#int(parent, CHILDREN);
    if (index < 0) {
      index = this.#freeMaps.pop() ?? this.#maps.length;
      this.#maps[index] = new Map();
      this.#setInt(parent, CHILDREN, index);
    }
    const map = this.#map(index);
    assert(!map.has(name), 'a name is given once per parent', name);
    map.set(name, slot);
  }

  /** Undoes #fill and puts the slot on the free list. */
  #release(slot: number): void {
    const { longs, ints, names } = this.#chunk(slot);
    const index = slot & CHUNK_MASK;
    const at = index * INTS;
    const parent = ints[at + PARENT] ?? NO_PARENT;
    const name = names[index] ?? '';
    assert(parent >= NO_PARENT, 'only a live znode is released');
    this.#unmix(slot);
    let pathChars = 1;
    if (parent !== NO_PARENT) {
      pathChars = name.length + 1;
      for (let above = parent; above !== NO_PARENT; above = this.#int(above, PARENT)) {
        const chunk = this.#chunk(above);
        const descendants = (above & CHUNK_MASK) * INTS + DESCENDANTS;
        chunk.ints[descendants] = (chunk.ints[descendants] ?? 0) - 1;
        pathChars += above === ROOT ? 0 : (chunk.names[above & CHUNK_MASK]?.length ?? 0) + 1;
      }
      this.#detach(parent, name);
    }
    this.#pathChars -= pathChars;
    const length = ints[at + DATA_LENGTH] ?? 0;
    if (length > 0) {
      this.#slabs.free(ints[at + DATA] ?? 0, length);
      this.#dataBytes -= length;
    }
    this.#acls.release(ints[at + ACL_ID] ?? 0);
    const owner = longs[index * LONGS + OWNER] ?? 0n;
    if (owner !== 0n) this.#leaveOwner(slot, owner);
    this.#znodeCount -= 1;
    this.#linkedCount -= 1;
    longs.fill(0n, index * LONGS, (index + 1) * LONGS);
    ints[at + PARENT] = FREE;
    ints[at + DATA] = this.#freeHead;
    names[index] = '';
    this.#freeHead = slot;
  }

  #detach(parent: number, name: string): void {
    const index = this.#int(parent, CHILDREN);
    const map = this.#map(index);
    map.delete(name);
    if (map.size > 0) return;
    this.#maps[index] = null;
    this.#freeMaps.push(index);
    this.#setInt(parent, CHILDREN, -1);
  }

  #writeData(slot: number, data: Uint8Array | null): void {
    const { ints } = this.#chunk(slot);
    const at = (slot & CHUNK_MASK) * INTS;
    const oldLength = ints[at + DATA_LENGTH] ?? 0;
    const reference = ints[at + DATA] ?? 0;
    const length = data === null ? -1 : data.length;
    if (data === null || data.length === 0) {
      if (oldLength > 0) this.#slabs.free(reference, oldLength);
    } else {
      ints[at + DATA] = oldLength > 0 ? this.#slabs.replace(reference, oldLength, data) : this.#slabs.store(data);
    }
    ints[at + DATA_LENGTH] = length;
    this.#dataBytes += Math.max(length, 0) - Math.max(oldLength, 0);
    ints[at + BODY_CRC] = crcOfBytes(ints[at + PATH_CRC] ?? 0, data ?? EMPTY);
  }

  #replaceAcl(slot: number, acl: readonly Acl[]): void {
    const old = this.#int(slot, ACL_ID);
    // Acquire first: an equal list keeps its number.
    this.#setInt(slot, ACL_ID, this.#acls.acquire(acl));
    this.#acls.release(old);
  }

  #visibleOwner(owner: bigint): bigint {
    return kindOfOwner(owner, this.extendedTypesEnabled) === 'ephemeral' ? owner : 0n;
  }

  #isEphemeralOf(slot: number, sessionId: SessionId): boolean {
    return sessionId !== 0n && this.ephemeralOwnerOf(slot) === sessionId;
  }

  #enterOwner(slot: number, owner: bigint): void {
    if (kindOfOwner(owner, this.extendedTypesEnabled) !== 'ephemeral') {
      this.#expirables.add(slot);
      return;
    }
    const sessionId = sessionIdFrom(owner);
    const slots = this.#ephemerals.get(sessionId);
    if (slots === undefined) this.#ephemerals.set(sessionId, new Set([slot]));
    else slots.add(slot);
    this.#ephemeralCount += 1;
  }

  #leaveOwner(slot: number, owner: bigint): void {
    if (this.#expirables.delete(slot)) return;
    const sessionId = sessionIdFrom(owner);
    const slots = this.#ephemerals.get(sessionId);
    assert(slots?.delete(slot) === true, "an ephemeral stands in its session's list");
    if (slots.size === 0) this.#ephemerals.delete(sessionId);
    this.#ephemeralCount -= 1;
  }

  // ---- digest --------------------------------------------------------------------------------------------------

  #beforeChange(slot: number): void {
    for (const walker of this.#walkers) walker.beforeChange(slot);
    this.#unmix(slot);
  }

  /** Takes the znode, as it is, out of the digest; mix puts it back as it then is. */
  #unmix(slot: number): void {
    if (slot === this.#configSlot) return;
    const crc = this.#int(slot, ZNODE_CRC);
    this.#digestLow = (this.#digestLow - crc) | 0;
    this.#digestHigh = (this.#digestHigh - mix32(crc, this.#acls.crcOf(this.#int(slot, ACL_ID)))) | 0;
  }

  #mix(slot: number): void {
    if (slot === this.#configSlot) return;
    const { longWords, times, ints } = this.#chunk(slot);
    const index = slot & CHUNK_MASK;
    const word = index * LONGS * 2;
    const at = index * INTS;
    const ctime = times[index * TIMES + CTIME] ?? 0;
    const mtime = times[index * TIMES + MTIME] ?? 0;
    let crc = ints[at + BODY_CRC] ?? 0;
    crc = crcOfWord(crc, longWords[word + CZXID * 2 + HIGH] ?? 0);
    crc = crcOfWord(crc, longWords[word + CZXID * 2 + LOW] ?? 0);
    crc = crcOfWord(crc, longWords[word + MZXID * 2 + HIGH] ?? 0);
    crc = crcOfWord(crc, longWords[word + MZXID * 2 + LOW] ?? 0);
    crc = crcOfWord(crc, longWords[word + PZXID * 2 + HIGH] ?? 0);
    crc = crcOfWord(crc, longWords[word + PZXID * 2 + LOW] ?? 0);
    crc = crcOfWord(crc, Math.floor(ctime / TWO_TO_32) | 0);
    crc = crcOfWord(crc, ctime | 0);
    crc = crcOfWord(crc, Math.floor(mtime / TWO_TO_32) | 0);
    crc = crcOfWord(crc, mtime | 0);
    crc = crcOfWord(crc, ints[at + VERSION] ?? 0);
    crc = crcOfWord(crc, ints[at + CVERSION] ?? 0);
    crc = crcOfWord(crc, ints[at + AVERSION] ?? 0);
    crc = crcOfWord(crc, longWords[word + OWNER * 2 + HIGH] ?? 0);
    crc = crcOfWord(crc, longWords[word + OWNER * 2 + LOW] ?? 0);
    ints[at + ZNODE_CRC] = crc;
    this.#digestLow = (this.#digestLow + crc) | 0;
    this.#digestHigh = (this.#digestHigh + mix32(crc, this.#acls.crcOf(ints[at + ACL_ID] ?? 0))) | 0;
  }
}

const EMPTY = new Uint8Array(0);

const REPEATED: ApplyResult = Object.freeze({
  kind: 'error',
  code: ErrorCode.ok,
  path: '',
  slot: NO_SLOT,
  stat: null,
  operations: NO_OPERATIONS,
});

function resultOf(kind: TxnBody['kind'], code: ErrorCode, path: string, slot: number): ApplyResult {
  return { kind, code, path, slot, stat: null, operations: NO_OPERATIONS };
}

function multiErrorOf(codes: readonly ErrorCode[]): ApplyResult {
  const operations = codes.map(
    (code): OperationResult => ({ kind: 'error', code, path: '', slot: NO_SLOT, stat: null }),
  );
  return { kind: 'multiError', code: ErrorCode.ok, path: '', slot: NO_SLOT, stat: null, operations };
}

/** ZooKeeper's answer to a failed multi: 0 before the culprit, its code, then runtimeInconsistency. */
function codesOf(operations: readonly TxnBody[], failedAt: number): ErrorCode[] {
  return operations.map((operation, index) => {
    if (index < failedAt) return ErrorCode.ok;
    return index === failedAt && operation.kind === 'error' ? operation.code : ErrorCode.runtimeInconsistency;
  });
}

function compareZxids(first: Zxid, second: Zxid): number {
  if (first === second) return 0;
  return first < second ? -1 : 1;
}

function parentPath(path: string, cut: number): string {
  return cut === 0 ? '/' : path.slice(0, cut);
}

// Creations plus deletions: every child ever created either is still there or was deleted.
function visibleCVersion(stored: number, childCount: number): number {
  return (2 * stored - childCount) | 0;
}
