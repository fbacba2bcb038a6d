// Apache ZooKeeper's own command line, unchanged, against Quorate and against Apache ZooKeeper: the same commands, the same words back.
// Times, zxids and addresses differ and are taken out; events come on a thread of their own, so they are compared apart from the answers.
import { spawn } from 'node:child_process';
import { text } from 'node:stream/consumers';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Program } from '../../../scripts/tools.mjs';
import { type Ensemble, startEnsemble } from '../../support/ensemble.ts';
import { describeWith, zookeeperCommandLine, zookeeperServer } from '../../support/tools.ts';
import { startZookeeper } from '../../support/zookeeper.ts';

const commandLine = await zookeeperCommandLine();
const zookeeper = await zookeeperServer();

const commands = [
  'create /cli "hello world"',
  'get -s /cli',
  'set -v 0 /cli two',
  'set -v 0 /cli three',
  'create -s /cli/q- x',
  'create -e /cli/e y',
  'ls -R /cli',
  'stat /cli',
  'getAcl /cli',
  'setAcl /cli/e world:anyone:cdrw',
  'getAcl /cli/e',
  'addWatch -m PERSISTENT_RECURSIVE /cli',
  'create /cli/w 1',
  'getEphemerals /cli',
  'getAllChildrenNumber /cli',
  'sync /cli',
  'ls /cli',
  'get /cli/none',
  'delete /cli',
  'deleteall /cli',
  'ls /',
  'quit',
];

const answers = [
  'Created /cli',
  'hello world',
  ...statLines({ cversion: 0, dataVersion: 0, dataLength: 11, numChildren: 0 }),
  'version No is not valid : /cli',
  'Created /cli/q-0000000000',
  'Created /cli/e',
  '/cli',
  '/cli/e',
  '/cli/q-0000000000',
  ...statLines({ cversion: 2, dataVersion: 1, dataLength: 3, numChildren: 2 }),
  "'world,'anyone",
  ': cdrwa',
  "'world,'anyone",
  ': cdrw',
  'Created /cli/w',
  '[/cli/e]',
  '3',
  'Sync is OK',
  '[e, q-0000000000, w]',
  'Node does not exist: /cli/none',
  'Node not empty: /cli',
  '[zookeeper]',
];

const events = [
  'NodeCreated /cli/w',
  'NodeDeleted /cli',
  'NodeDeleted /cli/e',
  'NodeDeleted /cli/q-0000000000',
  'NodeDeleted /cli/w',
];

function statLines(stat: { cversion: number; dataVersion: number; dataLength: number; numChildren: number }): string[] {
  return [
    'cZxid = …',
    'ctime = …',
    'mZxid = …',
    'mtime = …',
    'pZxid = …',
    `cversion = ${stat.cversion}`,
    `dataVersion = ${stat.dataVersion}`,
    'aclVersion = 0',
    'ephemeralOwner = 0x0',
    `dataLength = ${stat.dataLength}`,
    `numChildren = ${stat.numChildren}`,
  ];
}

async function run(program: Program, ensemble: Ensemble): Promise<string[]> {
  // It answers on both of its streams; only a shell can make them one and keep their order.
  const args = ['-c', 'exec "$0" "$@" 2>&1', program.command, ...program.args, '-server', ensemble.connectString];
  const child = spawn('/bin/sh', args, { stdio: ['pipe', 'pipe', 'inherit'], timeout: 60_000 });
  child.stdin.end(`${commands.join('\n')}\n`);
  const output = await text(child.stdout);
  return output.split('\n').map((line) => line.replace(/^(.Zxid|.time) = .*/, '$1 = …'));
}

/** Lines that come before the first command, from the event thread, or carry nothing. */
const isNoise = (line: string): boolean =>
  line === '' || /^(Connecting|Welcome|JLine|WATCHER::|WatchedEvent|\d{4}-\d\d-\d\d)/.test(line);

function defineFor(program: Program, start: () => Promise<Ensemble>): void {
  let ensemble: Ensemble;
  beforeAll(async () => {
    ensemble = await start();
  });
  afterAll(() => ensemble?.stop());

  test('answers each command as expected, and its watch sees every change', async () => {
    const lines = await run(program, ensemble);
    expect(lines.filter((line) => !isNoise(line))).toEqual(answers);
    const seen = lines.flatMap((line) => /type:(Node\w+) path:(\S+)/.exec(line)?.slice(1, 3).join(' ') ?? []);
    expect(seen.sort()).toEqual(events);
  });
}

describe("ZooKeeper's command line on Quorate", () => {
  describeWith('the command line', commandLine, (program) => {
    defineFor(program, () => startEnsemble());
  });
});

describeWith("ZooKeeper's command line on Apache ZooKeeper", zookeeper, (jars) => {
  describeWith('the command line', commandLine, (program) => {
    defineFor(program, () => startZookeeper(jars));
  });
});
