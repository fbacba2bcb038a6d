// The one door of the checker package: explicit names, no logic.

export type { CheckOptions } from './check.ts';
export { CHECK_OPTIONS_DEFAULT, checkHistory } from './check.ts';
export type {
  ConnectRecord,
  ConnectRequestFacts,
  DisconnectRecord,
  EventRecord,
  History,
  HistoryRecord,
  MultiPart,
  MultiPartResult,
  OpArgs,
  OpRecord,
  OpResult,
  TxnOutcome,
  TxnRecord,
  Violation,
} from './history.ts';
export { fromJsonLines, isWrite, operationsOf, Recorder, toJsonLines, txnsOf } from './history.ts';
export type {
  Interval,
  LinearizabilityReport,
  Model,
  Register,
  RegisterAnswer,
  RegisterOp,
  Verdict,
} from './linearizable.ts';
export { checkIntervals, checkLinearizability, partitionByZnode, registerModel } from './linearizable.ts';
export type { OrderOptions } from './order.ts';
export { checkAgainstLog, checkOrder, checkReads } from './order.ts';
export type { Prediction, Trigger, Znode } from './reference-tree.ts';
export { ReferenceTree, statOf } from './reference-tree.ts';
export type { Fired, Replay } from './replay.ts';
export { Replayer, replay } from './replay.ts';
export type { SessionOptions } from './sessions.ts';
export { checkSessionRules } from './sessions.ts';
export type { WatchOptions } from './watches.ts';
export { checkWatches } from './watches.ts';
