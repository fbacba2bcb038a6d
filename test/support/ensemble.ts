// Quorate servers as real processes, for tests: each has its folder, its zoo.cfg and its log, and ends with the test.
// The processes run dist, which the global setup (build.ts) has built. Nothing here knows what a test wants to prove.
import { Ensemble, type EnsembleOptions } from '../../scripts/ensemble.mjs';

export {
  Ensemble,
  type EnsembleOptions,
  type EnsembleServer,
  fourLetterWord,
  freePorts,
  type ServerExit,
  waitFor,
} from '../../scripts/ensemble.mjs';

/** Three servers (or `servers`), started and ready: one leads, the others follow. */
export function startEnsemble(options: Omit<EnsembleOptions, 'kind'> = {}): Promise<Ensemble> {
  return Ensemble.start({ ...options, kind: 'quorate' });
}

/** Configurations and ports only, so that proxies can be put between the servers before they start. */
export function createEnsemble(options: Omit<EnsembleOptions, 'kind'> = {}): Promise<Ensemble> {
  return Ensemble.create({ ...options, kind: 'quorate' });
}
