import { connect, type Socket } from 'node:net';
import { AssertionError, ProtocolError } from '@quorate/protocol';
import { afterEach, describe, expect, it } from 'vitest';
import { ClientListener, type ClientListenerOptions, type ListenedClient } from './client-listener.ts';
import { ClientSession } from './client-session.ts';
import type { ClientPort } from './ports.ts';

const DEADLINE_MS = 8000;
const closers: (() => void | Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

async function until(what: string, condition: () => boolean): Promise<void> {
  const deadline = performance.now() + DEADLINE_MS;
  while (!condition()) {
    if (performance.now() > deadline) throw new Error(`timed out: ${what}`);
    await new Promise<void>((resolve) => void setImmediate(resolve));
  }
}

/** The replica's side, recorded. `onFrame` may be replaced to answer or to throw. */
type FakeClient = ListenedClient & { port: ClientPort; frames: Buffer[]; chunks: number; isClosed: boolean };

function frame(...payload: number[]): Buffer {
  const bytes = Buffer.alloc(4 + payload.length);
  bytes.writeUInt32BE(payload.length, 0);
  bytes.set(payload, 4);
  return bytes;
}

async function listening(
  extra: Partial<ClientListenerOptions> = {},
  onFrame: (client: FakeClient, payload: Buffer) => void = () => undefined,
) {
  const clients: FakeClient[] = [];
  const logs: string[] = [];
  const fatals: Error[] = [];
  const listener = new ClientListener({
    host: '127.0.0.1',
    port: 0,
    backlog: -1,
    perAddressMax: 0,
    connectionsMax: 0,
    frameBytesMax: 1000,
    sessionlessMs: 60_000,
    keepAlive: false,
    connect: (port) => {
      const client: FakeClient = {
        port,
        session: new ClientSession(clients.length + 1, port, 0),
        frames: [],
        chunks: 0,
        isClosed: false,
        onFrame: (bytes, start, end) => {
          const payload = Buffer.from(bytes.subarray(start, end));
          client.frames.push(payload);
          onFrame(client, payload);
        },
        onChunkEnd: () => {
          client.chunks += 1;
        },
        onClosed: () => {
          client.isClosed = true;
        },
      };
      clients.push(client);
      return client;
    },
    answer: (word) => `answer to ${word}`,
    log: (level, message, fields) => void logs.push(`${level} ${message} ${JSON.stringify(fields ?? {})}`),
    fatal: (error) => void fatals.push(error),
    ...extra,
  });
  await listener.start();
  closers.push(() => listener.close());
  return { listener, clients, logs, fatals };
}

async function dialled(port: number): Promise<{ socket: Socket; received: () => Buffer; isEnded: () => boolean }> {
  const socket = connect({ host: '127.0.0.1', port });
  const chunks: Buffer[] = [];
  let isEnded = false;
  socket.on('data', (data: Buffer) => void chunks.push(data));
  socket.on('error', () => undefined);
  socket.on('close', () => {
    isEnded = true;
  });
  closers.push(() => void socket.destroy());
  await new Promise<void>((resolve, reject) => {
    socket.once('connect', resolve);
    socket.once('error', reject);
  });
  return { socket, received: () => Buffer.concat(chunks), isEnded: () => isEnded };
}

describe('frames of a client', () => {
  it('arrive whole however they are cut, and the end of each chunk is told', async () => {
    const { listener, clients } = await listening();
    const { socket } = await dialled(listener.port);
    const stream = Buffer.concat([frame(1, 2, 3), frame(), frame(4)]);
    for (const byte of stream) {
      socket.write(Buffer.from([byte]));
      await new Promise<void>((resolve) => void setImmediate(resolve));
    }
    await until('three frames', () => clients[0]?.frames.length === 3);
    expect(clients[0]?.frames.map((one) => [...one])).toEqual([[1, 2, 3], [], [4]]);
    expect(clients[0]?.chunks).toBeGreaterThan(0);
  });

  it('of one chunk come before one chunk end', async () => {
    const { listener, clients } = await listening();
    const { socket } = await dialled(listener.port);
    socket.write(Buffer.concat([frame(1), frame(2), frame(3)]));
    await until('three frames', () => clients[0]?.frames.length === 3);
    expect(clients[0]?.chunks).toBe(1);
  });

  it('that are too long, or negative, close this connection and no other, with one log line', async () => {
    const { listener, clients, logs, fatals } = await listening();
    const good = await dialled(listener.port);
    good.socket.write(frame(1));
    for (const length of [1001, 0x7fffffff, 0xffffffff]) {
      const bad = await dialled(listener.port);
      const header = Buffer.alloc(4);
      header.writeUInt32BE(length, 0);
      bad.socket.write(header);
      await until('closed', bad.isEnded);
    }
    expect(logs.filter((line) => line.includes('cannot be understood'))).toHaveLength(3);
    good.socket.write(frame(2));
    await until('the good one goes on', () => clients[0]?.frames.length === 2);
    await until('the replica knows', () => clients.slice(1).every((client) => client.isClosed));
    expect(fatals).toEqual([]);
  });

  it('that the replica cannot decode close the connection after the answers before them went out', async () => {
    const { listener, clients, logs } = await listening({}, (client, payload) => {
      if (payload[0] === 9) throw new ProtocolError('overrun', 'a field ends inside the frame');
      client.port.write(frame(7));
    });
    const { socket, received, isEnded } = await dialled(listener.port);
    socket.write(Buffer.concat([frame(1), frame(9), frame(1)]));
    await until('closed', isEnded);
    expect(received()).toEqual(frame(7));
    expect(clients[0]?.frames).toHaveLength(2);
    expect(logs.filter((line) => !line.startsWith('debug'))).toHaveLength(1);
  });

  it('that reveal a broken invariant end the process; other mistakes end the connection', async () => {
    const { listener, fatals, logs } = await listening({}, (_, payload) => {
      if (payload[0] === 1) throw new AssertionError('what must hold holds');
      throw new TypeError('a mistake');
    });
    const first = await dialled(listener.port);
    first.socket.write(frame(1));
    await until('fatal', () => fatals.length === 1);
    const second = await dialled(listener.port);
    second.socket.write(frame(2));
    await until('closed', second.isEnded);
    expect(fatals).toHaveLength(1);
    expect(logs.some((line) => line.startsWith('error'))).toBe(true);
  });
});

describe('replies to a client', () => {
  it('that the kernel takes at once leave the array to the caller', async () => {
    let isTaken: boolean | null = null;
    const { listener, clients } = await listening({}, (client) => {
      isTaken = client.port.write(frame(5, 6));
    });
    const { socket, received } = await dialled(listener.port);
    socket.write(frame(1));
    await until('the reply', () => received().length === 6);
    expect(isTaken).toBe(true);
    expect(clients[0]?.port.bufferedBytes).toBe(0);
  });

  it('that are not read are kept, stop the reading of requests, and start it again when read', async () => {
    const big = Buffer.alloc(32 * 1024 * 1024, 7);
    const { listener, clients } = await listening({}, (client, payload) => {
      if (payload[0] === 1) expect(client.port.write(big)).toBe(false);
    });
    const { socket, received } = await dialled(listener.port);
    socket.pause();
    socket.write(frame(1));
    await until('the first frame', () => clients[0]?.frames.length === 1);
    socket.write(frame(2));
    const client = clients[0];
    expect(client?.port.bufferedBytes).toBeGreaterThan(1024 * 1024);
    expect(client?.frames).toHaveLength(1);
    socket.resume();
    await until('all replies', () => received().length === big.length);
    await until('the second frame', () => client?.frames.length === 2);
  });

  it('go out before a close', async () => {
    const { listener, clients } = await listening({}, (client) => {
      client.port.write(Buffer.alloc(3 * 1024 * 1024, 7));
      client.port.close('a test says so');
      client.port.write(frame(1));
    });
    const { socket, received, isEnded } = await dialled(listener.port);
    socket.write(Buffer.concat([frame(1), frame(2)]));
    await until('closed', isEnded);
    expect(received()).toHaveLength(3 * 1024 * 1024);
    expect(clients[0]?.frames).toHaveLength(1);
    await until('the replica knows', () => clients[0]?.isClosed === true);
  });
});

describe('pause and resume', () => {
  it('stop and start the frames', async () => {
    const { listener, clients } = await listening({}, (client, payload) => {
      if (payload[0] === 1) client.port.pause();
    });
    const { socket } = await dialled(listener.port);
    socket.write(frame(1));
    await until('the first', () => clients[0]?.frames.length === 1);
    socket.write(frame(2));
    const other = await dialled(listener.port);
    other.socket.write(frame(3));
    await until('another client goes on', () => clients[1]?.frames.length === 1);
    expect(clients[0]?.frames).toHaveLength(1);
    clients[0]?.port.resume();
    await until('the second', () => clients[0]?.frames.length === 2);
  });
});

describe('the first four bytes', () => {
  it('may be a four-letter word, whole or byte by byte', async () => {
    const { listener, clients } = await listening();
    const whole = await dialled(listener.port);
    whole.socket.write('ruok');
    await until('answered and closed', whole.isEnded);
    expect(whole.received().toString()).toBe('answer to ruok');
    const cut = await dialled(listener.port);
    for (const letter of 'wchc') {
      cut.socket.write(letter);
      await new Promise<void>((resolve) => void setImmediate(resolve));
    }
    await until('answered and closed', cut.isEnded);
    expect(cut.received().toString()).toBe('answer to wchc');
    expect(clients).toHaveLength(0);
    await until('forgotten', () => listener.connectionCount === 0);
  });

  it('are a length when they are no word, and a word later is a length too', async () => {
    const { listener, clients } = await listening();
    const { socket, received, isEnded } = await dialled(listener.port);
    socket.write(Buffer.concat([frame(1), Buffer.from('ruok')]));
    await until('closed', isEnded);
    expect(received()).toHaveLength(0);
    expect(clients[0]?.frames).toHaveLength(1);
  });

  it('of a telnet client that gives up close the connection without a word', async () => {
    const { listener, clients, logs } = await listening();
    const { socket, received, isEnded } = await dialled(listener.port);
    socket.write(Buffer.from([0xff, 0xf4, 0xff, 0xfd]));
    await until('closed', isEnded);
    expect(received()).toHaveLength(0);
    expect(clients).toHaveLength(0);
    expect(logs.filter((line) => !line.startsWith('debug'))).toEqual([]);
  });
});

describe('limits on connections', () => {
  it('per address: the next is closed, logged once, and there is room again after one went', async () => {
    const { listener, logs } = await listening({ perAddressMax: 2 });
    const a = await dialled(listener.port);
    await dialled(listener.port);
    await until('two', () => listener.connectionCount === 2);
    for (let i = 0; i < 3; i++) {
      const refused = await dialled(listener.port);
      await until('refused', refused.isEnded);
    }
    expect(logs.filter((line) => line.includes('maxClientCnxns'))).toHaveLength(1);
    a.socket.destroy();
    await until('one left', () => listener.connectionCount === 1);
    const again = await dialled(listener.port);
    await until('two again', () => listener.connectionCount === 2);
    expect(again.isEnded()).toBe(false);
  });

  it('in all', async () => {
    const { listener, logs } = await listening({ connectionsMax: 1 });
    await dialled(listener.port);
    await until('one', () => listener.connectionCount === 1);
    const refused = await dialled(listener.port);
    await until('refused', refused.isEnded);
    expect(logs.filter((line) => line.includes('maxCnxns'))).toHaveLength(1);
  });

  it('a connection that asks for no session is closed after its time', async () => {
    const { listener } = await listening({ sessionlessMs: 1000 });
    const silent = await dialled(listener.port);
    const half = await dialled(listener.port);
    half.socket.write(Buffer.from([0, 0]));
    await until('closed', () => silent.isEnded() && half.isEnded());
  });

  it('an attached connection is closed when it is silent for its session timeout, not before, and never while paused', async () => {
    const { listener, clients } = await listening({ sessionlessMs: 1000 }, (client, payload) => {
      client.session.phase = 'attached';
      client.session.timeoutMs = payload[0] === 1 ? 1000 : 60_000;
      if (payload[0] === 3) {
        client.session.timeoutMs = 1000;
        client.port.pause();
      }
    });
    const [quick, slow, paused] = [
      await dialled(listener.port),
      await dialled(listener.port),
      await dialled(listener.port),
    ];
    quick.socket.write(frame(1));
    slow.socket.write(frame(2));
    paused.socket.write(frame(3));
    await until('the quick one is closed', quick.isEnded);
    expect([slow.isEnded(), paused.isEnded()]).toEqual([false, false]);
    expect(clients).toHaveLength(3);
  });

  it('a taken port is the system error with its code', async () => {
    const { listener } = await listening();
    await expect(listening({ port: listener.port })).rejects.toMatchObject({ code: 'EADDRINUSE' });
  });
});

describe('closing the listener', () => {
  it('closes every connection and waits for them', async () => {
    const { listener, clients } = await listening();
    const { socket, isEnded } = await dialled(listener.port);
    socket.write(frame(1));
    await until('connected', () => clients.length === 1);
    await listener.close();
    expect(listener.connectionCount).toBe(0);
    expect(clients[0]?.isClosed).toBe(true);
    await until('the client sees it', isEnded);
  });
});
