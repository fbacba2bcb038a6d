// What a connection must be told, and when. The checker keeps the watch table that ZooKeeper's rules give to each connection
// (zookeeper-semantics 4) and compares the events with those that the committed log must have fired, in order:
// W1 (nothing invented), W3 (no reply before an earlier event), W4 (zxid order), W5 (one-shot once), W6/W8 (nothing lost),
// W9 (registration only on success), W10 (persistent: each one), W12, W13, W15. Without a log, what zxids and registrations tell.

import { AddWatchMode, ErrorCode, EventType, WatcherType } from '@quorate/protocol';
import type { EventRecord, History, OpRecord, Violation } from './history.ts';
import { hex, isWrite } from './history.ts';
import type { ReferenceTree, Trigger } from './reference-tree.ts';
import { parentOf } from './reference-tree.ts';
import type { Fired, Replay } from './replay.ts';

export type WatchOptions = {
  /** Events carry their txn's zxid (ZooKeeper 3.9 and Quorate). */
  readonly doEventsCarryZxid: boolean;
};

type Modes = { isStandard: boolean; isPersistent: boolean; isRecursive: boolean };
type Expected = { readonly zxid: bigint; readonly event: number; readonly path: string };
type Frame = { readonly position: number; readonly op: OpRecord | null; readonly event: EventRecord | null };

/** One connection's watches, by ZooKeeper's rules. */
class WatchTable {
  readonly data = new Map<string, Modes>();
  readonly child = new Map<string, Modes>();

  #modes(table: Map<string, Modes>, path: string): Modes {
    let modes = table.get(path);
    if (modes === undefined) {
      modes = { isStandard: false, isPersistent: false, isRecursive: false };
      table.set(path, modes);
    }
    return modes;
  }

  addStandard(table: 'data' | 'child', path: string): void {
    this.#modes(table === 'data' ? this.data : this.child, path).isStandard = true;
  }

  addPersistent(path: string): void {
    this.#modes(this.data, path).isPersistent = true;
    this.#modes(this.child, path).isPersistent = true;
  }

  addRecursive(path: string): void {
    this.#modes(this.data, path).isRecursive = true;
  }

  remove(path: string, type: number): void {
    const data = this.data.get(path);
    const child = this.child.get(path);
    const isAny = type === WatcherType.any;
    if (child !== undefined && (isAny || type === WatcherType.children)) child.isStandard = false;
    if (data !== undefined && (isAny || type === WatcherType.data)) data.isStandard = false;
    if (isAny || type === WatcherType.persistent) {
      if (data !== undefined) data.isPersistent = false;
      if (child !== undefined) child.isPersistent = false;
    }
    if (data !== undefined && (isAny || type === WatcherType.persistentRecursive)) data.isRecursive = false;
  }

  /** The events that one txn's triggers give, in order; one-shot watches that fire are gone. */
  fire(zxid: bigint, triggers: readonly Trigger[]): Expected[] {
    const events: Expected[] = [];
    let deletedPath: string | null = null;
    for (const trigger of triggers) {
      const { table, event, path } = trigger;
      const isHit = table === 'data' ? this.#hitsData(path) : this.#hitsChild(path);
      const isDeletion = event === EventType.nodeDeleted;
      // Both tables know the deletion; who was told by the first is not told again (W12).
      const isRepeated = table === 'child' && isDeletion && deletedPath === path;
      if (table === 'data') deletedPath = isDeletion && isHit ? path : null;
      if (isHit && !isRepeated) events.push({ zxid, event, path });
    }
    return events;
  }

  #hitsData(path: string): boolean {
    const own = this.data.get(path);
    let isHit = own !== undefined && (own.isStandard || own.isPersistent || own.isRecursive);
    if (own !== undefined) own.isStandard = false;
    for (let at = path; at !== '/' && !isHit; ) {
      at = parentOf(at);
      isHit = this.data.get(at)?.isRecursive ?? false;
    }
    return isHit;
  }

  #hitsChild(path: string): boolean {
    const own = this.child.get(path);
    const isHit = own !== undefined && (own.isStandard || own.isPersistent);
    if (own !== undefined) own.isStandard = false;
    return isHit;
  }

  get isEmpty(): boolean {
    return this.data.size === 0 && this.child.size === 0;
  }
}

type Registration = (table: WatchTable) => void;

/** What a successful reply registers; null for everything else. */
function registrationOf(op: OpRecord, tree: ReferenceTree | null): Registration | null {
  const path = op.args.path ?? '';
  const isOk = op.code === 0;
  switch (op.kind) {
    case 'exists':
      return op.args.watch && (isOk || op.code === ErrorCode.noNode)
        ? (table) => table.addStandard('data', path)
        : null;
    case 'getData':
      return op.args.watch && isOk ? (table) => table.addStandard('data', path) : null;
    case 'getChildren':
    case 'getChildren2':
      return op.args.watch && isOk ? (table) => table.addStandard('child', path) : null;
    case 'addWatch':
      if (!isOk) return null;
      return (table) =>
        op.args.mode === AddWatchMode.persistent ? table.addPersistent(path) : table.addRecursive(path);
    case 'removeWatches':
      return isOk ? (table) => table.remove(path, op.args.mode ?? WatcherType.any) : null;
    case 'setWatches':
    case 'setWatches2':
      return isOk ? (table) => reRegister(op, table, tree) : null;
    default:
      return null;
  }
}

function reRegister(op: OpRecord, table: WatchTable, tree: ReferenceTree | null): void {
  const zxid = op.zxid ?? 0n;
  const since = op.args.relativeZxid ?? 0n;
  const at = (path: string) => tree?.at(zxid, path) ?? null;
  for (const path of op.args.dataWatches ?? []) {
    const znode = at(path);
    if (tree === null || (znode !== null && znode.mzxid <= since)) table.addStandard('data', path);
  }
  for (const path of op.args.existWatches ?? []) if (at(path) === null) table.addStandard('data', path);
  for (const path of op.args.childWatches ?? []) {
    const znode = at(path);
    if (tree === null || (znode !== null && znode.pzxid <= since)) table.addStandard('child', path);
  }
  for (const path of op.args.persistentWatches ?? []) table.addPersistent(path);
  for (const path of op.args.recursiveWatches ?? []) table.addRecursive(path);
}

function framesByConnection(history: History): Map<number, Frame[]> {
  const connections = new Map<number, Frame[]>();
  for (const record of history) {
    if (record.type !== 'op' && record.type !== 'event') continue;
    if (record.position < 0) continue;
    const frame: Frame =
      record.type === 'op'
        ? { position: record.position, op: record, event: null }
        : { position: record.position, op: null, event: record };
    const list = connections.get(record.connection);
    if (list === undefined) connections.set(record.connection, [frame]);
    else list.push(frame);
  }
  for (const list of connections.values()) list.sort((a, b) => a.position - b.position);
  return connections;
}

export function checkWatches(history: History, replayed: Replay | null, options: WatchOptions): Violation[] {
  const violations: Violation[] = [];
  for (const [connection, frames] of framesByConnection(history)) {
    if (options.doEventsCarryZxid) violations.push(...checkFrameOrder(connection, frames));
    if (replayed !== null && options.doEventsCarryZxid)
      violations.push(...new ConnectionCheck(connection, replayed).run(frames));
    else violations.push(...checkRegistrations(connection, frames));
  }
  return violations;
}

function describe(event: { readonly event: number; readonly path: string; readonly zxid: bigint }): string {
  return `event ${event.event} ${event.path} of ${hex(event.zxid)}`;
}

/** W3 and W4 by zxids alone: no event after a reply that could reveal it, events in order. */
function checkFrameOrder(connection: number, frames: readonly Frame[]): Violation[] {
  const violations: Violation[] = [];
  let reply = 0n;
  let last = 0n;
  for (const { op, event } of frames) {
    if (op?.zxid !== undefined && op.zxid !== null && op.zxid > reply) reply = op.zxid;
    if (event === null || event.zxid <= 0n) continue;
    if (event.zxid <= reply && !isCatchUp(event, frames)) {
      violations.push({
        rule: 'W3',
        detail: `connection ${connection}: ${describe(event)} came after a reply with ${hex(reply)}`,
      });
    }
    if (event.zxid < last)
      violations.push({
        rule: 'W4',
        detail: `connection ${connection}: ${describe(event)} came after one of ${hex(last)}`,
      });
    last = event.zxid;
  }
  return violations;
}

/** Between the first call of setWatches and the last reply to one, events may speak of the past. */
function isCatchUp(event: EventRecord, frames: readonly Frame[]): boolean {
  return frames.some(
    ({ op }) => op !== null && isSetWatches(op) && op.call <= event.at && op.position > event.position,
  );
}

function isSetWatches(op: OpRecord): boolean {
  return op.kind === 'setWatches' || op.kind === 'setWatches2';
}

/** Without a log: each event must match something registered, one-shot ones once. */
function checkRegistrations(connection: number, frames: readonly Frame[]): Violation[] {
  const violations: Violation[] = [];
  const table = new WatchTable();
  for (const { op, event } of frames) {
    if (op !== null) registrationOf(op, null)?.(table);
    if (event === null || isCatchUp(event, frames)) continue;
    const kind = event.event === EventType.nodeChildrenChanged ? 'child' : 'data';
    const triggers: Trigger[] = [{ table: kind, event: event.event, path: event.path }];
    if (event.event === EventType.nodeDeleted) triggers.push({ table: 'child', event: event.event, path: event.path });
    if (table.fire(event.zxid, triggers).length === 0) {
      violations.push({
        rule: 'W1',
        detail: `connection ${connection}: ${describe(event)} matches no watch (or a used one, W5)`,
      });
    }
  }
  return violations;
}

/** One connection against the committed log. */
class ConnectionCheck {
  readonly #connection: number;
  readonly #tree: ReferenceTree;
  readonly #fired: readonly Fired[];
  readonly #table = new WatchTable();
  readonly #violations: Violation[] = [];
  #expected: Expected[] = [];
  #cursor = 0n;
  #next = 0;
  #catchUp: EventRecord[] = [];

  constructor(connection: number, { tree, fired }: Replay) {
    this.#connection = connection;
    this.#tree = tree;
    this.#fired = fired;
  }

  #report(rule: string, detail: string): void {
    this.#violations.push({ rule, detail: `connection ${this.#connection}: ${detail}` });
  }

  run(frames: readonly Frame[]): readonly Violation[] {
    for (const { op, event } of frames) {
      if (event !== null) {
        if (event.zxid <= 0n || (isCatchUp(event, frames) && this.#table.isEmpty)) this.#catchUp.push(event);
        else this.#onEvent(event);
      }
      if (op !== null) this.#onReply(op);
      // One finding per connection: what follows it is usually its echo.
      if (this.#violations.length > 0) return this.#violations;
    }
    if (this.#catchUp[0] !== undefined) this.#report('W1', `${describe(this.#catchUp[0])} without setWatches`);
    return this.#violations;
  }

  #advance(zxid: bigint): void {
    if (zxid <= this.#cursor) return;
    this.#cursor = zxid;
    for (
      let fired = this.#fired[this.#next];
      fired !== undefined && fired.zxid <= zxid;
      fired = this.#fired[++this.#next]
    ) {
      this.#expected.push(...this.#table.fire(fired.zxid, fired.triggers));
    }
  }

  #onEvent(event: EventRecord): void {
    this.#advance(event.zxid);
    const first = this.#expected.shift();
    if (first !== undefined && first.zxid === event.zxid && first.event === event.event && first.path === event.path)
      return;
    if (first === undefined) {
      this.#report('W1', `${describe(event)} was not due: no watch matches it, or it came before (W5)`);
      return;
    }
    const isLater = this.#expected.some(
      (other) => other.zxid === event.zxid && other.event === event.event && other.path === event.path,
    );
    if (isLater) this.#report('W6', `${describe(event)} came, ${describe(first)} was due before it`);
    else this.#report('W1', `${describe(event)} came, ${describe(first)} was due`);
  }

  #onReply(op: OpRecord): void {
    const zxid = op.zxid ?? 0n;
    if (zxid <= 0n) return;
    const isRead = !isWrite(op.kind);
    if (isRead && zxid < this.#cursor) {
      this.#report(
        'W4',
        `${op.kind} ${op.args.path ?? ''} answers at ${hex(zxid)} after events up to ${hex(this.#cursor)}`,
      );
      return;
    }
    this.#advance(zxid);
    const due = this.#expected.find((event) => event.zxid <= zxid);
    if (due !== undefined) {
      this.#report('W3', `${op.kind} ${op.args.path ?? ''} was answered at ${hex(zxid)} before ${describe(due)}`);
      return;
    }
    if (isSetWatches(op) && op.code === 0) this.#checkCatchUp(op, zxid);
    registrationOf(op, this.#tree)?.(this.#table);
  }

  /** W6 on re-attachment: exactly what the lists ask for; persistent watches may in addition be told what they missed. */
  #checkCatchUp(op: OpRecord, zxid: bigint): void {
    const since = op.args.relativeZxid ?? 0n;
    const due: { event: number; path: string }[] = [];
    for (const path of op.args.dataWatches ?? []) {
      const znode = this.#tree.at(zxid, path);
      if (znode === null) due.push({ event: EventType.nodeDeleted, path });
      else if (znode.mzxid > since) due.push({ event: EventType.nodeDataChanged, path });
    }
    for (const path of op.args.existWatches ?? []) {
      if (this.#tree.at(zxid, path) !== null) due.push({ event: EventType.nodeCreated, path });
    }
    for (const path of op.args.childWatches ?? []) {
      const znode = this.#tree.at(zxid, path);
      if (znode === null) due.push({ event: EventType.nodeDeleted, path });
      else if (znode.pzxid > since) due.push({ event: EventType.nodeChildrenChanged, path });
    }
    const received = this.#catchUp;
    this.#catchUp = [];
    for (const event of due) {
      const isTold = received.some((other) => other.event === event.event && other.path === event.path);
      if (!isTold) this.#report('W6', `setWatches did not tell ${describe({ ...event, zxid })}`);
    }
    for (const event of received) {
      const isDue = due.some((other) => other.event === event.event && other.path === event.path);
      if (!isDue && !this.#isReplayable(event, op, since, zxid))
        this.#report('W6', `setWatches told ${describe(event)}, which is not so`);
    }
  }

  #isReplayable(event: EventRecord, op: OpRecord, since: bigint, until: bigint): boolean {
    const table = new WatchTable();
    for (const path of op.args.persistentWatches ?? []) table.addPersistent(path);
    for (const path of op.args.recursiveWatches ?? []) table.addRecursive(path);
    return this.#fired.some(
      ({ zxid, triggers }) =>
        zxid > since &&
        zxid <= until &&
        table.fire(zxid, triggers).some((missed) => missed.event === event.event && missed.path === event.path),
    );
  }
}
