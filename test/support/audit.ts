// The verdict on a run with real processes: read out every server, close every session, stop the servers, read their logs,
// and hold all of it against what the wire carried. It starts nothing and repairs nothing; a run without conclusive traffic fails.
import { mkdir, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  type CheckOptions,
  checkHistory,
  checkLinearizability,
  type EventRecord,
  type History,
  isWrite,
  type OpRecord,
  operationsOf,
  toJsonLines,
  type Violation,
} from '@quorate/checker';
import type { Client, Stat } from '@quorate/client';
import { type Ensemble, fourLetterWord, waitFor } from './ensemble.ts';
import { committedLog, txnRecord } from './log-export.ts';
import { within } from './scale.ts';
import { type Traffic, tree } from './traffic.ts';

export type AuditOptions = {
  /** Below these a run proves nothing. */
  readonly writesMin: number;
  readonly eventsMin: number;
  /** The whole log from the first txn on must be there. Default true; false where snapshots may have replaced it everywhere. */
  readonly isLogWhole?: boolean;
  readonly checks?: Partial<CheckOptions>;
};

export type Report = {
  readonly acknowledgedWrites: number;
  readonly unknownWrites: number;
  readonly events: number;
  readonly connections: number;
  readonly txns: number;
};

export type Znode = { readonly path: string; readonly data: string | null; readonly stat: Stat };

/** zoo.cfg of the test ensembles: tickTime 500. */
export const sessionTimeoutMsMin = 1_000;
export const sessionTimeoutMsMax = 10_000;

/** Steps of the linearizability search per znode. */
const stepsMax = 3_000_000;

/** Ends the run. All servers must be running. Throws with every violation found, and says where the history lies. */
export async function audit(ensemble: Ensemble, traffic: Traffic, options: AuditOptions): Promise<Report> {
  const violations: Violation[] = [];
  const report = (rule: string, detail: string): void => {
    violations.push({ rule, detail });
  };
  await traffic.stop();
  for (const server of ensemble.servers) {
    if (server.process === null) report('alive', `server ${server.id} has ended by itself`);
  }
  if (violations.length > 0) throw await failure(ensemble, traffic, violations, traffic.recorder.history());

  const trees = await readOut(ensemble, traffic);
  compareTrees(trees, report);
  const znodes = trees[0] ?? [];
  await traffic.close();
  await waitForNoEphemerals(ensemble, traffic);
  await waitForEqualServers(ensemble);

  await stopInOrder(ensemble, report);
  await traffic.tap.close();
  const log = await committedLog(ensemble.servers);
  violations.push(...log.violations);
  if (!log.isWhole && options.isLogWhole !== false) report('log', 'no server has the log from its first txn on');
  const seen = traffic.recorder.history();
  if (log.isWhole) for (const { zxid, txn } of log.entries) traffic.recorder.add(txnRecord(zxid, txn));
  const history = traffic.recorder.history();

  for (const { client, code, message } of traffic.failures) report('client', `${client}: ${code}: ${message}`);
  violations.push(...traffic.tap.violations);
  violations.push(...checkCounters(seen, znodes));
  violations.push(
    ...checkHistory(history, {
      hasLog: log.isWhole,
      isSyncQuorum: true,
      hasUniqueXids: true,
      doEventsCarryZxid: true,
      timeoutMsMin: sessionTimeoutMsMin,
      timeoutMsMax: sessionTimeoutMsMax,
      stepsMax: 0,
      ...options.checks,
    }),
  );
  const linearizable = checkLinearizability(seen, stepsMax);
  violations.push(...linearizable.violations);
  if (linearizable.checkedZnodes < tree.registers.length) report('traffic', 'not every register was checked');
  for (const path of linearizable.undecidedZnodes)
    report('Linearizability', `${path}: no verdict within ${stepsMax} steps`);

  const operations = operationsOf(seen);
  const writes = operations.filter((op) => isWrite(op.kind));
  const result: Report = {
    acknowledgedWrites: writes.filter(isAcknowledged).length,
    unknownWrites: writes.filter((op) => op.outcome === 'unknown').length,
    events: seen.filter((record) => record.type === 'event').length,
    connections: seen.filter((record) => record.type === 'connect' && record.session !== 0n).length,
    txns: log.entries.length,
  };
  if (result.acknowledgedWrites < options.writesMin) {
    report(
      'traffic',
      `${result.acknowledgedWrites} acknowledged writes prove nothing: ${options.writesMin} are needed`,
    );
  }
  if (result.events < options.eventsMin) {
    report('traffic', `${result.events} watch events prove nothing: ${options.eventsMin} are needed`);
  }
  if (violations.length > 0) throw await failure(ensemble, traffic, violations, history);
  await ensemble.stop();
  return result;
}

export function isAcknowledged(op: OpRecord): boolean {
  return isWrite(op.kind) && op.outcome === 'ok' && !op.result?.results?.some(({ kind }) => kind === 'error');
}

/** The longest time without an acknowledged write that began between `from` and `until`, of the clients that `counts` names. */
export function writeGapMs(
  history: History,
  from: number,
  until: number,
  counts: (op: OpRecord) => boolean = () => true,
): number {
  const returns = operationsOf(history)
    .filter((op) => isAcknowledged(op) && counts(op) && op.ret >= from && op.ret <= until)
    .map((op) => op.ret)
    .sort((a, b) => a - b);
  let gap = 0;
  let last = from;
  for (const ret of returns) {
    gap = Math.max(gap, ret - last);
    last = ret;
  }
  return Math.round(Math.max(gap, until - last));
}

/** Acknowledged writes that were called after `from` and answered before `until`. */
export function writesWithin(history: History, from: number, until: number): number {
  return operationsOf(history).filter((op) => isAcknowledged(op) && op.call >= from && op.ret <= until).length;
}

/** Requests to these servers whose connection ended since then without an answer. */
export function unansweredOn(history: History, servers: readonly number[], since: number): readonly OpRecord[] {
  const ended = new Set<number>();
  for (const record of history) if (record.type === 'disconnect' && record.at >= since) ended.add(record.connection);
  return operationsOf(history).filter(
    (op) => op.outcome === 'unknown' && servers.includes(op.server) && ended.has(op.connection),
  );
}

export function eventsOf(history: History): EventRecord[] {
  return history.filter((record) => record.type === 'event');
}

export async function statusOf(port: number): Promise<ReadonlyMap<string, string>> {
  const answer = (await fourLetterWord(port, 'mntr', { timeoutMs: within(2_000) })) ?? '';
  return new Map(
    answer
      .split('\n')
      .map((line) => line.split('\t'))
      .flatMap(([key, value]) => (key === undefined || value === undefined ? [] : [[key, value]])),
  );
}

/** The tree as each server shows it after sync, read by recorded clients: these reads are part of the history. */
async function readOut(ensemble: Ensemble, traffic: Traffic): Promise<readonly Znode[][]> {
  return Promise.all(
    ensemble.servers.map(async ({ id }) => {
      const reader = await traffic.client(`reader-${id}`, [id]);
      const znodes: Znode[] = [];
      await reader.sync('/');
      for (const path of tree.registers) {
        // In one turn, so that each read counts as linearizable.
        await Promise.all([reader.sync(path), reader.get(path)]);
      }
      await walk(reader, '/', znodes);
      await reader.close();
      return znodes;
    }),
  );
}

async function walk(reader: Client, path: string, into: Znode[]): Promise<void> {
  const [{ data, stat }, { children }] = await Promise.all([reader.get(path), reader.children(path)]);
  into.push({ path, data: data === null ? null : data.toString('latin1'), stat });
  // /zookeeper/config is each server's own configuration, with the addresses as it knows them: no part of the replicated state.
  const below = [...children]
    .sort()
    .map((name) => (path === '/' ? `/${name}` : `${path}/${name}`))
    .filter((child) => child !== '/zookeeper/config');
  for (let at = 0; at < below.length; at += 64) {
    const parts = await Promise.all(
      below.slice(at, at + 64).map(async (child) => {
        const own: Znode[] = [];
        await walk(reader, child, own);
        return own;
      }),
    );
    for (const part of parts) into.push(...part);
  }
}

function compareTrees(trees: readonly Znode[][], report: (rule: string, detail: string) => void): void {
  const texts = trees.map((znodes) => znodes.map((znode) => describeZnode(znode)));
  const first = texts[0] ?? [];
  for (const [index, other] of texts.entries()) {
    const at = first.findIndex((line, position) => line !== other[position]);
    if (at >= 0 || other.length !== first.length) {
      const position = at < 0 ? first.length : at;
      report('trees', `server ${index + 1} has ${other[position]} where server 1 has ${first[position]}`);
    }
  }
}

function describeZnode({ path, data, stat }: Znode): string {
  const fields = Object.entries(stat).map(([key, value]) => `${key}=${value}`);
  return `${path} ${data} ${fields.join(' ')}`;
}

/** Sessions that were closed, and those that were cut off and expired, leave no ephemeral behind on any server. */
async function waitForNoEphemerals(ensemble: Ensemble, traffic: Traffic): Promise<void> {
  await Promise.all(
    ensemble.servers.map(async ({ id }) => {
      const reader = await traffic.client(`ephemerals-${id}`, [id]);
      await waitFor(
        `server ${id} to have no ephemeral of an ended session`,
        async () => {
          await reader.sync('/');
          return (await reader.children(tree.ephemerals)).children.length === 0;
        },
        within(20_000),
      );
      await reader.close();
    }),
  );
}

/** Same zxid, same counts, same digest where it is told. */
async function waitForEqualServers(ensemble: Ensemble): Promise<void> {
  const keys = ['zk_znode_count', 'zk_ephemerals_count', 'zk_approximate_data_size', 'zk_quorate_digest'];
  let last = '';
  const probe = async (): Promise<boolean> => {
    const states = await Promise.all(
      ensemble.servers.map(async ({ clientPort }) => {
        const status = await statusOf(clientPort);
        const answer = (await fourLetterWord(clientPort, 'srvr', { timeoutMs: within(2_000) })) ?? '';
        const zxid = /^Zxid: (\S+)/m.exec(answer)?.[1] ?? 'unknown';
        return [`zxid=${zxid}`, ...keys.map((key) => `${key}=${status.get(key)}`)].join(' ');
      }),
    );
    last = states.join(' | ');
    return !last.includes('unknown') && new Set(states).size === 1;
  };
  await waitFor('all servers to be equal', probe, within(10_000)).catch((cause: unknown) => {
    throw new Error(`the servers do not become equal: ${last}`, { cause });
  });
}

async function stopInOrder(ensemble: Ensemble, report: (rule: string, detail: string) => void): Promise<void> {
  await ensemble.stop({ keepFiles: true });
  for (const server of ensemble.servers) {
    const exit = await server.exit;
    if (exit?.code !== 0) report('exit', `server ${server.id} ended with ${exit?.code ?? exit?.signal} on SIGTERM`);
  }
}

/**
 * Nothing lost, nothing twice, by counting alone: no zxid is trusted here. A write without an answer may count once or not at all.
 */
export function checkCounters(history: History, znodes: readonly Znode[]): Violation[] {
  const violations: Violation[] = [];
  const byPath = new Map(znodes.map((znode) => [znode.path, znode]));
  const sure = new Map<string, number>();
  const unsure = new Map<string, number>();
  const count = (counts: Map<string, number>, path: string): void => {
    counts.set(path, (counts.get(path) ?? 0) + 1);
  };
  const entries = new Map<string, OpRecord>();
  const maybeEntries = new Set<string>();
  for (const op of operationsOf(history)) {
    const counts = op.outcome === 'unknown' ? unsure : sure;
    if (op.outcome !== 'unknown' && !isAcknowledged(op)) continue;
    if (op.kind === 'setData' && op.args.path !== undefined) count(counts, op.args.path);
    for (const part of op.args.operations ?? []) {
      if (op.kind === 'multi' && part.kind === 'setData' && part.path !== undefined) count(counts, part.path);
    }
    if (op.kind === 'create2' && op.args.path === `${tree.ledger}/e-`) {
      if (op.outcome === 'unknown') maybeEntries.add(op.args.data ?? '');
      else entries.set(op.result?.path ?? '', op);
    }
  }
  const counted = [...tree.registers, ...tree.pairs.flatMap(({ guard, value }) => [guard, value])];
  for (const path of counted) {
    const znode = byPath.get(path);
    if (znode === undefined) {
      violations.push({ rule: 'counter', detail: `${path} is gone` });
      continue;
    }
    const min = sure.get(path) ?? 0;
    const max = min + (unsure.get(path) ?? 0);
    if (znode.stat.version < min || znode.stat.version > max) {
      violations.push({
        rule: 'counter',
        detail: `${path} has version ${znode.stat.version}: ${min} writes were acknowledged, ${max - min} have no answer`,
      });
    }
  }
  for (const { guard, value } of tree.pairs) {
    const versions = [byPath.get(guard)?.stat.version, byPath.get(value)?.stat.version];
    if (versions[0] !== versions[1]) {
      violations.push({ rule: 'atomic', detail: `${guard} and ${value} have versions ${versions.join(' and ')}` });
    }
  }
  violations.push(...checkLedger(znodes, entries, maybeEntries));
  return violations;
}

function checkLedger(
  znodes: readonly Znode[],
  entries: ReadonlyMap<string, OpRecord>,
  maybe: ReadonlySet<string>,
): Violation[] {
  const violations: Violation[] = [];
  const found = new Map<string, string>();
  const values = new Map<string, string>();
  for (const { path, data } of znodes) {
    if (!path.startsWith(`${tree.ledger}/`)) continue;
    const value = data ?? '';
    found.set(path, value);
    const twin = values.get(value);
    if (twin !== undefined) violations.push({ rule: 'twice', detail: `${path} and ${twin} both hold "${value}"` });
    values.set(value, path);
    if (!entries.has(path) && !maybe.has(value)) {
      violations.push({ rule: 'invented', detail: `${path} with "${value}" was never asked for` });
    }
  }
  for (const [path, op] of entries) {
    const value = found.get(path);
    if (value === undefined)
      violations.push({ rule: 'lost', detail: `${path} was acknowledged to ${op.client} and is gone` });
    else if (value !== op.args.data) {
      violations.push({ rule: 'lost', detail: `${path} holds "${value}", acknowledged was "${op.args.data}"` });
    }
  }
  return violations;
}

/** Keeps what is needed to understand the failure, and says where. */
async function failure(
  ensemble: Ensemble,
  traffic: Traffic,
  violations: readonly Violation[],
  history: History,
): Promise<Error> {
  const folder = join(
    process.env['QUORATE_ARTIFACTS'] ?? join(tmpdir(), 'quorate-artifacts'),
    `run-${process.pid}-${Date.now()}`,
  );
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, 'history.jsonl'), toJsonLines(history));
  for (const server of ensemble.servers) {
    await writeFile(join(folder, `server-${server.id}.log`), await ensemble.tailOfLog(server.id, 5_000));
  }
  await traffic.abandon();
  await ensemble.stop();
  const shown = violations.slice(0, 12).map(({ rule, detail }) => `${rule}: ${detail}`);
  const more = violations.length > shown.length ? [`and ${violations.length - shown.length} more`] : [];
  return new Error([`${violations.length} violations; history and logs: ${folder}`, ...shown, ...more].join('\n'));
}
