// One table of all commands: name, usage, options, what it does. main.ts reads it for parsing and for help.
// A command prints its result and answers its exit code; what fails is thrown.

import { text as readAll } from 'node:stream/consumers';
import {
  type Acl,
  type Client,
  CREATOR_ALL_ACL,
  type CreateMode,
  OPEN_ACL,
  Perms,
  type PersistentWatch,
  READ_ACL,
  ZkError,
} from '@quorate/client';
import { dataRecord, eventRecord, formatEvent, formatRecord, type Output, statRecord } from './format.ts';
import { type Target, untilInterrupted, withClient } from './open.ts';
import { rollingRestart } from './rolling-restart.ts';
import { showStatus } from './status.ts';

export class UsageError extends Error {
  readonly code = 'usage';
  constructor(message: string) {
    super(message);
    this.name = 'UsageError';
  }
}

export type Option = {
  readonly type: 'string' | 'boolean';
  readonly short?: string;
  readonly default?: string;
  /** How the value is called in the help. */
  readonly argument?: string;
  readonly help: string;
};
type Values = Readonly<Record<string, string | boolean | undefined>>;
export type Invocation = {
  readonly positionals: readonly string[];
  readonly values: Values;
  readonly isJson: boolean;
  readonly output: Output;
};
export type Command = {
  readonly name: string;
  readonly usage: string;
  readonly summary: string;
  readonly details: string;
  readonly options: Readonly<Record<string, Option>>;
  /** Fewest and most. */
  readonly positionals: readonly [number, number];
  readonly connects: boolean;
  /** Its words are not ours to read: they go on as they are. */
  readonly isPassedThrough: boolean;
  readonly examples: readonly string[];
  run(invocation: Invocation): Promise<number>;
};

export const globalOptions = {
  server: {
    type: 'string',
    short: 's',
    default: '127.0.0.1:2181',
    argument: 'HOST:PORT,…[/CHROOT]',
    help: 'the servers, and the path that is / for this command (127.0.0.1:2181)',
  },
  timeout: { type: 'string', default: '10000', argument: 'MS', help: 'how long to look for a server (10000)' },
  auth: { type: 'string', argument: 'SCHEME:CREDENTIALS', help: 'an identity to add, such as digest:ann:secret' },
  json: { type: 'boolean', help: 'print JSON, one object per line' },
  help: { type: 'boolean', short: 'h', help: 'print this help' },
} as const satisfies Record<string, Option>;

const version: Option = { type: 'string', argument: 'N', help: 'only if the znode has this version' };

export const commands: readonly Command[] = [
  {
    name: 'get',
    usage: 'quorate get PATH',
    summary: 'Print the data of a znode.',
    details:
      'The bytes are printed as they are; on a terminal a line end follows. With --json, data that is not UTF-8 is base64.',
    options: { stat: { type: 'boolean', help: 'print the Stat too, behind the data' } },
    positionals: [1, 1],
    connects: true,
    isPassedThrough: false,
    examples: ['quorate get /config/db', 'quorate get --json /config/db'],
    async run(invocation) {
      const path = word(invocation, 0);
      const { data, stat } = await withClient(targetOf(invocation), (client) => client.get(path));
      const { output } = invocation;
      if (invocation.isJson) {
        printJson(output, { path, ...dataRecord(data), stat: statRecord(stat) });
        return 0;
      }
      if (data !== null) output.out(data);
      const wantsStat = invocation.values['stat'] === true;
      if (output.isTerminal || wantsStat) output.out('\n');
      if (wantsStat) output.out(`${formatRecord(statRecord(stat))}\n`);
      return 0;
    },
  },
  {
    name: 'set',
    usage: 'quorate set PATH DATA|-',
    summary: 'Replace the data of a znode; - reads it from standard input.',
    details: '',
    options: { version },
    positionals: [2, 2],
    connects: true,
    isPassedThrough: false,
    examples: ['quorate set /config/db "host=db1"', 'quorate set /config/db - --version 3 < db.conf'],
    async run(invocation) {
      const path = word(invocation, 0);
      const data = await dataOf(word(invocation, 1));
      const options = { version: numberOf(invocation, 'version') };
      const stat = await withClient(targetOf(invocation), (client) => client.set(path, data, options));
      if (invocation.isJson) printJson(invocation.output, { path, stat: statRecord(stat) });
      else invocation.output.out(`${path} has version ${stat.version}\n`);
      return 0;
    },
  },
  {
    name: 'create',
    usage: 'quorate create PATH [DATA|-]',
    summary: 'Create a znode and print its path.',
    details:
      'An ephemeral znode lives as long as the command runs: until Ctrl-C.\n' +
      'An ACL is a list of SCHEME:ID:PERMISSIONS, with permissions out of c(reate) d(elete) r(ead) w(rite) a(dmin),\n' +
      'or one of the words open, read, creator.',
    options: {
      ephemeral: { type: 'boolean', short: 'e', help: 'it goes with this command' },
      sequential: { type: 'boolean', help: 'the server appends a number to the name' },
      container: { type: 'boolean', short: 'c', help: 'it goes after its last child' },
      ttl: { type: 'string', argument: 'MS', help: 'it goes when it had no children and no change for so long' },
      acl: { type: 'string', argument: 'ACL,…', help: 'who may do what (open)' },
      parents: { type: 'boolean', short: 'p', help: 'create missing parents first; an existing znode is no error' },
    },
    positionals: [1, 2],
    connects: true,
    isPassedThrough: false,
    examples: [
      'quorate create /config',
      'quorate create /workers/w- "$HOSTNAME" --ephemeral --sequential',
      'quorate create /secret x --auth digest:ann:secret --acl creator',
    ],
    run: runCreate,
  },
  {
    name: 'delete',
    usage: 'quorate delete PATH',
    summary: 'Delete a znode.',
    details: '',
    options: { version, recursive: { type: 'boolean', short: 'r', help: 'and everything below it, not as one step' } },
    positionals: [1, 1],
    connects: true,
    isPassedThrough: false,
    examples: ['quorate delete /config/db', 'quorate delete /old --recursive'],
    async run(invocation) {
      const path = word(invocation, 0);
      const options = { version: numberOf(invocation, 'version') };
      const isRecursive = invocation.values['recursive'] === true;
      const deletedCount = await withClient(targetOf(invocation), async (client) => {
        const below = isRecursive ? await deleteBelow(client, path) : 0;
        await client.delete(path, options);
        return below + 1;
      });
      if (invocation.isJson) printJson(invocation.output, { path, deleted: deletedCount });
      else if (isRecursive) invocation.output.out(`deleted ${deletedCount} znodes\n`);
      return 0;
    },
  },
  {
    name: 'ls',
    usage: 'quorate ls [PATH]',
    summary: 'List the children of a znode, sorted.',
    details: 'With --watch, every later change follows, as + or - and the name, until Ctrl-C.',
    options: {
      recursive: { type: 'boolean', short: 'r', help: 'everything below, as paths' },
      watch: { type: 'boolean', short: 'w', help: 'go on with what changes' },
    },
    positionals: [0, 1],
    connects: true,
    isPassedThrough: false,
    examples: ['quorate ls /', 'quorate ls /workers --watch', 'quorate ls -s zk1:2181/app --recursive'],
    run: runLs,
  },
  {
    name: 'stat',
    usage: 'quorate stat PATH',
    summary: 'Print the Stat of a znode.',
    details: 'Zxids and session ids are hexadecimal, times ISO 8601.',
    options: {},
    positionals: [1, 1],
    connects: true,
    isPassedThrough: false,
    examples: ['quorate stat /config/db'],
    async run(invocation) {
      const path = word(invocation, 0);
      const stat = await withClient(targetOf(invocation), (client) => client.exists(path));
      if (stat === null) throw new ZkError('noNode', `noNode: ${path} does not exist`, { path });
      if (invocation.isJson) printJson(invocation.output, { path, ...statRecord(stat) });
      else invocation.output.out(`${formatRecord(statRecord(stat))}\n`);
      return 0;
    },
  },
  {
    name: 'watch',
    usage: 'quorate watch PATH',
    summary: 'Print every event of a znode until Ctrl-C.',
    details:
      'The znode need not exist. Changes of the session are said on standard error: between "session suspended" and\n' +
      '"session connected" a ZooKeeper server may have forgotten events.',
    options: {
      recursive: { type: 'boolean', short: 'r', help: 'of everything below it too' },
      count: { type: 'string', short: 'n', argument: 'N', help: 'end after so many events' },
    },
    positionals: [1, 1],
    connects: true,
    isPassedThrough: false,
    examples: ['quorate watch /config --recursive', 'quorate watch /lock --count 1 --json'],
    run: runWatch,
  },
  {
    name: 'status',
    usage: 'quorate status',
    summary: 'Show every server and the ensemble: who leads, who follows, how far each one is.',
    details: 'Exit code 0 when all servers serve, 1 when some do not, 3 when none answers.',
    options: {},
    positionals: [0, 0],
    connects: true,
    isPassedThrough: false,
    examples: ['quorate status -s zk1:2181,zk2:2181,zk3:2181'],
    run: (invocation) => showStatus(targetOf(invocation), invocation.isJson, invocation.output),
  },
  {
    name: 'server',
    usage: 'quorate server ZOO.CFG',
    summary: 'Run one server in the foreground from a ZooKeeper configuration.',
    details: 'SIGTERM and Ctrl-C stop it in order: a server that leads hands leadership over first.',
    options: {},
    positionals: [1, 1],
    connects: false,
    isPassedThrough: false,
    examples: ['quorate server /etc/quorate/zoo.cfg'],
    async run(invocation) {
      // Loaded here: the other commands need no server, and start faster without it.
      const { runServer } = await import('@quorate/server/main');
      return runServer(word(invocation, 0));
    },
  },
  {
    name: 'rolling-restart',
    usage: 'quorate rolling-restart DIR | ZOO.CFG…',
    summary: 'Restart the servers of an ensemble one at a time, without losing a session or a write.',
    details:
      'DIR holds server-N/zoo.cfg, as `npm start` makes it. Each server is restarted only while all others are in sync,\n' +
      'the leader last: it hands leadership over before it stops. Anything unexpected ends the restart with exit code 1\n' +
      'and leaves the other servers as they are.',
    options: {
      'restart-command': {
        type: 'string',
        argument: 'COMMAND',
        help: 'how to restart a server, with {id} and {config} in it, instead of SIGTERM and a new process',
      },
      wait: { type: 'string', argument: 'MS', default: '60000', help: 'how long one step may take (60000)' },
    },
    positionals: [1, Number.POSITIVE_INFINITY],
    connects: false,
    isPassedThrough: false,
    examples: [
      'quorate rolling-restart ./data',
      'quorate rolling-restart a/zoo.cfg b/zoo.cfg c/zoo.cfg --restart-command "systemctl restart quorate@{id}"',
    ],
    run(invocation) {
      const restartCommand = invocation.values['restart-command'];
      return rollingRestart({
        places: invocation.positionals,
        restartCommand: typeof restartCommand === 'string' ? restartCommand : undefined,
        waitMs: numberOf(invocation, 'wait') ?? 60_000,
        isJson: invocation.isJson,
        output: invocation.output,
      });
    },
  },
  {
    name: 'simulate',
    usage: 'quorate simulate …',
    summary: 'Run the simulator: whole ensembles in virtual time, driven by one seed.',
    details: '',
    options: {},
    positionals: [0, Number.POSITIVE_INFINITY],
    connects: false,
    isPassedThrough: true,
    examples: ['quorate simulate --help'],
    async run(invocation) {
      const { runSimulation } = await import('@quorate/simulator/main');
      return runSimulation([...invocation.positionals]);
    },
  },
];

export function findCommand(name: string | undefined): Command | undefined {
  return commands.find((command) => command.name === name);
}

async function runCreate(invocation: Invocation): Promise<number> {
  const { values, output } = invocation;
  const path = word(invocation, 0);
  const data = invocation.positionals.length > 1 ? await dataOf(word(invocation, 1)) : '';
  const mode = modeOf(values);
  const options = { mode, acl: aclOf(values['acl']), ttlMs: numberOf(invocation, 'ttl') };
  const wantsParents = values['parents'] === true;
  await withClient(targetOf(invocation), async (client) => {
    if (wantsParents) await createParents(client, path);
    const created = await client.create(path, data, options).catch((error: unknown) => {
      if (!(wantsParents && error instanceof ZkError && error.code === 'nodeExists')) throw error;
      return undefined;
    });
    const createdPath = created?.path ?? path;
    if (invocation.isJson) printJson(output, { path: createdPath, created: created !== undefined });
    else output.out(`${createdPath}\n`);
    if (mode !== 'ephemeral' && mode !== 'ephemeralSequential') return;
    if (output.isTerminal) output.err('it goes when this command ends: Ctrl-C\n');
    await untilInterrupted();
  });
  return 0;
}

function modeOf(values: Values): CreateMode {
  const isSequential = values['sequential'] === true;
  if (values['container'] === true) {
    if (isSequential || values['ephemeral'] === true) {
      throw new UsageError('--container does not go with --ephemeral or --sequential');
    }
    return 'container';
  }
  if (values['ephemeral'] === true) return isSequential ? 'ephemeralSequential' : 'ephemeral';
  return isSequential ? 'persistentSequential' : 'persistent';
}

const PERMISSIONS: Readonly<Record<string, number>> = {
  c: Perms.CREATE,
  d: Perms.DELETE,
  r: Perms.READ,
  w: Perms.WRITE,
  a: Perms.ADMIN,
};

/** `open`, `read`, `creator`, or `scheme:id:perms,…`; the id may hold colons. */
function aclOf(text: string | boolean | undefined): readonly Acl[] | undefined {
  if (typeof text !== 'string') return undefined;
  if (text === 'open') return OPEN_ACL;
  if (text === 'read') return READ_ACL;
  if (text === 'creator') return CREATOR_ALL_ACL;
  return text.split(',').map((part) => {
    const [, scheme, id, letters] = /^([^:]+):(.*):([a-z]+)$/.exec(part) ?? [];
    if (scheme === undefined || id === undefined || letters === undefined) {
      throw new UsageError(`"${part}" is not SCHEME:ID:PERMISSIONS`);
    }
    let perms = 0;
    for (const letter of letters) {
      const bit = PERMISSIONS[letter];
      if (bit === undefined) throw new UsageError(`"${letter}" in "${part}" is none of c, d, r, w, a`);
      perms |= bit;
    }
    return { perms, id: { scheme, id } };
  });
}

async function createParents(client: Client, path: string): Promise<void> {
  for (let slash = path.indexOf('/', 1); slash > 0; slash = path.indexOf('/', slash + 1)) {
    try {
      await client.create(path.slice(0, slash), '');
    } catch (error) {
      if (!(error instanceof ZkError && error.code === 'nodeExists')) throw error;
    }
  }
}

/** Children before parents. Answers how many went; what somebody else deletes meanwhile is no error. */
async function deleteBelow(client: Client, path: string): Promise<number> {
  let deletedCount = 0;
  const paths = (await pathsBelow(client, path)).toReversed();
  for (const each of paths) {
    try {
      await client.delete(each);
      deletedCount++;
    } catch (error) {
      if (!(error instanceof ZkError && error.code === 'noNode')) throw error;
    }
  }
  return deletedCount;
}

/** Every path below, parents before children, siblings sorted. The path itself must exist. */
async function pathsBelow(client: Client, path: string): Promise<string[]> {
  const found: string[] = [];
  const visit = async (parent: string): Promise<void> => {
    const { children } = await client.children(parent);
    for (const name of children.toSorted()) {
      const child = parent === '/' ? `/${name}` : `${parent}/${name}`;
      found.push(child);
      try {
        await visit(child);
      } catch (error) {
        if (!(error instanceof ZkError && error.code === 'noNode')) throw error;
      }
    }
  };
  await visit(path);
  return found;
}

async function runLs(invocation: Invocation): Promise<number> {
  const path = invocation.positionals[0] ?? '/';
  const isRecursive = invocation.values['recursive'] === true;
  const { output, isJson } = invocation;
  const list = async (client: Client): Promise<string[]> => {
    if (isRecursive) return pathsBelow(client, path);
    return (await client.children(path)).children.toSorted();
  };
  const print = (sign: '' | '+' | '-', name: string): void => {
    if (isJson) printJson(output, sign === '' ? { name } : { change: sign, name });
    else output.out(sign === '' ? `${name}\n` : `${sign} ${name}\n`);
  };
  await withClient(targetOf(invocation), async (client) => {
    if (invocation.values['watch'] !== true) {
      for (const name of await list(client)) print('', name);
      return;
    }
    // The watch first: what happens while the list is read is then an event.
    await using watch = await client.addWatch(path, { recursive: isRecursive });
    let known = new Set(await list(client));
    for (const name of known) print('', name);
    await eachEvent(watch, async () => {
      const now = new Set(await list(client));
      for (const name of known) if (!now.has(name)) print('-', name);
      for (const name of now) if (!known.has(name)) print('+', name);
      known = now;
      return true;
    });
  });
  return 0;
}

async function runWatch(invocation: Invocation): Promise<number> {
  const path = word(invocation, 0);
  const { output, isJson } = invocation;
  let left = numberOf(invocation, 'count') ?? Number.POSITIVE_INFINITY;
  if (left <= 0) throw new UsageError('--count is 1 or more');
  await withClient(targetOf(invocation), async (client) => {
    await using watch = await client.addWatch(path, { recursive: invocation.values['recursive'] === true });
    if (output.isTerminal && !isJson) output.err(`watching ${path}; Ctrl-C ends\n`);
    await eachEvent(watch, async (event) => {
      if (event.kind === 'session') {
        if (isJson) printJson(output, eventRecord(event));
        else output.err(`${formatEvent(event)}\n`);
        return true;
      }
      if (isJson) printJson(output, eventRecord(event));
      else output.out(`${formatEvent(event)}\n`);
      left--;
      return left > 0;
    });
  });
  return 0;
}

/** Calls `onEvent` until it answers false or Ctrl-C. */
async function eachEvent(
  watch: PersistentWatch,
  onEvent: (event: Parameters<typeof formatEvent>[0]) => Promise<boolean>,
): Promise<void> {
  const interrupted = untilInterrupted().then(() => undefined);
  for (;;) {
    const result = await Promise.race([watch.next(), interrupted]);
    if (result === undefined || result.done === true) return;
    if (!(await onEvent(result.value))) return;
  }
}

function word(invocation: Invocation, index: number): string {
  const text = invocation.positionals[index];
  if (text === undefined) throw new UsageError('a word is missing');
  return text;
}

function numberOf(invocation: Invocation, name: string): number | undefined {
  const text = invocation.values[name];
  if (typeof text !== 'string') return undefined;
  if (!/^-?\d{1,15}$/.test(text)) throw new UsageError(`--${name} is a whole number, not "${text}"`);
  return Number(text);
}

function targetOf(invocation: Invocation): Target {
  const { server, auth } = invocation.values;
  const timeoutMs = numberOf(invocation, 'timeout') ?? 10_000;
  if (timeoutMs <= 0) throw new UsageError('--timeout is 1 or more');
  if (typeof auth !== 'string') return { servers: String(server), timeoutMs, auth: [] };
  const colon = auth.indexOf(':');
  if (colon <= 0) throw new UsageError('--auth is SCHEME:CREDENTIALS');
  return { servers: String(server), timeoutMs, auth: [{ scheme: auth.slice(0, colon), auth: auth.slice(colon + 1) }] };
}

async function dataOf(text: string): Promise<string> {
  return text === '-' ? readAll(process.stdin) : text;
}

function printJson(output: Output, value: unknown): void {
  output.out(`${JSON.stringify(value)}\n`);
}
