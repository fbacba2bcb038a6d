// Runs a program that was written with another project's client, and serves its directives: `@stop ADDRESS`, `@start ADDRESS`,
// `@kill-leader`, each answered by `done` on its standard input. It collects the points the program proved (`ok NAME`).
// The program judges; this file only obeys and reports. The program is ended by pid when it takes too long.
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import type { Program } from '../../scripts/tools.mjs';
import type { Ensemble } from './ensemble.ts';

export type StockClientRun = {
  readonly code: number | null;
  readonly proved: readonly string[];
  readonly output: string;
  /** The server that was killed as leader, where the program asked for that. */
  readonly killedLeader: number | null;
};

const runTimeoutMs = 110_000;

export async function runStockClient(
  program: Program,
  ensemble: Ensemble,
  flags: readonly string[],
  /** What is done to the ensemble instead, when the program asks that the leader be killed. */
  insteadOfKill: (() => Promise<void>) | null = null,
): Promise<StockClientRun> {
  const args = [...program.args, ensemble.connectString, ...flags];
  const child = spawn(program.command, args, { stdio: ['pipe', 'pipe', 'pipe'] });
  const endChild = (): void => {
    child.kill('SIGKILL');
  };
  process.once('exit', endChild);
  const timer = setTimeout(endChild, runTimeoutMs);
  const proved: string[] = [];
  const output: string[] = [];
  let killedLeader: number | null = null;
  let directives = Promise.resolve();

  const obey = async (directive: string): Promise<void> => {
    const [verb, address] = directive.split(' ');
    if (verb === 'kill-leader' && insteadOfKill !== null) {
      await insteadOfKill();
    } else if (verb === 'kill-leader') {
      killedLeader = await ensemble.waitForLeader();
      await ensemble.kill(killedLeader);
    } else {
      const server = ensemble.servers.find((candidate) => candidate.address === address);
      if (server === undefined) throw new Error(`no server listens at ${address}`);
      if (verb === 'stop') await ensemble.kill(server.id);
      else if (verb === 'start') await ensemble.startServer(server.id);
      else throw new Error(`unknown directive ${directive}`);
    }
    child.stdin.write('done\n');
  };

  createInterface({ input: child.stdout }).on('line', (line) => {
    output.push(line);
    if (line.startsWith('ok ')) proved.push(line.slice(3));
    if (!line.startsWith('@')) return;
    directives = directives
      .then(() => obey(line.slice(1)))
      .catch((error: unknown) => {
        output.push(`the test could not do what was asked: ${error}`);
        endChild();
      });
  });
  createInterface({ input: child.stderr }).on('line', (line) => output.push(line));
  child.stdin.on('error', () => {}); // The program may have ended before its answer was written; its exit code tells.
  const code = await new Promise<number | null>((done) => {
    child.once('error', () => done(null));
    child.once('close', (status) => done(status));
  });
  clearTimeout(timer);
  process.removeListener('exit', endChild);
  await directives;
  // The next test finds what this one found: all servers, whatever the program had asked for when it ended.
  for (const server of ensemble.servers) if (server.process === null) ensemble.spawnServer(server.id);
  await ensemble.waitUntilReady();
  return { code, proved, output: output.join('\n'), killedLeader };
}
