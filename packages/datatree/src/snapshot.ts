// The tree and the sessions as bytes, at exactly one zxid, and back. Writing goes on while the walk does: a znode that is
// about to change before the walk has reached it is written first, one that is made meanwhile is left out. The walk costs
// a bounded amount per call; what it must never do is look at the tree's present state as if it were the snapshot's.

import { type Acl, type SessionId, sessionIdFrom, type Zxid, zxidFrom } from '@quorate/protocol';
import { assert } from '@quorate/protocol/assert';
import { DataTree, type DataTreeOptions, FIELDS_BYTES, NO_SLOT, type TreeWalker } from './data-tree.ts';
import { SessionTable } from './sessions.ts';

/** Stands in the header. A reader that does not know it must not guess. */
export const SNAPSHOT_FORMAT = 1;

// stream: records, cut anywhere. record: {length: u32, kind: u8, body of length - 1 bytes}, integers little-endian except
// the 60 bytes of fields, which are those of DataTree.writeFields.
//   header:  {magic: u32, format: u32, zxid: i64, znodes: u32, sessions: u32, slots: u32}    first
//   session: {id: i64, timeoutMs: u32, password: rest}
//   acl:     {number: u32, entries: u32, entry: {perms: i32, scheme: text, id: text}}   before the first znode that uses it
//   znode:   {slot: u32, parent: i32, acl: u32, fields: 60, isAscii: u8, name: text,
//             dataLength: i32, data}                                                    in any order
//   footer:  {znodes: u32, sessions: u32, digest: u64}                                  last
// text: {length: u32, UTF-8}. A parent is named by its slot, so a record costs the same at any depth.
const MAGIC = 0x5351554f;
const HEADER = 1;
const SESSION = 2;
const ACL = 3;
const ZNODE = 4;
const FOOTER = 5;
const HEADER_BYTES = 33;
const FOOTER_BYTES = 21;
const ZNODE_FIXED_BYTES = 5 + 12 + FIELDS_BYTES + 5;
// One znode and its frame may be as long as data may be; nothing in a snapshot is longer.
const RECORD_BYTES_MAX = 0x7fffffff;
// A wild number must not ask for memory without end.
const SLOTS_MAX = 1 << 28;

/** A snapshot that cannot be read: damaged, cut short, or of a format this server does not know. */
export class SnapshotError extends Error {
  readonly detail: unknown;
  constructor(message: string, detail?: unknown) {
    super(message);
    this.name = 'SnapshotError';
    this.detail = detail;
  }
}

function check(condition: boolean, message: string, detail?: unknown): asserts condition {
  if (!condition) throw new SnapshotError(message, detail);
}

/** Growing buffer for records. */
class RecordWriter {
  bytes = Buffer.allocUnsafeSlow(1 << 16);
  view = new DataView(this.bytes.buffer, this.bytes.byteOffset, this.bytes.length);
  position = 0;

  reserve(count: number): number {
    const at = this.position;
    if (at + count > this.bytes.length) {
      const grown = Buffer.allocUnsafeSlow(Math.max(at + count, this.bytes.length + (this.bytes.length >> 1)));
      grown.set(this.bytes.subarray(0, at));
      this.bytes = grown;
      this.view = new DataView(grown.buffer, grown.byteOffset, grown.length);
    }
    this.position = at + count;
    return at;
  }

  u32(value: number): void {
    const at = this.reserve(4);
    this.view.setUint32(at, value, true);
  }

  u64(value: bigint): void {
    const at = this.reserve(8);
    this.view.setBigUint64(at, BigInt.asUintN(64, value), true);
  }

  text(value: string): void {
    const at = this.reserve(4 + value.length * 3);
    const length = this.bytes.write(value, at + 4, 'utf8');
    this.view.setUint32(at, length, true);
    this.position = at + 4 + length;
  }

  begin(kind: number): number {
    const at = this.reserve(5);
    this.bytes[at + 4] = kind;
    return at;
  }

  end(start: number): void {
    this.view.setUint32(start, this.position - start - 4, true);
  }

  take(): Uint8Array {
    const taken = Uint8Array.prototype.slice.call(this.bytes, 0, this.position);
    this.position = 0;
    return taken;
  }
}

/** One snapshot being taken. Drop it with abort, or the tree keeps telling it about every change. */
export class SnapshotWalk implements TreeWalker {
  readonly zxid: Zxid;
  readonly znodeCount: number;
  readonly #tree: DataTree;
  readonly #limit: number;
  /** Per slot: 1 when it is written, or was made after the snapshot's zxid. */
  readonly #isDone: Uint8Array;
  readonly #sessions: readonly {
    readonly id: SessionId;
    readonly agreedTimeoutMs: number;
    readonly password: Uint8Array;
  }[];
  readonly #digest: bigint;
  readonly #out = new RecordWriter();
  /** By list: the tree's lists are shared and immutable, and one that is given up and made anew simply gets a second number. */
  readonly #acls = new Map<readonly Acl[], number>();
  #sessionAt = 0;
  #slotAt = 0;
  #written = 0;
  #phase: 'sessions' | 'znodes' | 'footer' | 'ended' = 'sessions';

  constructor(tree: DataTree) {
    this.#tree = tree;
    this.zxid = tree.lastZxid;
    this.znodeCount = tree.znodeCount;
    this.#limit = tree.slotCount;
    this.#isDone = new Uint8Array(this.#limit);
    this.#sessions = [...tree.sessions.all()];
    this.#digest = tree.digest;
    // Now, not with the first bytes: a change before them already writes a znode.
    this.#writeHeader();
    tree.addWalker(this);
  }

  /** The next bytes, at least `bytesMax` of them unless the end is near; null after the last. One znode is never split over calls. */
  next(bytesMax: number): Uint8Array | null {
    if (this.#phase === 'ended') return null;
    while (this.#out.position < bytesMax && this.#phase === 'sessions') this.#writeSession();
    while (this.#out.position < bytesMax && this.#phase === 'znodes') this.#writeNextZnode();
    if (this.#phase === 'footer') this.#writeFooter();
    return this.#out.take();
  }

  abort(): void {
    this.#phase = 'ended';
    this.#tree.removeWalker(this);
  }

  beforeChange(slot: number): void {
    if (slot >= this.#limit || this.#isDone[slot] === 1) return;
    this.#writeZnode(slot);
  }

  onCreated(slot: number): void {
    if (slot < this.#limit) this.#isDone[slot] = 1;
  }

  #writeHeader(): void {
    const out = this.#out;
    const start = out.begin(HEADER);
    out.u32(MAGIC);
    out.u32(SNAPSHOT_FORMAT);
    out.u64(this.zxid);
    out.u32(this.znodeCount);
    out.u32(this.#sessions.length);
    out.u32(this.#limit);
    out.end(start);
  }

  #writeSession(): void {
    const session = this.#sessions[this.#sessionAt];
    if (session === undefined) {
      this.#phase = 'znodes';
      return;
    }
    this.#sessionAt += 1;
    const out = this.#out;
    const start = out.begin(SESSION);
    out.u64(session.id);
    out.u32(session.agreedTimeoutMs);
    const at = out.reserve(session.password.length);
    out.bytes.set(session.password, at);
    out.end(start);
  }

  #writeNextZnode(): void {
    const slot = this.#slotAt;
    if (slot >= this.#limit) {
      this.#phase = 'footer';
      return;
    }
    this.#slotAt += 1;
    if (this.#isDone[slot] === 1 || !this.#tree.isLive(slot)) return;
    this.#writeZnode(slot);
  }

  #writeZnode(slot: number): void {
    assert(this.#isDone[slot] === 0, 'a znode is written once');
    this.#isDone[slot] = 1;
    this.#written += 1;
    const tree = this.#tree;
    const acl = this.#aclNumber(tree.aclOf(slot));
    const name = tree.nameOf(slot);
    const data = tree.dataOf(slot);
    const out = this.#out;
    const start = out.reserve(ZNODE_FIXED_BYTES);
    out.bytes[start + 4] = ZNODE;
    out.view.setUint32(start + 5, slot, true);
    out.view.setInt32(start + 9, tree.parentOf(slot), true);
    out.view.setUint32(start + 13, acl, true);
    tree.writeFields(slot, out.view, start + 17);
    const nameAt = out.reserve(name.length * 3);
    const nameBytes = out.bytes.write(name, nameAt, 'utf8');
    // As many bytes as characters: ASCII, which reads back twice as fast.
    out.bytes[start + ZNODE_FIXED_BYTES - 5] = nameBytes === name.length ? 1 : 0;
    out.view.setUint32(start + ZNODE_FIXED_BYTES - 4, nameBytes, true);
    out.position = nameAt + nameBytes;
    const dataAt = out.reserve(4 + (data === null ? 0 : data.length));
    out.view.setInt32(dataAt, data === null ? -1 : data.length, true);
    if (data !== null) out.bytes.set(data, dataAt + 4);
    out.end(start);
  }

  #aclNumber(acl: readonly Acl[]): number {
    const known = this.#acls.get(acl);
    if (known !== undefined) return known;
    const number = this.#acls.size;
    this.#acls.set(acl, number);
    const out = this.#out;
    const start = out.begin(ACL);
    out.u32(number);
    out.u32(acl.length);
    for (const { perms, id } of acl) {
      out.u32(perms);
      out.text(id.scheme);
      out.text(id.id);
    }
    out.end(start);
    return number;
  }

  #writeFooter(): void {
    assert(this.#written === this.znodeCount, 'a snapshot holds every znode of its zxid', this.#written);
    const out = this.#out;
    const start = out.begin(FOOTER);
    out.u32(this.znodeCount);
    out.u32(this.#sessions.length);
    out.u64(this.#digest);
    out.end(start);
    this.abort();
  }
}

/** Starts a snapshot of the tree and its sessions as they are now, at `tree.lastZxid`. */
export function beginSnapshot(tree: DataTree): SnapshotWalk {
  return new SnapshotWalk(tree);
}

export type LoadedSnapshot = { readonly tree: DataTree; readonly sessions: SessionTable };

/** Builds a tree from a snapshot's bytes, cut anywhere. Every fault is a SnapshotError; a tree comes out whole or not at all. */
export class SnapshotLoader {
  readonly #options: DataTreeOptions;
  readonly #sessions = new SessionTable();
  readonly #acls: (readonly Acl[])[] = [];
  #tree: DataTree | null = null;
  /** The snapshot's slot numbers -> ours plus one: what was free there takes no room here. 0: not seen yet. */
  #slots = new Int32Array(0);
  #announced = { znodes: 0, sessions: 0 };
  #rest: Buffer = Buffer.alloc(0);
  #restBytes = 0;
  #znodes = 0;
  #isEnded = false;

  constructor(options: Omit<DataTreeOptions, 'sessions'> = {}) {
    this.#options = { ...options, sessions: this.#sessions };
  }

  /** The snapshot's zxid; null until its header has come. */
  get zxid(): Zxid | null {
    return this.#tree?.lastZxid ?? null;
  }

  /** `chunk` is not kept. */
  push(chunk: Uint8Array): void {
    let bytes = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.length);
    if (this.#restBytes > 0) {
      this.#keep(bytes);
      bytes = this.#rest.subarray(0, this.#restBytes);
    }
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    let at = 0;
    while (at + 4 <= bytes.length) {
      const length = view.getUint32(at, true);
      check(length >= 1 && length <= RECORD_BYTES_MAX, 'a snapshot record has a plausible length', length);
      if (at + 4 + length > bytes.length) break;
      this.#read(bytes, view, at + 4, at + 4 + length);
      at += 4 + length;
    }
    const left = bytes.subarray(at);
    if (bytes.buffer === this.#rest.buffer) {
      this.#rest.copyWithin(0, at, this.#restBytes);
      this.#restBytes -= at;
    } else {
      this.#restBytes = 0;
      this.#keep(left);
    }
  }

  finish(): LoadedSnapshot {
    check(this.#isEnded, 'a snapshot ends with its footer');
    const tree = this.#treeOf();
    tree.orderEphemerals();
    return { tree, sessions: this.#sessions };
  }

  #keep(bytes: Uint8Array): void {
    const needed = this.#restBytes + bytes.length;
    if (needed > this.#rest.length) {
      const grown = Buffer.allocUnsafeSlow(needed + (needed >> 1));
      this.#rest.copy(grown, 0, 0, this.#restBytes);
      this.#rest = grown;
    }
    this.#rest.set(bytes, this.#restBytes);
    this.#restBytes = needed;
  }

  #treeOf(): DataTree {
    check(this.#tree !== null, 'a snapshot starts with its header');
    return this.#tree;
  }

  #read(bytes: Buffer, view: DataView, start: number, end: number): void {
    check(!this.#isEnded, 'nothing follows the footer of a snapshot');
    const kind = bytes[start] ?? 0;
    try {
      switch (kind) {
        case HEADER:
          this.#readHeader(view, start + 1, end);
          break;
        case SESSION:
          this.#readSession(bytes, view, start + 1, end);
          break;
        case ACL:
          this.#readAcl(bytes, view, start + 1, end);
          break;
        case ZNODE:
          this.#readZnode(bytes, view, start + 1, end);
          break;
        case FOOTER:
          this.#readFooter(view, start + 1, end);
          break;
        default:
          throw new SnapshotError('a snapshot record has a kind this server knows', kind);
      }
    } catch (error) {
      // The tree asserts what a sound snapshot fulfils, and a DataView refuses what lies outside.
      if (error instanceof SnapshotError) throw error;
      throw new SnapshotError('a snapshot record makes sense', error);
    }
  }

  #readHeader(view: DataView, at: number, end: number): void {
    check(this.#tree === null, 'a snapshot has one header');
    check(end - at === HEADER_BYTES - 5, 'a header has its length');
    check(view.getUint32(at, true) === MAGIC, 'these bytes are a snapshot');
    const format = view.getUint32(at + 4, true);
    check(format === SNAPSHOT_FORMAT, 'a snapshot has a format this server knows', format);
    this.#announced = { znodes: view.getUint32(at + 16, true), sessions: view.getUint32(at + 20, true) };
    const slots = view.getUint32(at + 24, true);
    check(slots >= this.#announced.znodes && slots <= SLOTS_MAX, 'a snapshot has a plausible number of slots', slots);
    this.#slots = new Int32Array(slots);
    const tree = DataTree.blank(zxidFrom(view.getBigInt64(at + 8, true)), this.#options);
    this.#tree = tree;
    // The root is the first slot of every tree, whichever record comes first.
    this.#slotFor(tree, 0);
  }

  #readSession(bytes: Buffer, view: DataView, at: number, end: number): void {
    check(this.#tree !== null, 'a snapshot starts with its header');
    const id = sessionIdFrom(view.getBigInt64(at, true));
    check(!this.#sessions.has(id), 'a session stands in a snapshot once');
    this.#sessions.create(id, view.getUint32(at + 8, true), bytes.subarray(at + 12, end));
  }

  #readAcl(bytes: Buffer, view: DataView, at: number, end: number): void {
    check(view.getUint32(at, true) === this.#acls.length, 'ACLs are numbered in order');
    const count = view.getUint32(at + 4, true);
    const acl: Acl[] = [];
    let next = at + 8;
    const text = (): string => {
      const length = view.getUint32(next, true);
      check(next + 4 + length <= end, 'a text lies within its record');
      next += 4 + length;
      return bytes.toString('utf8', next - length, next);
    };
    for (let index = 0; index < count; index += 1) {
      check(next + 4 <= end, 'an ACL lies within its record');
      const perms = view.getInt32(next, true);
      next += 4;
      const scheme = text();
      acl.push({ perms, id: { scheme, id: text() } });
    }
    this.#acls.push(acl);
  }

  #readZnode(bytes: Buffer, view: DataView, at: number, end: number): void {
    const tree = this.#treeOf();
    check(at + ZNODE_FIXED_BYTES - 5 + 4 <= end, 'a znode has all of its fields');
    const slot = this.#slotFor(tree, view.getUint32(at, true));
    const parent = view.getInt32(at + 4, true);
    const acl = this.#acls[view.getUint32(at + 8, true)];
    check(acl !== undefined, 'an ACL comes before the znode that uses it');
    const fields = at + 12;
    const isAscii = bytes[fields + FIELDS_BYTES] === 1;
    const nameLength = view.getUint32(fields + FIELDS_BYTES + 1, true);
    const nameAt = fields + FIELDS_BYTES + 5;
    const dataAt = nameAt + nameLength + 4;
    check(dataAt <= end, 'a name lies within its record');
    const name = bytes.toString(isAscii ? 'latin1' : 'utf8', nameAt, nameAt + nameLength);
    const dataLength = view.getInt32(dataAt - 4, true);
    check(dataAt + Math.max(dataLength, 0) === end, 'the data fills the rest of its record');
    const data = dataLength < 0 ? null : bytes.subarray(dataAt, end);
    tree.restore(slot, parent < 0 ? NO_SLOT : this.#slotFor(tree, parent), name, data, acl, view, fields);
    this.#znodes += 1;
  }

  #slotFor(tree: DataTree, theirs: number): number {
    check(theirs < this.#slots.length, 'a slot number is one of those announced', theirs);
    const known = this.#slots[theirs] ?? 0;
    if (known !== 0) return known - 1;
    const ours = tree.reserve();
    this.#slots[theirs] = ours + 1;
    return ours;
  }

  #readFooter(view: DataView, at: number, end: number): void {
    const tree = this.#treeOf();
    check(end - at === FOOTER_BYTES - 5, 'a footer has its length');
    check(this.#announced.znodes === this.#znodes, 'a snapshot holds as many znodes as its header says');
    check(this.#announced.sessions === this.#sessions.count, 'a snapshot holds as many sessions as its header says');
    check(view.getUint32(at, true) === this.#znodes, 'a snapshot holds as many znodes as its footer says');
    check(
      view.getUint32(at + 4, true) === this.#sessions.count,
      'a snapshot holds as many sessions as its footer says',
    );
    check(tree.isComplete, 'every znode of a snapshot hangs below its root');
    check(view.getBigUint64(at + 8, true) === tree.digest, 'a snapshot has the digest its footer says');
    this.#isEnded = true;
  }
}
