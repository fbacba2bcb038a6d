// L3: the committed log, replayed in zxid order through the reference tree. Every txn must be what its request had to give there,
// and every reply what the client was told. The outcome is also the yardstick for reads (R1) and for watches.

import type { Stat } from '@quorate/protocol';
import {
  type History,
  hex,
  isWrite,
  type OpRecord,
  type OpResult,
  operationsOf,
  type TxnOutcome,
  type TxnRecord,
  txnsOf,
  type Violation,
} from './history.ts';
import { type Prediction, ReferenceTree, type Trigger } from './reference-tree.ts';

export type Fired = { readonly zxid: bigint; readonly triggers: readonly Trigger[] };

export type Replay = {
  readonly tree: ReferenceTree;
  /** What each txn fired, in zxid order; only txns that fired something. */
  readonly fired: readonly Fired[];
  readonly txns: readonly TxnRecord[];
  readonly violations: readonly Violation[];
};

type Key = string;

function keyOf(session: bigint, xid: number): Key {
  return `${session}/${xid}`;
}

export function replay(history: History): Replay {
  const replayer = new Replayer();
  const operations = new Map<Key, OpRecord>();
  for (const op of operationsOf(history)) if (isWrite(op.kind)) operations.set(keyOf(op.session, op.xid), op);
  const txns = txnsOf(history);
  for (const txn of txns) replayer.apply(txn, operations.get(keyOf(txn.session, txn.xid)));
  return { tree: replayer.tree, fired: replayer.fired, txns, violations: replayer.violations };
}

/** The same, one txn after the other, for a caller that follows a log as it grows. */
export class Replayer {
  readonly tree = new ReferenceTree();
  readonly fired: Fired[] = [];
  readonly violations: Violation[] = [];
  readonly #executed = new Map<Key, bigint>();

  apply(txn: TxnRecord, op: OpRecord | undefined): void {
    const triggers = this.#triggersOf(txn, op);
    if (triggers.length > 0) this.fired.push({ zxid: txn.zxid, triggers });
  }

  #report(rule: string, detail: string): void {
    this.violations.push({ rule, detail });
  }

  #triggersOf(txn: TxnRecord, op: OpRecord | undefined): readonly Trigger[] {
    const { body, zxid, session } = txn;
    if (body.kind === 'createSession') {
      if (this.tree.wasEverOpened(session))
        this.#report('S2', `${hex(zxid)} creates session ${hex(session)} a second time`);
      this.tree.openSession(session);
      return [];
    }
    if (body.kind === 'closeSession') return this.#close(txn, body.paths);
    if (session === 0n) return this.tree.internal(zxid, txn.timeMs, body);
    if (op === undefined) {
      this.#report('L5', `${hex(zxid)} (session ${hex(session)}, xid ${txn.xid}, ${body.kind}) has no cause`);
      return [];
    }
    const key = keyOf(session, txn.xid);
    const before = this.#executed.get(key);
    if (before !== undefined) {
      this.#report('L5', `session ${hex(session)} xid ${txn.xid} was executed twice: ${hex(before)} and ${hex(zxid)}`);
      return [];
    }
    this.#executed.set(key, zxid);
    if (!this.tree.isOpen(session) && body.kind !== 'error' && body.kind !== 'multiError') {
      this.#report('S2', `${hex(zxid)} changes the tree for session ${hex(session)}, which is not open`);
    }
    const prediction = this.tree.request(zxid, txn.timeMs, session, op.kind, op.args);
    const mismatch = compareOutcome(prediction, body);
    if (mismatch !== null) this.#report('L3', `${hex(zxid)} ${op.kind} ${op.args.path ?? ''}: ${mismatch}`);
    this.#compareReply(txn, op, prediction);
    return prediction.triggers;
  }

  #close(txn: TxnRecord, paths: readonly string[]): readonly Trigger[] {
    const expected = this.tree.ephemeralsOf(txn.session).sort();
    const listed = [...paths].sort();
    if (expected.join('\n') !== listed.join('\n')) {
      this.#report(
        'S3',
        `${hex(txn.zxid)} closes session ${hex(txn.session)} with [${listed.join(' ')}], its ephemerals are [${expected.join(' ')}]`,
      );
    }
    // Closed by its client and by expiry at the same time: the second one finds nothing to do.
    if (!this.tree.isOpen(txn.session) && paths.length > 0)
      this.#report('S2', `${hex(txn.zxid)} closes session ${hex(txn.session)}, which is not open`);
    return this.tree.closeSession(txn.zxid, txn.session, paths);
  }

  #compareReply(txn: TxnRecord, op: OpRecord, prediction: Prediction): void {
    if (op.outcome === 'unknown') return;
    if (op.zxid !== txn.zxid)
      this.#report(
        'L4',
        `${op.kind} of xid ${op.xid} was answered with zxid ${hex(op.zxid ?? 0n)}, it is ${hex(txn.zxid)}`,
      );
    if (op.code !== prediction.code)
      this.#report(
        'L3',
        `${hex(txn.zxid)} ${op.kind} ${op.args.path ?? ''} was answered with ${op.code}, expected ${prediction.code}`,
      );
    else if (op.code === 0) {
      const difference = compareResults(prediction.result, op.result);
      if (difference !== null)
        this.#report('L3', `${hex(txn.zxid)} ${op.kind} ${op.args.path ?? ''}: reply differs in ${difference}`);
    }
  }
}

/** null when the txn says the same as the prediction. */
function compareOutcome(prediction: Prediction, body: TxnOutcome): string | null {
  const failedParts = prediction.result?.results?.some((result) => result.kind === 'error') ?? false;
  if (body.kind === 'error')
    return prediction.code === body.code ? null : `decided ${body.code}, expected ${prediction.code}`;
  if (body.kind === 'multiError') {
    if (prediction.code !== 0)
      return prediction.code === body.codes.at(-1) ? null : `a failed multi, expected ${prediction.code}`;
    const expected = failedParts ? (prediction.result?.results ?? []).map((result) => result.code ?? 0) : [];
    return expected.join(' ') === body.codes.join(' ')
      ? null
      : `decided codes ${body.codes.join(' ')}, expected ${expected.join(' ')}`;
  }
  if (prediction.code !== 0) return `succeeded, expected error ${prediction.code}`;
  if (failedParts) return 'succeeded, expected a failed multi';
  return null;
}

export function compareResults(expected: OpResult | null, actual: OpResult | null): string | null {
  if (expected?.path !== undefined && actual?.path !== expected.path)
    return `path (${actual?.path}, expected ${expected.path})`;
  if (expected?.stat !== undefined) {
    const field = compareStats(expected.stat, actual?.stat);
    if (field !== null) return field;
  }
  const results = expected?.results;
  if (results === undefined) return null;
  const theirs = actual?.results ?? [];
  if (theirs.length !== results.length) return `number of results (${theirs.length}, expected ${results.length})`;
  for (const [index, result] of results.entries()) {
    const their = theirs[index];
    if ((result.code ?? 0) !== (their?.code ?? 0))
      return `result ${index}: code ${their?.code}, expected ${result.code}`;
    if (result.path !== undefined && their?.path !== result.path) return `result ${index}: path ${their?.path}`;
    const field = result.stat === undefined ? null : compareStats(result.stat, their?.stat);
    if (field !== null) return `result ${index}: ${field}`;
  }
  return null;
}

/** null when equal, else the first field that differs. */
export function compareStats(expected: Stat, actual: Stat | undefined): string | null {
  if (actual === undefined) return 'stat is missing';
  const fields: readonly (keyof Stat)[] = [
    'czxid',
    'mzxid',
    'pzxid',
    'ctime',
    'mtime',
    'version',
    'cversion',
    'aversion',
    'ephemeralOwner',
    'dataLength',
    'numChildren',
  ];
  for (const field of fields) {
    if (expected[field] !== actual[field]) return `stat.${field} (${actual[field]}, expected ${expected[field]})`;
  }
  return null;
}
