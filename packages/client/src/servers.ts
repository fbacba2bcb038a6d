// Which servers there are and which one is dialled next: connect string, chroot, shuffle, round robin, back-off.
// It opens no session and holds no socket; a HostProvider of the user's own can take its place.

import { ZkError } from './errors.ts';

export type ServerAddress = { readonly host: string; readonly port: number };

export type HostProvider = {
  /** How many servers are known now; the time for one dial is the session timeout divided by this. */
  size(): number;
  /** The server to dial next and how long to wait before. Called once per dial. */
  next(): { readonly server: ServerAddress; readonly delayMs: number };
  /** The server that next() gave last has accepted the session. */
  onConnected(): void;
};

const DEFAULT_PORT = 2181;
/** Within one round nothing waits: another server is probably up. From round to round the wait doubles up to this. */
const BACKOFF_MS_MAX = 1_000;
const BACKOFF_MS_MIN = 50;
/** When a server dies, all its sessions look for another one in the same millisecond: spread them a little. */
const SPREAD_MS = 50;

/** `host:port,[::1]:port/chroot`. The port may be missing (2181); the chroot may be missing ('' then). */
export function parseConnectString(text: string): {
  readonly servers: readonly ServerAddress[];
  readonly chroot: string;
} {
  const slash = text.indexOf('/');
  const list = slash < 0 ? text : text.slice(0, slash);
  const chroot = slash < 0 ? '' : text.slice(slash);
  const servers = list
    .split(',')
    .map((part) => part.trim())
    .filter((part) => part.length > 0)
    .map((part) => parseAddress(part, text));
  if (servers.length === 0) throw new ZkError('badArguments', `no server in the connect string "${text}"`);
  return { servers, chroot: chroot === '/' ? '' : chroot };
}

function parseAddress(part: string, text: string): ServerAddress {
  const match = /^\[([^\]]+)\](?::(.*))?$/.exec(part) ?? /^([^:]+)(?::(.*))?$/.exec(part);
  const host = match?.[1];
  const digits = match?.[2];
  const port = digits === undefined ? DEFAULT_PORT : Number(/^\d{1,5}$/.test(digits) ? digits : Number.NaN);
  if (host === undefined || !(port >= 1 && port <= 65_535)) {
    throw new ZkError('badArguments', `"${part}" in the connect string "${text}" is not host:port`);
  }
  return { host, port };
}

export function formatAddress(server: ServerAddress): string {
  return server.host.includes(':') ? `[${server.host}]:${server.port}` : `${server.host}:${server.port}`;
}

/** Shuffled once, so that clients spread over the servers; then round and round. */
export function roundRobin(servers: readonly ServerAddress[], random: () => number = Math.random): HostProvider {
  const ring = servers.slice();
  for (let i = ring.length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    const [a, b] = [ring[i], ring[j]];
    if (a !== undefined && b !== undefined) [ring[i], ring[j]] = [b, a];
  }
  let position = -1;
  let dialledCount = 0;
  let hasConnected = false;
  return {
    size: () => ring.length,
    next() {
      position = (position + 1) % ring.length;
      const server = ring[position];
      if (server === undefined) throw new ZkError('badArguments', 'there is no server to connect to');
      const round = Math.floor(dialledCount / ring.length);
      const startsRound = dialledCount % ring.length === 0;
      dialledCount++;
      let delayMs = 0;
      if (round > 0 && startsRound) {
        const backoffMs = Math.min(BACKOFF_MS_MAX, BACKOFF_MS_MIN * 2 ** Math.min(round, 10));
        delayMs = backoffMs / 2 + (random() * backoffMs) / 2;
      } else if (hasConnected && startsRound) {
        delayMs = random() * SPREAD_MS;
      }
      return { server, delayMs };
    },
    onConnected() {
      dialledCount = 0;
      hasConnected = true;
    },
  };
}
