import { zxidFrom } from '@quorate/protocol';
import { expect, test } from 'vitest';
import { dataRecord, eventRecord, formatEvent, formatRecord, formatTable } from './format.ts';
import { parseServerStatus } from './four-letter-words.ts';
import { parseMembers } from './status.ts';

test('data is text where its bytes are UTF-8, base64 where not, and null where there is none', () => {
  expect(dataRecord(Buffer.from('grün'))).toEqual({ data: 'grün', encoding: 'utf8' });
  expect(dataRecord(Buffer.from([0xff, 0x00]))).toEqual({ data: '/wA=', encoding: 'base64' });
  expect(dataRecord(null)).toEqual({ data: null, encoding: 'utf8' });
  expect(dataRecord(Buffer.alloc(0))).toEqual({ data: '', encoding: 'utf8' });
});

test('events are printed with path and zxid, and without what is not known', () => {
  const event = { kind: 'nodeCreated', path: '/a', zxid: zxidFrom(0x1_0000_0002n) } as const;
  expect(formatEvent(event)).toBe('nodeCreated /a 0x100000002');
  expect(eventRecord(event)).toEqual({ event: 'nodeCreated', path: '/a', zxid: '0x100000002' });
  expect(formatEvent({ ...event, zxid: null })).toBe('nodeCreated /a');
  expect(formatEvent({ kind: 'session', state: 'suspended', isReadOnly: false })).toBe('session suspended');
});

test('columns are as wide as their widest cell', () => {
  expect(
    formatTable([
      ['a', 'bb', 'c'],
      ['aaa', 'b'],
    ]),
  ).toBe('a    bb  c\naaa  b');
  expect(formatRecord({ version: 1, mzxid: '0x5' })).toBe('version  1\nmzxid    0x5');
});

const SRVR = `Zookeeper version: 3.9.5-abc, built on 2026-01-01 10:00 UTC
Latency min/avg/max: 0/1.25/9
Received: 7
Sent: 6
Connections: 2
Outstanding: 1
Zxid: 0x10000002a
Mode: leader
Node count: 12
Proposal sizes last/min/max: 32/32/48
`;

test('srvr is read, and an answer that is no status is null', () => {
  expect(parseServerStatus(SRVR)).toEqual({
    version: '3.9.5-abc, built on 2026-01-01 10:00 UTC',
    mode: 'leader',
    zxid: 0x1_0000_002an,
    connectionCount: 2,
    outstandingCount: 1,
    znodeCount: 12,
    latencyMs: '0/1.25/9',
  });
  expect(parseServerStatus('This ZooKeeper instance is not currently serving requests')).toBeNull();
  expect(parseServerStatus('')).toBeNull();
});

test('members are read with the address at which clients reach them', () => {
  const text = `server.1=10.0.0.1:2888:3888:participant;0.0.0.0:2181
server.2=10.0.0.2:2888:3888:observer;10.0.1.2:2182
server.3=[::1]:2888:3888:participant;[::]:2183
server.4=10.0.0.4:2888:3888:participant
version=100000000`;
  expect(parseMembers(text).map(({ id, role, client }) => ({ id, role, client }))).toEqual([
    { id: 1, role: 'participant', client: { host: '10.0.0.1', port: 2181 } },
    { id: 2, role: 'observer', client: { host: '10.0.1.2', port: 2182 } },
    { id: 3, role: 'participant', client: { host: '::1', port: 2183 } },
    { id: 4, role: 'participant', client: null },
  ]);
});
