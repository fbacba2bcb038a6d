import { connect, createServer, type Server, type Socket } from 'node:net';
import { type ServerId, serverIdFrom, zxidFrom } from '@quorate/protocol/zxid';
import { afterEach, describe, expect, it } from 'vitest';
import { encodeHello } from './peer-channel.ts';
import { PEER_PROTOCOL_VERSION } from './peer-codec.ts';
import type { PeerMessage } from './peer-messages.ts';
import { type Address, PeerTransport, type PeerTransportOptions } from './peer-transport.ts';

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

type Recorder = {
  readonly transport: PeerTransport;
  readonly connected: { peer: ServerId; incarnation: number }[];
  readonly disconnected: ServerId[];
  readonly messages: { from: ServerId; message: PeerMessage }[];
  readonly logs: string[];
  port: number;
};

const id = serverIdFrom;
const localhost = (port: number): Address => ({ host: '127.0.0.1', port });
const heartbeat = (sequence: number): PeerMessage => ({ kind: 'heartbeat', epoch: 1, sequence });
const ack = (value: number): PeerMessage => ({ kind: 'ack', epoch: 1, zxid: zxidFrom(BigInt(value)) });
const chunk = (index: number, size: number): PeerMessage => ({
  kind: 'snapshotChunk',
  epoch: 1,
  zxid: zxidFrom(5n),
  index,
  last: false,
  bytes: new Uint8Array(size).fill(index),
});

async function started(
  self: number,
  peers: Readonly<Record<number, readonly number[]>>,
  extra: Partial<PeerTransportOptions> = {},
): Promise<Recorder> {
  const recorder = { connected: [], disconnected: [], messages: [], logs: [], port: 0 } as Omit<Recorder, 'transport'>;
  const transport = new PeerTransport(
    {
      id: id(self),
      incarnation: self * 100,
      listen: [localhost(0)],
      peers: new Map(Object.entries(peers).map(([peer, ports]) => [id(Number(peer)), ports.map(localhost)])),
      clusterId: () => '',
      queueBytesMax: 8 * 1024 * 1024,
      bulkWindowBytes: 256 * 1024,
      silenceMs: 60_000,
      handshakeMs: 2000,
      redialMinMs: 5,
      redialMaxMs: 50,
      ...extra,
    },
    {
      onConnected: (peer, incarnation) => void recorder.connected.push({ peer, incarnation }),
      onDisconnected: (peer) => void recorder.disconnected.push(peer),
      onMessage: (from, message) => void recorder.messages.push({ from, message }),
      log: (level, message, fields) => void recorder.logs.push(`${level} ${message} ${JSON.stringify(fields ?? {})}`),
    },
  );
  await transport.start();
  closers.push(() => transport.close());
  return Object.assign(recorder, { transport, port: transport.ports[0] ?? 0 });
}

/** Passes bytes on, both ways, until it is told otherwise. */
async function proxyTo(port: number) {
  const sockets = new Set<Socket>();
  let isStuck = false;
  const server: Server = createServer((near) => {
    const far = connect({ host: '127.0.0.1', port });
    for (const [from, to] of [
      [near, far],
      [far, near],
    ] as const) {
      sockets.add(from);
      from.on('data', (data) => {
        if (!isStuck) to.write(data);
      });
      from.on('error', () => undefined);
      from.on('close', () => {
        sockets.delete(from);
        to.destroy();
      });
    }
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  const cut = () => {
    for (const socket of sockets) socket.destroy();
  };
  closers.push(() => {
    cut();
    server.close();
  });
  return {
    port: address !== null && typeof address === 'object' ? address.port : 0,
    cut,
    /** Accepts and keeps connections, loses every byte. */
    stick: (value: boolean) => {
      isStuck = value;
    },
    connections: () => sockets.size / 2,
    /** Ends one of the two connections of the link. */
    cutOne: () => [...sockets][0]?.destroy(),
  };
}

describe('a link between two servers', () => {
  it('is up once on both sides, and carries both channels in order', async () => {
    const a = await started(1, { 2: [1] });
    const b = await started(2, { 1: [a.port] });
    await until('both up', () => a.connected.length === 1 && b.connected.length === 1);
    expect(a.connected).toEqual([{ peer: 2, incarnation: 200 }]);
    expect(b.connected).toEqual([{ peer: 1, incarnation: 100 }]);
    for (let i = 0; i < 100; i++) {
      a.transport.send(id(2), ack(i));
      b.transport.send(id(1), heartbeat(i));
    }
    await until('all came', () => a.messages.length === 100 && b.messages.length === 100);
    expect(b.messages.map((m) => m.message)).toEqual(Array.from({ length: 100 }, (_, i) => ack(i)));
    expect(a.messages.map((m) => m.message)).toEqual(Array.from({ length: 100 }, (_, i) => heartbeat(i)));
    expect(a.messages[0]?.from).toBe(2);
  });

  it('delivers what is sent from the very callback that reports it up', async () => {
    const a = await started(1, { 2: [1] });
    const b = await started(2, { 1: [a.port] });
    await until('b up', () => b.connected.length === 1);
    b.transport.send(id(1), ack(1));
    await until('it came', () => a.messages.length === 1);
    expect(a.connected).toHaveLength(1);
  });

  it('three servers form three links, also when the dialled one starts last', async () => {
    const placeholder = await started(1, { 2: [1], 3: [1] });
    const { port } = placeholder;
    await placeholder.transport.close();
    const b = await started(2, { 1: [port], 3: [1] });
    const c = await started(3, { 1: [port], 2: [b.port] });
    await until('the pair is up', () => b.connected.length === 1 && c.connected.length === 1);
    const a = await started(1, { 2: [1], 3: [1] }, { listen: [localhost(port)] });
    await until('all up', () => a.connected.length === 2 && b.connected.length === 2 && c.connected.length === 2);
    expect(b.logs.filter((line) => line.includes('cannot be reached')).length).toBeLessThanOrEqual(2);
  });

  it('is lost once on both sides when one of its two connections breaks, and comes back', async () => {
    const a = await started(1, { 2: [1] });
    const proxy = await proxyTo(a.port);
    const b = await started(2, { 1: [proxy.port] });
    await until('both up', () => a.connected.length === 1 && b.connected.length === 1);
    proxy.cutOne();
    await until('both up again', () => a.connected.length === 2 && b.connected.length === 2);
    expect(a.disconnected).toEqual([2]);
    expect(b.disconnected).toEqual([1]);
    b.transport.send(id(1), ack(7));
    await until('it carries', () => a.messages.length === 1);
  });

  it('is dialled again after drop', async () => {
    const a = await started(1, { 2: [1] });
    const b = await started(2, { 1: [a.port] });
    await until('both up', () => a.connected.length === 1 && b.connected.length === 1);
    a.transport.drop(id(2), 'a test says so');
    expect(a.disconnected).toEqual([2]);
    await until('both up again', () => a.connected.length === 2 && b.connected.length === 2);
    expect(a.logs.some((line) => line.includes('a test says so'))).toBe(true);
  });

  it('is given up when nothing comes any more though no connection breaks, and comes back', async () => {
    const a = await started(1, { 2: [1] }, { silenceMs: 200, handshakeMs: 200 });
    const proxy = await proxyTo(a.port);
    const b = await started(2, { 1: [proxy.port] }, { silenceMs: 200, handshakeMs: 200 });
    await until('both up', () => a.connected.length === 1 && b.connected.length === 1);
    proxy.stick(true);
    await until('both lost it', () => a.disconnected.length === 1 && b.disconnected.length === 1);
    proxy.stick(false);
    await until('both up again', () => a.connected.length >= 2 && b.connected.length >= 2);
  });

  it('stays up while nobody has anything to say', async () => {
    const a = await started(1, { 2: [1] }, { silenceMs: 100 });
    const b = await started(2, { 1: [a.port] }, { silenceMs: 100 });
    await until('both up', () => a.connected.length === 1 && b.connected.length === 1);
    const end = performance.now() + 500;
    await until('five silence limits have passed', () => performance.now() > end);
    expect([...a.disconnected, ...b.disconnected]).toEqual([]);
  });

  it('tries the other addresses of a peer', async () => {
    const a = await started(1, { 2: [1] });
    const closed = await proxyTo(1);
    const b = await started(2, { 1: [closed.port, a.port] });
    await until('both up', () => a.connected.length === 1 && b.connected.length === 1);
  });

  it('a newer incarnation replaces the older', async () => {
    const a = await started(1, { 2: [1] });
    const old = await started(2, { 1: [a.port] });
    await until('old up', () => a.connected.length === 1 && old.connected.length === 1);
    const young = await started(2, { 1: [a.port] }, { incarnation: 201, redialMinMs: 60_000, redialMaxMs: 60_000 });
    await until('young up', () => young.connected.length === 1);
    expect(a.connected[1]).toEqual({ peer: 2, incarnation: 201 });
    expect(a.disconnected).toEqual([2]);
    await until('old lost it', () => old.disconnected.length === 1);
  });

  it('needs only as many connections as it has channels after many reconnects', async () => {
    const a = await started(1, { 2: [1] });
    const proxy = await proxyTo(a.port);
    const b = await started(2, { 1: [proxy.port] });
    for (let i = 1; i <= 20; i++) {
      await until(`up ${i}`, () => a.connected.length === i && b.connected.length === i);
      proxy.cut();
    }
    await until('up at the end', () => a.connected.length === 21 && b.connected.length === 21);
    await until('old ones are gone', () => proxy.connections() === 2);
    expect(a.disconnected).toHaveLength(20);
  });
});

describe('limits of a link', () => {
  it('bulk asks for more only while little is waiting, and all of it arrives in order', async () => {
    const a = await started(1, { 2: [1] });
    const b = await started(2, { 1: [a.port] });
    await until('both up', () => a.connected.length === 1 && b.connected.length === 1);
    const total = 200;
    let sent = 0;
    const more = (ok: boolean): void => {
      expect(ok).toBe(true);
      if (sent === total) return;
      const message = chunk(sent, 128 * 1024);
      sent += 1;
      b.transport.sendBulk(id(1), message, more);
    };
    more(true);
    expect(sent).toBe(1);
    await until('all came', () => a.messages.length === total);
    const indexes = a.messages.map(({ message }) => (message.kind === 'snapshotChunk' ? message.index : -1));
    expect(indexes).toEqual(Array.from({ length: total }, (_, i) => i));
  });

  it('a peer that reads nothing is dropped at the cap, and waiting bulk is answered with false', async () => {
    const a = await started(1, { 2: [1] });
    const proxy = await proxyTo(a.port);
    const b = await started(2, { 1: [proxy.port] }, { queueBytesMax: 2 * 1024 * 1024, bulkWindowBytes: 1 });
    await until('both up', () => a.connected.length === 1 && b.connected.length === 1);
    const answers: boolean[] = [];
    for (let i = 0; i < 3 && b.disconnected.length === 0; i++) {
      b.transport.sendBulk(id(1), chunk(i, 1024 * 1024), (ok) => void answers.push(ok));
    }
    expect(b.disconnected).toEqual([1]);
    await until('all answered', () => answers.length >= 2);
    expect(answers).not.toContain(true);
    expect(b.logs.some((line) => line.includes('does not keep up'))).toBe(true);
    await until('it comes back', () => b.connected.length === 2);
  });

  it('bulk to a peer without link is answered with false, later', async () => {
    const a = await started(1, { 2: [1] });
    let answer: boolean | null = null;
    a.transport.sendBulk(id(2), chunk(0, 10), (ok) => {
      answer = ok;
    });
    expect(answer).toBe(null);
    await until('answered', () => answer === false);
  });

  it('messages to a peer without link, or to a stranger, are dropped silently', async () => {
    const a = await started(1, { 2: [1] });
    a.transport.send(id(2), ack(1));
    a.transport.send(id(9), ack(1));
    expect(a.logs).toEqual([]);
  });
});

describe('who is refused', () => {
  const refusedBy = (recorder: Recorder, text: string): number =>
    recorder.logs.filter((line) => line.includes(text)).length;

  it('a server that is not configured, logged once on both sides', async () => {
    const a = await started(1, { 2: [1] });
    const c = await started(3, { 1: [a.port] });
    const text = 'server 3 is not in the configuration of server 1';
    await until('several attempts', () => refusedBy(c, text) >= 1 && refusedBy(a, text) >= 1);
    const end = performance.now() + 300;
    await until('more attempts have passed', () => performance.now() > end);
    expect([refusedBy(a, text), refusedBy(c, text)]).toEqual([1, 1]);
    expect([...a.connected, ...c.connected]).toEqual([]);
  });

  it('a server of another ensemble', async () => {
    const a = await started(1, { 2: [1] }, { clusterId: () => 'one' });
    const b = await started(2, { 1: [a.port] }, { clusterId: () => 'two' });
    await until('refused', () => refusedBy(a, 'belongs to the ensemble two') === 1);
    await until('told', () => refusedBy(b, 'belongs to the ensemble two') === 1);
    expect([...a.connected, ...b.connected]).toEqual([]);
  });

  it('not a server whose store belongs to no ensemble yet', async () => {
    const a = await started(1, { 2: [1] }, { clusterId: () => 'one' });
    const b = await started(2, { 1: [a.port] });
    await until('both up', () => a.connected.length === 1 && b.connected.length === 1);
  });

  it('an address that leads to another server than the one wanted', async () => {
    const a = await started(1, { 2: [1], 3: [1] });
    const c = await started(3, { 1: [1], 2: [a.port] });
    await until('refused', () => refusedBy(c, 'server 2 was wanted, this is server 1') === 1);
    expect(c.connected).toEqual([]);
  });

  it('another version of the protocol: both sides say which', async () => {
    const a = await started(1, { 2: [1] });
    const socket = connect({ host: '127.0.0.1', port: a.port });
    closers.push(() => void socket.destroy());
    const answers: Buffer[] = [];
    socket.on('data', (data: Buffer) => void answers.push(data));
    const hello = {
      id: id(2),
      peer: id(1),
      incarnation: 1,
      channel: 'vote',
      link: 1,
      clusterId: '',
      refusal: '',
    } as const;
    socket.write(encodeHello(hello, PEER_PROTOCOL_VERSION + 1));
    await until('refused', () => refusedBy(a, `it speaks version ${PEER_PROTOCOL_VERSION + 1}`) === 1);
    await until('told', () => Buffer.concat(answers).length === 8);
    expect(Buffer.concat(answers).readUInt32BE(4)).toBe(PEER_PROTOCOL_VERSION);
  });

  it('a dialler is told the other version and logs it', async () => {
    const strange = createServer((socket) => {
      const prefix = Buffer.from('QRTE\0\0\0\x09', 'latin1');
      socket.on('error', () => undefined);
      socket.end(prefix);
    });
    await new Promise<void>((resolve) => strange.listen(0, '127.0.0.1', resolve));
    closers.push(() => void strange.close());
    const address = strange.address();
    const b = await started(2, { 1: [address !== null && typeof address === 'object' ? address.port : 0] });
    await until('logged', () => refusedBy(b, 'it speaks version 9') === 1);
  });

  it('bytes of another protocol, a silent connection, and a damaged hello: the server goes on', async () => {
    const a = await started(1, { 2: [1] }, { handshakeMs: 100 });
    const sockets = [
      Buffer.from('GET / HTTP/1.1\r\n\r\n'),
      Buffer.alloc(0),
      Buffer.from('QRTE\0\0\0\x01\xff\xff\xff\xff\0\0\0\0', 'latin1'),
    ].map((data) => {
      const socket = connect({ host: '127.0.0.1', port: a.port });
      socket.on('error', () => undefined);
      socket.write(data);
      return socket;
    });
    await until('all are closed', () => sockets.every((socket) => socket.closed));
    const b = await started(2, { 1: [a.port] });
    await until('both up', () => a.connected.length === 1 && b.connected.length === 1);
  });

  it('damaged bytes on a link close it, and it comes back', async () => {
    const a = await started(1, { 2: [1] });
    let isNoisy = false;
    const server = createServer((near) => {
      const far = connect({ host: '127.0.0.1', port: a.port });
      near.on('data', (data: Buffer) => {
        if (isNoisy && data.length > 8) data[9] = (data[9] ?? 0) ^ 0xff;
        far.write(data);
      });
      far.on('data', (data) => near.write(data));
      for (const [from, to] of [
        [near, far],
        [far, near],
      ] as const) {
        from.on('error', () => undefined);
        from.on('close', () => to.destroy());
      }
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    closers.push(() => void server.close());
    const address = server.address();
    const b = await started(2, { 1: [address !== null && typeof address === 'object' ? address.port : 0] });
    await until('both up', () => a.connected.length === 1 && b.connected.length === 1);
    isNoisy = true;
    b.transport.send(id(1), ack(1));
    await until('lost', () => a.disconnected.length === 1);
    isNoisy = false;
    await until('both up again', () => a.connected.length === 2 && b.connected.length === 2);
    expect(a.messages).toEqual([]);
    expect(a.logs.some((line) => line.includes('checksum'))).toBe(true);
  });

  it('a taken peer port is the system error with its code', async () => {
    const a = await started(1, { 2: [1] });
    await expect(started(1, { 2: [1] }, { listen: [localhost(a.port)] })).rejects.toMatchObject({ code: 'EADDRINUSE' });
  });
});
