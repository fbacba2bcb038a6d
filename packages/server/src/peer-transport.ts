// The Network port over TCP: two connections per pair of servers, one for votes, one for the stream.
// The server with the larger id dials. A link is up when both connections are, with one incarnation; losing either closes both
// and is told once. It retries for ever, orders nothing between the channels, and decides nothing: who is a peer is configuration.
// Every queue is bounded; a peer that does not keep up is dropped and has to come back.

import { connect, createServer, type Server, type Socket } from 'node:net';
import { assert } from '@quorate/protocol/assert';
import type { ServerId } from '@quorate/protocol/zxid';
import { type ChannelKind, type Hello, PeerChannel, PeerVersionError } from './peer-channel.ts';
import { decodePeerMessage, encodePeerMessage, PeerProtocolError } from './peer-codec.ts';
import { channelOf, type PeerMessage } from './peer-messages.ts';
import type { LogLevel, Network } from './ports.ts';

export type Address = { readonly host: string; readonly port: number };

export type PeerTransportOptions = {
  readonly id: ServerId;
  readonly incarnation: number;
  /** An empty host means every address. */
  readonly listen: readonly Address[];
  readonly peers: ReadonlyMap<ServerId, readonly Address[]>;
  /** Read at each hello: it becomes known when the ensemble is formed. */
  clusterId(): string;
  /** A peer with more bytes waiting on its stream channel is dropped. Must exceed the largest synchronisation window. */
  readonly queueBytesMax: number;
  /** sendBulk asks for more while fewer bytes than this wait. */
  readonly bulkWindowBytes: number;
  /** A link on which nothing came for so long is closed: a half-open one would otherwise stay for minutes. */
  readonly silenceMs: number;
  /** Limit for connecting and exchanging hellos. */
  readonly handshakeMs: number;
  readonly redialMinMs: number;
  readonly redialMaxMs: number;
};

export type PeerTransportHandlers = {
  onConnected(peer: ServerId, incarnation: number): void;
  onDisconnected(peer: ServerId): void;
  onMessage(from: ServerId, message: PeerMessage): void;
  log(level: LogLevel, message: string, fields?: Readonly<Record<string, unknown>>): void;
};

/** Votes and heartbeats are small; this many waiting bytes mean that the peer reads none. */
const VOTE_QUEUE_BYTES_MAX = 4 * 1024 * 1024;
/** The silence limit is counted in so many checks. */
const SILENCE_CHECKS = 4;
/** Connections that have not said hello yet. */
const STRANGERS_MAX = 128;
/** Reasons remembered so that each is logged once. */
const LOGGED_MAX = 1000;
/** Messages of one turn whose encoding is remembered; a proposal and a commit alternate over all peers. */
const ENCODED_MAX = 4;

/** Both connections to one peer, complete or still opening. */
class Link {
  readonly peer: ServerId;
  readonly number: number;
  readonly incarnation: number;
  readonly channels = new Map<ChannelKind, PeerChannel>();
  timer: NodeJS.Timeout | null = null;
  upSinceMs = 0;
  quietChecks = 0;
  isClosed = false;

  constructor(peer: ServerId, number: number, incarnation: number) {
    this.peer = peer;
    this.number = number;
    this.incarnation = incarnation;
  }

  get vote(): PeerChannel {
    return this.#channel('vote');
  }

  get stream(): PeerChannel {
    return this.#channel('stream');
  }

  #channel(kind: ChannelKind): PeerChannel {
    const channel = this.channels.get(kind);
    assert(channel !== undefined, 'a complete link has both channels');
    return channel;
  }

  close(reason: string): void {
    if (this.isClosed) return;
    this.isClosed = true;
    if (this.timer !== null) clearTimeout(this.timer);
    for (const channel of this.channels.values()) channel.close(reason);
  }
}

type Peer = {
  readonly id: ServerId;
  readonly addresses: readonly Address[];
  link: Link | null;
  /** An accepted link whose other connection has not come yet. */
  half: Link | null;
  dial: Dial | null;
  redial: NodeJS.Timeout | null;
  failures: number;
};

/** One attempt to reach a peer: two sockets, done when both have heard the peer's hello. */
type Dial = {
  readonly number: number;
  readonly address: Address;
  readonly channels: Map<ChannelKind, PeerChannel>;
  readonly greeted: Map<ChannelKind, Hello>;
  readonly timer: NodeJS.Timeout;
  isOver: boolean;
};

export class PeerTransport implements Network {
  readonly #options: PeerTransportOptions;
  readonly #handlers: PeerTransportHandlers;
  readonly #peers = new Map<ServerId, Peer>();
  readonly #servers: Server[] = [];
  readonly #strangers = new Set<PeerChannel>();
  readonly #logged = new Set<string>();
  #dialCount = 0;
  #silenceTimer: NodeJS.Timeout | null = null;
  #isClosed = false;
  #isFlushScheduled = false;
  #dirty: PeerChannel[] = [];
  #encoded: { readonly message: PeerMessage; readonly frame: Uint8Array }[] = [];

  constructor(options: PeerTransportOptions, handlers: PeerTransportHandlers) {
    this.#options = options;
    this.#handlers = handlers;
    for (const [id, addresses] of options.peers) {
      assert(id !== options.id, 'a server is no peer of itself');
      assert(addresses.length > 0, 'a peer has an address');
      this.#peers.set(id, { id, addresses, link: null, half: null, dial: null, redial: null, failures: 0 });
    }
  }

  /** Binds the peer port (all own addresses), then begins to dial. Rejects with the system's error when a port is taken. */
  async start(): Promise<void> {
    for (const address of this.#options.listen) {
      const server = createServer((socket) => this.#onSocket(socket));
      this.#servers.push(server);
      await new Promise<void>((resolve, reject) => {
        server.once('error', reject);
        server.listen(address.host === '' ? { port: address.port } : address, () => {
          server.removeListener('error', reject);
          server.on('error', (error) => this.#handlers.log('error', 'the peer port reports an error', { error }));
          resolve();
        });
      });
    }
    const periodMs = Math.max(1, Math.floor(this.#options.silenceMs / SILENCE_CHECKS));
    let lastMs = performance.now();
    this.#silenceTimer = setInterval(() => {
      const nowMs = performance.now();
      // A server that stalled itself does not accuse others of silence.
      const isLate = nowMs - lastMs > 2 * periodMs;
      lastMs = nowMs;
      for (const peer of this.#peers.values()) this.#checkSilence(peer, isLate);
    }, periodMs);
    for (const peer of this.#peers.values()) {
      if (this.#dials(peer.id)) this.#dial(peer);
    }
  }

  /** The ports that are bound, in the order of `listen`. */
  get ports(): number[] {
    return this.#servers.map((server) => {
      const address = server.address();
      return address !== null && typeof address === 'object' ? address.port : 0;
    });
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    this.#flush();
    if (this.#silenceTimer !== null) clearInterval(this.#silenceTimer);
    for (const peer of this.#peers.values()) {
      if (peer.redial !== null) clearTimeout(peer.redial);
      if (peer.dial !== null) this.#endDial(peer.dial, 'this server stops');
      peer.half?.close('this server stops');
      peer.link?.close('this server stops');
    }
    for (const stranger of this.#strangers) stranger.close('this server stops');
    await Promise.all(this.#servers.map((server) => new Promise<void>((resolve) => server.close(() => resolve()))));
  }

  send(to: ServerId, message: PeerMessage): void {
    const link = this.#peers.get(to)?.link;
    if (link === null || link === undefined) return;
    this.#sendOn(link, message);
  }

  sendBulk(to: ServerId, message: PeerMessage, onSent: (ok: boolean) => void): void {
    const link = this.#peers.get(to)?.link;
    if (link === null || link === undefined) {
      process.nextTick(onSent, false);
      return;
    }
    const { stream } = link;
    this.#sendOn(link, message);
    stream.whenRoom(this.#options.bulkWindowBytes, onSent);
  }

  drop(peer: ServerId, reason: string): void {
    this.#peers.get(peer)?.link?.close(reason);
  }

  /** Whether the link to `peer` is up. */
  isConnected(peer: ServerId): boolean {
    return (this.#peers.get(peer)?.link ?? null) !== null;
  }

  #sendOn(link: Link, message: PeerMessage): void {
    const isVote = channelOf(message) === 'vote';
    const channel = isVote ? link.vote : link.stream;
    const frame = this.#encode(link, message);
    if (frame === null) return;
    const limit = isVote ? VOTE_QUEUE_BYTES_MAX : this.#options.queueBytesMax;
    if (channel.bufferedBytes + frame.length > limit) {
      const channelName = isVote ? 'vote' : 'stream';
      this.#handlers.log('warn', 'a peer does not keep up: its queue is over the limit and its link is closed', {
        peer: link.peer,
        channel: channelName,
        limitBytes: limit,
      });
      link.close('its queue is over the limit');
      return;
    }
    channel.send(frame);
  }

  #encode(link: Link, message: PeerMessage): Uint8Array | null {
    for (const known of this.#encoded) {
      if (known.message === message) return known.frame;
    }
    try {
      const frame = encodePeerMessage(message);
      if (this.#encoded.length === ENCODED_MAX) this.#encoded.shift();
      this.#encoded.push({ message, frame });
      return frame;
    } catch (error) {
      if (!(error instanceof PeerProtocolError)) throw error;
      this.#handlers.log('error', 'a message to a peer exceeds the frame limit; the link is closed', {
        peer: link.peer,
        messageKind: message.kind,
      });
      link.close(error.message);
      return null;
    }
  }

  /** One write per connection and turn: after the callback that queued the frames, before the loop goes on. */
  #onDirty(channel: PeerChannel): void {
    this.#dirty.push(channel);
    if (this.#isFlushScheduled) return;
    this.#isFlushScheduled = true;
    process.nextTick(() => this.#flush());
  }

  #flush(): void {
    this.#isFlushScheduled = false;
    const dirty = this.#dirty;
    this.#dirty = [];
    this.#encoded = [];
    for (const channel of dirty) channel.flush();
  }

  #dials(peer: ServerId): boolean {
    return this.#options.id > peer;
  }

  #hello(peer: ServerId, channel: ChannelKind, link: number, refusal: string): Hello {
    const { id, incarnation } = this.#options;
    return { id, peer, incarnation, channel, link, clusterId: this.#options.clusterId(), refusal };
  }

  /** Why this hello cannot be accepted, or null. */
  #objection(hello: Hello): string | null {
    const { id } = this.#options;
    const mine = this.#options.clusterId();
    if (hello.id === id) return `both servers have the id ${id}`;
    if (!this.#peers.has(hello.id)) return `server ${hello.id} is not in the configuration of server ${id}`;
    if (hello.peer !== id) return `server ${hello.peer} was wanted, this is server ${id}`;
    if (mine !== '' && hello.clusterId !== '' && mine !== hello.clusterId) {
      return `server ${hello.id} belongs to the ensemble ${hello.clusterId}, server ${id} to ${mine}`;
    }
    return null;
  }

  // The accepting side.

  #onSocket(socket: Socket): void {
    if (this.#isClosed || this.#strangers.size >= STRANGERS_MAX) {
      this.#logOnce('strangers', 'too many connections to the peer port that say nothing; further ones are closed', {});
      socket.destroy();
      return;
    }
    const timer = setTimeout(() => channel.close('it said nothing in time'), this.#options.handshakeMs);
    let link: Link | null = null;
    const channel: PeerChannel = new PeerChannel(socket, {
      onHello: (hello) => {
        clearTimeout(timer);
        this.#strangers.delete(channel);
        link = this.#accept(channel, hello);
      },
      onBody: (body) => {
        if (link !== null) this.#onBody(link, channel, body);
      },
      onClosed: (reason, cause) => {
        clearTimeout(timer);
        this.#strangers.delete(channel);
        if (link !== null) this.#onChannelClosed(link, reason);
        else if (cause !== null) this.#refuseStranger(socket, cause);
      },
      onDirty: (dirty) => this.#onDirty(dirty),
    });
    this.#strangers.add(channel);
  }

  #refuseStranger(socket: Socket, cause: PeerProtocolError): void {
    const remote = socket.remoteAddress ?? 'unknown';
    const key = `stranger ${cause instanceof PeerVersionError ? cause.version : remote}`;
    this.#logOnce(key, 'a connection to the peer port is refused', { remote, reason: cause.message });
  }

  #accept(channel: PeerChannel, hello: Hello): Link | null {
    const { id } = this.#options;
    let objection = this.#objection(hello);
    if (objection === null && this.#dials(hello.id))
      objection = `server ${id} dials server ${hello.id}, not the reverse`;
    const peer = this.#peers.get(hello.id);
    // Links of one incarnation are numbered; an older one that arrives late must not replace a newer one.
    const newest = peer?.half ?? peer?.link ?? null;
    if (
      objection === null &&
      newest !== null &&
      newest.incarnation === hello.incarnation &&
      hello.link < newest.number
    ) {
      objection = 'a newer link exists';
    }
    if (objection !== null || peer === undefined) {
      const reason = objection ?? 'unknown server';
      this.#logOnce(`refuse ${hello.id} ${reason}`, 'a peer is refused', { peer: hello.id, reason });
      channel.refuse(this.#hello(hello.id, hello.channel, hello.link, reason));
      return null;
    }
    const link = this.#halfFor(peer, hello);
    if (link.channels.has(hello.channel)) {
      link.close('one channel was opened twice');
      channel.close('one channel was opened twice');
      return null;
    }
    link.channels.set(hello.channel, channel);
    channel.sendHello(this.#hello(hello.id, hello.channel, hello.link, ''));
    if (link.channels.size === 2) {
      peer.half = null;
      // Later in this turn: the caller has not got the link yet.
      process.nextTick(() => this.#becomeUp(peer, link));
    }
    return link;
  }

  #halfFor(peer: Peer, hello: Hello): Link {
    const half = peer.half;
    if (half !== null && half.number === hello.link && half.incarnation === hello.incarnation) return half;
    half?.close('a newer link replaces it');
    const link = new Link(peer.id, hello.link, hello.incarnation);
    link.timer = setTimeout(() => link.close('its other connection did not come'), this.#options.handshakeMs);
    peer.half = link;
    return link;
  }

  // The dialling side.

  #dial(peer: Peer): void {
    if (this.#isClosed) return;
    assert(peer.dial === null, 'one dial at a time per peer');
    peer.redial = null;
    this.#dialCount += 1;
    const address = peer.addresses[peer.failures % peer.addresses.length];
    assert(address !== undefined, 'a peer has an address');
    const dial: Dial = {
      number: this.#dialCount,
      address,
      channels: new Map(),
      greeted: new Map(),
      timer: setTimeout(() => this.#failDial(peer, dial, 'no answer in time'), this.#options.handshakeMs),
      isOver: false,
    };
    peer.dial = dial;
    for (const kind of ['vote', 'stream'] as const) this.#dialChannel(peer, dial, kind);
  }

  #dialChannel(peer: Peer, dial: Dial, kind: ChannelKind): void {
    let link: Link | null = null;
    const socket = connect({ host: dial.address.host, port: dial.address.port });
    const channel: PeerChannel = new PeerChannel(socket, {
      onHello: (hello) => {
        const objection = this.#answerObjection(peer, dial, kind, hello);
        if (objection !== null) {
          this.#failDial(peer, dial, objection);
          return;
        }
        dial.greeted.set(kind, hello);
        if (dial.greeted.size === 2) process.nextTick(() => this.#completeDial(peer, dial));
      },
      onBody: (body) => {
        link ??= peer.link;
        if (link !== null) this.#onBody(link, channel, body);
      },
      onClosed: (reason) => {
        if (!dial.isOver) this.#failDial(peer, dial, reason);
        else if (peer.link !== null && peer.link.channels.get(kind) === channel)
          this.#onChannelClosed(peer.link, reason);
      },
      onDirty: (dirty) => this.#onDirty(dirty),
    });
    dial.channels.set(kind, channel);
    socket.once('connect', () => channel.sendHello(this.#hello(peer.id, kind, dial.number, '')));
  }

  #answerObjection(peer: Peer, dial: Dial, kind: ChannelKind, hello: Hello): string | null {
    if (hello.refusal !== '') return hello.refusal;
    if (hello.id !== peer.id) return `server ${peer.id} was wanted, server ${hello.id} answered`;
    if (hello.channel !== kind || hello.link !== dial.number) return 'the answer belongs to another connection';
    const other = dial.greeted.get(kind === 'vote' ? 'stream' : 'vote');
    if (other !== undefined && other.incarnation !== hello.incarnation) return 'it restarted in between';
    return this.#objection(hello);
  }

  #completeDial(peer: Peer, dial: Dial): void {
    if (dial.isOver) return;
    dial.isOver = true;
    clearTimeout(dial.timer);
    peer.dial = null;
    const hello = dial.greeted.get('vote');
    assert(hello !== undefined, 'a completed dial has heard both hellos');
    const link = new Link(peer.id, dial.number, hello.incarnation);
    for (const [kind, channel] of dial.channels) link.channels.set(kind, channel);
    this.#becomeUp(peer, link);
  }

  #failDial(peer: Peer, dial: Dial, reason: string): void {
    if (dial.isOver) return;
    this.#endDial(dial, reason);
    peer.dial = null;
    peer.failures += 1;
    this.#logOnce(`dial ${peer.id} ${reason}`, 'a peer cannot be reached yet; this server keeps trying', {
      peer: peer.id,
      address: `${dial.address.host}:${dial.address.port}`,
      reason,
    });
    this.#redialLater(peer);
  }

  #endDial(dial: Dial, reason: string): void {
    dial.isOver = true;
    clearTimeout(dial.timer);
    for (const channel of dial.channels.values()) channel.close(reason);
  }

  #redialLater(peer: Peer): void {
    if (this.#isClosed || !this.#dials(peer.id) || peer.redial !== null || peer.dial !== null) return;
    const { redialMinMs, redialMaxMs } = this.#options;
    const backoffMs = Math.min(redialMaxMs, redialMinMs * 2 ** Math.min(peer.failures, 16));
    // Half fixed, half random: servers that lost each other together do not come back together.
    peer.redial = setTimeout(() => this.#dial(peer), backoffMs / 2 + (Math.random() * backoffMs) / 2);
  }

  // Links that are up.

  #becomeUp(peer: Peer, link: Link): void {
    if (link.isClosed) return;
    if (link.timer !== null) clearTimeout(link.timer);
    link.timer = null;
    peer.link?.close('a newer link replaces it');
    assert(peer.link === null, 'a closed link is forgotten');
    peer.link = link;
    link.upSinceMs = performance.now();
    this.#forgetLogged(peer.id);
    this.#handlers.log('info', 'the link to a peer is up', { peer: peer.id, incarnation: link.incarnation });
    this.#handlers.onConnected(peer.id, link.incarnation);
    for (const channel of link.channels.values()) channel.open();
  }

  #onChannelClosed(link: Link, reason: string): void {
    link.close(reason);
    const peer = this.#peers.get(link.peer);
    assert(peer !== undefined, 'a link belongs to a configured peer');
    if (peer.half === link) peer.half = null;
    if (peer.link !== link) return;
    peer.link = null;
    // A link that breaks as soon as it is up must not be dialled in a tight loop.
    const livedMs = performance.now() - link.upSinceMs;
    peer.failures = livedMs >= this.#options.redialMaxMs ? 0 : peer.failures + 1;
    this.#handlers.log('info', 'the link to a peer is lost', { peer: link.peer, reason });
    this.#handlers.onDisconnected(link.peer);
    this.#redialLater(peer);
  }

  #onBody(link: Link, channel: PeerChannel, body: Uint8Array): void {
    const message = decodePeerMessage(body);
    if (link.channels.get(channelOf(message)) !== channel) {
      throw new PeerProtocolError('message', `a ${message.kind} came on the wrong channel`);
    }
    this.#handlers.onMessage(link.peer, message);
  }

  #checkSilence(peer: Peer, isLate: boolean): void {
    const link = peer.link;
    if (link === null) return;
    link.vote.maybePing();
    if (link.vote.takeHeard() || isLate) link.quietChecks = 0;
    else link.quietChecks += 1;
    if (link.quietChecks >= SILENCE_CHECKS) link.close(`nothing came for ${this.#options.silenceMs} ms`);
  }

  #logOnce(key: string, message: string, fields: Readonly<Record<string, unknown>>): void {
    if (this.#logged.has(key)) return;
    if (this.#logged.size >= LOGGED_MAX) this.#logged.clear();
    this.#logged.add(key);
    this.#handlers.log('warn', message, fields);
  }

  #forgetLogged(peer: ServerId): void {
    for (const key of this.#logged) {
      if (key.startsWith(`dial ${peer} `) || key.startsWith(`refuse ${peer} `)) this.#logged.delete(key);
    }
  }
}
