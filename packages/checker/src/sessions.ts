// What holds for sessions: S2, S3, S4 come out of the replay of the log; S6, S9, S10 are seen on connections; S2 also in replies.

import { ErrorCode } from '@quorate/protocol';
import { type ConnectRecord, type History, hex, operationsOf, type Violation } from './history.ts';
import type { Replay } from './replay.ts';

export type SessionOptions = { readonly timeoutMsMin: number; readonly timeoutMsMax: number };

export function checkSessionRules(history: History, replayed: Replay | null, options: SessionOptions): Violation[] {
  const violations: Violation[] = [];
  const owners = new Map<bigint, string>();
  for (const record of history) {
    if (record.type !== 'connect') continue;
    violations.push(...checkAnswer(record, options));
    if (record.session === 0n || record.requestedSession !== 0n) continue;
    const owner = owners.get(record.session);
    if (owner !== undefined)
      violations.push({
        rule: 'S2',
        detail: `session id ${hex(record.session)} was given to ${owner} and to ${record.client}`,
      });
    owners.set(record.session, record.client);
  }
  if (replayed !== null) violations.push(...checkClosed(history, replayed));
  return violations;
}

function checkAnswer(connect: ConnectRecord, options: SessionOptions): Violation[] {
  const { requestedSession, session, timeoutMs, requestedTimeoutMs } = connect;
  const who = `${connect.client} on server ${connect.server}`;
  if (session === 0n) {
    return requestedSession === 0n ? [{ rule: 'S9', detail: `${who}: a new session was refused` }] : [];
  }
  const violations: Violation[] = [];
  if (requestedSession !== 0n && !connect.isPasswordRight) {
    violations.push({ rule: 'S6', detail: `${who}: a wrong password opened ${hex(session)}` });
  }
  if (requestedSession !== 0n && session !== requestedSession) {
    violations.push({ rule: 'S9', detail: `${who}: asked for ${hex(requestedSession)}, got ${hex(session)}` });
  }
  const expected = Math.min(Math.max(requestedTimeoutMs, options.timeoutMsMin), options.timeoutMsMax);
  if (timeoutMs !== expected) {
    violations.push({
      rule: 'S10',
      detail: `${who}: asked for ${requestedTimeoutMs} ms, got ${timeoutMs}, expected ${expected}`,
    });
  }
  return violations;
}

/** S2: once its closeSession is committed, no request of a session is answered with success, and nobody re-attaches to it. */
function checkClosed(history: History, replayed: Replay): Violation[] {
  const violations: Violation[] = [];
  const closedAt = new Map<bigint, bigint>();
  for (const txn of replayed.txns) if (txn.body.kind === 'closeSession') closedAt.set(txn.session, txn.zxid);
  for (const op of operationsOf(history)) {
    const closed = closedAt.get(op.session);
    if (closed === undefined || op.zxid === null || op.zxid <= closed || op.kind === 'closeSession') continue;
    const isFailedMulti = op.result?.results?.some((result) => result.kind === 'error') ?? false;
    if (op.outcome === 'ok' && op.kind !== 'ping' && !isFailedMulti) {
      violations.push({
        rule: 'S2',
        detail: `${op.kind} of session ${hex(op.session)} succeeded at ${hex(op.zxid)}, closed at ${hex(closed)}`,
      });
    } else if (op.outcome === 'error' && op.code !== ErrorCode.sessionExpired && op.code !== ErrorCode.sessionMoved) {
      violations.push({
        rule: 'S2',
        detail: `${op.kind} of session ${hex(op.session)} was answered ${op.code} after it was closed`,
      });
    }
  }
  return violations;
}
