// The package's one door: the machine and the three unions it speaks.

export type {
  Entry,
  Epochs,
  PersistEffect,
  RestoredState,
  Role,
  StoreKind,
  VoteMessage,
  VoteState,
  ZabConfig,
  ZabEffect,
  ZabInput,
  ZabMessage,
  ZabStatus,
} from './messages.ts';
export { Zab } from './zab.ts';
