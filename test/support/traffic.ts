// Recorded clients that keep an ensemble busy: writes of every kind, reads, sync + read, watches of every kind always armed.
// Every connection goes through the wire tap, so the history is what the wire carried. Values are unique, counters only count up:
// losses and doubles show without trust in any zxid. It judges nothing; audit.ts does.

import { Recorder } from '@quorate/checker';
import { Client, type HostProvider, MultiError, type PersistentWatch, ZkError } from '@quorate/client';
import { waitFor } from './ensemble.ts';
import { within } from './scale.ts';
import { type TapTarget, WireTap } from './wire-tap.ts';

export type TrafficOptions = {
  /** Where clients connect: the servers' own client ports, or proxies in front of them. */
  readonly targets: readonly TapTarget[];
  /** Pinned clients per server: they know that server only. Default 2. */
  readonly pinnedPerServer?: number;
  /** Clients that know all servers. Default 6. */
  readonly roaming?: number;
  readonly sessionTimeoutMs?: number;
  /** Names of servers whose pinned clients are left out. */
  readonly withoutPinned?: readonly number[];
};

export const tree = {
  root: '/t',
  /** Registers: never deleted, so their version counts the writes. */
  registers: Array.from({ length: 16 }, (_, index) => `/t/regs/r${index}`),
  /** Created and deleted by everybody. */
  flips: Array.from({ length: 10 }, (_, index) => `/t/flips/f${index}`),
  /** Guards and values that only multis change. */
  pairs: Array.from({ length: 6 }, (_, index) => ({ guard: `/t/pairs/g${index}`, value: `/t/pairs/v${index}` })),
  /** Persistent sequential znodes that nobody deletes. */
  ledger: '/t/ledger',
  ephemerals: '/t/eph',
} as const;

/** What a correct ensemble may answer to a request of this traffic. */
const expectedCodes: ReadonlySet<string> = new Set(['noNode', 'nodeExists', 'badVersion', 'notEmpty']);

const ownEphemeralsMax = 4;

/** A small, well spread generator; a run's order still depends on the machine. */
function randomFrom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}

/** Starts at `first` and goes round, with a growing pause from round to round. */
function ring(ports: readonly number[], first: number): HostProvider {
  let position = first - 1;
  let dialled = 0;
  return {
    size: () => ports.length,
    next() {
      position = (position + 1) % ports.length;
      const round = Math.floor(dialled++ / ports.length);
      const port = ports[position];
      if (port === undefined) throw new Error('a ring has at least one server');
      return { server: { host: '127.0.0.1', port }, delayMs: round === 0 ? 5 : Math.min(250, 25 * 2 ** round) };
    },
    onConnected() {
      dialled = 0;
    },
  };
}

export type ClientFailure = {
  readonly client: string;
  readonly at: number;
  readonly code: string;
  readonly message: string;
};

export class Traffic implements AsyncDisposable {
  readonly recorder: Recorder;
  readonly tap: WireTap;
  /** Answers and endings that no correct run contains. */
  readonly failures: ClientFailure[] = [];
  /** Writes whose reply was lost with the connection. */
  readonly losses: ClientFailure[] = [];
  readonly expirations: ClientFailure[] = [];
  readonly #options: TrafficOptions;
  readonly #workers: Worker[] = [];
  #acknowledged = 0;
  #events = 0;
  #stopping = false;
  #loops: Promise<void>[] = [];

  private constructor(options: TrafficOptions) {
    this.#options = options;
    this.recorder = new Recorder(now);
    this.tap = new WireTap(this.recorder, now);
  }

  /** The tree is there and every client is at work when this resolves. */
  static async start(options: TrafficOptions): Promise<Traffic> {
    const traffic = new Traffic(options);
    try {
      await traffic.#plant();
      const { targets, pinnedPerServer = 2, roaming = 6, withoutPinned = [] } = options;
      for (const target of targets) {
        if (withoutPinned.includes(target.server)) continue;
        for (let index = 0; index < pinnedPerServer; index++) {
          await traffic.#add(`pinned-${target.server}-${index}`, [target], 0);
        }
      }
      for (let index = 0; index < roaming; index++)
        await traffic.#add(`roaming-${index}`, targets, index % targets.length);
      await Promise.all(traffic.#workers.map((worker) => worker.begin()));
      traffic.#loops = traffic.#workers.map((worker) => worker.run());
      return traffic;
    } catch (error) {
      await traffic.abandon();
      throw error;
    }
  }

  get isStopping(): boolean {
    return this.#stopping;
  }

  get acknowledged(): number {
    return this.#acknowledged;
  }

  get sessionTimeoutMs(): number {
    return this.#options.sessionTimeoutMs ?? 8_000;
  }

  onAcknowledged(): void {
    this.#acknowledged++;
  }

  onEvent(): void {
    this.#events++;
  }

  get events(): number {
    return this.#events;
  }

  onError(client: string, error: unknown): void {
    const code = error instanceof ZkError || error instanceof MultiError ? error.code : 'uncoded';
    if (expectedCodes.has(code)) return;
    const message = error instanceof Error ? (error.stack ?? error.message) : String(error);
    const failure = { client, at: now(), code, message };
    if (code === 'connectionLoss') this.losses.push(failure);
    else if (code === 'sessionExpired') this.expirations.push(failure);
    else this.failures.push(failure);
  }

  /** Resolves when so many more writes are acknowledged: the measure of a bounded window of traffic. */
  async more(writes: number, what = 'writes to be acknowledged', timeoutMs = within(20_000)): Promise<void> {
    const goal = this.#acknowledged + writes;
    await waitFor(`${writes} ${what}`, () => this.#acknowledged >= goal, timeoutMs);
  }

  /** A client of the caller's own, recorded like all others. */
  async client(
    name: string,
    servers: readonly number[] = this.#options.targets.map(({ server }) => server),
  ): Promise<Client> {
    const targets = this.#options.targets.filter(({ server }) => servers.includes(server));
    const client = await this.open(name, targets, 0);
    await client.whenConnected({ signal: AbortSignal.timeout(within(15_000)) });
    return client;
  }

  async open(
    name: string,
    targets: readonly TapTarget[],
    first: number,
    timeoutMs = this.sessionTimeoutMs,
  ): Promise<Client> {
    const ports = await this.tap.listen(name, targets);
    return openClient(ports, first, timeoutMs);
  }

  /** Every loop ends after its current step. Every server a client is pinned to must run. Sessions stay open. */
  async stop(): Promise<void> {
    this.#stopping = true;
    let running = this.#loops.length;
    for (const loop of this.#loops) loop.finally(() => running--);
    await waitFor('every client to get its last answer', () => running === 0, within(20_000));
    await Promise.all(this.#loops);
  }

  /** Ends every session in order. */
  async close(): Promise<void> {
    await Promise.all(this.#workers.map((worker) => worker.close()));
  }

  /** For a test that failed: nothing is waited for. */
  async abandon(): Promise<void> {
    this.#stopping = true;
    await this.tap.close();
    await this.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.abandon();
  }

  async #add(name: string, targets: readonly TapTarget[], first: number): Promise<void> {
    const ports = await this.tap.listen(name, targets);
    this.#workers.push(new Worker(this, name, ports, first, this.#workers.length + 1));
  }

  async #plant(): Promise<void> {
    const planter = await this.client('planter');
    for (const path of ['/t', '/t/regs', '/t/flips', '/t/pairs', tree.ledger, tree.ephemerals])
      await planter.create(path);
    for (const path of tree.registers) await planter.create(path, `planted ${path}`);
    for (const { guard, value } of tree.pairs) {
      await planter.multi([
        { kind: 'create', path: guard },
        { kind: 'create', path: value, data: `planted ${value}` },
      ]);
    }
    await planter.close();
  }
}

export function now(): number {
  return performance.now();
}

function openClient(ports: readonly number[], first: number, sessionTimeoutMs: number): Client {
  const servers = ports.map((port) => `127.0.0.1:${port}`).join(',');
  return new Client({ servers, sessionTimeoutMs, hostProvider: ring(ports, first) });
}

/** One client, one request after the other, now and then several at once. */
class Worker {
  readonly name: string;
  readonly #traffic: Traffic;
  readonly #ports: readonly number[];
  readonly #first: number;
  readonly #random: () => number;
  readonly #versions = new Map<string, number>();
  readonly #ephemerals: string[] = [];
  readonly #streams: PersistentWatch[] = [];
  #client: Client;
  #value = 0;

  constructor(traffic: Traffic, name: string, ports: readonly number[], first: number, seed: number) {
    this.#traffic = traffic;
    this.name = name;
    this.#ports = ports;
    this.#first = first;
    this.#random = randomFrom(seed);
    this.#client = openClient(ports, first, traffic.sessionTimeoutMs);
  }

  async begin(): Promise<void> {
    await this.#client.whenConnected({ signal: AbortSignal.timeout(within(15_000)) });
    await this.#arm();
  }

  async run(): Promise<void> {
    while (!this.#traffic.isStopping) {
      try {
        await this.#step();
      } catch (error) {
        this.#traffic.onError(this.name, error);
      }
      if (this.#client.state === 'expired' && !this.#traffic.isStopping) await this.#renew();
    }
  }

  async close(): Promise<void> {
    await this.#client.close();
  }

  /** The session is gone, and with it ephemerals and watches: begin again under the same name. */
  async #renew(): Promise<void> {
    this.#ephemerals.length = 0;
    this.#streams.length = 0;
    this.#client = openClient(this.#ports, this.#first, this.#traffic.sessionTimeoutMs);
    try {
      await this.#client.whenConnected();
      await this.#arm();
    } catch (error) {
      this.#traffic.onError(this.name, error);
    }
  }

  /** Persistent and recursive watches for the whole session; one-shot ones come with the reads. */
  async #arm(): Promise<void> {
    const watches = [
      await this.#client.addWatch(this.#pick(tree.registers)),
      await this.#client.addWatch('/t/flips', { recursive: true }),
      await this.#client.addWatch(tree.ledger, { recursive: this.#random() < 0.5 }),
    ];
    for (const watch of watches) {
      this.#streams.push(watch);
      this.#drain(watch).catch((error: unknown) => this.#traffic.onError(this.name, error));
    }
  }

  async #drain(watch: PersistentWatch): Promise<void> {
    for await (const event of watch) if (event.kind !== 'session') this.#traffic.onEvent();
  }

  #pick<T>(from: readonly T[]): T {
    const item = from[Math.floor(this.#random() * from.length)];
    if (item === undefined) throw new Error('nothing to pick from');
    return item;
  }

  #unique(): string {
    return `${this.name} ${++this.#value}`;
  }

  readonly #watcher = (): void => this.#traffic.onEvent();

  #watch(): { readonly watch?: () => void } {
    return this.#random() < 0.5 ? { watch: this.#watcher } : {};
  }

  async #write<T>(promise: Promise<T>): Promise<T> {
    const result = await promise;
    this.#traffic.onAcknowledged();
    return result;
  }

  #step(): Promise<unknown> {
    const dice = this.#random();
    if (dice < 0.4) return this.#set();
    if (dice < 0.55) return this.#flip();
    if (dice < 0.65) return this.#ledgerOrEphemeral();
    if (dice < 0.75) return this.#multi();
    if (dice < 0.95) return this.#read();
    return this.#syncAndRead();
  }

  async #set(): Promise<unknown> {
    const path = this.#pick(tree.registers);
    const dice = this.#random();
    if (dice < 0.15) return this.#pipeline(path);
    const known = dice < 0.6 ? this.#versions.get(path) : undefined;
    try {
      const stat = await this.#write(this.#client.set(path, this.#unique(), { version: known }));
      this.#versions.set(path, stat.version);
      return stat;
    } catch (error) {
      this.#versions.delete(path);
      throw error;
    }
  }

  /** Several requests in one turn: their effects and replies must come in this order. */
  async #pipeline(path: string): Promise<void> {
    const other = this.#pick(tree.registers);
    const results = await Promise.allSettled([
      this.#write(this.#client.set(path, this.#unique())),
      this.#client.get(path),
      this.#write(this.#client.set(other, this.#unique())),
      this.#client.get(other, this.#watch()),
    ]);
    for (const result of results) if (result.status === 'rejected') this.#traffic.onError(this.name, result.reason);
  }

  #flip(): Promise<unknown> {
    const path = this.#pick(tree.flips);
    if (this.#random() < 0.5) return this.#write(this.#client.create(path, this.#unique()));
    return this.#write(this.#client.delete(path));
  }

  async #ledgerOrEphemeral(): Promise<unknown> {
    const dice = this.#random();
    if (dice < 0.4) {
      return this.#write(this.#client.create(`${tree.ledger}/e-`, this.#unique(), { mode: 'persistentSequential' }));
    }
    if (this.#ephemerals.length >= ownEphemeralsMax || (dice < 0.55 && this.#ephemerals.length > 0)) {
      const path = this.#ephemerals.shift();
      if (path !== undefined) return this.#write(this.#client.delete(path));
    }
    const mode = dice < 0.85 ? 'ephemeralSequential' : 'ephemeral';
    const name =
      mode === 'ephemeral' ? `${tree.ephemerals}/${this.#unique().replaceAll(' ', '-')}` : `${tree.ephemerals}/s-`;
    const created = await this.#write(this.#client.create(name, this.#unique(), { mode }));
    this.#ephemerals.push(created.path);
    return created;
  }

  async #multi(): Promise<unknown> {
    const { guard, value } = this.#pick(tree.pairs);
    const dice = this.#random();
    if (dice < 0.3) {
      // Often refused: somebody else has moved the guard meanwhile. Then nothing of it may have happened.
      const { stat } = await this.#client.get(guard);
      return this.#write(
        this.#client.multi([
          { kind: 'check', path: guard, version: stat.version },
          { kind: 'set', path: guard, data: null, version: stat.version },
          { kind: 'set', path: value, data: this.#unique() },
        ]),
      );
    }
    if (dice < 0.6) {
      return this.#write(
        this.#client.multi([
          { kind: 'set', path: guard, data: null },
          { kind: 'set', path: value, data: this.#unique() },
        ]),
      );
    }
    const path = `${guard}/x`;
    return this.#write(
      this.#client.multi([
        { kind: 'set', path: guard, data: null },
        { kind: 'set', path: value, data: this.#unique() },
        { kind: 'create', path },
        { kind: 'delete', path },
      ]),
    );
  }

  async #read(): Promise<unknown> {
    const dice = this.#random();
    if (dice < 0.4) {
      const path = this.#pick(tree.registers);
      const read = await this.#client.get(path, this.#watch());
      this.#versions.set(path, read.stat.version);
      return read;
    }
    if (dice < 0.7) return this.#client.exists(this.#pick(tree.flips), this.#watch());
    if (dice < 0.8) return this.#client.children(tree.ephemerals, this.#watch());
    if (dice < 0.9) return this.#client.children('/t/flips', this.#watch());
    return this.#client.get(this.#pick(tree.pairs).value, this.#watch());
  }

  async #syncAndRead(): Promise<void> {
    const path = this.#pick(tree.registers);
    // In one turn: nothing of this client comes between them.
    const results = await Promise.allSettled([this.#client.sync(path), this.#client.get(path, this.#watch())]);
    for (const result of results) if (result.status === 'rejected') this.#traffic.onError(this.name, result.reason);
  }
}
