// The committed log of an ensemble whose servers have stopped, read from their stores, in the checker's words.
// What a majority of the stores holds is committed; stores that contradict each other are a violation, not an exception.
import { join } from 'node:path';
import type { TxnOutcome, TxnRecord, Violation } from '@quorate/checker';
import { decodeTxn, type Txn, type TxnBody } from '@quorate/datatree';
import { hex64, serverIdFrom, type Zxid } from '@quorate/protocol';
import { type LogEntry, openDisk, type RestoredStore } from '@quorate/storage';
import type { EnsembleServer } from './ensemble.ts';

export type CommittedLog = {
  readonly entries: readonly { readonly zxid: Zxid; readonly txn: Txn }[];
  /** It begins with the first txn ever. */
  readonly isWhole: boolean;
  readonly violations: readonly Violation[];
};

export async function committedLog(servers: readonly EnsembleServer[]): Promise<CommittedLog> {
  const violations: Violation[] = [];
  const stores: RestoredStore[] = [];
  for (const server of servers) stores.push(await readStore(server));
  for (const [index, store] of stores.entries()) {
    if (store.classification !== 'clean') {
      violations.push({
        rule: 'store',
        detail: `the store of server ${servers[index]?.id} is ${store.classification}: ${store.reasons.join('; ')}`,
      });
    }
  }
  const holders = new Map<Zxid, number>();
  const byZxid = new Map<Zxid, LogEntry>();
  for (const store of stores) {
    for (const entry of store.entries) {
      holders.set(entry.zxid, (holders.get(entry.zxid) ?? 0) + 1);
      const known = byZxid.get(entry.zxid);
      if (known === undefined) byZxid.set(entry.zxid, entry);
      else if (known.prev !== entry.prev || Buffer.compare(known.txn, entry.txn) !== 0) {
        violations.push({ rule: 'Agreement', detail: `two servers hold different txns as ${hex64(entry.zxid)}` });
      }
    }
  }
  const majority = Math.floor(stores.length / 2) + 1;
  let last: Zxid | null = null;
  for (const [zxid, count] of holders) if (count >= majority && (last === null || zxid > last)) last = zxid;
  const entries: { readonly zxid: Zxid; readonly txn: Txn }[] = [];
  let at = last === null ? undefined : byZxid.get(last);
  let isWhole = false;
  while (at !== undefined) {
    entries.push({ zxid: at.zxid, txn: decodeTxn(at.txn) });
    isWhole = at.prev === 0n;
    at = byZxid.get(at.prev);
  }
  entries.reverse();
  const committed = new Set(entries.map(({ zxid }) => zxid));
  for (const [index, store] of stores.entries()) {
    for (const { zxid } of store.entries) {
      if (last !== null && zxid <= last && !committed.has(zxid) && zxid >= (entries[0]?.zxid ?? zxid)) {
        const id = servers[index]?.id;
        violations.push({ rule: 'Agreement', detail: `server ${id} holds ${hex64(zxid)}, which was never committed` });
      }
    }
  }
  return { entries, isWhole, violations };
}

/** Opens a stopped server's store, reads all of it, and closes it. */
export async function readStore(server: EnsembleServer): Promise<RestoredStore> {
  const { disk, restored } = await openDisk(join(server.dataDirectory, 'store'), {
    serverId: serverIdFrom(server.id),
    windowCount: Number.MAX_SAFE_INTEGER,
    windowBytes: Number.MAX_SAFE_INTEGER,
    ballastBytes: 0,
  });
  await new Promise<void>((done, fail) => disk.close((error) => (error === null ? done() : fail(error))));
  return restored;
}

export function txnRecord(zxid: Zxid, txn: Txn): TxnRecord {
  return { type: 'txn', zxid, session: txn.sessionId, xid: txn.cxid, timeMs: txn.timeMs, body: outcomeOf(txn.body) };
}

function text(data: Uint8Array | null): string | null {
  return data === null ? null : Buffer.from(data).toString('latin1');
}

function outcomeOf(body: TxnBody): TxnOutcome {
  switch (body.kind) {
    case 'create':
      return { kind: 'create', path: body.path, data: text(body.data), owner: body.owner };
    case 'setData':
      return { kind: 'setData', path: body.path, data: text(body.data), version: body.version };
    case 'setACL':
      return { kind: 'setACL', path: body.path, version: body.aversion };
    case 'createSession':
      return { kind: 'createSession', timeoutMs: body.timeoutMs };
    case 'multi':
      return { kind: 'multi', operations: body.operations.map(outcomeOf) };
    default:
      return body;
  }
}
