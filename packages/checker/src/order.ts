// The zxid-order checks. Replies carry zxids, so the system claims an order; these rules test that claim.
// L: acknowledged writes are neither lost nor doubled nor reordered. R: reads are neither stale nor from another history.
// With a committed log the checks are exact; without one they use what acknowledged writes tell.

import { ErrorCode } from '@quorate/protocol';
import { type History, hex, isWrite, type OpRecord, operationsOf, type TxnRecord, type Violation } from './history.ts';
import { statOf } from './reference-tree.ts';
import { compareStats, type Replay } from './replay.ts';

export type OrderOptions = {
  /** `sync` is a quorum barrier: R5 holds. */
  readonly isSyncQuorum: boolean;
  /** (session, xid) names a request: true for our clients, not for kazoo, which starts over on each connection. */
  readonly hasUniqueXids: boolean;
};

function describe(op: OpRecord): string {
  return `${op.client} xid ${op.xid} ${op.kind} ${op.args.path ?? ''} (zxid ${op.zxid === null ? '-' : hex(op.zxid)})`;
}

export function checkOrder(history: History, options: OrderOptions): Violation[] {
  const operations = operationsOf(history);
  return [
    ...checkRealTime(operations),
    ...checkUnique(operations),
    ...checkSessions(operations),
    ...checkValues(operations),
    ...(options.isSyncQuorum ? checkSync(operations) : []),
  ];
}

function acknowledgedWrites(operations: readonly OpRecord[]): OpRecord[] {
  return operations.filter((op) => isWrite(op.kind) && op.outcome !== 'unknown' && op.zxid !== null && op.zxid > 0n);
}

/** Calls `visit` for each `later` op with the highest zxid among writes that had returned before it was called. */
function sweepRealTime(
  writes: readonly OpRecord[],
  later: readonly OpRecord[],
  visit: (op: OpRecord, floor: OpRecord) => void,
): void {
  const byReturn = [...writes].sort((a, b) => a.ret - b.ret);
  let next = 0;
  let floor: OpRecord | null = null;
  for (const op of [...later].sort((a, b) => a.call - b.call)) {
    for (let write = byReturn[next]; write !== undefined && write.ret < op.call; write = byReturn[++next]) {
      if (floor === null || (write.zxid ?? 0n) > (floor.zxid ?? 0n)) floor = write;
    }
    if (floor !== null) visit(op, floor);
  }
}

/** L1: what was called after a write had returned comes after it. */
function checkRealTime(operations: readonly OpRecord[]): Violation[] {
  const violations: Violation[] = [];
  const writes = acknowledgedWrites(operations);
  sweepRealTime(writes, writes, (op, floor) => {
    if ((op.zxid ?? 0n) <= (floor.zxid ?? 0n))
      violations.push({ rule: 'L1', detail: `${describe(op)} began after ${describe(floor)} had returned` });
  });
  return violations;
}

/** L2: a zxid belongs to one write. */
function checkUnique(operations: readonly OpRecord[]): Violation[] {
  const violations: Violation[] = [];
  const owners = new Map<bigint, OpRecord>();
  for (const op of acknowledgedWrites(operations)) {
    const other = owners.get(op.zxid ?? 0n);
    if (other !== undefined)
      violations.push({ rule: 'L2', detail: `${describe(op)} and ${describe(other)} share a zxid` });
    owners.set(op.zxid ?? 0n, op);
  }
  return violations;
}

/** Answered outside of the line: a ping must not wait for a leader, an auth is settled at once. */
function isOutOfLine(kind: string): boolean {
  return kind === 'ping' || kind === 'auth' || kind === 'sasl';
}

/** R2, R3, R4: within a session replies come in the order of the requests and their zxids never go back, on whatever server. */
function checkSessions(operations: readonly OpRecord[]): Violation[] {
  const violations: Violation[] = [];
  const bySession = new Map<bigint, OpRecord[]>();
  for (const op of operations) {
    if (op.outcome === 'unknown') continue;
    const list = bySession.get(op.session);
    if (list === undefined) bySession.set(op.session, [op]);
    else list.push(op);
  }
  for (const list of bySession.values()) {
    list.sort((a, b) => a.connection - b.connection || a.position - b.position);
    let highest: OpRecord | null = null;
    let previous: OpRecord | null = null;
    for (const op of list) {
      if (!isOutOfLine(op.kind)) {
        if (previous !== null && previous.connection === op.connection && op.id < previous.id) {
          violations.push({ rule: 'R4', detail: `${describe(op)} was answered after ${describe(previous)}` });
        }
        previous = op;
      }
      if (op.zxid === null || op.zxid <= 0n) continue;
      if (highest !== null && op.zxid < (highest.zxid ?? 0n)) {
        const rule = isWrite(highest.kind) && !isWrite(op.kind) ? 'R3' : 'R2';
        violations.push({ rule, detail: `${describe(op)} follows ${describe(highest)}` });
      }
      if (highest === null || op.zxid > (highest.zxid ?? 0n)) highest = op;
    }
  }
  return violations;
}

type KnownWrite = { readonly zxid: bigint; readonly op: OpRecord };

/** R1 as far as acknowledged writes tell: a value is that of the write its mzxid names, and no later write is missing. */
function checkValues(operations: readonly OpRecord[]): Violation[] {
  const violations: Violation[] = [];
  const byPath = new Map<string, KnownWrite[]>();
  for (const op of acknowledgedWrites(operations)) {
    if (op.outcome !== 'ok' || op.kind === 'multi' || op.kind === 'setACL' || op.kind === 'closeSession') continue;
    const path = op.result?.path ?? op.args.path;
    if (path === undefined) continue;
    const list = byPath.get(path) ?? [];
    list.push({ zxid: op.zxid ?? 0n, op });
    byPath.set(path, list);
  }
  for (const list of byPath.values()) list.sort((a, b) => (a.zxid < b.zxid ? -1 : 1));
  for (const read of operations) {
    if (read.kind !== 'getData' || read.outcome !== 'ok') continue;
    const stat = read.result?.stat;
    const zxid = read.zxid;
    if (stat === undefined || zxid === null) continue;
    if (stat.mzxid > zxid)
      violations.push({
        rule: 'R1',
        detail: `${describe(read)} shows a znode of ${hex(stat.mzxid)}, after its own zxid`,
      });
    for (const write of byPath.get(read.args.path ?? '') ?? []) {
      if (write.zxid > zxid) break;
      if (write.zxid > stat.mzxid) {
        violations.push({
          rule: 'R1',
          detail: `${describe(read)} shows ${hex(stat.mzxid)}, stale after ${describe(write.op)}`,
        });
      } else if (write.zxid === stat.mzxid && (write.op.args.data ?? null) !== (read.result?.data ?? null)) {
        violations.push({ rule: 'R1', detail: `${describe(read)} shows other data than ${describe(write.op)} wrote` });
      }
    }
  }
  return violations;
}

/** R5: whoever reads after sync sees every write that had returned before the sync was called. */
function checkSync(operations: readonly OpRecord[]): Violation[] {
  const violations: Violation[] = [];
  const syncs = operations.filter((op) => op.kind === 'sync' && op.outcome === 'ok');
  sweepRealTime(acknowledgedWrites(operations), syncs, (sync, floor) => {
    if ((sync.zxid ?? 0n) < (floor.zxid ?? 0n))
      violations.push({ rule: 'R5', detail: `${describe(sync)} misses ${describe(floor)}` });
  });
  return violations;
}

/** L4, L6: every acknowledged write is in the committed log; one without an answer took place after its call, or never. */
export function checkAgainstLog(history: History, txns: readonly TxnRecord[], options: OrderOptions): Violation[] {
  const violations: Violation[] = [];
  const operations = operationsOf(history);
  const byZxid = new Map<bigint, TxnRecord>();
  const byCause = new Map<string, TxnRecord>();
  for (const [index, txn] of txns.entries()) {
    const before = txns[index - 1];
    if (before !== undefined && before.zxid >= txn.zxid)
      violations.push({ rule: 'L2', detail: `${hex(txn.zxid)} stands twice in the log` });
    byZxid.set(txn.zxid, txn);
    byCause.set(`${txn.session}/${txn.xid}`, txn);
  }
  const writes = acknowledgedWrites(operations);
  for (const op of writes) {
    const txn = byZxid.get(op.zxid ?? 0n);
    const isClose = op.kind === 'closeSession' && txn?.body.kind === 'closeSession';
    if (txn === undefined) violations.push({ rule: 'L4', detail: `${describe(op)} was acknowledged and is lost` });
    else if (txn.session !== op.session || (txn.xid !== op.xid && !isClose)) {
      violations.push({
        rule: 'L4',
        detail: `${describe(op)} was acknowledged, its zxid belongs to session ${hex(txn.session)} xid ${txn.xid}`,
      });
    }
  }
  if (!options.hasUniqueXids) return violations;
  const unknown = operations.filter((op) => op.outcome === 'unknown' && isWrite(op.kind));
  sweepRealTime(writes, unknown, (op, floor) => {
    const txn = byCause.get(`${op.session}/${op.xid}`);
    if (txn !== undefined && txn.zxid <= (floor.zxid ?? 0n)) {
      violations.push({
        rule: 'L6',
        detail: `${describe(op)} took place as ${hex(txn.zxid)}, before ${describe(floor)} which returned before its call`,
      });
    }
  });
  return violations;
}

/** R1 exactly: each read equals the state at the zxid of its reply. */
export function checkReads(history: History, replayed: Replay): Violation[] {
  const violations: Violation[] = [];
  for (const read of operationsOf(history)) {
    if (read.outcome === 'unknown' || read.zxid === null || read.zxid <= 0n) continue;
    const difference = compareRead(read, read.zxid, replayed);
    if (difference !== null) violations.push({ rule: 'R1', detail: `${describe(read)}: ${difference}` });
  }
  return violations;
}

function compareRead(read: OpRecord, zxid: bigint, { tree }: Replay): string | null {
  const path = read.args.path ?? '';
  switch (read.kind) {
    case 'exists':
    case 'getData':
    case 'getChildren':
    case 'getChildren2': {
      const znode = tree.at(zxid, path);
      if (znode === null)
        return read.code === ErrorCode.noNode ? null : `answered ${read.code}, the znode does not exist`;
      if (read.code !== 0) return `answered ${read.code}, the znode exists`;
      if (read.kind === 'getData' && (read.result?.data ?? null) !== znode.data)
        return `data ${read.result?.data}, expected ${znode.data}`;
      if (read.kind.startsWith('getChildren')) {
        const seen = [...(read.result?.children ?? [])].sort().join(' ');
        const expected = [...znode.children].sort().join(' ');
        if (seen !== expected) return `children [${seen}], expected [${expected}]`;
      }
      return read.kind === 'getChildren' ? null : compareStats(statOf(znode), read.result?.stat);
    }
    default:
      return null;
  }
}
