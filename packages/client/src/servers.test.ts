import { expect, test } from 'vitest';
import { formatAddress, parseConnectString, roundRobin } from './servers.ts';

test('a connect string names servers and a chroot', () => {
  expect(parseConnectString('a:1,b:2/app/x')).toEqual({
    servers: [
      { host: 'a', port: 1 },
      { host: 'b', port: 2 },
    ],
    chroot: '/app/x',
  });
});

test('a missing port is 2181 and a chroot of / is none', () => {
  expect(parseConnectString(' zk1 , zk2:2182 /')).toEqual({
    servers: [
      { host: 'zk1', port: 2181 },
      { host: 'zk2', port: 2182 },
    ],
    chroot: '',
  });
});

test('an IPv6 address stands in brackets, with or without a port', () => {
  const { servers } = parseConnectString('[::1]:2182,[fe80::2]');
  expect(servers.map(formatAddress)).toEqual(['[::1]:2182', '[fe80::2]:2181']);
});

test.each(['', ',', '/app', 'a:b', 'a:0', 'a:65536', '::1:2181', 'a:1:2'])(
  '"%s" is refused with what it is',
  (text) => {
    expect(() => parseConnectString(text)).toThrow(expect.objectContaining({ code: 'badArguments' }));
  },
);

const THREE = [1, 2, 3].map((port) => ({ host: 'h', port }));

test('each round dials every server once, in a shuffled order', () => {
  const provider = roundRobin(THREE, () => 0);
  const ports = [0, 1, 2, 3, 4, 5].map(() => provider.next().server.port);
  expect(ports.slice(0, 3)).not.toEqual([1, 2, 3]);
  expect(ports.slice(0, 3).sort()).toEqual([1, 2, 3]);
  expect(ports.slice(3)).toEqual(ports.slice(0, 3));
});

test('nothing waits within a round, and the wait between rounds doubles up to a second', () => {
  const provider = roundRobin(THREE, () => 1 - Number.EPSILON);
  const delays = Array.from({ length: 30 }, () => Math.round(provider.next().delayMs));
  expect(delays.filter((_, index) => index % 3 !== 0)).toEqual(Array(20).fill(0));
  expect(delays.filter((_, index) => index % 3 === 0)).toEqual([0, 100, 200, 400, 800, 1000, 1000, 1000, 1000, 1000]);
});

test('after a lost connection the next server is dialled almost at once, spread a little', () => {
  const provider = roundRobin(THREE, () => 0.5);
  const first = provider.next();
  provider.onConnected();
  const second = provider.next();
  expect(second.server).not.toEqual(first.server);
  expect(second.delayMs).toBeGreaterThan(0);
  expect(second.delayMs).toBeLessThanOrEqual(50);
});
