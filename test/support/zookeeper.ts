// Apache ZooKeeper as real processes: the reference that the conformance tests hold Quorate against.
// It takes the jars that tools.ts brought; it never looks for an installed ZooKeeper.
import { Ensemble, type EnsembleOptions } from '../../scripts/ensemble.mjs';
import type { ZookeeperServer } from '../../scripts/tools.mjs';

/** `servers: 1` is a standalone server, 3 an ensemble. */
export function startZookeeper(
  zookeeper: ZookeeperServer,
  options: Omit<EnsembleOptions, 'kind' | 'zookeeper'> = {},
): Promise<Ensemble> {
  return Ensemble.start({ ...options, kind: 'zookeeper', zookeeper });
}
