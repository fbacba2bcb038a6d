// One client's connection to one server, as bytes: real frames through the real codec, FIFO in both directions, with latency.
// It ends when either side closes it or the server dies; what was on its way is lost then. It never shares an array with the server.

import { FrameDecoder, JuteReader, type JuteWriter, ProtocolError } from '@quorate/protocol';
import type { ClientPort } from '@quorate/server/ports';
import type { ClientEnd } from './machine.ts';
import type { Random } from './random.ts';
import type { Host, Simulation } from './simulation.ts';

export type LinkEvents = {
  /** A frame's payload, in the moment in which the server sends it; the answer is what the client does on arrival. */
  onServerFrame(reader: JuteReader): () => void;
  onClosed(isByClient: boolean): void;
};

export class ClientLink {
  readonly host: Host;
  readonly #simulation: Simulation;
  readonly #life: number;
  readonly #random: Random;
  readonly #events: LinkEvents;
  readonly #decoder = new FrameDecoder(1 << 24);
  readonly #latencyUs: number;
  #end: ClientEnd | null = null;
  #isOpen = true;
  #isServerDone = false;
  #isPaused = false;
  #held: Uint8Array[] = [];
  #lastToServer = 0;
  #lastToClient = 0;
  #inFlightBytes = 0;

  constructor(simulation: Simulation, host: Host, random: Random, latencyUs: number, events: LinkEvents) {
    this.#simulation = simulation;
    this.host = host;
    this.#life = host.life;
    this.#random = random;
    this.#latencyUs = latencyUs;
    this.#events = events;
    this.#toServer(() => {
      this.#end = host.machine?.connectClient(this.#port()) ?? null;
      if (this.#end === null) this.#closeFromServer();
    });
  }

  get isOpen(): boolean {
    return this.#isOpen;
  }

  #toServer(work: () => void): void {
    const arrival = Math.max(this.#lastToServer, this.#simulation.timeline.now + this.#random.wait(this.#latencyUs));
    this.#lastToServer = arrival;
    this.#simulation.timeline.at(arrival, () => {
      if (!this.#isServerDone) this.#simulation.deliver(this.host, this.#life, work);
    });
  }

  #toClient(work: () => void): void {
    const arrival = Math.max(this.#lastToClient, this.#simulation.timeline.now + this.#random.wait(this.#latencyUs));
    this.#lastToClient = arrival;
    this.#simulation.timeline.at(arrival, () => {
      if (this.#isOpen) work();
    });
  }

  /** Frames that leave together arrive as one chunk of the stream. */
  send(frames: readonly JuteWriter[]): void {
    // A real copy: slice of a Buffer would be a view.
    const payloads = frames.map((frame) => new Uint8Array(frame.bytes()));
    this.#toServer(() => {
      this.#held.push(...payloads);
      this.#feed();
    });
  }

  #feed(): void {
    const end = this.#end;
    if (end === null || this.#isServerDone) return;
    try {
      while (!this.#isPaused && !this.#isServerDone) {
        const payload = this.#held.shift();
        if (payload === undefined) break;
        end.onFrame(payload);
        // The socket's buffer is used again: whoever kept a view of it reads nonsense from now on.
        payload.fill(0xee);
      }
      if (!this.#isServerDone) end.onChunkEnd();
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      end.onClosed();
      this.#closeFromServer();
    }
  }

  #port(): ClientPort {
    const link = this;
    return {
      remoteAddress: '127.0.0.1',
      write: (bytes) => {
        this.#onServerBytes(new Uint8Array(bytes));
        return true;
      },
      get bufferedBytes() {
        return link.#inFlightBytes;
      },
      pause: () => {
        this.#isPaused = true;
      },
      resume: () => {
        this.#isPaused = false;
        this.#toServer(() => this.#feed());
      },
      close: () => this.#closeFromServer(),
    };
  }

  #onServerBytes(bytes: Uint8Array): void {
    if (this.#isServerDone) return;
    this.#inFlightBytes += bytes.length;
    const arrivals: (() => void)[] = [];
    this.#decoder.push(bytes, (chunk, start, end) => {
      const reader = new JuteReader();
      reader.reset(chunk, start, end);
      arrivals.push(this.#events.onServerFrame(reader));
      return true;
    });
    this.#toClient(() => {
      this.#inFlightBytes -= bytes.length;
      for (const arrive of arrivals) if (this.#isOpen) arrive();
    });
  }

  #closeFromServer(): void {
    if (this.#isServerDone) return;
    this.#isServerDone = true;
    this.#toClient(() => this.#ended(false));
  }

  /** The client's end closes; the server learns it a little later. */
  close(): void {
    if (!this.#isOpen) return;
    this.#ended(true);
    const end = this.#end;
    this.#toServer(() => {
      this.#isServerDone = true;
      (this.#end ?? end)?.onClosed();
    });
  }

  /** The server's process is gone: the client sees a reset, or nothing until it loses patience. */
  serverDied(isSeenSoon: boolean): void {
    this.#isServerDone = true;
    if (isSeenSoon) this.#toClient(() => this.#ended(false));
  }

  #ended(isByClient: boolean): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    this.#events.onClosed(isByClient);
  }
}
