// @quorate/client against three Quorate servers: the same tests as against Apache ZooKeeper.

import { afterAll, beforeAll, describe } from 'vitest';
import { defineClientSuite } from '../conformance/client-suite.ts';
import { type Ensemble, startEnsemble } from '../support/ensemble.ts';

describe('the client on Quorate', () => {
  let ensemble: Ensemble | undefined;

  beforeAll(async () => {
    ensemble = await startEnsemble({ servers: 3, config: { extendedTypesEnabled: true } });
  }, 60_000);

  afterAll(async () => {
    await ensemble?.stop();
  }, 60_000);

  defineClientSuite(() => {
    if (ensemble === undefined) throw new Error('the ensemble has started');
    return ensemble;
  });
});
