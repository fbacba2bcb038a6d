import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  decodeConnectResponse,
  decodeReplyHeader,
  decodeResponse,
  encodeConnectRequest,
  encodeRequest,
  encodeRequestHeader,
  JuteReader,
  JuteWriter,
  type OpName,
  type Request,
} from '@quorate/protocol';
import { serverIdFrom, sessionIdFrom, zxidFrom } from '@quorate/protocol/zxid';
import { openDisk } from '@quorate/storage';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { loadConfig } from './config.ts';
import { runServer } from './main.ts';
import { type RunningServer, startServer } from './server.ts';

const DEADLINE_MS = 15_000;
let folder = '';
let running: RunningServer[] = [];
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'quorate-server-'));
});
afterEach(async () => {
  await Promise.all(running.map((server) => server.stop()));
  running = [];
  rmSync(folder, { recursive: true, force: true });
});

async function until(what: string, condition: () => boolean): Promise<void> {
  const deadline = performance.now() + DEADLINE_MS;
  while (!condition()) {
    if (performance.now() > deadline) throw new Error(`timed out: ${what}`);
    await new Promise<void>((resolve) => void setImmediate(resolve));
  }
}

function write(name: string, text: string): string {
  const file = join(folder, name);
  writeFileSync(file, text);
  return file;
}

type Line = { readonly level: string; readonly message: string; readonly fields: Readonly<Record<string, unknown>> };

async function started(file: string): Promise<{ server: RunningServer; lines: Line[]; fatals: Error[] }> {
  const lines: Line[] = [];
  const fatals: Error[] = [];
  const server = await startServer(loadConfig(file), {
    log: (level, message, fields = {}) => void lines.push({ level, message, fields }),
    fatal: (error) => void fatals.push(error),
  });
  running.push(server);
  return { server, lines, fatals };
}

/** Damages the newest of LevelDB's own logs. */
function flipMiddleByte(logFolder: string): void {
  const name = readdirSync(logFolder)
    .filter((each) => each.endsWith('.log'))
    .toSorted()
    .at(-1);
  const file = join(logFolder, name ?? '');
  const bytes = readFileSync(file);
  const middle = bytes.length >> 1;
  bytes[middle] = (bytes[middle] ?? 0) ^ 0x40;
  writeFileSync(file, bytes);
}

async function freePorts(count: number): Promise<number[]> {
  const servers = await Promise.all(
    Array.from({ length: count }, async () => {
      const server = createServer();
      await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
      return server;
    }),
  );
  const ports = servers.map((server) => {
    const address = server.address();
    return address !== null && typeof address === 'object' ? address.port : 0;
  });
  await Promise.all(servers.map((server) => new Promise<void>((resolve) => server.close(() => resolve()))));
  return ports;
}

/** Sends frames, answers whole payloads in order. */
async function client(port: number) {
  const socket = connect({ host: '127.0.0.1', port });
  let bytes = Buffer.alloc(0);
  let isEnded = false;
  socket.on('error', () => undefined);
  socket.on('close', () => {
    isEnded = true;
  });
  socket.on('data', (data: Buffer) => {
    bytes = Buffer.concat([bytes, data]);
  });
  await new Promise<void>((resolve) => socket.once('connect', resolve));
  const take = (): Buffer | null => {
    if (bytes.length < 4 || bytes.length < 4 + bytes.readInt32BE(0)) return null;
    const length = bytes.readInt32BE(0);
    const payload = bytes.subarray(4, 4 + length);
    bytes = bytes.subarray(4 + length);
    return payload;
  };
  return {
    send: (encode: (writer: JuteWriter) => void) => {
      const writer = new JuteWriter(64);
      writer.beginFrame();
      encode(writer);
      writer.endFrame();
      socket.write(writer.detach());
    },
    reply: async (): Promise<Buffer> => {
      let payload: Buffer | null = null;
      await until('a reply', () => {
        payload ??= take();
        return payload !== null || isEnded;
      });
      return payload ?? Buffer.alloc(0);
    },
    text: async (word: string): Promise<string> => {
      socket.write(word);
      await until('the end', () => isEnded);
      return bytes.toString();
    },
    isEnded: () => isEnded,
    end: () => socket.destroy(),
  };
}

async function word(port: number, text: string): Promise<string> {
  return (await client(port)).text(text);
}

async function session(port: number) {
  const one = await client(port);
  one.send((writer) =>
    encodeConnectRequest(writer, {
      protocolVersion: 0,
      lastZxidSeen: zxidFrom(0n),
      timeoutMs: 10_000,
      sessionId: sessionIdFrom(0n),
      password: new Uint8Array(16),
      readOnly: false,
    }),
  );
  const reader = new JuteReader();
  const hello = await one.reply();
  reader.reset(hello, 0, hello.length);
  const response = decodeConnectResponse(reader);
  let xid = 0;
  const call = async (request: Parameters<typeof encodeRequest>[1], name: OpName) => {
    xid += 1;
    one.send((writer) => {
      encodeRequestHeader(writer, xid, name);
      encodeRequest(writer, request);
    });
    const payload = await one.reply();
    reader.reset(payload, 0, payload.length);
    return { header: decodeReplyHeader(reader), reader };
  };
  return { ...one, response, call };
}

const create = (path: string, data: string): Request => ({
  kind: 'create',
  path,
  data: Buffer.from(data),
  acl: [{ perms: 31, id: { scheme: 'world', id: 'anyone' } }],
  flags: 0,
  ttl: -1n,
});

/** Three zoo.cfg files on loopback, each with its own folder `d1`..`d3`. */
async function ensembleFiles(): Promise<string[]> {
  const ports = await freePorts(3);
  return [1, 2, 3].map((id) => {
    mkdirSync(join(folder, `d${id}`));
    write(`d${id}/myid`, String(id));
    const lines = ports.map((port, i) => `server.${i + 1}=127.0.0.1:${port}`);
    return write(
      `zoo${id}.cfg`,
      `dataDir=${folder}/d${id}\nclientPort=0\nclientPortAddress=127.0.0.1\ntickTime=500\ninitLimit=20\nsyncLimit=10\n${lines.join('\n')}\n`,
    );
  });
}

describe('a standalone server', { timeout: 30_000 }, () => {
  it('serves a session, survives a restart, and leaves no pid file', async () => {
    mkdirSync(join(folder, 'data'));
    const file = write('zoo.cfg', `dataDir=${folder}/data\nclientPort=0\nclientPortAddress=127.0.0.1\ntickTime=500\n`);
    const first = await started(file);
    const pidFile = join(folder, 'data', 'quorate.pid');
    expect(Number(readFileSync(pidFile, 'utf8'))).toBe(process.pid);
    await until('serving', () => first.server.report().isServing);
    const one = await session(first.server.clientPort);
    expect(one.response.timeoutMs).toBe(10_000);
    expect((await one.call(create('/kept', 'value'), 'create')).header.err).toBe(0);
    expect(await word(first.server.clientPort, 'srvr')).toContain('Mode: standalone\n');
    expect(await word(first.server.clientPort, 'cons')).toMatch(/sid=0x1[0-9a-f]+,lop=[A-Z]+,est=\d+,to=10000,/);
    await first.server.stop();
    running = [];
    expect(existsSync(pidFile)).toBe(false);
    await until('the client is told', one.isEnded);

    const second = await started(file);
    await until('serving', () => second.server.report().isServing);
    const two = await session(second.server.clientPort);
    const { header, reader } = await two.call({ kind: 'getData', path: '/kept', watch: false }, 'getData');
    expect(header.err).toBe(0);
    expect(decodeResponse('getData', reader)).toMatchObject({ data: new Uint8Array(Buffer.from('value')) });
    expect([...first.fatals, ...second.fatals]).toEqual([]);
    two.end();
  });
});

describe('three servers', { timeout: 60_000 }, () => {
  it('elect a leader, replicate, hand leadership over when the leader stops, and take it back', async () => {
    const files = await ensembleFiles();
    const all = await Promise.all(files.map((file) => started(file)));
    await until('all serve', () => all.every((one) => one.server.report().isServing));
    const modes = all.map((one) => one.server.report().mode).toSorted();
    expect(modes).toEqual(['follower', 'follower', 'leader']);
    const leader = all.find((one) => one.server.report().mode === 'leader');
    const follower = all.find((one) => one.server.report().mode === 'follower');
    if (leader === undefined || follower === undefined) throw new Error('there is a leader and a follower');
    expect(await word(leader.server.clientPort, 'mntr')).toContain('zk_synced_followers\t2\n');

    const one = await session(follower.server.clientPort);
    expect((await one.call(create('/a', '1'), 'create')).header.err).toBe(0);
    await leader.server.stop();
    running = running.filter((server) => server !== leader.server);
    // The same connection goes on through the change of leader.
    expect((await one.call(create('/b', '2'), 'create')).header.err).toBe(0);
    expect(one.isEnded()).toBe(false);

    const again = await started(files[all.indexOf(leader)] ?? '');
    await until('it serves again', () => again.server.report().isServing);
    const two = await session(again.server.clientPort);
    expect((await two.call({ kind: 'exists', path: '/b', watch: false }, 'exists')).header.err).toBe(0);
    expect([...all, again].flatMap((each) => each.fatals)).toEqual([]);
    one.end();
    two.end();
  });
});

describe('a damaged or half-formed store', { timeout: 60_000 }, () => {
  it("a follower whose log lost records is suspect, takes the leader's snapshot, and serves all of it", async () => {
    const files = await ensembleFiles();
    const all = await Promise.all(files.map((file) => started(file)));
    await until('all serve', () => all.every((one) => one.server.report().isServing));
    const place = all.findIndex((one) => one.server.report().mode === 'follower');
    const [leader, follower] = [all.find((one) => one.server.report().mode === 'leader'), all[place]];
    if (leader === undefined || follower === undefined) throw new Error('there is a leader and a follower');
    const one = await session(leader.server.clientPort);
    for (let i = 0; i < 50; i++) expect((await one.call(create(`/n${i}`, 'value'), 'create')).header.err).toBe(0);
    await until('the follower has all', () => follower.server.report().zxid === leader.server.report().zxid);
    await follower.server.stop();
    running = running.filter((server) => server !== follower.server);
    flipMiddleByte(join(folder, `d${place + 1}`, 'store', 'log'));

    const again = await started(files[place] ?? '');
    expect(again.lines.some((line) => line.level === 'warn' && line.message.includes('suspect'))).toBe(true);
    await until('it serves again', () => again.server.report().isServing);
    const two = await session(again.server.clientPort);
    expect((await two.call({ kind: 'exists', path: '/n49', watch: false }, 'exists')).header.err).toBe(0);
    expect([...all, again].flatMap((each) => each.fatals)).toEqual([]);
    one.end();
    two.end();
  });

  it('a store that holds an identity and nothing else does not keep its server out of the ensemble', async () => {
    const files = await ensembleFiles();
    const all = await Promise.all(files.map((file) => started(file)));
    await until('all serve', () => all.every((one) => one.server.report().isServing));
    const place = all.findIndex((one) => one.server.report().mode === 'follower');
    const [leader, follower] = [all.find((one) => one.server.report().mode === 'leader'), all[place]];
    if (leader === undefined || follower === undefined) throw new Error('there is a leader and a follower');
    const one = await session(leader.server.clientPort);
    expect((await one.call(create('/a', 'value'), 'create')).header.err).toBe(0);
    await follower.server.stop();
    running = running.filter((server) => server !== follower.server);
    // As it is left when a leader dies while it forms the ensemble, and the others form it without that identity.
    const store = join(folder, `d${place + 1}`, 'store');
    rmSync(store, { recursive: true });
    const { disk } = await openDisk(store, { serverId: serverIdFrom(place + 1), windowCount: 1, windowBytes: 1 });
    await new Promise<void>((resolve, reject) =>
      disk.write({ entries: [], clusterId: 'lost', mark: 'clean' }, (error) =>
        error === null ? resolve() : reject(error),
      ),
    );
    await new Promise<void>((resolve) => disk.close(() => resolve()));

    const again = await started(files[place] ?? '');
    await until('it serves too', () => again.server.report().isServing);
    const two = await session(again.server.clientPort);
    expect((await two.call({ kind: 'exists', path: '/a', watch: false }, 'exists')).header.err).toBe(0);
    expect([...all, again].flatMap((each) => each.fatals)).toEqual([]);
    one.end();
    two.end();
  });
});

describe('a start that fails ends with one readable line and its code', { timeout: 30_000 }, () => {
  const run = async (file: string): Promise<{ code: number; text: string }> => {
    let text = '';
    const code = await runServer(file, {
      destination: {
        write: (chunk: string) => {
          text += chunk;
        },
      },
      exit: (exitCode) => {
        throw new Error(`exit ${exitCode}`);
      },
    });
    return { code, text };
  };
  const lastLine = (text: string): string => text.trimEnd().split('\n').at(-1) ?? '';

  it('2: a wrong configuration', async () => {
    const { code, text } = await run(write('zoo.cfg', 'dataDir=/tmp\nclientPort=none\n'));
    expect(code).toBe(2);
    expect(text).toMatch(/^quorate: configuration error: .*zoo\.cfg:2: clientPort=none: expected a whole number .*\n$/);
  });

  it('3: a folder that is a file, one that does not exist, one that holds something else', async () => {
    const blocked = write('blocked', 'a file');
    const first = await run(write('a.cfg', `dataDir=${blocked}\nclientPort=0\n`));
    expect(first.code).toBe(3);
    expect(lastLine(first.text)).toContain('dataDir');
    const second = await run(write('b.cfg', `dataDir=${folder}/none\nclientPort=0\ndatadir.autocreate=false\n`));
    expect(second.code).toBe(3);
    mkdirSync(join(folder, 'c', 'store'), { recursive: true });
    write('c/store/stranger', 'x');
    const third = await run(write('c.cfg', `dataDir=${folder}/c\nclientPort=0\n`));
    expect(third.code).toBe(3);
    expect(lastLine(third.text)).toContain('STORE_FOREIGN');
  });

  it.skipIf(process.getuid?.() === 0)('3: a folder without permission', async () => {
    mkdirSync(join(folder, 'closed'));
    chmodSync(join(folder, 'closed'), 0o500);
    const { code } = await run(write('zoo.cfg', `dataDir=${folder}/closed\nclientPort=0\n`));
    chmodSync(join(folder, 'closed'), 0o700);
    expect(code).toBe(3);
  });

  it('3: a store that another process, or this one, has open', async () => {
    const file = write('zoo.cfg', `dataDir=${folder}/data\nclientPort=0\nclientPortAddress=127.0.0.1\n`);
    await started(file);
    const { code, text } = await run(file);
    expect(code).toBe(3);
    expect(lastLine(text)).toContain('STORE_LOCKED');
    expect(existsSync(join(folder, 'data', 'quorate.pid'))).toBe(true);
  });

  it('14: a taken client port; the store is released', async () => {
    const first = await started(write('a.cfg', `dataDir=${folder}/a\nclientPort=0\nclientPortAddress=127.0.0.1\n`));
    const file = write(
      'b.cfg',
      `dataDir=${folder}/b\nclientPort=${first.server.clientPort}\nclientPortAddress=127.0.0.1\n`,
    );
    const { code, text } = await run(file);
    expect(code).toBe(14);
    expect(lastLine(text)).toContain('EADDRINUSE');
    expect(existsSync(join(folder, 'b', 'quorate.pid'))).toBe(false);
    await first.server.stop();
    running = [];
    await started(file);
  });
});

describe('a running process', { timeout: 30_000 }, () => {
  it('stops in order on SIGTERM and answers 0; the log is JSON lines that name the server', async () => {
    let text = '';
    let server: RunningServer | null = null;
    const file = write('zoo.cfg', `dataDir=${folder}/data\nclientPort=0\nclientPortAddress=127.0.0.1\nbogus=1\n`);
    const code = runServer(file, {
      destination: {
        write: (chunk: string) => {
          text += chunk;
        },
      },
      onStarted: (value) => {
        server = value;
      },
    });
    await until('up', () => server !== null);
    process.kill(process.pid, 'SIGTERM');
    expect(await code).toBe(0);
    const lines = text.trimEnd().split('\n');
    for (const line of lines) expect(JSON.parse(line)).toMatchObject({ server: 1 });
    expect(lines.some((line) => line.includes('"key":"bogus"'))).toBe(true);
    expect(lines.at(-1)).toContain('stopped in order');
  });
});
