// Bytes nobody meant: round trips of arbitrary messages, and valid frames damaged on purpose. Whatever comes in, the
// only error is ProtocolError, and no memory is taken for bytes that never came. QUORATE_FUZZ_CASES sets how many.

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { opcodeFixtures, sampleResponses } from './fixtures.test-data.ts';
import { FrameDecoder } from './framing.ts';
import { decodeConnectRequest, decodeConnectResponse } from './handshake.ts';
import type { OpName } from './operations.ts';
import { OpCode } from './operations.ts';
import { validatePath } from './path.ts';
import { JuteReader } from './reader.ts';
import { decodeStat, decodeWatcherEvent, encodeStat } from './records.ts';
import type { MultiOperation, Request } from './requests.ts';
import { decodeRequest, decodeRequestHeader, encodeRequest } from './requests.ts';
import { decodeReplyHeader, decodeResponse, encodeResponse } from './responses.ts';
import { codeOf, fromHex, toHex, written } from './test-bytes.test-data.ts';
import { zxidFrom } from './zxid.ts';

const CASES = Number(process.env['QUORATE_FUZZ_CASES'] ?? 20_000);
// One seed for every run of the suite: a failure prints the case, and the case alone repeats it.
const SEED = 20_260_101;
// Fewer cases than this need not meet every way out of the decoders.
const CASES_FOR_EVERY_CODE = 5_000;
const names = Object.keys(OpCode) as OpName[];
const responseKinds = [...new Set(sampleResponses.map((response) => response.kind))];

const int = fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 });
const long = fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n });
const zxid = fc.bigInt({ min: 0n, max: 2n ** 63n - 1n }).map(zxidFrom);
const timeMs = fc.maxSafeInteger();
// Lone surrogates have no UTF-8, so they cannot come back; full code points can.
const text = fc.string({ unit: 'binary', maxLength: 60 });
const bytes = fc.uint8Array({ maxLength: 80 });
const data = fc.option(bytes, { nil: null });
const acl = fc.option(
  fc.array(fc.record({ perms: int, id: fc.record({ scheme: text, id: text }) }), { maxLength: 4 }),
  {
    nil: null,
  },
);
const texts = fc.array(text, { maxLength: 5 });
const plainFlags = fc.integer({ min: 0, max: 3 });

const multiOperation: fc.Arbitrary<MultiOperation> = fc.oneof(
  fc.record({
    kind: fc.constantFrom('create', 'create2'),
    path: text,
    data,
    acl,
    flags: plainFlags,
    ttl: fc.constant(-1n),
  }),
  fc.record({
    kind: fc.constant('createContainer'),
    path: text,
    data,
    acl,
    flags: fc.constant(4),
    ttl: fc.constant(-1n),
  }),
  fc.record({ kind: fc.constant('createTTL'), path: text, data, acl, flags: fc.constantFrom(5, 6), ttl: long }),
  fc.record({ kind: fc.constantFrom('delete', 'check'), path: text, version: int }),
  fc.record({ kind: fc.constant('setData'), path: text, data, version: int }),
);

const request: fc.Arbitrary<Request> = fc.oneof(
  fc.record({
    kind: fc.constantFrom('create', 'create2', 'createContainer'),
    path: text,
    data,
    acl,
    flags: int,
    ttl: fc.constant(-1n),
  }),
  fc.record({ kind: fc.constant('createTTL'), path: text, data, acl, flags: int, ttl: long }),
  fc.record({ kind: fc.constant('delete'), path: text, version: int }),
  fc.record({ kind: fc.constant('setData'), path: text, data, version: int }),
  fc.record({ kind: fc.constant('setACL'), path: text, acl, version: int }),
  fc.record({ kind: fc.constant('multi'), operations: fc.array(multiOperation, { maxLength: 6 }) }),
  fc.record({
    kind: fc.constant('multiRead'),
    operations: fc.array(fc.record({ kind: fc.constantFrom('getData', 'getChildren'), path: text }), { maxLength: 6 }),
  }),
  fc.record({
    kind: fc.constant('reconfig'),
    joiningServers: fc.option(text, { nil: null }),
    leavingServers: fc.option(text, { nil: null }),
    newMembers: fc.option(text, { nil: null }),
    curConfigId: long,
  }),
  fc.record({
    kind: fc.constantFrom('exists', 'getData', 'getChildren', 'getChildren2'),
    path: text,
    watch: fc.boolean(),
  }),
  fc.record({ kind: fc.constantFrom('getACL', 'sync', 'getAllChildrenNumber', 'getEphemerals'), path: text }),
  fc.record({
    kind: fc.constant('setWatches2'),
    relativeZxid: zxid,
    dataWatches: texts,
    existWatches: texts,
    childWatches: texts,
    persistentWatches: texts,
    persistentRecursiveWatches: texts,
  }),
  fc.record({ kind: fc.constant('addWatch'), path: text, mode: fc.constantFrom(0, 1) }),
  fc.record({
    kind: fc.constantFrom('checkWatches', 'removeWatches'),
    path: text,
    type: fc.integer({ min: 1, max: 5 }),
  }),
  fc.record({ kind: fc.constant('auth'), type: int, scheme: text, auth: data }),
  fc.record({ kind: fc.constant('sasl'), token: data }),
  fc.record({ kind: fc.constantFrom('ping', 'whoAmI', 'closeSession') }),
);

const stat = fc.record({
  czxid: zxid,
  mzxid: zxid,
  ctime: timeMs,
  mtime: timeMs,
  version: int,
  cversion: int,
  aversion: int,
  ephemeralOwner: long,
  dataLength: int,
  numChildren: int,
  pzxid: zxid,
});

/** A small seeded generator (mulberry32): the damage of case n is the same on every machine. */
function generatorOf(seed: number): (below: number) => number {
  let state = seed | 0;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below;
  };
}

const EVIL_INTS = [-1, -2, 2 ** 31 - 1, -(2 ** 31), 0, 1, 0xfffff, 0x100000, 0x7fffff00];
const EVIL_BYTES = [0xff, 0x80, 0xc0, 0xed, 0xf8, 0x00];

function damage(original: Uint8Array, random: (below: number) => number): Uint8Array {
  let damaged = original.slice();
  for (let round = random(3); round >= 0; round -= 1) {
    const at = random(damaged.length + 1);
    switch (random(5)) {
      case 0:
        if (at + 4 <= damaged.length)
          new DataView(damaged.buffer).setInt32(at, EVIL_INTS[random(EVIL_INTS.length)] ?? 0);
        break;
      case 1:
        damaged = damaged.slice(0, at);
        break;
      case 2:
        damaged = new Uint8Array([...damaged, ...new Array<number>(random(20)).fill(random(256))]);
        break;
      case 3:
        if (at < damaged.length) damaged[at] = EVIL_BYTES[random(EVIL_BYTES.length)] ?? 0;
        break;
      default:
        if (at < damaged.length) damaged[at] = random(256);
    }
  }
  return damaged;
}

const decoders: readonly ((reader: JuteReader) => unknown)[] = [
  decodeConnectRequest,
  decodeConnectResponse,
  decodeReplyHeader,
  decodeStat,
  decodeWatcherEvent,
  ...responseKinds.map((kind) => (reader: JuteReader) => decodeResponse(kind, reader)),
];

function decodeClientPayload(payload: Uint8Array): void {
  const reader = new JuteReader(payload);
  const header = decodeRequestHeader(reader);
  decodeRequest(header.opcode, reader);
}

describe('arbitrary messages', () => {
  const numRuns = Math.ceil(CASES / 10);

  test('a request comes back as it went', () => {
    fc.assert(
      fc.property(request, (original) => {
        const reader = new JuteReader(written((writer) => encodeRequest(writer, original)));
        expect(decodeRequest(OpCode[original.kind], reader)).toEqual(original);
        expect(reader.remaining).toBe(0);
      }),
      { numRuns, seed: SEED },
    );
  });

  test('a Stat comes back as it went', () => {
    fc.assert(
      fc.property(stat, (original) => {
        expect(decodeStat(new JuteReader(written((writer) => encodeStat(writer, original))))).toEqual(original);
      }),
      { numRuns, seed: SEED },
    );
  });

  test('validatePath answers for any text, and every legal path survives the wire', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary', maxLength: 40 }), (tail) => {
        const path = `/${tail}`;
        if (validatePath(path) !== null) return;
        const reader = new JuteReader(written((writer) => writer.writeString(path)));
        expect(reader.readString()).toBe(path);
      }),
      { numRuns, seed: SEED },
    );
  });
});

describe('damaged bytes', () => {
  const requestPayloads = names.map((name) => fromHex(opcodeFixtures[name]).slice(4));
  const responsePayloads = sampleResponses.map((response) => written((writer) => encodeResponse(writer, response)));

  test('a damaged request is read or refused with a ProtocolError', () => {
    const random = generatorOf(SEED);
    const codes = new Set<string | null>();
    for (let index = 0; index < CASES; index += 1) {
      const original = requestPayloads[random(requestPayloads.length)] ?? new Uint8Array(0);
      codes.add(codeOf(() => decodeClientPayload(damage(original, random))));
    }
    // The damage reaches every way out, or this test proves nothing.
    if (CASES < CASES_FOR_EVERY_CODE) return;
    expect([...codes].map(String).toSorted()).toEqual([
      'badLength',
      'marshalling',
      'null',
      'nullString',
      'overrun',
      'unknownOpcode',
    ]);
  });

  test('a damaged reply is read or refused with a ProtocolError', () => {
    const random = generatorOf(SEED + 1);
    const codes = new Set<string | null>();
    for (let index = 0; index < CASES; index += 1) {
      const original = responsePayloads[random(responsePayloads.length)] ?? new Uint8Array(0);
      const decode = decoders[random(decoders.length)] ?? decodeStat;
      codes.add(codeOf(() => decode(new JuteReader(damage(original, random)))));
    }
    if (CASES < CASES_FOR_EVERY_CODE) return;
    expect([...codes].map(String).toSorted()).toEqual(['badLength', 'marshalling', 'null', 'nullString', 'overrun']);
  });

  test('a damaged stream in any chunks never takes more memory than its bytes', () => {
    const random = generatorOf(SEED + 2);
    const frameBytesMax = 0xfffff;
    const codes = new Set<string | null>();
    const wholeStream = fromHex(Object.values(opcodeFixtures).join(''));
    const streams = Math.ceil(CASES / 20);
    for (let index = 0; index < streams; index += 1) {
      const stream = damage(wholeStream, random);
      const decoder = new FrameDecoder(frameBytesMax);
      const reader = new JuteReader();
      codes.add(
        codeOf(() => {
          for (let at = 0; at < stream.length; ) {
            const chunk = stream.slice(at, at + 1 + random(300));
            at += chunk.length;
            decoder.push(chunk, (frame, start, end) => {
              reader.reset(frame, start, end);
              codes.add(codeOf(() => decodeRequest(decodeRequestHeader(reader).opcode, reader)));
              return true;
            });
            expect(decoder.assemblyCapacity).toBeLessThanOrEqual(Math.max(1024, at * 1.5));
          }
        }),
      );
    }
    if (CASES < CASES_FOR_EVERY_CODE) return;
    expect(codes.has('frameNegative') && codes.has('frameTooLarge')).toBe(true);
  });

  test('the same seed does the same damage', () => {
    const original = requestPayloads[0] ?? new Uint8Array(0);
    expect(toHex(damage(original, generatorOf(7)))).toBe(toHex(damage(original, generatorOf(7))));
  });
});
