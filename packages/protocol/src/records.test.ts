// The shared records: bytes by hand, round trips, cuts.

import { describe, expect, test } from 'vitest';
import { sampleStat, sampleStatHex } from './fixtures.test-data.ts';
import {
  decodeAcls,
  decodeId,
  decodeStat,
  decodeWatcherEvent,
  EventType,
  encodeAcls,
  encodeId,
  encodeStat,
  encodeWatcherEvent,
  KeeperState,
} from './records.ts';
import { codeOf, fromHex, readerOf, toHex, written } from './test-bytes.test-data.ts';

describe('records', () => {
  test('a Stat is 68 bytes in wire order, and comes back', () => {
    const bytes = written((writer) => encodeStat(writer, sampleStat));
    expect(bytes.length).toBe(68);
    expect(toHex(bytes)).toBe(sampleStatHex);
    expect(decodeStat(readerOf(bytes))).toEqual(sampleStat);
  });

  test('a Stat cut at any byte is an overrun', () => {
    const bytes = fromHex(sampleStatHex);
    for (let length = 0; length < 68; length += 1) {
      expect(codeOf(() => decodeStat(readerOf(bytes.slice(0, length))))).toBe('overrun');
    }
  });

  test('null, empty and filled ACLs stay apart', () => {
    const filled = [
      { perms: 31, id: { scheme: 'digest', id: 'u:pw=' } },
      { perms: -1, id: { scheme: '', id: 'ü😀' } },
    ];
    for (const acls of [null, [], filled]) {
      expect(decodeAcls(readerOf(written((writer) => encodeAcls(writer, acls))))).toEqual(acls);
    }
  });

  test('an ACL count that its bytes cannot hold is refused before anything is read', () => {
    expect(codeOf(() => decodeAcls(readerOf(`00000002 ${'00'.repeat(23)}`)))).toBe('overrun');
    expect(codeOf(() => decodeAcls(readerOf(`00000002 ${'00'.repeat(24)}`)))).toBeNull();
  });

  test('an Id comes back, and a null in it is refused', () => {
    const id = { scheme: 'ip', id: '10.0.0.0/8' };
    expect(decodeId(readerOf(written((writer) => encodeId(writer, id))))).toEqual(id);
    expect(decodeId(readerOf('ffffffff 00000000'))).toEqual({ scheme: '', id: '' });
    expect(decodeId(readerOf('00000000 ffffffff'))).toEqual({ scheme: '', id: '' });
  });

  test('every watch event comes back, and unknown numbers are refused', () => {
    for (const type of Object.values(EventType)) {
      for (const state of Object.values(KeeperState)) {
        const event = { type, state, path: '/a' };
        expect(decodeWatcherEvent(readerOf(written((writer) => encodeWatcherEvent(writer, event))))).toEqual(event);
      }
    }
    expect(codeOf(() => decodeWatcherEvent(readerOf('00000008 00000003 00000000')))).toBe('marshalling');
    expect(codeOf(() => decodeWatcherEvent(readerOf('00000001 00000002 00000000')))).toBe('marshalling');
  });
});
