// `quorate status`: what each server says of itself (srvr), and what the ensemble says of its members (/zookeeper/config).
// It asks and prints; a server that does not answer is a line, not an error.

import { formatAddress, parseConnectString, type ServerAddress } from '@quorate/client';
import { hex64 } from '@quorate/protocol';
import { formatTable, type Output } from './format.ts';
import { type ServerStatus, serverStatus } from './four-letter-words.ts';
import { type Target, UnreachableError, withClient } from './open.ts';

type Member = {
  readonly id: number;
  readonly role: string;
  readonly text: string;
  readonly client: ServerAddress | null;
};
type Line = { readonly address: string; readonly status: ServerStatus | string };

const PER_SERVER_MS_MAX = 3_000;

export async function showStatus(target: Target, isJson: boolean, output: Output): Promise<number> {
  const { servers } = parseConnectString(target.servers);
  const timeoutMs = Math.min(PER_SERVER_MS_MAX, target.timeoutMs);
  const lines = await Promise.all(servers.map((server) => ask(server, timeoutMs)));
  const isServed = lines.some(({ status }) => typeof status !== 'string');
  const members = isServed ? await readMembers(target, servers) : [];
  // Members that nobody named, where the configuration says how clients reach them.
  const named = new Set(lines.map(({ address }) => address));
  const others = members.flatMap(({ client }) => (client === null || named.has(formatAddress(client)) ? [] : [client]));
  lines.push(...(await Promise.all(others.map((server) => ask(server, timeoutMs)))));

  const servingCount = lines.filter(({ status }) => typeof status !== 'string').length;
  if (isJson) {
    output.out(
      `${JSON.stringify({ servers: lines.map(jsonOf), members: members.map(({ id, role, text }) => ({ id, role, text })) })}\n`,
    );
  } else {
    output.out(`${formatTable([HEADINGS, ...lines.map(rowOf)])}\n`);
    if (members.length > 0) {
      output.out('\n');
      output.out(`${formatTable(members.map(({ id, role, text }) => [`server ${id}`, role, text]))}\n`);
    }
    output.out(`\n${summary(lines, servingCount)}\n`);
    for (const { address, status } of lines) if (typeof status === 'string') output.out(`${address}: ${status}\n`);
  }
  if (servingCount === 0) throw new UnreachableError(`none of ${lines.length} servers serves`);
  return servingCount === lines.length ? 0 : 1;
}

const HEADINGS = ['SERVER', 'MODE', 'ZXID', 'ZNODES', 'CONNECTIONS', 'OUTSTANDING', 'LATENCY MS', 'VERSION'];

async function ask(server: ServerAddress, timeoutMs: number): Promise<Line> {
  return { address: formatAddress(server), status: await serverStatus(server, timeoutMs) };
}

function rowOf({ address, status }: Line): string[] {
  if (typeof status === 'string') return [address, 'none'];
  const { mode, zxid, znodeCount, connectionCount, outstandingCount, latencyMs, version } = status;
  const [short = ''] = version.split(/[,-]/);
  return [address, mode, hex64(zxid), `${znodeCount}`, `${connectionCount}`, `${outstandingCount}`, latencyMs, short];
}

function jsonOf({ address, status }: Line): Record<string, unknown> {
  if (typeof status === 'string') return { address, error: status };
  return { address, ...status, zxid: hex64(status.zxid) };
}

function summary(lines: readonly Line[], servingCount: number): string {
  const leader = lines.find(({ status }) => typeof status !== 'string' && status.mode === 'leader');
  const parts = [`${servingCount} of ${lines.length} servers serve`];
  if (leader !== undefined && typeof leader.status !== 'string') {
    parts.push(`${leader.address} leads`, `epoch ${leader.status.zxid >> 32n}`);
  }
  return parts.join(', ');
}

/** The members as the ensemble knows them. It may be unreadable (no quorum, an ACL): then there is nothing to show. */
async function readMembers(target: Target, servers: readonly ServerAddress[]): Promise<Member[]> {
  const withoutChroot = servers.map(formatAddress).join(',');
  try {
    return await withClient(
      { ...target, servers: withoutChroot },
      async (client) => parseMembers((await client.get('/zookeeper/config')).data?.toString() ?? ''),
      { canBeReadOnly: true },
    );
  } catch {
    return [];
  }
}

/** Lines such as `server.1=10.0.0.1:2888:3888:participant;0.0.0.0:2181`. */
export function parseMembers(text: string): Member[] {
  const members: Member[] = [];
  for (const line of text.split('\n')) {
    const match = /^server\.(\d+)=(.+)$/.exec(line.trim());
    if (match === null) continue;
    const [peer = '', client] = (match[2] ?? '').split(';');
    const host = /^\[([^\]]+)\]|^([^:]+)/.exec(peer);
    members.push({
      id: Number(match[1]),
      role: peer.includes(':observer') ? 'observer' : 'participant',
      text: match[2] ?? '',
      client: clientAddress(client, host?.[1] ?? host?.[2]),
    });
  }
  return members;
}

/** `port`, `0.0.0.0:port` or `host:port`; a wildcard means the host of the peer address. */
function clientAddress(text: string | undefined, peerHost: string | undefined): ServerAddress | null {
  const match = /^(?:(.*):)?(\d+)$/.exec(text?.trim() ?? '');
  if (match === null) return null;
  const host = (match[1] ?? '').replace(/^\[|\]$/g, '');
  const isWildcard = host === '' || host === '0.0.0.0' || host === '::' || host === '0:0:0:0:0:0:0:0';
  const effective = isWildcard ? peerHost : host;
  return effective === undefined ? null : { host: effective, port: Number(match[2]) };
}
