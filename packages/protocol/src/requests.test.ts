// Every request as bytes and back: recorded frames, round trips, the rules of multi, and every frame cut short.

import { describe, expect, test } from 'vitest';
import { fixtureRequests, opcodeFixtures } from './fixtures.test-data.ts';
import type { OpName } from './operations.ts';
import { OpCode } from './operations.ts';
import type { Request } from './requests.ts';
import { decodeRequest, decodeRequestHeader, encodeRequest, encodeRequestHeader } from './requests.ts';
import { codeOf, fromHex, readerOf, toHex, written } from './test-bytes.test-data.ts';

const names = Object.keys(OpCode) as OpName[];

function decodeFrame(frame: Uint8Array): Request {
  const reader = readerOf(frame);
  expect(reader.readInt()).toBe(reader.remaining);
  const header = decodeRequestHeader(reader);
  const request = decodeRequest(header.opcode, reader);
  expect(reader.remaining).toBe(0);
  return request;
}

function roundTrip(request: Request): Request {
  const reader = readerOf(written((writer) => encodeRequest(writer, request)));
  const decoded = decodeRequest(OpCode[request.kind], reader);
  expect(reader.remaining).toBe(0);
  return decoded;
}

describe('recorded frames', () => {
  test.each(names)('%s is read as it was written by hand, and written the same', (name) => {
    const frame = fromHex(opcodeFixtures[name]);
    const expected = fixtureRequests[name];
    const header = decodeRequestHeader(readerOf(frame.subarray(4)));
    expect(header.opcode).toBe(OpCode[name]);
    if (expected === null) {
      expect(codeOf(() => decodeFrame(frame))).toBe('unknownOpcode');
      return;
    }
    expect(decodeFrame(frame)).toEqual(expected);
    const encoded = written((writer) => {
      writer.beginFrame();
      encodeRequestHeader(writer, header.xid, name);
      encodeRequest(writer, expected);
      writer.endFrame();
    });
    expect(toHex(encoded)).toBe(opcodeFixtures[name]);
  });

  test.each(names)('%s cut at any byte is a typed error', (name) => {
    if (fixtureRequests[name] === null) return;
    const record = fromHex(opcodeFixtures[name]).subarray(12);
    for (let length = 0; length < record.length; length += 1) {
      expect(codeOf(() => decodeRequest(OpCode[name], readerOf(record.slice(0, length))))).toBe('overrun');
    }
  });

  test('a request header that is cut is a typed error', () => {
    for (let length = 0; length < 8; length += 1) {
      expect(codeOf(() => decodeRequestHeader(readerOf(new Uint8Array(length))))).toBe('overrun');
    }
  });

  test.each(names)('%s ignores bytes behind its record', (name) => {
    const expected = fixtureRequests[name];
    if (expected === null) return;
    const record = fromHex(`${opcodeFixtures[name].slice(24)}deadbeef`);
    const reader = readerOf(record);
    expect(decodeRequest(OpCode[name], reader)).toEqual(expected);
    expect(reader.remaining).toBe(4);
  });
});

describe('opcodes', () => {
  test.each([0, 10, 13, 20, 23, 99, 108, -1, -10, -12, 2_147_483_647])('%i is not for clients', (opcode) => {
    expect(codeOf(() => decodeRequest(opcode, readerOf(new Uint8Array(64))))).toBe('unknownOpcode');
  });
});

describe('fields', () => {
  test('null and empty values stay apart', () => {
    const empty = new Uint8Array(0);
    const requests: Request[] = [
      { kind: 'create', path: '/a', data: null, acl: null, flags: 1, ttl: -1n },
      { kind: 'create', path: '/a', data: empty, acl: [], flags: 2, ttl: -1n },
      { kind: 'setData', path: '/a', data: null, version: -1 },
      { kind: 'setData', path: '/a', data: empty, version: -1 },
      { kind: 'setACL', path: '/a', acl: null, version: 0 },
      { kind: 'setACL', path: '/a', acl: [], version: 0 },
      { kind: 'auth', type: 0, scheme: 'digest', auth: null },
      { kind: 'sasl', token: null },
      { kind: 'sasl', token: empty },
      { kind: 'reconfig', joiningServers: '', leavingServers: null, newMembers: 'server.1=h:1:2;3', curConfigId: 5n },
    ];
    for (const request of requests) expect(roundTrip(request)).toEqual(request);
  });

  test('a null path is refused', () => {
    expect(codeOf(() => decodeRequest(OpCode.getData, readerOf('ffffffff 00')))).toBe('nullString');
    expect(codeOf(() => decodeRequest(OpCode.delete, readerOf('ffffffff 00000000')))).toBe('nullString');
  });

  test('null vectors of paths are taken for empty ones', () => {
    const request = decodeRequest(OpCode.setWatches, readerOf('0000000000000001 ffffffff ffffffff ffffffff'));
    expect(request).toMatchObject({ kind: 'setWatches', dataWatches: [], existWatches: [], childWatches: [] });
  });

  test('addWatch knows two modes and the watcher types are 1 to 5', () => {
    const path = '00000002 2f61';
    for (const [mode, code] of [
      ['ffffffff', 'marshalling'],
      ['00000000', null],
      ['00000001', null],
      ['00000002', 'marshalling'],
    ] as const) {
      expect(codeOf(() => decodeRequest(OpCode.addWatch, readerOf(path + mode)))).toBe(code);
    }
    for (const opcode of [OpCode.checkWatches, OpCode.removeWatches]) {
      for (let type = -1; type <= 7; type += 1) {
        const bytes = written((writer) => {
          writer.writeString('/a');
          writer.writeInt(type);
        });
        const code = type >= 1 && type <= 5 ? null : 'marshalling';
        expect(codeOf(() => decodeRequest(opcode, readerOf(bytes)))).toBe(code);
      }
    }
  });

  test('a create of its own keeps an illegal flag: refusing it is an answer, not broken bytes', () => {
    const request: Request = { kind: 'create', path: '/a', data: null, acl: [], flags: 9, ttl: -1n };
    expect(roundTrip(request)).toEqual(request);
  });

  test('data in a request is a view of the chunk', () => {
    const frame = fromHex(opcodeFixtures.create);
    const request = decodeFrame(frame);
    frame.fill(0x7a);
    expect(request).toMatchObject({ kind: 'create', data: new Uint8Array([0x7a, 0x7a]) });
  });
});

describe('multi', () => {
  const end = 'ffffffff 01 ffffffff';
  const create = (type: string, flags: string, ttl = ''): string =>
    `${type} 00 ffffffff 00000002 2f61 ffffffff ffffffff ${flags} ${ttl}`;
  const decodeMulti = (fields: string): Request => decodeRequest(OpCode.multi, readerOf(fields + end));
  const kindOfOnly = (fields: string): string | undefined => {
    const request = decodeMulti(fields);
    return request.kind === 'multi' ? request.operations[0]?.kind : undefined;
  };

  test('a multi without operations is legal', () => {
    expect(decodeMulti('')).toEqual({ kind: 'multi', operations: [] });
    expect(decodeRequest(OpCode.multiRead, readerOf(end))).toEqual({ kind: 'multiRead', operations: [] });
  });

  test('every write operation comes back', () => {
    const request: Request = {
      kind: 'multi',
      operations: [
        { kind: 'create', path: '/a', data: null, acl: null, flags: 1, ttl: -1n },
        { kind: 'create2', path: '/b', data: new Uint8Array([1]), acl: [], flags: 2, ttl: -1n },
        { kind: 'createContainer', path: '/c', data: null, acl: null, flags: 4, ttl: -1n },
        { kind: 'createTTL', path: '/d', data: null, acl: null, flags: 6, ttl: 99n },
        { kind: 'delete', path: '/e', version: 1 },
        { kind: 'setData', path: '/f', data: null, version: 2 },
        { kind: 'check', path: '/g', version: 3 },
      ],
    };
    expect(roundTrip(request)).toEqual(request);
  });

  test('the flag decides what a create is', () => {
    expect(kindOfOnly(create('00000001', '00000000'))).toBe('create');
    expect(kindOfOnly(create('0000000f', '00000000'))).toBe('create2');
    expect(kindOfOnly(create('00000001', '00000004'))).toBe('createContainer');
    expect(kindOfOnly(create('0000000f', '00000004'))).toBe('createContainer');
    expect(kindOfOnly(create('00000013', '00000004'))).toBe('createContainer');
    expect(kindOfOnly(create('00000013', '00000003'))).toBe('createContainer');
    expect(kindOfOnly(create('00000015', '00000005', '0000000000000001'))).toBe('createTTL');
    expect(kindOfOnly(create('00000015', '00000004', '0000000000000001'))).toBe('createContainer');
    expect(kindOfOnly(create('00000015', '00000000', '0000000000000001'))).toBe('create');
  });

  test('only createTTL keeps its time to live', () => {
    expect(decodeMulti(create('00000015', '00000006', '0000000000000009'))).toMatchObject({
      operations: [{ kind: 'createTTL', flags: 6, ttl: 9n }],
    });
    expect(decodeMulti(create('00000015', '00000002', '0000000000000009'))).toMatchObject({
      operations: [{ kind: 'create', flags: 2, ttl: -1n }],
    });
  });

  test('a TTL flag without a TTL record and an illegal flag make the whole multi unreadable', () => {
    for (const type of ['00000001', '0000000f', '00000013']) {
      for (const flags of ['00000005', '00000006', '00000007', 'ffffffff']) {
        expect(codeOf(() => decodeMulti(create(type, flags)))).toBe('marshalling');
      }
    }
  });

  test('an illegal flag with a TTL is readable: the operation is refused, not the multi', () => {
    expect(decodeMulti(create('00000015', '00000007', '0000000000000001'))).toMatchObject({
      operations: [{ kind: 'create', flags: 7, ttl: -1n }],
    });
  });

  test('reads, setACL, reconfig, nested multis and unknown types are not allowed inside', () => {
    for (const type of [
      '00000003',
      '00000004',
      '00000007',
      '00000008',
      '0000000e',
      '00000010',
      '00000000',
      'ffffffff',
    ]) {
      expect(codeOf(() => decodeMulti(`${type} 00 ffffffff 00000002 2f61 00`))).toBe('marshalling');
    }
  });

  test('writes and other reads are not allowed inside multiRead', () => {
    for (const type of ['00000001', '00000002', '00000003', '0000000c', '0000000d', 'ffffffff']) {
      const fields = `${type} 00 ffffffff 00000002 2f61 00 ${end}`;
      expect(codeOf(() => decodeRequest(OpCode.multiRead, readerOf(fields)))).toBe('marshalling');
    }
  });

  test('the watch byte inside multiRead is ignored', () => {
    const fields = `00000004 00 ffffffff 00000002 2f61 01 ${end}`;
    expect(decodeRequest(OpCode.multiRead, readerOf(fields))).toEqual({
      kind: 'multiRead',
      operations: [{ kind: 'getData', path: '/a' }],
    });
  });

  test('a multi whose end is missing is an overrun', () => {
    expect(codeOf(() => decodeRequest(OpCode.multi, readerOf(create('00000001', '00000000'))))).toBe('overrun');
  });
});
