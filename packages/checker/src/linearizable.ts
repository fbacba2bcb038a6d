// Linearizability by Wing and Gong's search with Lowe's memoisation: it trusts no zxid, only calls, returns and values.
// Histories are partitioned by znode (P-compositionality). An operation without an answer may take place at any time after its call, or never.
// The search is bounded; running out of steps is 'undecided' and never counts as correct.

import { ErrorCode } from '@quorate/protocol';
import { type History, type OpRecord, operationsOf, type Violation } from './history.ts';

export type Interval<Op> = { readonly call: number; readonly ret: number; readonly op: Op };
export type Model<State, Op> = {
  readonly initial: State;
  /** The state after `op`, or null when its answer cannot be so in this state. */
  step(state: State, op: Op): State | null;
  key(state: State): string;
};
export type Verdict = 'linearizable' | 'illegal' | 'undecided';

type Node<Op> = {
  readonly index: number;
  readonly op: Op;
  readonly isCall: boolean;
  readonly isUnknown: boolean;
  match: Node<Op> | null;
  previous: Node<Op> | null;
  next: Node<Op> | null;
};

function link<Op>(intervals: readonly Interval<Op>[]): Node<Op> {
  const points: { time: number; node: Node<Op> }[] = [];
  for (const [index, { call, ret, op }] of intervals.entries()) {
    const isUnknown = ret === Number.POSITIVE_INFINITY;
    const begin: Node<Op> = { index, op, isCall: true, isUnknown, match: null, previous: null, next: null };
    const end: Node<Op> = { index, op, isCall: false, isUnknown, match: null, previous: null, next: null };
    begin.match = end;
    points.push({ time: call, node: begin }, { time: ret, node: end });
  }
  // At equal times calls come first: what touches may overlap.
  points.sort((a, b) => (a.time === b.time ? Number(b.node.isCall) - Number(a.node.isCall) : a.time - b.time));
  const first = points[0]?.node;
  if (first === undefined) throw new RangeError('an empty history has no first operation');
  const head: Node<Op> = {
    index: -1,
    op: first.op,
    isCall: false,
    isUnknown: false,
    match: null,
    previous: null,
    next: null,
  };
  let tail = head;
  for (const { node } of points) {
    tail.next = node;
    node.previous = tail;
    tail = node;
  }
  return head;
}

function unlink<Op>(node: Node<Op>): void {
  if (node.previous !== null) node.previous.next = node.next;
  if (node.next !== null) node.next.previous = node.previous;
}

function relink<Op>(node: Node<Op>): void {
  if (node.previous !== null) node.previous.next = node;
  if (node.next !== null) node.next.previous = node;
}

export function checkIntervals<State, Op>(
  model: Model<State, Op>,
  intervals: readonly Interval<Op>[],
  stepsMax: number,
): Verdict {
  if (intervals.length === 0) return 'linearizable';
  const head = link(intervals);
  const taken = new Uint16Array(Math.ceil(intervals.length / 16));
  const seen = new Set<string>();
  const stack: { readonly node: Node<Op>; readonly state: State }[] = [];
  let state = model.initial;
  let entry = head.next;
  for (let steps = 0; entry !== null; steps++) {
    if (steps > stepsMax) return 'undecided';
    if (entry.isCall) {
      const after = model.step(state, entry.op);
      if (after !== null) {
        const word = entry.index >> 4;
        const bit = 1 << (entry.index & 15);
        taken[word] = (taken[word] ?? 0) | bit;
        const key = String.fromCharCode(...taken) + model.key(after);
        if (!seen.has(key)) {
          seen.add(key);
          stack.push({ node: entry, state });
          state = after;
          unlink(entry);
          if (entry.match !== null) unlink(entry.match);
          entry = head.next;
          continue;
        }
        taken[word] = (taken[word] ?? 0) & ~bit;
      }
      entry = entry.next;
      continue;
    }
    // Only operations without an answer are left: none of them needs to have taken place.
    if (entry.isUnknown) return 'linearizable';
    const undone = stack.pop();
    if (undone === undefined) return 'illegal';
    state = undone.state;
    const word = undone.node.index >> 4;
    taken[word] = (taken[word] ?? 0) & ~(1 << (undone.node.index & 15));
    if (undone.node.match !== null) relink(undone.node.match);
    relink(undone.node);
    entry = undone.node.next;
  }
  return 'linearizable';
}

/** One znode as a register. answer null: not known. */
export type RegisterOp = {
  readonly kind: 'create' | 'setData' | 'delete' | 'read';
  readonly data: string | null;
  readonly version: number;
  readonly answer: RegisterAnswer | null;
};
export type RegisterAnswer = { readonly code: number; readonly data?: string | null; readonly version?: number };
export type Register = { readonly exists: boolean; readonly data: string | null; readonly version: number };

export const registerModel: Model<Register, RegisterOp> = {
  initial: { exists: false, data: null, version: 0 },
  key: (state) => (state.exists ? `${state.version}=${state.data}` : '-'),
  step(state, op) {
    const [code, after] = execute(state, op);
    if (op.answer === null) return after;
    if (op.answer.code !== code) return null;
    if (code !== 0) return state;
    if (op.answer.version !== undefined && op.answer.version !== after.version) return null;
    return op.answer.data !== undefined && op.answer.data !== after.data ? null : after;
  },
};

function execute(state: Register, op: RegisterOp): readonly [number, Register] {
  if (op.kind === 'create') {
    return state.exists ? [ErrorCode.nodeExists, state] : [0, { exists: true, data: op.data, version: 0 }];
  }
  if (!state.exists) return [ErrorCode.noNode, state];
  if (op.kind === 'read') return [0, state];
  if (op.version !== -1 && op.version !== state.version) return [ErrorCode.badVersion, state];
  if (op.kind === 'delete') return [0, { exists: false, data: null, version: 0 }];
  return [0, { exists: true, data: op.data, version: state.version + 1 }];
}

const REGISTER_KINDS: Readonly<Record<string, RegisterOp['kind']>> = {
  create: 'create',
  create2: 'create',
  setData: 'setData',
  delete: 'delete',
  getData: 'read',
};

/** Operations on single znodes, grouped; a read counts from the call of the sync before it, and not at all without one. */
export function partitionByZnode(history: History): Map<string, Interval<RegisterOp>[]> {
  const operations = operationsOf(history).sort((a, b) => a.connection - b.connection || a.id - b.id);
  const excluded = new Set<string>();
  const groups = new Map<string, Interval<RegisterOp>[]>();
  let sync: OpRecord | null = null;
  for (const op of operations) {
    for (const part of op.args.operations ?? []) if (part.path !== undefined) excluded.add(part.path);
    const before: OpRecord | null = sync;
    sync = op.kind === 'sync' && op.outcome === 'ok' ? op : null;
    const kind = REGISTER_KINDS[op.kind];
    const path = op.args.path;
    if (kind === undefined || path === undefined) continue;
    // Ephemerals leave without an operation on them, sequential names are not asked for by name.
    if ((op.args.flags ?? 0) !== 0) excluded.add(path).add(op.result?.path ?? path);
    if (kind === 'read' && (before === null || before.connection !== op.connection || op.outcome === 'unknown'))
      continue;
    const call = kind === 'read' && before !== null ? before.call : op.call;
    const interval = { call, ret: op.ret, op: registerOp(kind, op) };
    const group = groups.get(path);
    if (group === undefined) groups.set(path, [interval]);
    else group.push(interval);
  }
  for (const path of excluded) groups.delete(path);
  return groups;
}

function registerOp(kind: RegisterOp['kind'], op: OpRecord): RegisterOp {
  const version = op.args.version ?? -1;
  const data = op.args.data ?? null;
  if (op.outcome === 'unknown') return { kind, data, version, answer: null };
  const stat = op.result?.stat;
  return {
    kind,
    data,
    version,
    answer: {
      code: op.code,
      ...(kind === 'read' && op.code === 0 ? { data: op.result?.data ?? null } : {}),
      ...(stat === undefined ? {} : { version: stat.version }),
    },
  };
}

export type LinearizabilityReport = {
  readonly violations: readonly Violation[];
  readonly checkedZnodes: number;
  readonly undecidedZnodes: readonly string[];
};

export function checkLinearizability(history: History, stepsMax: number): LinearizabilityReport {
  const violations: Violation[] = [];
  const undecided: string[] = [];
  const groups = partitionByZnode(history);
  for (const [path, intervals] of groups) {
    // A refused write of an expired or moved session took no place in this znode's history.
    const relevant = intervals.filter(({ op }) => op.answer === null || isDecidedByZnode(op.kind, op.answer.code));
    const verdict = checkIntervals(registerModel, relevant, stepsMax);
    if (verdict === 'undecided') undecided.push(path);
    if (verdict === 'illegal') {
      const window = smallestIllegal(relevant, stepsMax);
      violations.push({
        rule: 'Linearizability',
        detail: `${path}: no order explains ${window.map(describeInterval).join('; ')}`,
      });
    }
  }
  return { violations, checkedZnodes: groups.size, undecidedZnodes: undecided };
}

function isDecidedByZnode(kind: RegisterOp['kind'], code: number): boolean {
  // A create that finds no parent says nothing about the znode itself.
  if (kind === 'create') return code === 0 || code === ErrorCode.nodeExists;
  return code === 0 || code === ErrorCode.noNode || code === ErrorCode.badVersion;
}

/** Cuts the history short after the first return that cannot be explained. */
function smallestIllegal(
  intervals: readonly Interval<RegisterOp>[],
  stepsMax: number,
): readonly Interval<RegisterOp>[] {
  const ends = intervals
    .map(({ ret }) => ret)
    .filter((ret) => ret !== Number.POSITIVE_INFINITY)
    .sort((a, b) => a - b);
  let low = 0;
  let high = ends.length - 1;
  const cutAt = (index: number): Interval<RegisterOp>[] => {
    const end = ends[index] ?? Number.POSITIVE_INFINITY;
    return intervals
      .filter(({ call }) => call <= end)
      .map((one) =>
        one.ret <= end ? one : { call: one.call, ret: Number.POSITIVE_INFINITY, op: { ...one.op, answer: null } },
      );
  };
  while (low < high) {
    const middle = (low + high) >> 1;
    if (checkIntervals(registerModel, cutAt(middle), stepsMax) === 'illegal') high = middle;
    else low = middle + 1;
  }
  return cutAt(low).slice(-12);
}

function describeInterval({ call, ret, op }: Interval<RegisterOp>): string {
  const answer =
    op.answer === null ? '?' : `${op.answer.code}${op.answer.data === undefined ? '' : ` ${op.answer.data}`}`;
  return `[${call}..${ret}] ${op.kind} ${op.data ?? ''} v${op.version} -> ${answer}`;
}
