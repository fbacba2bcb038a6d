// `quorate rolling-restart`: one server at a time, each only while all others are in sync, the leader last.
// It never kills: a server that does not stop when asked ends the restart. It asks by srvr, which every server answers.

import { spawn } from 'node:child_process';
import {
  closeSync,
  existsSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  realpathSync,
  statSync,
} from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { formatAddress, type ServerAddress } from '@quorate/client';
import { hex64 } from '@quorate/protocol';
import type { Output } from './format.ts';
import { type ServerStatus, serverStatus } from './four-letter-words.ts';

export type RollingRestartOptions = {
  /** One folder with server-N/zoo.cfg in it, or configuration files. */
  readonly places: readonly string[];
  readonly restartCommand: string | undefined;
  readonly waitMs: number;
  readonly isJson: boolean;
  readonly output: Output;
};

export class RestartError extends Error {
  readonly code = 'restartFailed';
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'RestartError';
  }
}

type Member = {
  readonly id: number;
  readonly configFile: string;
  readonly pidFile: string;
  readonly client: ServerAddress;
};
type Tell = (step: string, member: Member | undefined, text: string, fields?: Record<string, unknown>) => void;

const POLL_MS = 100;
const ASK_MS = 2_000;
const SERVING_MODES: ReadonlySet<string> = new Set(['leader', 'follower', 'observer', 'standalone']);

export async function rollingRestart(options: RollingRestartOptions): Promise<number> {
  const members = await findMembers(options.places);
  const tell: Tell = (step, member, text, fields = {}) => {
    if (options.isJson) options.output.out(`${JSON.stringify({ step, server: member?.id ?? null, ...fields })}\n`);
    else options.output.out(`${member === undefined ? '' : `server ${member.id}: `}${text}\n`);
  };
  const first = await untilInSync(members, options.waitMs);
  const leader = members.find((member) => first.get(member)?.mode === 'leader');
  const order = [...members.filter((member) => member !== leader), ...(leader === undefined ? [] : [leader])];
  const ids = order.map(({ id }) => id);
  tell('plan', undefined, `all ${members.length} servers are in sync; restarting ${ids.join(', ')} in this order`, {
    order: ids,
    leader: leader?.id ?? null,
  });
  for (const member of order) await restartOne(member, members, options, tell);
  tell('done', undefined, `all ${members.length} servers were restarted and are in sync`);
  return 0;
}

async function restartOne(
  member: Member,
  members: readonly Member[],
  options: RollingRestartOptions,
  tell: Tell,
): Promise<void> {
  const startedMs = performance.now();
  const statuses = await untilInSync(members, options.waitMs);
  const mode = statuses.get(member)?.mode ?? 'unknown';
  const pid = readPid(member);
  if (options.restartCommand === undefined) {
    if (pid === undefined || !isRunning(pid) || !servesConfig(pid, member.configFile)) {
      throw new RestartError(`server ${member.id} does not run as the process in ${member.pidFile}`);
    }
    const handsOver = mode === 'leader' && members.length > 1;
    tell('stop', member, `is ${mode}${handsOver ? ', hands leadership over and stops' : ', stops'} (process ${pid})`, {
      mode,
      pid,
    });
    process.kill(pid, 'SIGTERM');
    await until(`server ${member.id} to stop`, options.waitMs, () => !isRunning(pid));
    const startedPid = startServer(member);
    tell('start', member, `starts (process ${startedPid})`, { pid: startedPid });
    await untilNewProcess(member, startedPid, options.waitMs);
  } else {
    tell('restart', member, `is ${mode}, is restarted by the given command`, { mode });
    await runCommand(options.restartCommand, member);
    await until(`a new process of server ${member.id}`, options.waitMs, () => {
      const newPid = readPid(member);
      return newPid !== undefined && newPid !== pid;
    });
  }
  const after = await untilInSync(members, options.waitMs);
  const status = after.get(member);
  const tookMs = Math.round(performance.now() - startedMs);
  tell('synced', member, `is ${status?.mode}, in sync at ${hex64(status?.zxid ?? 0n)} after ${tookMs} ms`, {
    mode: status?.mode,
    zxid: hex64(status?.zxid ?? 0n),
    tookMs,
  });
}

async function findMembers(places: readonly string[]): Promise<Member[]> {
  const files = places.flatMap((place) => {
    const path = resolve(place);
    if (!existsSync(path)) throw new RestartError(`${place} does not exist`);
    if (!statSync(path).isDirectory()) return [path];
    const found = readdirSync(path)
      .filter((name) => /^server-\d+$/.test(name))
      .map((name) => join(path, name, 'zoo.cfg'))
      .filter((file) => existsSync(file));
    if (found.length === 0) throw new RestartError(`${place} holds no server-N/zoo.cfg`);
    return found;
  });
  const { loadConfig } = await import('@quorate/server/config');
  const members = files.map((configFile) => {
    try {
      const { id, dataDir, client } = loadConfig(configFile);
      // A server that listens everywhere is reached here: its process is on this machine.
      const isEverywhere = client.host === null || client.host === '0.0.0.0' || client.host === '::';
      return {
        id,
        configFile,
        pidFile: join(dataDir, 'quorate.pid'),
        client: { host: isEverywhere || client.host === null ? '127.0.0.1' : client.host, port: client.port },
      };
    } catch (error) {
      throw new RestartError(error instanceof Error ? error.message : String(error), { cause: error });
    }
  });
  return members.toSorted((a, b) => a.id - b.id);
}

/**
 * Waits until every server serves, exactly one leads, and each has reached what the leader had when it was asked.
 * Two readings are not one moment: the leader is asked first, so that "reached" can only be said too late, never too early.
 */
async function untilInSync(members: readonly Member[], waitMs: number): Promise<Map<Member, ServerStatus>> {
  const deadlineMs = performance.now() + waitMs;
  let leader: Member | undefined;
  for (;;) {
    const ordered = leader === undefined ? members : [leader, ...members.filter((member) => member !== leader)];
    const statuses = new Map<Member, ServerStatus>();
    let trouble: string | undefined;
    let leaderZxid = 0n;
    for (const member of ordered) {
      const status = await serverStatus(member.client, ASK_MS);
      if (typeof status === 'string') {
        trouble ??= `server ${member.id} at ${formatAddress(member.client)} does not serve: ${status}`;
        continue;
      }
      statuses.set(member, status);
      if (member === leader) leaderZxid = status.zxid;
      if (!SERVING_MODES.has(status.mode)) trouble ??= `server ${member.id} is ${status.mode}`;
      else if (leader !== undefined && status.zxid < leaderZxid) {
        trouble ??= `server ${member.id} is at ${hex64(status.zxid)}, the leader at ${hex64(leaderZxid)}`;
      }
    }
    const leaders = [...statuses].filter(([, { mode }]) => mode === 'leader').map(([member]) => member);
    const isAlone = members.length === 1 && [...statuses.values()].some(({ mode }) => mode === 'standalone');
    if (leaders.length !== 1 && !isAlone) trouble ??= `${leaders.length} servers lead`;
    const wasLeader = leader;
    leader = leaders.length === 1 ? leaders[0] : undefined;
    if (trouble === undefined && (isAlone || leader === wasLeader)) return statuses;
    if (performance.now() >= deadlineMs) {
      throw new RestartError(`not in sync after ${waitMs} ms: ${trouble ?? 'the leader changes'}`);
    }
    // A first look that only found the leader needs no pause.
    if (trouble !== undefined) await sleep(POLL_MS);
  }
}

function startServer(member: Member): number {
  const bin = fileURLToPath(new URL('../bin/quorate.mjs', import.meta.url));
  const folder = dirname(member.configFile);
  const log = openSync(join(folder, 'server.log'), 'a');
  const child = spawn(process.execPath, [bin, 'server', member.configFile], {
    detached: true,
    stdio: ['ignore', log, log],
  });
  closeSync(log);
  if (child.pid === undefined) throw new RestartError(`server ${member.id} could not be started`);
  child.unref();
  return child.pid;
}

async function untilNewProcess(member: Member, pid: number, waitMs: number): Promise<void> {
  await until(`server ${member.id} to start`, waitMs, () => {
    if (!isRunning(pid)) {
      throw new RestartError(
        `server ${member.id} ended at once; ${join(dirname(member.configFile), 'server.log')} says why`,
      );
    }
    return readPid(member) === pid;
  });
}

function runCommand(template: string, member: Member): Promise<void> {
  const quoted = `'${member.configFile.replaceAll("'", "'\\''")}'`;
  const command = template.replaceAll('{id}', String(member.id)).replaceAll('{config}', quoted);
  return new Promise((resolvePromise, reject) => {
    const child = spawn(command, { shell: true, stdio: ['ignore', 'ignore', 'inherit'] });
    child.on('error', (error) =>
      reject(new RestartError(`the command for server ${member.id} failed`, { cause: error })),
    );
    child.on('exit', (code, signal) => {
      if (code === 0) resolvePromise();
      else reject(new RestartError(`the command for server ${member.id} ended with ${code ?? signal}`));
    });
  });
}

function readPid(member: Member): number | undefined {
  try {
    const pid = Number(readFileSync(member.pidFile, 'utf8').trim());
    return Number.isInteger(pid) && pid > 0 ? pid : undefined;
  } catch {
    return undefined;
  }
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
  } catch {
    return false;
  }
  // A process that ended but whose parent has not looked yet does nothing any more.
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return stat.slice(stat.lastIndexOf(')') + 2, stat.lastIndexOf(')') + 3) !== 'Z';
  } catch {
    return true;
  }
}

/**
 * A process id is used again after its process: where the system tells, only one that was started with this configuration
 * is asked to stop.
 */
function servesConfig(pid: number, configFile: string): boolean {
  try {
    const words = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
    const folder = readlinkSync(`/proc/${pid}/cwd`);
    const wanted = realpathSync(configFile);
    return words.some((word) => word !== '' && realpathOf(resolve(folder, word)) === wanted);
  } catch {
    return process.platform !== 'linux';
  }
}

function realpathOf(path: string): string | undefined {
  try {
    return realpathSync(path);
  } catch {
    return undefined;
  }
}

async function until(what: string, waitMs: number, condition: () => boolean): Promise<void> {
  const deadlineMs = performance.now() + waitMs;
  while (!condition()) {
    if (performance.now() >= deadlineMs) throw new RestartError(`waited ${waitMs} ms for ${what}`);
    await sleep(POLL_MS);
  }
}
