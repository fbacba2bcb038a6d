// @quorate/client against Apache ZooKeeper itself: what the client suite expects is ZooKeeper's behaviour, not our own.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import * as client from '@quorate/client';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Ensemble, fourLetterWord, waitFor } from '../support/ensemble.ts';
import { describeWith, zookeeperServer } from '../support/tools.ts';
import { startZookeeper } from '../support/zookeeper.ts';
import { defineClientSuite } from './client-suite.ts';

const tool = await zookeeperServer();

describeWith('the client on Apache ZooKeeper', tool, (zookeeper) => {
  let ensemble: Ensemble | undefined;

  beforeAll(async () => {
    ensemble = await startZookeeper(zookeeper, { servers: 3, config: { extendedTypesEnabled: true } });
  }, 120_000);

  afterAll(async () => {
    await ensemble?.stop();
  }, 60_000);

  const running = (): Ensemble => {
    if (ensemble === undefined) throw new Error('the ensemble has started');
    return ensemble;
  };

  test('the examples of the README run as they stand', async () => {
    const readme = readFileSync(join(import.meta.dirname, '../../packages/client/README.md'), 'utf8');
    const examples = [...readme.matchAll(/^```js\n(.*?)^```$/gms)].map((match) => match[1] ?? '');
    expect(examples).toHaveLength(3);
    const root = await client.connect(running().connectString);
    await root.create('/app');
    const printed: string[][] = [];
    for (const example of examples) {
      const lines: string[] = [];
      const names = /^import \{ (.*) \} from '@quorate\/client';$/m.exec(example)?.[1] ?? '';
      const body = example
        .replace(/^import .*$/m, `const { ${names} } = client;`)
        .replaceAll('zk1:2181,zk2:2181,zk3:2181', running().connectString);
      const run: unknown = new Function('client', 'console', `return (async () => { ${body} })();`);
      if (typeof run !== 'function') throw new Error('a Function is a function');
      await run(client, { log: (...words: unknown[]) => lines.push(words.join(' ')) });
      printed.push(lines);
    }
    expect(printed).toEqual([
      [expect.stringMatching(/^hello 0 \d+$/)],
      ['/job-0000000000 check', '1 noNode'],
      ['connected', 'nodeCreated /flag', 'nodeCreated /flag/a', 'closed'],
    ]);
    await root.close();
  });

  defineClientSuite(running);
});

describeWith('the client on an Apache ZooKeeper without a quorum', tool, (zookeeper) => {
  test('reads are answered read-only, writes are notReadOnly, and a quorum brings a session that writes', async () => {
    await using ensemble = await startZookeeper(zookeeper, {
      servers: 3,
      config: { localSessionsEnabled: true, localSessionsUpgradingEnabled: true },
      jvm: ['-Xms64m', '-Xmx128m', '-Dreadonlymode.enabled=true'],
    });
    const writer = await client.connect(ensemble.connectString);
    await writer.create('/r', 'x');
    await writer.sync();
    await writer.close();
    const [alone, second, third] = ensemble.servers;
    if (alone === undefined || second === undefined || third === undefined)
      throw new Error('three servers were started');
    // The one that is left has the znode: it was asked for it before.
    const reader = await client.connect(alone.address, { signal: AbortSignal.timeout(10_000) });
    await reader.sync();
    await reader.close();
    await Promise.all([ensemble.kill(second.id), ensemble.kill(third.id)]);
    // It takes it a while to notice; until then it still answers as one that writes.
    await waitFor('a read-only server', async () => (await fourLetterWord(alone.clientPort, 'isro')) === 'ro', 30_000);

    const states: string[] = [];
    const watcher = (event: client.WatchedEvent): void => {
      if (event.kind === 'session') states.push(`${event.state}${event.isReadOnly ? ', read-only' : ''}`);
    };
    const signal = AbortSignal.timeout(30_000);
    await using zk = await client.connect(ensemble.connectString, { canBeReadOnly: true, watcher, signal });
    expect([zk.state, zk.isReadOnly, zk.server]).toEqual(['connected', true, alone.address]);
    const { sessionId } = zk;
    expect((await zk.get('/r')).data?.toString()).toBe('x');
    await expect(zk.set('/r', 'y')).rejects.toMatchObject({ code: 'notReadOnly', path: '/r' });

    ensemble.spawnServer(second.id);
    ensemble.spawnServer(third.id);
    await waitFor('a session that writes', () => zk.state === 'connected' && !zk.isReadOnly, 30_000);
    expect((await zk.set('/r', 'y')).version).toBe(1);
    expect(zk.sessionId).not.toBe(sessionId);
    expect(states[0]).toBe('connected, read-only');
    expect(states.at(-1)).toBe('connected');
  }, 120_000);
});
