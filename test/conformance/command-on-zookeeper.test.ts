// `quorate` against Apache ZooKeeper: the commands are for every server of the protocol, not only for ours.

import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { runCommandLine } from 'quorate';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Ensemble, waitFor } from '../support/ensemble.ts';
import { describeWith, zookeeperServer } from '../support/tools.ts';
import { startZookeeper } from '../support/zookeeper.ts';

const COMMAND = join(import.meta.dirname, '../../packages/cli/bin/quorate.mjs');

const tool = await zookeeperServer();

describeWith('the command line on Apache ZooKeeper', tool, (zookeeper) => {
  let ensemble: Ensemble | undefined;

  beforeAll(async () => {
    ensemble = await startZookeeper(zookeeper, { servers: 3, config: { extendedTypesEnabled: true } });
  }, 120_000);

  afterAll(async () => {
    await ensemble?.stop();
  }, 60_000);

  function start(...args: string[]) {
    if (ensemble === undefined) throw new Error('the ensemble has started');
    const [name = '', ...rest] = args;
    const result = { out: '', err: '' };
    const output = {
      isTerminal: false,
      out: (text: string | Uint8Array) => {
        result.out += Buffer.from(text).toString();
      },
      err: (text: string) => {
        result.err += text;
      },
    };
    const done = runCommandLine([name, '-s', ensemble.connectString, ...rest], output);
    return { result, done };
  }

  /** The command as a process, because Ctrl-C is for processes. */
  function spawnCommand(...args: string[]) {
    if (ensemble === undefined) throw new Error('the ensemble has started');
    const child = spawn(process.execPath, [COMMAND, ...args, '-s', ensemble.connectString], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let out = '';
    child.stdout.on('data', (chunk) => {
      out += String(chunk);
    });
    const ended = new Promise<number | null>((resolve) => child.on('exit', resolve));
    return {
      out: () => out,
      interrupt() {
        child.kill('SIGINT');
        return ended;
      },
    };
  }

  async function run(...args: string[]) {
    const { result, done } = start(...args);
    const code = await done;
    return { code, ...result };
  }

  test('create, get, set, stat, ls and delete do what they say', async () => {
    expect(await run('create', '/a', 'one')).toEqual({ code: 0, out: '/a\n', err: '' });
    expect(await run('get', '/a')).toEqual({ code: 0, out: 'one', err: '' });
    expect(await run('set', '/a', 'two', '--version', '0')).toMatchObject({ code: 0, out: '/a has version 1\n' });
    expect(JSON.parse((await run('get', '/a', '--json')).out)).toMatchObject({
      path: '/a',
      data: 'two',
      encoding: 'utf8',
      stat: { version: 1, ephemeralOwner: '0x0' },
    });
    expect((await run('stat', '/a')).out).toMatch(/^version +1$/m);
    expect(await run('create', '/a/b/c', '-p', '--container')).toMatchObject({ code: 0, out: '/a/b/c\n' });
    expect(await run('create', '/a/b/c', '-p')).toMatchObject({ code: 0 });
    expect(await run('create', '/a/n-', '--sequential', '--ttl', '60000')).toMatchObject({ out: '/a/n-0000000001\n' });
    expect((await run('ls', '/a')).out).toBe('b\nn-0000000001\n');
    expect((await run('ls', '/a', '--recursive')).out).toBe('/a/b\n/a/b/c\n/a/n-0000000001\n');
    expect(await run('delete', '/a', '-r', '--json')).toEqual({
      code: 0,
      out: '{"path":"/a","deleted":4}\n',
      err: '',
    });
  });

  test('a failed operation is exit code 1 and one line', async () => {
    expect(await run('get', '/none')).toEqual({ code: 1, out: '', err: 'quorate: noNode: /none does not exist\n' });
    expect(await run('stat', '/none')).toMatchObject({ code: 1, err: 'quorate: noNode: /none does not exist\n' });
    const { code, err } = await run('delete', '/none', '--json');
    expect(code).toBe(1);
    expect(JSON.parse(err)).toEqual({ error: { code: 'noNode', message: 'noNode: /none does not exist' } });
  });

  test('an ACL on the command line binds the others', async () => {
    await run('create', '/mine', 'x', '--auth', 'digest:ann:secret', '--acl', 'auth::cdrwa,world:anyone:r');
    expect((await run('get', '/mine')).out).toBe('x');
    expect(await run('set', '/mine', 'y')).toMatchObject({ code: 1, err: expect.stringContaining('noAuth') });
    expect(await run('set', '/mine', 'y', '--auth', 'digest:ann:secret')).toMatchObject({ code: 0 });
  });

  test('watch prints the events and ends after its count', async () => {
    const watching = start('watch', '/w', '--recursive', '--count', '3', '--json');
    // Nobody knows from outside when the watch is there: the znode comes and goes until three events were seen.
    let isOver = false;
    void watching.done.then(() => {
      isOver = true;
    });
    await waitFor('three events', async () => {
      await run('create', '/w', '');
      await run('delete', '/w');
      return isOver;
    });
    expect(await watching.done).toBe(0);
    const events = watching.result.out
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
    expect(events).toHaveLength(3);
    for (const event of events) expect(event).toMatchObject({ path: '/w', zxid: expect.stringMatching(/^0x/) });
  }, 20_000);

  test('ls --watch tells what comes and goes, create --ephemeral holds its znode, and Ctrl-C ends both in order', async () => {
    const listing = spawnCommand('ls', '/', '--watch');
    await waitFor('the list', () => listing.out().includes('zookeeper\n'));
    const holding = spawnCommand('create', '/held', '--ephemeral');
    await waitFor('the znode', () => listing.out().endsWith('+ held\n'));
    expect(holding.out()).toBe('/held\n');
    expect(await holding.interrupt()).toBe(0);
    await waitFor('its end', () => listing.out().endsWith('+ held\n- held\n'));
    expect(await listing.interrupt()).toBe(0);
  }, 20_000);

  test('status shows each server, the leader and the members', async () => {
    const { code, out } = await run('status', '--json');
    expect(code).toBe(0);
    const { servers, members } = JSON.parse(out);
    expect(servers.map(({ mode }: { mode: string }) => mode).toSorted()).toEqual(['follower', 'follower', 'leader']);
    expect(members.map(({ id }: { id: number }) => id)).toEqual([1, 2, 3]);
    expect((await run('status')).out).toMatch(/3 of 3 servers serve, 127\.0\.0\.1:\d+ leads, epoch \d+/);
  });
});
