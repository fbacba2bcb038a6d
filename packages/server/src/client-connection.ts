// One client's socket: bytes in are cut into frames for the replica, whole replies go out in one write per turn.
// The first four bytes may be a four-letter word instead. It knows nothing of requests; the replica's connection does.
// Whatever a client sends can close its own connection only.

import type { Socket } from 'node:net';
import { AssertionError, FrameDecoder, ProtocolError } from '@quorate/protocol';
import type { ClientPort, LogLevel } from './ports.ts';

/** The replica's side of one client, as far as the socket needs it. */
export type ClientHandler = {
  onFrame(bytes: Uint8Array, start: number, end: number): void;
  onChunkEnd(): void;
  onClosed(): void;
};

export type ClientConnectionOptions = {
  readonly frameBytesMax: number;
  /** Opens the replica's side: when the first bytes turn out to be no four-letter word. */
  connect(port: ClientPort): ClientHandler;
  /** The answer to a four-letter word, or null when the bytes are none. */
  answer(word: string): string | null;
  onClosed(connection: ClientConnection): void;
  log(level: LogLevel, message: string, fields?: Readonly<Record<string, unknown>>): void;
  fatal(error: Error): void;
};

/** What a telnet client sends for ^C: ZooKeeper closes without a word. */
const TELNET_CLOSE = '\xff\xf4\xff\xfd';
const WORD_BYTES = 4;
/** A client that does not read its replies is not asked for more requests meanwhile. */
const UNREAD_BYTES_MAX = 256 * 1024;
/** How long a closed connection may take to hand over its last bytes. */
const LINGER_MS = 2000;

export class ClientConnection implements ClientPort {
  readonly remoteAddress: string;
  readonly remotePort: number;
  readonly #socket: Socket;
  readonly #options: ClientConnectionOptions;
  readonly #decoder: FrameDecoder;
  #handler: ClientHandler | null = null;
  /** First bytes, until there are four. */
  #first: Uint8Array = new Uint8Array(0);
  #isClosing = false;
  #isGone = false;
  /** Who wants reading to stop: the replica, or the unread replies. */
  #isHeldByReplica = false;
  #isHeldByOutbox = false;
  #heard = false;
  #linger: NodeJS.Timeout | null = null;

  constructor(socket: Socket, options: ClientConnectionOptions) {
    this.#socket = socket;
    this.#options = options;
    this.#decoder = new FrameDecoder(options.frameBytesMax);
    this.remoteAddress = plainAddress(socket.remoteAddress ?? '');
    this.remotePort = socket.remotePort ?? 0;
    socket.setNoDelay(true);
    socket.on('data', (chunk: Buffer) => this.#onData(chunk));
    socket.on('drain', () => this.#onDrain());
    // The event close follows; a client that went away is nothing to report.
    socket.on('error', () => undefined);
    socket.on('close', () => this.#onGone());
  }

  /** The replica's side; null until the client has spoken. */
  get handler(): ClientHandler | null {
    return this.#handler;
  }

  get isReading(): boolean {
    return !this.#isHeldByReplica && !this.#isHeldByOutbox && !this.#isClosing;
  }

  get bufferedBytes(): number {
    return this.#socket.writableLength;
  }

  /** Whether anything came since the last call, or could not come because nobody reads. */
  takeHeard(): boolean {
    const heard = this.#heard || !this.isReading;
    this.#heard = false;
    return heard;
  }

  write(bytes: Uint8Array): boolean {
    if (this.#isClosing || this.#isGone) return true;
    this.#socket.write(bytes);
    const buffered = this.#socket.writableLength;
    // Nothing buffered: the kernel took it all within the call.
    if (buffered === 0) return true;
    if (buffered > UNREAD_BYTES_MAX && !this.#isHeldByOutbox) {
      this.#isHeldByOutbox = true;
      this.#socket.pause();
    }
    return false;
  }

  pause(): void {
    this.#isHeldByReplica = true;
    this.#socket.pause();
  }

  resume(): void {
    this.#isHeldByReplica = false;
    if (this.isReading) this.#socket.resume();
  }

  close(reason: string): void {
    if (this.#isClosing || this.#isGone) return;
    this.#isClosing = true;
    this.#options.log('debug', 'a client connection is closed', { remote: this.remoteAddress, reason });
    this.#socket.end();
    // Reading goes on into nothing: closing with unread bytes would reset the connection and could take the last reply with it.
    this.#socket.resume();
    this.#linger = setTimeout(() => this.#socket.destroy(), LINGER_MS);
  }

  /** At once, without the last bytes. */
  destroy(): void {
    this.#socket.destroy();
  }

  #onDrain(): void {
    this.#isHeldByOutbox = false;
    if (this.isReading) this.#socket.resume();
  }

  #onGone(): void {
    if (this.#isGone) return;
    this.#isGone = true;
    if (this.#linger !== null) clearTimeout(this.#linger);
    this.#handler?.onClosed();
    this.#options.onClosed(this);
  }

  #onData(chunk: Buffer): void {
    this.#heard = true;
    if (this.#isClosing || this.#isGone) return;
    try {
      if (this.#handler !== null) this.#onFrames(this.#handler, chunk);
      else this.#onFirst(chunk);
    } catch (error) {
      this.#onError(error);
    }
  }

  #onFirst(chunk: Uint8Array): void {
    const first = this.#first.length === 0 ? chunk : Buffer.concat([this.#first, chunk]);
    if (first.length < WORD_BYTES) {
      this.#first = first;
      return;
    }
    this.#first = new Uint8Array(0);
    const word = Buffer.from(first.subarray(0, WORD_BYTES)).toString('latin1');
    if (word === TELNET_CLOSE) {
      this.close('telnet ended');
      return;
    }
    const answer = this.#options.answer(word);
    if (answer !== null) {
      this.#socket.write(answer);
      this.close('a four-letter word is answered');
      return;
    }
    const handler = this.#options.connect(this);
    this.#handler = handler;
    this.#onFrames(handler, first);
  }

  #onFrames(handler: ClientHandler, chunk: Uint8Array): void {
    try {
      this.#decoder.push(chunk, this.#onFrame);
    } finally {
      // Also after bad bytes: what was answered before them goes out.
      handler.onChunkEnd();
    }
  }

  readonly #onFrame = (bytes: Uint8Array, start: number, end: number): boolean => {
    if (this.#isClosing || this.#isGone) return false;
    this.#handler?.onFrame(bytes, start, end);
    return true;
  };

  #onError(error: unknown): void {
    if (error instanceof AssertionError) {
      this.#options.fatal(error);
      return;
    }
    if (error instanceof ProtocolError) {
      this.#options.log('warn', 'a client sent bytes that cannot be understood; its connection is closed', {
        remote: this.remoteAddress,
        port: this.remotePort,
        code: error.code,
        reason: error.message,
      });
    } else {
      this.#options.log('error', 'handling a client failed; its connection is closed', {
        remote: this.remoteAddress,
        port: this.remotePort,
        error,
      });
    }
    this.close('bad bytes');
  }
}

/** IPv4 clients of a dual-stack socket look like IPv6; ACLs and limits want the plain address, without a zone. */
export function plainAddress(address: string): string {
  const unmapped = address.startsWith('::ffff:') && address.includes('.') ? address.slice('::ffff:'.length) : address;
  const zone = unmapped.indexOf('%');
  return zone < 0 ? unmapped : unmapped.slice(0, zone);
}
