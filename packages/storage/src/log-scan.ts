// Opening: reads the whole log of one generation, checks every record, and stops at the first that does not fit.
// LevelDB drops damaged pieces from the middle of a log and opens without an error (F2); the chain of `prev` shows it.
// Nothing is changed here.

import { hex64, makeZxid, type Zxid } from '@quorate/protocol/zxid';
import type { LogEntry } from './disk.ts';
import { LogIndex } from './log-index.ts';
import { decodeLogKey, decodeRecord, LOG_END, logKey, recordBytes, type StoreState } from './log-record.ts';
import { DATABASE_ENCODING, type LogDatabase } from './txn-log.ts';

export type ScanLimits = {
  /** Records at or below it are loaded only as far as the window reaches. */
  readonly snapshot: Zxid;
  readonly windowCount: number;
  readonly windowBytes: number;
};

export type LogScan = {
  readonly index: LogIndex;
  /** The zxid just before the first entry. */
  readonly base: Zxid;
  readonly entries: readonly LogEntry[];
  /** What is wrong with the log, if anything: all before it is good. */
  readonly fault: string | null;
  /** Keys of this generation at and behind the fault. */
  readonly junk: readonly Uint8Array[];
};

const SLICE_RECORDS = 1000;
const READ_AHEAD_BYTES = 1024 * 1024;
const COMPACT_AFTER = 4096;
const LAST_ZXID = makeZxid(0xffffffff, 0xffffffff);

export async function scanLog(db: LogDatabase, state: StoreState, limits: ScanLimits): Promise<LogScan> {
  const index = new LogIndex(state.base);
  const window = new EntryWindow(state.base, limits);
  const junk: Uint8Array[] = [];
  let fault: string | null = null;
  const iterator = db.iterator({
    ...DATABASE_ENCODING,
    gt: logKey(state.generation, state.base),
    lte: logKey(state.generation, LAST_ZXID),
    highWaterMarkBytes: READ_AHEAD_BYTES,
    fillCache: false,
  });
  try {
    for (;;) {
      const slice = await iterator.nextv(SLICE_RECORDS);
      if (slice.length === 0) break;
      for (const [key, value] of slice) {
        const zxid = decodeLogKey(key, state.generation);
        const record = zxid === null ? null : decodeRecord(key, value);
        if (fault === null) fault = faultOf(zxid, record, index.tail);
        if (fault !== null || zxid === null || record === null) {
          junk.push(key);
          continue;
        }
        index.push(zxid, recordBytes(record.txn));
        window.push({ zxid, prev: record.prev, txn: record.txn });
      }
    }
  } finally {
    await iterator.close();
  }
  const later = await db
    .keys({ ...DATABASE_ENCODING, gt: logKey(state.generation, LAST_ZXID), lt: LOG_END, limit: 1 })
    .all();
  if (later.length > 0) fault ??= 'there are records of a later generation than the state knows';
  return { index, base: window.base, entries: window.entries(), fault, junk };
}

function faultOf(zxid: Zxid | null, record: { readonly prev: Zxid } | null, tail: Zxid): string | null {
  if (zxid === null) return `behind ${hex64(tail)} there is a key that no log has`;
  if (record === null) return `the record at ${hex64(zxid)} is damaged`;
  if (record.prev !== tail) return `records are missing between ${hex64(tail)} and ${hex64(zxid)}`;
  return null;
}

/** All entries above the snapshot, and below it the last ones that both limits allow. */
class EntryWindow {
  readonly #limits: ScanLimits;
  #entries: LogEntry[] = [];
  #start = 0;
  #belowBytes = 0;
  #base: Zxid;

  constructor(base: Zxid, limits: ScanLimits) {
    this.#base = base;
    this.#limits = limits;
  }

  get base(): Zxid {
    return this.#base;
  }

  push(entry: LogEntry): void {
    this.#entries.push(entry);
    if (entry.zxid > this.#limits.snapshot) return;
    this.#belowBytes += entry.txn.byteLength;
    while (
      this.#entries.length - this.#start > this.#limits.windowCount ||
      this.#belowBytes > this.#limits.windowBytes
    ) {
      const dropped = this.#entries[this.#start];
      if (dropped === undefined) break;
      this.#start++;
      this.#belowBytes -= dropped.txn.byteLength;
      this.#base = dropped.zxid;
    }
    if (this.#start < COMPACT_AFTER) return;
    this.#entries = this.#entries.slice(this.#start);
    this.#start = 0;
  }

  entries(): readonly LogEntry[] {
    return this.#entries.slice(this.#start);
  }
}
