// One run: an ensemble of real processes under recorded traffic, and what its servers wrote into their logs.
// It only puts the parts together and takes them down again, also when the test fails.
import { readFile } from 'node:fs/promises';
import { type Ensemble, type EnsembleOptions, startEnsemble } from './ensemble.ts';
import { Traffic, type TrafficOptions } from './traffic.ts';
import type { TapTarget } from './wire-tap.ts';

export type Run = AsyncDisposable & { readonly ensemble: Ensemble; readonly traffic: Traffic };

export async function startRun(
  options: {
    readonly ensemble?: Omit<EnsembleOptions, 'kind'>;
    readonly traffic?: Omit<TrafficOptions, 'targets'>;
  } = {},
): Promise<Run> {
  return runOn(await startEnsemble(options.ensemble), options.traffic);
}

/** The same over an ensemble that the test has made; it ends with the run. */
export async function runOn(
  ensemble: Ensemble,
  options: Omit<TrafficOptions, 'targets'> = {},
  targets: readonly TapTarget[] = targetsOf(ensemble),
): Promise<Run> {
  try {
    const traffic = await Traffic.start({ ...options, targets });
    return {
      ensemble,
      traffic,
      async [Symbol.asyncDispose]() {
        await traffic.abandon();
        await ensemble.stop();
      },
    };
  } catch (error) {
    await ensemble.stop();
    throw error;
  }
}

export function targetsOf(ensemble: Ensemble): TapTarget[] {
  return ensemble.servers.map(({ id, clientPort }) => ({ server: id, port: clientPort }));
}

/** What the servers say, in their logs, about how they came back. */
export const said = {
  tookSnapshot: "took over the leader's snapshot",
  cutTail: 'the tail of the log that was never committed is cut',
  lostLeader: 'looking for a leader',
  leads: 'leading',
} as const;

export type LogLine = { readonly level: number; readonly msg: string; readonly reason?: string };

/** The lines of a server's log so far, over all of its processes. */
export async function logOf(ensemble: Ensemble, id: number): Promise<readonly LogLine[]> {
  const text = await readFile(ensemble.server(id).logFile, 'utf8').catch(() => '');
  return text.split('\n').flatMap((line): LogLine[] => {
    if (!line.startsWith('{')) return [];
    try {
      return [JSON.parse(line)];
    } catch {
      // The last line of a process that was killed while it wrote.
      return [];
    }
  });
}

/** Counts the lines with this message that came after the first `from` lines. */
export async function countSaid(ensemble: Ensemble, id: number, message: string, from = 0): Promise<number> {
  return (await logOf(ensemble, id)).slice(from).filter(({ msg }) => msg === message).length;
}
