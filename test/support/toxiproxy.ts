// One toxiproxy server for a test, started on a free loopback port and ended by pid. The proxies themselves are made through
// toxiproxy-node-client by the test that needs them.
import { spawn } from 'node:child_process';
import { freePorts, waitFor } from '../../scripts/ensemble.mjs';

export type ToxiproxyServer = AsyncDisposable & { readonly url: string; stop(): Promise<void> };

export async function startToxiproxy(command: string): Promise<ToxiproxyServer> {
  const [port] = await freePorts(1);
  const child = spawn(command, ['-host', '127.0.0.1', '-port', String(port)], { stdio: 'ignore' });
  const exited = new Promise<void>((done) => {
    child.once('exit', () => done());
    child.once('error', () => done());
  });
  const kill = (): void => {
    child.kill('SIGKILL');
  };
  process.once('exit', kill);
  const stop = async (): Promise<void> => {
    process.removeListener('exit', kill);
    kill();
    await exited;
  };
  const url = `http://127.0.0.1:${port}`;
  const answers = (): Promise<boolean> =>
    fetch(`${url}/version`).then(
      (response) => response.ok,
      () => false,
    );
  try {
    await waitFor('toxiproxy to answer', answers, 10_000);
  } catch (error) {
    await stop();
    throw error;
  }
  return { url, stop, [Symbol.asyncDispose]: stop };
}
