import { createServer } from 'node:net';
import { expect, test } from 'vitest';
import { commands } from './commands.ts';
import { runCommandLine } from './main.ts';

async function run(...args: string[]) {
  let out = '';
  let err = '';
  const code = await runCommandLine(args, {
    isTerminal: false,
    out: (text) => {
      out += Buffer.from(text).toString();
    },
    err: (text) => {
      err += text;
    },
  });
  return { code, out, err };
}

/** A port on which nobody listens: one was just closed there. */
async function closedPort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  await new Promise<void>((resolve) => server.close(() => resolve()));
  if (address === null || typeof address === 'string') throw new Error('a listening server has a port');
  return address.port;
}

test('help names every command, and every command tells its usage, options and an example', async () => {
  const overview = await run('--help');
  expect(overview.code).toBe(0);
  for (const { name, usage, options } of commands) {
    expect(overview.out).toContain(usage);
    const help = await run('help', name);
    expect(help.code).toBe(0);
    expect(help.out).toContain(`usage: ${usage}`);
    expect(help.out).toContain(`quorate ${name}`);
    for (const option of Object.keys(options)) expect(help.out).toContain(`--${option}`);
  }
  expect((await run('create', '--help')).out).toBe((await run('help', 'create')).out);
});

test.each([
  [[], 'usage'],
  [['frob'], 'there is no command "frob"'],
  [['get'], 'usage: quorate get PATH'],
  [['get', '/a', '/b'], 'usage: quorate get PATH'],
  [['get', '/a', '--colour'], "Unknown option '--colour'"],
  [['set', '/a', 'x', '--version', 'new'], '--version is a whole number, not "new"'],
  [['get', '/a', '--server', 'host:port'], 'is not host:port'],
  [['get', '/a', '--timeout', '0'], '--timeout is 1 or more'],
  [['get', '/a', '--auth', 'digest'], '--auth is SCHEME:CREDENTIALS'],
  [['watch', '/a', '--count', '0'], '--count is 1 or more'],
  [['create', '/a', '--acl', 'world:anyone:xyz'], 'none of c, d, r, w, a'],
  [['create', '/a', '--acl', 'anyone'], 'is not SCHEME:ID:PERMISSIONS'],
  [['create', '/a', '--container', '--ephemeral'], '--container does not go with'],
])('wrong words %j are exit code 2 and one clear line', async (args, text) => {
  const { code, out, err } = await run(...args);
  expect(code).toBe(2);
  expect(`${out}${err}`).toContain(text);
  if (args.length > 0) expect(out).toBe('');
});

test('no server is exit code 3, with the servers, the time and the reason', async () => {
  const port = await closedPort();
  const { code, err } = await run('get', '/a', '-s', `127.0.0.1:${port}`, '--timeout', '300');
  expect(code).toBe(3);
  expect(err).toBe(
    `quorate: no server at 127.0.0.1:${port} took a session within 300 ms (connect ECONNREFUSED 127.0.0.1:${port})\n`,
  );
  const status = await run('status', '-s', `127.0.0.1:${port}`, '--json');
  expect(status.code).toBe(3);
  expect(JSON.parse(status.out)).toEqual({
    servers: [{ address: `127.0.0.1:${port}`, error: `connect ECONNREFUSED 127.0.0.1:${port}` }],
    members: [],
  });
  expect(JSON.parse(status.err)).toMatchObject({ error: { code: 'unreachable' } });
});

test('a rolling restart of what is not there fails before anything is touched', async () => {
  const missing = await run('rolling-restart', '/no/such/folder');
  expect(missing).toMatchObject({ code: 1, err: 'quorate: /no/such/folder does not exist\n' });
  const empty = await run('rolling-restart', import.meta.dirname);
  expect(empty).toMatchObject({ code: 1, err: `quorate: ${import.meta.dirname} holds no server-N/zoo.cfg\n` });
});
