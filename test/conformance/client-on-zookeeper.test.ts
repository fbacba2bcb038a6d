// @quorate/client against Apache ZooKeeper itself: what the client suite expects is ZooKeeper's behaviour, not our own.

import { afterAll, beforeAll } from 'vitest';
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

  defineClientSuite(() => {
    if (ensemble === undefined) throw new Error('the ensemble has started');
    return ensemble;
  });
});
