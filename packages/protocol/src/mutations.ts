// Deliberate faults, switched on one at a time by the simulator to prove that its checkers see them
// (reliability programme, mutants M01...). Production passes NO_MUTATIONS; a test asserts that it is all false.

export type Mutations = {
  /** M01: a follower acks a proposal before its log write is durable. */
  readonly ackBeforeDurable: boolean;
  /** M02: the leader counts its own ack before its log write is durable. */
  readonly leaderCountsItselfEarly: boolean;
  /** M03: commit with one ack less than a quorum. */
  readonly commitBelowQuorum: boolean;
  /** M06: currentEpoch becomes durable in a batch before the synchronised history. */
  readonly epochBeforeHistory: boolean;
  /** M07: NEWLEADER is acked before the synchronised history is durable. */
  readonly newLeaderAckEarly: boolean;
  /** M09: votes compare server ids before zxids and ignore epochs. */
  readonly voteIgnoresEpoch: boolean;
  /** M11: TRUNC also removes the record it should keep last. */
  readonly truncRemovesOneTooMany: boolean;
  /** M12: TRUNC keeps one record too many. */
  readonly truncKeepsOneTooMany: boolean;
  /** M17: a disk completion of an earlier role is taken for one of the present role. */
  readonly acceptStaleCompletion: boolean;
  /** M18: watches fire when a txn is logged instead of when it is committed. */
  readonly watchFiresBeforeCommit: boolean;
  /** M19: the reply is queued before the watch events of the same zxid. */
  readonly replyBeforeWatchEvent: boolean;
  /** M33: a multi whose later operation fails leaves its earlier operations applied. */
  readonly multiNotAtomic: boolean;
};

export const NO_MUTATIONS: Mutations = Object.freeze({
  ackBeforeDurable: false,
  leaderCountsItselfEarly: false,
  commitBelowQuorum: false,
  epochBeforeHistory: false,
  newLeaderAckEarly: false,
  voteIgnoresEpoch: false,
  truncRemovesOneTooMany: false,
  truncKeepsOneTooMany: false,
  acceptStaleCompletion: false,
  watchFiresBeforeCommit: false,
  replyBeforeWatchEvent: false,
  multiNotAtomic: false,
});
