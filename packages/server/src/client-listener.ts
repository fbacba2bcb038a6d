// The client port: accepts, keeps the limits on connections, ends idle ones, and answers four-letter words.
// One sweep a second serves all idle limits: no timer per connection.

import { createServer, type Server, type Socket } from 'node:net';
import { hex64 } from '@quorate/protocol/zxid';
import { ClientConnection, type ClientHandler, plainAddress } from './client-connection.ts';
import type { ClientSession } from './client-session.ts';
import { isFourLetterWord } from './four-letter-words.ts';
import type { ClientPort, LogLevel } from './ports.ts';
import type { ConnectionReport } from './status-report.ts';

/** The replica's side of a client, with what the listener shows and times. */
export type ListenedClient = ClientHandler & { readonly session: ClientSession };

export type ClientListenerOptions = {
  /** null: every address. */
  readonly host: string | null;
  readonly port: number;
  /** -1: the system chooses. */
  readonly backlog: number;
  /** 0: no limit. */
  readonly perAddressMax: number;
  readonly connectionsMax: number;
  readonly frameBytesMax: number;
  /** How long a connection may stay without asking for a session. */
  readonly sessionlessMs: number;
  readonly keepAlive: boolean;
  connect(port: ClientPort): ListenedClient;
  /** The text for a four-letter word. */
  answer(word: string): string;
  log(level: LogLevel, message: string, fields?: Readonly<Record<string, unknown>>): void;
  fatal(error: Error): void;
};

const SWEEP_MS = 1000;

type Tracked = { client: ListenedClient | null; quietSweeps: number; age: number };

export class ClientListener {
  readonly #options: ClientListenerOptions;
  readonly #connections = new Map<ClientConnection, Tracked>();
  readonly #perAddress = new Map<string, number>();
  /** Addresses at their limit, so that each is logged once until it has room again. */
  readonly #full = new Set<string>();
  readonly #server: Server;
  #isFull = false;
  #sweep: NodeJS.Timeout | null = null;

  constructor(options: ClientListenerOptions) {
    this.#options = options;
    this.#server = createServer({ pauseOnConnect: false }, (socket) => this.#onSocket(socket));
  }

  get connectionCount(): number {
    return this.#connections.size;
  }

  get port(): number {
    const address = this.#server.address();
    return address !== null && typeof address === 'object' ? address.port : 0;
  }

  /** Rejects with the system's error when the port is taken. */
  async start(): Promise<void> {
    const { host, port, backlog } = this.#options;
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen({ port, ...(host === null ? {} : { host }), ...(backlog < 0 ? {} : { backlog }) }, () => {
        this.#server.removeListener('error', reject);
        // Out of file descriptors, for instance: nothing to stop for.
        this.#server.on('error', (error) => this.#options.log('error', 'the client port reports an error', { error }));
        resolve();
      });
    });
    this.#sweep = setInterval(() => this.#onSweep(), SWEEP_MS);
  }

  /** Stops accepting; connections stay. */
  stopAccepting(): void {
    this.#server.close();
    if (this.#sweep !== null) clearInterval(this.#sweep);
  }

  /** Resolves when every connection is gone; what is left is destroyed. */
  async close(): Promise<void> {
    this.stopAccepting();
    const gone = new Promise<void>((resolve) => {
      if (this.#connections.size === 0) resolve();
      else this.#onEmpty = resolve;
    });
    for (const connection of this.#connections.keys()) connection.close('this server stops');
    await gone;
  }

  #onEmpty: (() => void) | null = null;

  connectionReports(nowMs: number, wallMs: number): ConnectionReport[] {
    const reports: ConnectionReport[] = [];
    for (const [connection, { client }] of this.#connections) {
      reports.push(reportOf(connection, client?.session ?? null, wallMs - nowMs));
    }
    return reports;
  }

  #onSocket(socket: Socket): void {
    const address = plainAddress(socket.remoteAddress ?? '');
    if (this.#refuses(address)) {
      socket.destroy();
      return;
    }
    if (this.#options.keepAlive) socket.setKeepAlive(true);
    this.#perAddress.set(address, (this.#perAddress.get(address) ?? 0) + 1);
    const tracked: Tracked = { client: null, quietSweeps: 0, age: 0 };
    const { log, fatal, frameBytesMax } = this.#options;
    const connection = new ClientConnection(socket, {
      frameBytesMax,
      connect: (port) => {
        const client = this.#options.connect(port);
        tracked.client = client;
        return client;
      },
      answer: (word) => (isFourLetterWord(word) ? this.#options.answer(word) : null),
      onClosed: (closed) => this.#onClosed(closed),
      log,
      fatal,
    });
    this.#connections.set(connection, tracked);
  }

  #refuses(address: string): boolean {
    const { perAddressMax, connectionsMax, log } = this.#options;
    if (connectionsMax > 0 && this.#connections.size >= connectionsMax) {
      if (!this.#isFull) log('warn', 'maxCnxns is reached: further client connections are closed', { connectionsMax });
      this.#isFull = true;
      return true;
    }
    if (perAddressMax > 0 && (this.#perAddress.get(address) ?? 0) >= perAddressMax) {
      if (!this.#full.has(address)) {
        log('warn', 'maxClientCnxns is reached: further connections from this address are closed', {
          remote: address,
          perAddressMax,
        });
      }
      this.#full.add(address);
      return true;
    }
    return false;
  }

  #onClosed(connection: ClientConnection): void {
    this.#connections.delete(connection);
    this.#isFull = false;
    const address = connection.remoteAddress;
    const left = (this.#perAddress.get(address) ?? 1) - 1;
    if (left === 0) this.#perAddress.delete(address);
    else this.#perAddress.set(address, left);
    this.#full.delete(address);
    if (this.#connections.size === 0) this.#onEmpty?.();
  }

  /** Counts sweeps, not time: a stall of this process makes it patient, never hasty. */
  #onSweep(): void {
    const sessionlessSweeps = Math.ceil(this.#options.sessionlessMs / SWEEP_MS);
    for (const [connection, tracked] of this.#connections) {
      tracked.age += 1;
      tracked.quietSweeps = connection.takeHeard() ? 0 : tracked.quietSweeps + 1;
      const session = tracked.client?.session;
      if (session === undefined || session.phase === 'connecting') {
        if (tracked.age > sessionlessSweeps) connection.close('it asked for no session in time');
      } else if (session.phase === 'attached' && tracked.quietSweeps > Math.ceil(session.timeoutMs / SWEEP_MS)) {
        connection.close('nothing came for as long as its session may be silent');
      }
    }
  }
}

function reportOf(connection: ClientConnection, session: ClientSession | null, toWallMs: number): ConnectionReport {
  const { remoteAddress, remotePort } = connection;
  const remote = remoteAddress.includes(':') ? `[${remoteAddress}]:${remotePort}` : `${remoteAddress}:${remotePort}`;
  const isAttached = session !== null && session.phase !== 'connecting' && session.phase !== 'attaching';
  const answered = session === null ? 0 : session.packetsSent;
  return {
    remote,
    isReading: connection.isReading,
    queued: session?.waitingCount ?? 0,
    received: session?.packetsReceived ?? 0,
    sent: answered,
    session: isAttached
      ? {
          id: hex64(session.sessionId),
          lastOperation: session.lastOperation,
          establishedMs: session.establishedMs + toWallMs,
          timeoutMs: session.timeoutMs,
          lastCxid: `0x${(session.lastCxid >>> 0).toString(16)}`,
          lastZxid: hex64(session.lastZxidSeen),
          lastResponseMs: session.lastResponseMs === 0 ? 0 : session.lastResponseMs + toWallMs,
          minLatencyMs: session.latencyMinMs,
          avgLatencyMs: answered === 0 ? 0 : session.latencySumMs / answered,
          maxLatencyMs: session.latencyMaxMs,
        }
      : null,
  };
}
