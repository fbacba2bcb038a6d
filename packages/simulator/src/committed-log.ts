// The committed txns in the words of the checkers: what the reference model is fed with.

import type { TxnOutcome, TxnRecord } from '@quorate/checker';
import { decodeTxn, type TxnBody } from '@quorate/datatree';
import { unreachable } from '@quorate/protocol';

/** One character per byte, as histories want it. */
export function textOf(bytes: Uint8Array | null): string | null {
  if (bytes === null) return null;
  let text = '';
  for (const byte of bytes) text += String.fromCharCode(byte);
  return text;
}

/** null for Zab's own entries, which only take their place in the order. */
export function txnRecordOf(zxid: bigint, bytes: Uint8Array): TxnRecord | null {
  if (bytes.length === 0) return null;
  const txn = decodeTxn(bytes);
  return { type: 'txn', zxid, session: txn.sessionId, xid: txn.cxid, timeMs: txn.timeMs, body: outcomeOf(txn.body) };
}

function outcomeOf(body: TxnBody): TxnOutcome {
  switch (body.kind) {
    case 'create':
      return { kind: 'create', path: body.path, data: textOf(body.data), owner: body.owner };
    case 'delete':
    case 'check':
      return { kind: body.kind, path: body.path };
    case 'setData':
      return { kind: 'setData', path: body.path, data: textOf(body.data), version: body.version };
    case 'setACL':
      return { kind: 'setACL', path: body.path, version: body.aversion };
    case 'createSession':
      return { kind: 'createSession', timeoutMs: body.timeoutMs };
    case 'closeSession':
      return { kind: 'closeSession', paths: body.paths };
    case 'multi':
      return { kind: 'multi', operations: body.operations.map(outcomeOf) };
    case 'multiError':
      return { kind: 'multiError', codes: body.codes };
    case 'error':
      return { kind: 'error', code: body.code };
    default:
      return unreachable(body);
  }
}
