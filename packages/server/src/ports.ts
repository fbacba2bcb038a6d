// The seams of a replica: Clock and Network here, Disk in storage, and the connection to one client.
// Production gives sockets, LevelDB and timers; the simulator gives virtual ones. Nothing else reaches the outside.

import type { ServerId } from '@quorate/protocol/zxid';
import type { Disk } from '@quorate/storage/disk';
import type { PeerMessage } from './peer-messages.ts';

export type Clock = {
  /** Monotonic milliseconds; never jumps with the wall clock. */
  nowMs(): number;
  /** Wall clock, ms since 1970: only for ctime and mtime, chosen by the leader. */
  wallMs(): number;
};

export type Network = {
  /** Queues a message; silently dropped when the peer is not connected (the link's loss is an input of its own). The same object sent to several peers is encoded once. */
  send(to: ServerId, message: PeerMessage): void;
  /** Bulk on the stream channel with backpressure: onSent is called when the transport wants more, or with false when the link is gone. */
  sendBulk(to: ServerId, message: PeerMessage, onSent: (ok: boolean) => void): void;
  /** Closes the link; it will be dialled again. */
  drop(peer: ServerId, reason: string): void;
};

/** One client connection, as the pipeline sees it. The bytes are frames with their length prefix. */
export type ClientPort = {
  readonly remoteAddress: string;
  /** Sends whole frames, called once per connection and turn. True: the bytes are taken, the array may be reused; false: the port keeps the array. */
  write(bytes: Uint8Array): boolean;
  /** Bytes queued and not yet taken by the network. */
  readonly bufferedBytes: number;
  /** Stop and resume reading (backpressure). */
  pause(): void;
  resume(): void;
  /** Flushes what is queued, then closes. */
  close(reason: string): void;
};

export type LogLevel = 'debug' | 'info' | 'warn' | 'error' | 'fatal';

export type ReplicaPorts = {
  readonly clock: Clock;
  readonly network: Network;
  readonly disk: Disk;
  /** Runs `work` soon, once per request, never synchronously: the drain. */
  schedule(work: () => void): void;
  randomBytes(count: number): Uint8Array;
  /** Base64 of the SHA-1 of the text's UTF-8 bytes: the second half of a digest id. */
  sha1Base64(text: string): string;
  log(level: LogLevel, message: string, fields?: Readonly<Record<string, unknown>>): void;
  /** Called at most once: a broken invariant or a failed disk. Production ends the process. */
  fatal(error: Error): void;
};
