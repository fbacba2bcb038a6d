// One TCP connection between two servers: the hello, frames in, frames out with one write per turn.
// It knows bytes and limits; who may talk to whom is peer-transport.ts's business, what a message means is nobody's here.
// Identity comes from the hello only, never from an address: links may run through proxies.

import type { Socket } from 'node:net';
import { assert } from '@quorate/protocol/assert';
import type { ServerId } from '@quorate/protocol/zxid';
import {
  Fields,
  frameOf,
  PEER_FRAME_BYTES_MAX,
  PEER_PROTOCOL_VERSION,
  PeerFrameDecoder,
  PeerProtocolError,
} from './peer-codec.ts';

export type ChannelKind = 'vote' | 'stream';

/**
 * The first bytes in both directions: magic "QRTE", version (u32), then one frame with these fields.
 * The acceptor answers with the dialler's channel and link number; a refusal says why and ends the connection.
 */
export type Hello = {
  readonly id: ServerId;
  /** Whom the sender wants to reach. */
  readonly peer: ServerId;
  readonly incarnation: number;
  readonly channel: ChannelKind;
  /** Counts the dialler's attempts: pairs the two connections of one link, and orders links of one incarnation. */
  readonly link: number;
  /** Empty while the store belongs to no ensemble. */
  readonly clusterId: string;
  /** Empty: welcome. */
  readonly refusal: string;
};

const MAGIC = 0x51525445;
const PREFIX_BYTES = 8;
const HELLO_BYTES_MAX = 4096;
const REFUSAL_MAX = 500;
/** Frames of a turn up to this many bytes are joined into one buffer; larger ones go out as they are, in one writev. */
const JOIN_BYTES_MAX = 64 * 1024;
/** How long the last bytes of a refused connection may take. */
const LINGER_MS = 1000;

/** A frame that says nothing: sent when a channel would be silent otherwise. Tag 0 is no message. */
const PING_FRAME = frameOf([0]);

export function encodeHello(hello: Hello, version: number = PEER_PROTOCOL_VERSION): Uint8Array {
  const { id, peer, incarnation, channel, link, clusterId, refusal } = hello;
  const fields = [id, peer, incarnation, channel === 'vote' ? 0 : 1, link, clusterId, refusal.slice(0, REFUSAL_MAX)];
  return Buffer.concat([encodePrefix(version), frameOf(fields)]);
}

function encodePrefix(version: number): Uint8Array {
  const prefix = Buffer.alloc(PREFIX_BYTES);
  prefix.writeUInt32BE(MAGIC, 0);
  prefix.writeUInt32BE(version, 4);
  return prefix;
}

function decodeHello(body: Uint8Array): Hello {
  const f = new Fields(body);
  const hello: Hello = {
    id: f.serverId(),
    peer: f.serverId(),
    incarnation: f.uint(),
    channel: f.oneOf<ChannelKind>(['vote', 'stream']),
    link: f.uint(),
    clusterId: f.text(128),
    refusal: f.text(REFUSAL_MAX),
  };
  f.end();
  return hello;
}

/** The first eight bytes were a Quorate hello of another version. */
export class PeerVersionError extends PeerProtocolError {
  readonly version: number;
  constructor(version: number) {
    super('message', `it speaks version ${version} of the peer protocol, this server version ${PEER_PROTOCOL_VERSION}`);
    this.name = 'PeerVersionError';
    this.version = version;
  }
}

export type ChannelHandlers = {
  onHello(hello: Hello): void;
  /** Only after open(). */
  onBody(body: Uint8Array): void;
  /** Exactly once, whoever closed it. `cause` is set when the peer's bytes were wrong. */
  onClosed(reason: string, cause: PeerProtocolError | null): void;
  /** Written bytes left, or frames wait to be flushed: called before the end of the turn in which a frame was queued. */
  onDirty(channel: PeerChannel): void;
};

export class PeerChannel {
  readonly #socket: Socket;
  readonly #handlers: ChannelHandlers;
  readonly #decoder = new PeerFrameDecoder(HELLO_BYTES_MAX);
  #prefix: Uint8Array = new Uint8Array(0);
  #phase: 'prefix' | 'hello' | 'greeted' | 'open' | 'closed' = 'prefix';
  /** Bodies that came behind the hello before the link was complete: at most what one chunk holds, reading is paused. */
  #early: Uint8Array[] = [];
  #queue: Uint8Array[] = [];
  #queuedBytes = 0;
  #heard = false;
  #hasSent = false;
  #onRoom: { readonly below: number; readonly done: (ok: boolean) => void }[] = [];

  constructor(socket: Socket, handlers: ChannelHandlers) {
    this.#socket = socket;
    this.#handlers = handlers;
    socket.setNoDelay(true);
    socket.on('data', (chunk: Buffer) => this.#onData(chunk));
    socket.on('error', (error: NodeJS.ErrnoException) => this.close(error.code ?? error.message));
    socket.on('end', () => this.close('the other side closed it'));
    socket.on('close', () => this.close('the connection is gone'));
  }

  get bufferedBytes(): number {
    return this.#queuedBytes + this.#socket.writableLength;
  }

  get isClosed(): boolean {
    return this.#phase === 'closed';
  }

  /** Whether anything came since the last call. */
  takeHeard(): boolean {
    const heard = this.#heard;
    this.#heard = false;
    return heard;
  }

  /** A frame without meaning, unless something was sent since the last call. */
  maybePing(): void {
    if (!this.#hasSent) this.send(PING_FRAME);
    this.#hasSent = false;
  }

  sendHello(hello: Hello): void {
    if (this.#phase !== 'closed') this.#socket.write(encodeHello(hello));
  }

  /** Says why and closes once that is sent. */
  refuse(hello: Hello): void {
    this.#closeWith(encodeHello(hello), hello.refusal, null);
  }

  /** The link is complete: deliver what came already, then all that comes. */
  open(): void {
    if (this.#phase === 'closed') return;
    assert(this.#phase === 'greeted', 'a channel opens once, after its hello');
    this.#phase = 'open';
    const early = this.#early;
    this.#early = [];
    for (const body of early) {
      // A handler may close the channel.
      if (!this.isClosed) this.#guard(() => this.#deliver(body));
    }
    if (!this.isClosed) this.#socket.resume();
  }

  /** Queues a frame; the owner flushes once per turn. */
  send(frame: Uint8Array): void {
    if (this.#phase === 'closed') return;
    if (this.#queue.length === 0) this.#handlers.onDirty(this);
    this.#queue.push(frame);
    this.#queuedBytes += frame.length;
    this.#hasSent = true;
  }

  flush(): void {
    const queue = this.#queue;
    if (queue.length === 0 || this.#phase === 'closed') return;
    const bytes = this.#queuedBytes;
    this.#queue = [];
    this.#queuedBytes = 0;
    const onWritten = (): void => this.#giveRoom();
    const [only] = queue;
    if (queue.length === 1 && only !== undefined) {
      this.#socket.write(only, onWritten);
    } else if (bytes <= JOIN_BYTES_MAX) {
      this.#socket.write(Buffer.concat(queue, bytes), onWritten);
    } else {
      this.#socket.cork();
      for (const frame of queue) this.#socket.write(frame, onWritten);
      this.#socket.uncork();
    }
    this.#giveRoom();
  }

  /** Answers, never synchronously, once fewer than `below` bytes are buffered; with false when the channel closes first. */
  whenRoom(below: number, done: (ok: boolean) => void): void {
    if (this.#phase === 'closed') {
      process.nextTick(done, false);
      return;
    }
    this.#onRoom.push({ below, done });
  }

  close(reason: string, cause: PeerProtocolError | null = null): void {
    if (this.#phase === 'closed') return;
    this.#phase = 'closed';
    this.#socket.destroy();
    this.#queue = [];
    this.#queuedBytes = 0;
    this.#early = [];
    this.#giveRoom();
    this.#handlers.onClosed(reason, cause);
  }

  #closeWith(lastBytes: Uint8Array, reason: string, cause: PeerProtocolError | null): void {
    if (this.#phase === 'closed') return;
    this.#phase = 'closed';
    // Reading goes on, or the end of the other side would never be seen; what comes is ignored.
    this.#socket.resume();
    this.#socket.end(lastBytes);
    this.#socket.setTimeout(LINGER_MS, () => this.#socket.destroy());
    this.#handlers.onClosed(reason, cause);
  }

  #giveRoom(): void {
    if (this.#onRoom.length === 0) return;
    const isOpen = this.#phase !== 'closed';
    const buffered = this.bufferedBytes;
    const waiting = this.#onRoom;
    this.#onRoom = [];
    for (const waiter of waiting) {
      if (isOpen && buffered >= waiter.below) this.#onRoom.push(waiter);
      else process.nextTick(waiter.done, isOpen);
    }
  }

  #onData(chunk: Buffer): void {
    if (this.#phase === 'closed') return;
    this.#heard = true;
    this.#guard(() => {
      let rest: Uint8Array = chunk;
      if (this.#phase === 'prefix') {
        this.#prefix = this.#prefix.length === 0 ? chunk : Buffer.concat([this.#prefix, chunk]);
        if (this.#prefix.length < PREFIX_BYTES) return;
        const view = new DataView(this.#prefix.buffer, this.#prefix.byteOffset, PREFIX_BYTES);
        if (view.getUint32(0) !== MAGIC) throw new PeerProtocolError('message', 'it does not speak the peer protocol');
        const version = view.getUint32(4);
        if (version !== PEER_PROTOCOL_VERSION) throw new PeerVersionError(version);
        rest = this.#prefix.subarray(PREFIX_BYTES);
        this.#prefix = new Uint8Array(0);
        this.#phase = 'hello';
      }
      this.#decoder.push(rest, (body) => this.#onBody(body));
    });
  }

  #onBody(body: Uint8Array): void {
    switch (this.#phase) {
      case 'hello': {
        const hello = decodeHello(body);
        this.#decoder.frameBytesMax = PEER_FRAME_BYTES_MAX;
        this.#phase = 'greeted';
        this.#socket.pause();
        this.#handlers.onHello(hello);
        return;
      }
      case 'greeted':
        this.#early.push(body);
        return;
      case 'open':
        this.#deliver(body);
        return;
      default:
        return;
    }
  }

  #deliver(body: Uint8Array): void {
    const isPing = body.length === 2 && body[1] === 0;
    if (!isPing) this.#handlers.onBody(body);
  }

  /** The peer's broken bytes close this channel; our own mistakes pass through and end the process. */
  #guard(work: () => void): void {
    try {
      work();
    } catch (error) {
      if (!(error instanceof PeerProtocolError)) throw error;
      // The prefix is the one thing that every version understands: it tells the other side why.
      if (error instanceof PeerVersionError) this.#closeWith(encodePrefix(PEER_PROTOCOL_VERSION), error.message, error);
      else this.close(error.message, error);
    }
  }
}
