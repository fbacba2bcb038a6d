// @quorate/client against Apache ZooKeeper itself: what the client suite expects is ZooKeeper's behaviour, not our own.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import * as client from '@quorate/client';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { Ensemble } from '../support/ensemble.ts';
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
