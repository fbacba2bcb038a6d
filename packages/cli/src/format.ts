// How values look on a terminal and as JSON, and the two streams they go to. Nothing here writes anything.

import type { Stat, WatchedEvent } from '@quorate/client';
import { hex64 } from '@quorate/protocol';

/** Where a command prints; the process's streams, or a test's. */
export type Output = {
  readonly isTerminal: boolean;
  out(text: string | Uint8Array): void;
  err(text: string): void;
};

/** A Stat with zxids and session ids as ZooKeeper prints them, since JSON has no 64-bit numbers. */
export function statRecord(stat: Stat): Record<string, string | number> {
  return {
    czxid: hex64(stat.czxid),
    mzxid: hex64(stat.mzxid),
    pzxid: hex64(stat.pzxid),
    ctime: new Date(stat.ctime).toISOString(),
    mtime: new Date(stat.mtime).toISOString(),
    version: stat.version,
    cversion: stat.cversion,
    aversion: stat.aversion,
    ephemeralOwner: hex64(stat.ephemeralOwner),
    dataLength: stat.dataLength,
    numChildren: stat.numChildren,
  };
}

export function formatRecord(record: Readonly<Record<string, string | number>>): string {
  const width = Math.max(...Object.keys(record).map((key) => key.length));
  return Object.entries(record)
    .map(([key, value]) => `${key.padEnd(width)}  ${value}`)
    .join('\n');
}

/** Data as JSON: text where the bytes are UTF-8, base64 where not; the encoding says which. */
export function dataRecord(data: Buffer | null): {
  readonly data: string | null;
  readonly encoding: 'utf8' | 'base64';
} {
  if (data === null) return { data: null, encoding: 'utf8' };
  const text = data.toString('utf8');
  if (Buffer.from(text, 'utf8').equals(data)) return { data: text, encoding: 'utf8' };
  return { data: data.toString('base64'), encoding: 'base64' };
}

export function eventRecord(event: WatchedEvent): Record<string, string | null> {
  if (event.kind === 'session') return { event: 'session', state: event.state };
  if (event.kind === 'watchRemoved') return { event: event.kind, path: event.path };
  return { event: event.kind, path: event.path, zxid: event.zxid === null ? null : hex64(event.zxid) };
}

export function formatEvent(event: WatchedEvent): string {
  if (event.kind === 'session') return `session ${event.state}`;
  if (event.kind === 'watchRemoved' || event.zxid === null) return `${event.kind} ${event.path}`;
  return `${event.kind} ${event.path} ${hex64(event.zxid)}`;
}

/** Columns as wide as their widest cell, two spaces between them. */
export function formatTable(rows: readonly (readonly string[])[]): string {
  const widths: number[] = [];
  for (const row of rows) {
    for (const [column, cell] of row.entries()) widths[column] = Math.max(widths[column] ?? 0, cell.length);
  }
  return rows
    .map((row) =>
      row
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}
