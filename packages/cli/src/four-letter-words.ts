// Asks a server by ZooKeeper's four-letter words, and reads what `srvr` answers. It needs no session, so it also reaches
// a server that serves nobody.

import { connect } from 'node:net';
import { formatAddress, type ServerAddress } from '@quorate/client';

const ANSWER_BYTES_MAX = 1024 * 1024;

/** The whole answer, or an Error that says why there is none. */
export function askServer(server: ServerAddress, word: string, timeoutMs: number): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: server.host, port: server.port });
    const chunks: Buffer[] = [];
    let bytes = 0;
    const timer = setTimeout(
      () => socket.destroy(new Error(`${formatAddress(server)} did not answer within ${timeoutMs} ms`)),
      timeoutMs,
    );
    socket.on('data', (chunk) => {
      bytes += chunk.length;
      if (bytes > ANSWER_BYTES_MAX) socket.destroy(new Error(`${formatAddress(server)} answers without end`));
      else chunks.push(chunk);
    });
    socket.on('error', (error) => {
      clearTimeout(timer);
      reject(error);
    });
    socket.on('close', () => {
      clearTimeout(timer);
      if (chunks.length > 0) resolve(Buffer.concat(chunks).toString());
      else reject(new Error(`${formatAddress(server)} closed the connection without an answer`));
    });
    socket.write(word);
  });
}

export type ServerStatus = {
  readonly version: string;
  /** standalone, leader, follower, observer or read-only. */
  readonly mode: string;
  readonly zxid: bigint;
  readonly connectionCount: number;
  readonly outstandingCount: number;
  readonly znodeCount: number;
  /** min/avg/max, as printed. */
  readonly latencyMs: string;
};

/** Reads an answer to `srvr`; null when the server says that it serves nobody, or says something else. */
export function parseServerStatus(answer: string): ServerStatus | null {
  const fields = new Map<string, string>();
  for (const line of answer.split('\n')) {
    const colon = line.indexOf(':');
    if (colon > 0) fields.set(line.slice(0, colon).trim(), line.slice(colon + 1).trim());
  }
  const mode = fields.get('Mode');
  const zxid = /^0x([0-9a-f]{1,16})$/i.exec(fields.get('Zxid') ?? '');
  if (mode === undefined || zxid === null) return null;
  const count = (name: string): number => Number(fields.get(name) ?? Number.NaN);
  return {
    version: fields.get('Zookeeper version') ?? '',
    mode,
    zxid: BigInt(`0x${zxid[1]}`),
    connectionCount: count('Connections'),
    outstandingCount: count('Outstanding'),
    znodeCount: count('Node count'),
    latencyMs: fields.get('Latency min/avg/max') ?? '',
  };
}

/** The status, or one clause that says why there is none. Never rejects. */
export async function serverStatus(server: ServerAddress, timeoutMs: number): Promise<ServerStatus | string> {
  try {
    const answer = await askServer(server, 'srvr', timeoutMs);
    return parseServerStatus(answer) ?? (answer.trim().split('\n')[0] || 'an empty answer');
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}
