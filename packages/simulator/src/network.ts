// The network between servers: per pair one connection at a time with two channels, each direction FIFO as TCP is.
// A connection has a generation: bytes of an older one never reach a newer one. Silence (a blocked direction) holds bytes back;
// healing either delivers them late or resets the connection. Messages are copied, so that sharing between servers cannot hide.

import type { ServerId } from '@quorate/protocol/zxid';
import type { Network } from '@quorate/server/ports';
import type { Random } from './random.ts';
import type { Timeline } from './timeline.ts';

export type PeerMessage = Parameters<Network['send']>[1];

export type NetworkProfile = {
  readonly latencyUsMin: number;
  /** Mean of what is added to the minimum. */
  readonly latencyUsMean: number;
  readonly dialUs: number;
  /** How long a silent break may stay unnoticed. */
  readonly silentUsMax: number;
  /** Probability that a peer's death is seen at once (a reset) instead of by silence. */
  readonly resetChance: number;
};

/** One end of a pair, as the network sees a server. `life` changes with each process start; 0 is dead. */
export type Endpoint = {
  life(): number;
  incarnation(): number;
  connected(peer: ServerId, incarnation: number): void;
  disconnected(peer: ServerId): void;
  message(from: ServerId, message: PeerMessage): void;
};

export type NetworkHooks = {
  onSend(from: ServerId, to: ServerId, message: PeerMessage): void;
  describe(line: () => string): void;
};

/** A slow link delays by no more than this, so that what is under way arrives soon after the fault ended. */
const SLOW_US_MAX = 2_000_000;
const CALM_US_MEAN = 2000;

type Channel = 'vote' | 'stream';

/** On its way: it may be received from `arrival` on, after everything before it. */
type Sent = {
  readonly message: PeerMessage;
  readonly onSent: ((ok: boolean) => void) | null;
  readonly arrival: number;
};

/** One direction of a pair. */
class Direction {
  isBlocked = false;
  slowness = 1;
  queue: { vote: Sent[]; stream: Sent[] } = { vote: [], stream: [] };
  lastArrival: { vote: number; stream: number } = { vote: 0, stream: 0 };
  waiting: Set<(ok: boolean) => void> = new Set();
}

class Pair {
  readonly a: ServerId;
  readonly b: ServerId;
  generation = 0;
  /** Which ends believe that they are connected, and in which generation. */
  readonly told = new Map<ServerId, number>();
  isUp = false;
  isDialling = false;
  readonly directions = new Map<ServerId, Direction>();

  constructor(a: ServerId, b: ServerId) {
    this.a = a;
    this.b = b;
    this.directions.set(a, new Direction());
    this.directions.set(b, new Direction());
  }

  from(sender: ServerId): Direction {
    const direction = this.directions.get(sender);
    if (direction === undefined) throw new RangeError('not an end of this pair');
    return direction;
  }

  other(end: ServerId): ServerId {
    return end === this.a ? this.b : this.a;
  }
}

export function channelOf(message: PeerMessage): Channel {
  return message.kind === 'vote' || message.kind === 'heartbeat' || message.kind === 'heartbeatAck' ? 'vote' : 'stream';
}

/** Copies plain data deeply; byte arrays too. */
export function copyMessage<T>(value: T): T {
  return copyValue(value) as T;
}

function copyValue(value: unknown): unknown {
  if (typeof value !== 'object' || value === null) return value;
  if (value instanceof Uint8Array) return new Uint8Array(value);
  if (Array.isArray(value)) return value.map(copyValue);
  const copy: Record<string, unknown> = {};
  for (const [key, field] of Object.entries(value)) copy[key] = copyValue(field);
  return copy;
}

export class SimNetwork {
  readonly #timeline: Timeline;
  readonly #random: Random;
  readonly #profile: NetworkProfile;
  readonly #hooks: NetworkHooks;
  readonly #endpoints = new Map<ServerId, Endpoint>();
  readonly #pairs: Pair[] = [];
  readonly #pairOf = new Map<number, Pair>();
  #isCalm = false;

  constructor(timeline: Timeline, random: Random, profile: NetworkProfile, hooks: NetworkHooks) {
    this.#timeline = timeline;
    this.#random = random;
    this.#profile = profile;
    this.#hooks = hooks;
  }

  add(id: ServerId, endpoint: Endpoint): void {
    for (const other of this.#endpoints.keys()) {
      const pair = new Pair(other, id);
      this.#pairs.push(pair);
      this.#pairOf.set(other * 256 + id, pair);
      this.#pairOf.set(id * 256 + other, pair);
    }
    this.#endpoints.set(id, endpoint);
  }

  #pair(a: ServerId, b: ServerId): Pair {
    const pair = this.#pairOf.get(a * 256 + b);
    if (pair === undefined) throw new RangeError('unknown pair of servers');
    return pair;
  }

  #endpoint(id: ServerId): Endpoint {
    const endpoint = this.#endpoints.get(id);
    if (endpoint === undefined) throw new RangeError('unknown server');
    return endpoint;
  }

  get pairCount(): number {
    return this.#pairs.length;
  }

  ends(index: number): readonly [ServerId, ServerId] {
    const pair = this.#pairs[index];
    if (pair === undefined) throw new RangeError('no such pair');
    return [pair.a, pair.b];
  }

  send(from: ServerId, to: ServerId, message: PeerMessage, onSent: ((ok: boolean) => void) | null): void {
    const pair = this.#pair(from, to);
    if (!pair.isUp || pair.told.get(from) !== pair.generation) {
      if (onSent !== null) this.#timeline.after(1, () => onSent(false));
      return;
    }
    this.#hooks.onSend(from, to, message);
    const copy = copyMessage(message);
    const direction = pair.from(from);
    if (onSent !== null) direction.waiting.add(onSent);
    const channel = channelOf(copy);
    const arrival = Math.max(direction.lastArrival[channel] + 1, this.#timeline.now + this.#latency(direction));
    direction.lastArrival[channel] = arrival;
    direction.queue[channel].push({ message: copy, onSent, arrival });
    const generation = pair.generation;
    this.#timeline.at(arrival, () => this.#pump(pair, from, generation, channel));
  }

  #latency(direction: Direction): number {
    const { latencyUsMin, latencyUsMean } = this.#profile;
    const mean = this.#isCalm ? Math.min(latencyUsMean, CALM_US_MEAN) : latencyUsMean;
    const usual = latencyUsMin + this.#random.wait(mean) - 1;
    return Math.min(usual * direction.slowness, Math.max(usual, SLOW_US_MAX));
  }

  /** Hands over what has arrived, strictly in the order in which it was sent. */
  #pump(pair: Pair, from: ServerId, generation: number, channel: Channel): void {
    const direction = pair.from(from);
    const to = pair.other(from);
    const receiver = this.#endpoint(to);
    while (pair.isUp && pair.generation === generation && !direction.isBlocked) {
      const first = direction.queue[channel][0];
      if (first === undefined || first.arrival > this.#timeline.now) return;
      if (receiver.life() === 0 || pair.told.get(to) !== generation) return;
      direction.queue[channel].shift();
      this.#hooks.describe(() => `${from} -> ${to} ${describeMessage(first.message)}`);
      this.#timeline.noteText(first.message.kind);
      this.#timeline.note(from * 16 + to);
      receiver.message(from, first.message);
      if (first.onSent !== null && direction.waiting.delete(first.onSent)) first.onSent(true);
    }
  }

  /** A server process started: it dials everybody. */
  started(id: ServerId): void {
    for (const pair of this.#pairs) if (pair.a === id || pair.b === id) this.#dial(pair);
  }

  /** A server process died; whether its peers see that at once is a matter of luck. */
  died(id: ServerId): void {
    for (const pair of this.#pairs) {
      if (pair.a !== id && pair.b !== id) continue;
      const peer = pair.other(id);
      const wasTold = pair.told.get(peer);
      pair.told.delete(id);
      this.#cut(pair);
      if (wasTold !== undefined) this.#tellBroken(pair, peer, wasTold, this.#random.chance(this.#profile.resetChance));
    }
  }

  /** The connection ends; both sides learn it, each in its own time. */
  breakLink(a: ServerId, b: ServerId, reason: string): void {
    const pair = this.#pair(a, b);
    if (!pair.isUp) return;
    this.#hooks.describe(() => `link ${a}-${b} broken: ${reason}`);
    const tolds = [...pair.told];
    this.#cut(pair);
    for (const [end, generation] of tolds) this.#tellBroken(pair, end, generation, true);
    this.#dial(pair);
  }

  #cut(pair: Pair): void {
    pair.isUp = false;
    pair.generation++;
    for (const direction of pair.directions.values()) {
      direction.queue = { vote: [], stream: [] };
      const waiting = [...direction.waiting];
      direction.waiting.clear();
      for (const onSent of waiting) this.#timeline.after(1, () => onSent(false));
    }
  }

  #tellBroken(pair: Pair, end: ServerId, generation: number, isPrompt: boolean): void {
    const delay = isPrompt
      ? this.#random.wait(this.#profile.latencyUsMean)
      : 1 + this.#random.below(this.#profile.silentUsMax);
    const life = this.#endpoint(end).life();
    this.#timeline.after(delay, () => {
      if (this.#endpoint(end).life() !== life || pair.told.get(end) !== generation) return;
      pair.told.delete(end);
      this.#endpoint(end).disconnected(pair.other(end));
      this.#dial(pair);
    });
  }

  #dial(pair: Pair): void {
    if (pair.isDialling || pair.isUp) return;
    pair.isDialling = true;
    this.#timeline.after(this.#random.wait(this.#profile.dialUs), () => {
      pair.isDialling = false;
      if (pair.isUp) return;
      const isReachable = !pair.from(pair.a).isBlocked && !pair.from(pair.b).isBlocked;
      if (this.#endpoint(pair.a).life() === 0 || this.#endpoint(pair.b).life() === 0) return;
      if (!isReachable) this.#dial(pair);
      else this.#connect(pair);
    });
  }

  #connect(pair: Pair): void {
    pair.generation++;
    pair.isUp = true;
    const generation = pair.generation;
    for (const end of this.#random.shuffle([pair.a, pair.b])) {
      const life = this.#endpoint(end).life();
      const peer = pair.other(end);
      const peerIncarnation = this.#endpoint(peer).incarnation();
      // Old bytes never overtake the news of the connection: nothing is sent before this end was told.
      const delay = this.#random.wait(this.#profile.latencyUsMin);
      const arrival = this.#timeline.now + delay;
      const incoming = pair.from(peer);
      incoming.lastArrival.vote = Math.max(incoming.lastArrival.vote, arrival);
      incoming.lastArrival.stream = Math.max(incoming.lastArrival.stream, arrival);
      this.#timeline.after(delay, () => {
        if (this.#endpoint(end).life() !== life || pair.generation !== generation || !pair.isUp) return;
        // An end that had not yet noticed the old connection's end learns it now.
        if (pair.told.has(end)) {
          pair.told.delete(end);
          this.#endpoint(end).disconnected(peer);
        }
        pair.told.set(end, generation);
        this.#hooks.describe(() => `${end} connected to ${peer}`);
        this.#endpoint(end).connected(peer, peerIncarnation);
      });
    }
  }

  block(from: ServerId, to: ServerId): void {
    const pair = this.#pair(from, to);
    const direction = pair.from(from);
    if (direction.isBlocked) return;
    direction.isBlocked = true;
    this.#hooks.describe(() => `link ${from} -> ${to} silent`);
    if (!pair.isUp || this.#random.chance(0.4)) return;
    const generation = pair.generation;
    this.#timeline.after(1 + this.#random.below(this.#profile.silentUsMax), () => {
      if (pair.isUp && pair.generation === generation && direction.isBlocked)
        this.breakLink(from, to, 'silent too long');
    });
  }

  unblock(from: ServerId, to: ServerId): void {
    const pair = this.#pair(from, to);
    const direction = pair.from(from);
    if (!direction.isBlocked) return;
    direction.isBlocked = false;
    this.#hooks.describe(() => `link ${from} -> ${to} open`);
    if (!pair.isUp) {
      this.#dial(pair);
      return;
    }
    if (this.#random.chance(0.3)) {
      this.breakLink(from, to, 'reset after silence');
      return;
    }
    const generation = pair.generation;
    this.#timeline.after(this.#latency(direction), () => {
      this.#pump(pair, from, generation, 'vote');
      this.#pump(pair, from, generation, 'stream');
    });
  }

  isBlocked(from: ServerId, to: ServerId): boolean {
    return this.#pair(from, to).from(from).isBlocked;
  }

  setSlowness(from: ServerId, to: ServerId, slowness: number): void {
    this.#pair(from, to).from(from).slowness = slowness;
  }

  healAll(): void {
    this.#isCalm = true;
    for (const pair of this.#pairs) {
      this.unblock(pair.a, pair.b);
      this.unblock(pair.b, pair.a);
      pair.from(pair.a).slowness = 1;
      pair.from(pair.b).slowness = 1;
      this.#dial(pair);
    }
  }
}

/** One line for the timeline of a failure. */
export function describeMessage(message: object): string {
  const parts: string[] = [];
  for (const [key, value] of Object.entries(message)) {
    if (key === 'kind') parts.unshift(String(value));
    else parts.push(`${key}=${describeValue(value)}`);
  }
  return parts.join(' ');
}

function describeValue(value: unknown): string {
  if (typeof value === 'bigint') {
    const high = value >> 32n;
    return high > 0n && high < 100_000n ? `${high}:${value & 0xffffffffn}` : `0x${value.toString(16)}`;
  }
  if (value instanceof Uint8Array) return `${value.length}B`;
  if (Array.isArray(value)) return `[${value.map(describeValue).join(' ')}]`;
  if (typeof value === 'object' && value !== null) {
    if ('zxid' in value) return describeValue(value.zxid);
    return `{${describeMessage(value)}}`;
  }
  return String(value);
}
