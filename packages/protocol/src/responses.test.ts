// Every response as bytes and back, replies written out by hand, and every record cut short.

import { describe, expect, test } from 'vitest';
import { sampleResponses, sampleStat, sampleStatHex } from './fixtures.test-data.ts';
import { decodeWatcherEvent } from './records.ts';
import type { Response } from './responses.ts';
import {
  decodeReplyHeader,
  decodeResponse,
  encodeReplyHeader,
  encodeResponse,
  encodeWatchEvent,
  REPLY_HEADER_BYTES,
} from './responses.ts';
import { codeOf, fromHex, readerOf, toHex, written } from './test-bytes.test-data.ts';
import { makeZxid } from './zxid.ts';

const bytesOf = (response: Response): Uint8Array => written((writer) => encodeResponse(writer, response));

function expectHex(response: Response, fields: string): void {
  expect(toHex(bytesOf(response))).toBe(fields.replaceAll(/\s/g, ''));
}

describe('responses', () => {
  test('every response comes back', () => {
    for (const response of sampleResponses) {
      const reader = readerOf(bytesOf(response));
      expect(decodeResponse(response.kind, reader)).toEqual(response);
      expect(reader.remaining).toBe(0);
    }
  });

  test('every response cut at any byte is a typed error', () => {
    for (const response of sampleResponses) {
      const bytes = bytesOf(response);
      for (let length = 0; length < bytes.length; length += 1) {
        expect(codeOf(() => decodeResponse(response.kind, readerOf(bytes.slice(0, length))))).toBe('overrun');
      }
    }
  });

  test('a reply header has 16 bytes', () => {
    const bytes = written((writer) => encodeReplyHeader(writer, 7, makeZxid(1, 2), -101));
    expect(toHex(bytes)).toBe('000000070000000100000002ffffff9b');
    expect(bytes.length).toBe(REPLY_HEADER_BYTES);
    expect(decodeReplyHeader(readerOf(bytes))).toEqual({ xid: 7, zxid: makeZxid(1, 2), err: -101 });
    for (let length = 0; length < bytes.length; length += 1) {
      expect(codeOf(() => decodeReplyHeader(readerOf(bytes.slice(0, length))))).toBe('overrun');
    }
  });

  test('the bytes are those of the jute layout', () => {
    expectHex({ kind: 'getData', data: null, stat: sampleStat }, `ffffffff ${sampleStatHex}`);
    expectHex({ kind: 'getData', data: new Uint8Array([5]), stat: sampleStat }, `00000001 05 ${sampleStatHex}`);
    expectHex({ kind: 'create', path: '/a' }, '00000002 2f61');
    expectHex({ kind: 'create2', path: '/a', stat: sampleStat }, `00000002 2f61 ${sampleStatHex}`);
    expectHex({ kind: 'getChildren2', children: ['b'], stat: sampleStat }, `00000001 00000001 62 ${sampleStatHex}`);
    expectHex(
      { kind: 'getACL', acl: [{ perms: 1, id: { scheme: 'ip', id: '::' } }], stat: sampleStat },
      `00000001 00000001 00000002 6970 00000002 3a3a ${sampleStatHex}`,
    );
    expectHex({ kind: 'addWatch', err: 0 }, '00000000');
    expectHex({ kind: 'delete' }, '');
    expectHex({ kind: 'whoAmI', clients: [{ scheme: 'ip', user: 'x' }] }, '00000001 00000002 6970 00000001 78');
  });

  test('a failed multi is errors all along: 0 before the culprit, its code, -2 behind it', () => {
    expectHex(
      {
        kind: 'multi',
        results: [
          { kind: 'error', code: 0 },
          { kind: 'error', code: -110 },
          { kind: 'error', code: -2 },
        ],
      },
      `ffffffff 00 00000000 00000000
       ffffffff 00 ffffff92 ffffff92
       ffffffff 00 fffffffe fffffffe
       ffffffff 01 ffffffff`,
    );
  });

  test('a multi that succeeded names each result by its type', () => {
    expectHex(
      {
        kind: 'multi',
        results: [
          { kind: 'create', path: '/a' },
          { kind: 'create2', path: '/b', stat: sampleStat },
          { kind: 'delete' },
          { kind: 'setData', stat: sampleStat },
          { kind: 'check' },
        ],
      },
      `00000001 00 00000000 00000002 2f61
       0000000f 00 00000000 00000002 2f62 ${sampleStatHex}
       00000002 00 00000000
       00000005 00 00000000 ${sampleStatHex}
       0000000d 00 00000000
       ffffffff 01 ffffffff`,
    );
  });

  test('a multiRead answers reads and errors independently', () => {
    expectHex(
      {
        kind: 'multiRead',
        results: [
          { kind: 'getData', data: null, stat: sampleStat },
          { kind: 'error', code: -101 },
          { kind: 'getChildren', children: ['x'] },
        ],
      },
      `00000004 00 00000000 ffffffff ${sampleStatHex}
       ffffffff 00 ffffff9b ffffff9b
       00000008 00 00000000 00000001 00000001 78
       ffffffff 01 ffffffff`,
    );
  });

  test('an unknown type of multi result is refused', () => {
    expect(codeOf(() => decodeResponse('multi', readerOf('00000003 00 00000000')))).toBe('marshalling');
  });

  test('a watch event is a reply header with xid -1 and the event', () => {
    const event = { type: 3, state: 3, path: '/a' } as const;
    const bytes = written((writer) => encodeWatchEvent(writer, event, makeZxid(1, 2)));
    expect(toHex(bytes)).toBe('ffffffff0000000100000002000000000000000300000003000000022f61');
    const reader = readerOf(bytes);
    expect(decodeReplyHeader(reader)).toEqual({ xid: -1, zxid: makeZxid(1, 2), err: 0 });
    expect(decodeWatcherEvent(reader)).toEqual(event);
  });

  test('data in a response is a view', () => {
    const bytes = fromHex(`00000001 05 ${sampleStatHex}`);
    const response = decodeResponse('getData', readerOf(bytes));
    expect(response).toMatchObject({ data: new Uint8Array([5]), stat: sampleStat });
  });
});
