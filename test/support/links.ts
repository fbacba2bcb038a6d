// Every link of an ensemble through toxiproxy: one proxy per directed pair of servers (who dials, who is dialled) and one in front of each
// client port. So a link can be cut, in one direction too, slowed or torn. A proxy of a server that is down is disabled: toxiproxy would
// accept and then close, which is another fault than the one meant. Proves with /proc that no connection goes round the proxies.
import { readdir, readFile, readlink } from 'node:fs/promises';
import { type Proxy as Link, Toxiproxy } from 'toxiproxy-node-client';
import { createEnsemble, type Ensemble, type EnsembleOptions, fourLetterWord, freePorts, waitFor } from './ensemble.ts';
import { type Run, runOn } from './run.ts';
import { within } from './scale.ts';
import { startToxiproxy } from './toxiproxy.ts';
import type { TrafficOptions } from './traffic.ts';
import type { TapTarget } from './wire-tap.ts';

type Direction = 'upstream' | 'downstream';
export type Toxin =
  /** Bytes are thrown away, the connection stays: silence. Taking it away closes the connection. */
  | { readonly type: 'timeout'; readonly attributes: { readonly timeout: 0 } }
  | { readonly type: 'latency'; readonly attributes: { readonly latency: number; readonly jitter: number } }
  | { readonly type: 'bandwidth'; readonly attributes: { readonly rate: number } }
  | { readonly type: 'limit_data'; readonly attributes: { readonly bytes: number } }
  | {
      readonly type: 'slicer';
      readonly attributes: { readonly average_size: number; readonly size_variation: number; readonly delay: number };
    };

export const silence: Toxin = { type: 'timeout', attributes: { timeout: 0 } };

export class Links {
  readonly #ensemble: Ensemble;
  readonly #toxiproxy: Toxiproxy;
  readonly #links: ReadonlyMap<string, Link>;
  readonly clientTargets: readonly TapTarget[];
  #toxins = 0;

  private constructor(
    ensemble: Ensemble,
    toxiproxy: Toxiproxy,
    links: ReadonlyMap<string, Link>,
    targets: TapTarget[],
  ) {
    this.#ensemble = ensemble;
    this.#toxiproxy = toxiproxy;
    this.#links = links;
    this.clientTargets = targets;
  }

  /** The servers have not started: their configurations name the proxies from now on. */
  static async lay(ensemble: Ensemble, toxiproxy: Toxiproxy): Promise<Links> {
    const ids = ensemble.servers.map(({ id }) => id);
    const names = [
      ...ids.flatMap((from) => ids.filter((to) => to !== from).map((to) => ({ name: `${from}>${to}`, from, to }))),
      ...ids.map((to) => ({ name: `client>${to}`, from: null, to })),
    ];
    const ports = await freePorts(names.length);
    const links = new Map<string, Link>();
    const targets: TapTarget[] = [];
    for (const [index, { name, from, to }] of names.entries()) {
      const port = ports[index];
      if (port === undefined) throw new Error('a port for each proxy');
      const { peerPort, clientPort } = ensemble.server(to);
      const upstream = `127.0.0.1:${from === null ? clientPort : peerPort}`;
      links.set(name, await toxiproxy.createProxy({ name, listen: `127.0.0.1:${port}`, upstream }));
      if (from === null) targets.push({ server: to, port });
      else await ensemble.dialThrough(from, to, port);
    }
    return new Links(ensemble, toxiproxy, links, targets);
  }

  /** The server is cut off from the others: connections are closed, new ones refused. */
  async cutOff(id: number): Promise<void> {
    await Promise.all(this.#peersOf(id).flatMap((other) => [this.cut(id, other)]));
  }

  /** No link between these two, whoever dials. */
  async cut(a: number, b: number): Promise<void> {
    await Promise.all([this.#enable(`${a}>${b}`, false), this.#enable(`${b}>${a}`, false)]);
  }

  async join(a: number, b: number): Promise<void> {
    await Promise.all([this.#enable(`${a}>${b}`, true), this.#enable(`${b}>${a}`, true)]);
  }

  /** What `from` sends to `to` meets the toxin, on connections that either of them dialled. */
  async poison(from: number, to: number, toxin: Toxin): Promise<void> {
    await Promise.all([this.#add(`${from}>${to}`, 'upstream', toxin), this.#add(`${to}>${from}`, 'downstream', toxin)]);
  }

  /** What clients send to the server, or what it sends to them. */
  async poisonClients(id: number, direction: Direction, toxin: Toxin): Promise<void> {
    await this.#add(`client>${id}`, direction, toxin);
  }

  /** Every link as new. All servers must be running. */
  async heal(): Promise<void> {
    await this.#toxiproxy.reset();
  }

  async kill(id: number): Promise<void> {
    await this.#ensemble.kill(id);
    await this.#enableAllTo(id, false);
  }

  async start(id: number): Promise<void> {
    this.#ensemble.spawnServer(id);
    const { clientPort } = this.#ensemble.server(id);
    await waitFor(`server ${id} to listen`, () => fourLetterWord(clientPort, 'ruok'), within(20_000));
    await this.#enableAllTo(id, true);
    await waitFor(`server ${id} to have a role`, () => this.#ensemble.modeOf(id), within(20_000));
  }

  /** Connections of servers that lead straight to another server's peer port. There must be none. */
  async connectionsRoundTheProxies(): Promise<readonly string[]> {
    const peerPorts = new Map(this.#ensemble.servers.map(({ id, peerPort }) => [peerPort, id]));
    const table = await readFile('/proc/net/tcp', 'latin1');
    const remotes = new Map<string, number>();
    for (const line of table.split('\n').slice(1)) {
      const fields = line.trim().split(/\s+/);
      const [remote, state, inode] = [fields[2], fields[3], fields[9]];
      if (remote === undefined || inode === undefined || state !== '01') continue;
      remotes.set(inode, Number.parseInt(remote.slice(remote.indexOf(':') + 1), 16));
    }
    const found: string[] = [];
    for (const server of this.#ensemble.servers) {
      const pid = server.process?.pid;
      if (pid === undefined) continue;
      for (const inode of await socketsOf(pid)) {
        const other = peerPorts.get(remotes.get(inode) ?? -1);
        if (other !== undefined) found.push(`server ${server.id} is connected to server ${other} directly`);
      }
    }
    return found;
  }

  #peersOf(id: number): number[] {
    return this.#ensemble.servers.map((server) => server.id).filter((other) => other !== id);
  }

  #link(name: string): Link {
    const link = this.#links.get(name);
    if (link === undefined) throw new Error(`no link ${name}`);
    return link;
  }

  async #add(name: string, stream: Direction, { type, attributes }: Toxin): Promise<void> {
    await this.#link(name).addToxic({ name: `toxin-${++this.#toxins}`, type, stream, toxicity: 1, attributes });
  }

  async #enable(name: string, enabled: boolean): Promise<void> {
    const { listen, upstream } = this.#link(name);
    await this.#link(name).update({ enabled, listen, upstream });
  }

  async #enableAllTo(id: number, enabled: boolean): Promise<void> {
    const names = [...this.#peersOf(id).map((from) => `${from}>${id}`), `client>${id}`];
    await Promise.all(names.map((name) => this.#enable(name, enabled)));
  }
}

async function socketsOf(pid: number): Promise<string[]> {
  const folder = `/proc/${pid}/fd`;
  const names = await readdir(folder);
  const links = await Promise.all(names.map((name) => readlink(`${folder}/${name}`).catch(() => '')));
  return links.flatMap((link) => /^socket:\[(\d+)\]$/.exec(link)?.[1] ?? []);
}

export type LinkedRun = Run & { readonly links: Links };

/** Three servers whose every link goes through a proxy, under recorded traffic that comes through proxies as well. */
export async function startLinkedRun(
  command: string,
  options: {
    readonly ensemble?: Omit<EnsembleOptions, 'kind'>;
    readonly traffic?: Omit<TrafficOptions, 'targets'>;
  } = {},
): Promise<LinkedRun> {
  const toxiproxy = await startToxiproxy(command);
  let ensemble: Ensemble | null = null;
  try {
    ensemble = await createEnsemble(options.ensemble);
    const links = await Links.lay(ensemble, new Toxiproxy(toxiproxy.url));
    await ensemble.startAll(within(30_000));
    const run = await runOn(ensemble, options.traffic, links.clientTargets);
    return {
      ...run,
      links,
      async [Symbol.asyncDispose]() {
        await run[Symbol.asyncDispose]();
        await toxiproxy.stop();
      },
    };
  } catch (error) {
    await ensemble?.stop();
    await toxiproxy.stop();
    throw error;
  }
}
