import { serverIdFrom, sessionIdFrom, zxidFrom } from '@quorate/protocol/zxid';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  decodePeerMessage,
  encodePeerMessage,
  frameOf,
  PEER_FRAME_BYTES_MAX,
  PEER_FRAME_HEADER_BYTES,
  PeerFrameDecoder,
  PeerProtocolError,
} from './peer-codec.ts';
import type { PeerMessage } from './peer-messages.ts';

const zxid = (value: bigint) => zxidFrom(value);
const bytes = (...values: number[]) => Uint8Array.from(values);
const session = sessionIdFrom(-0x7000000000000000n);

const messages: readonly PeerMessage[] = [
  {
    kind: 'vote',
    state: 'looking',
    round: 2 ** 40,
    candidate: serverIdFrom(-1),
    candidateEpoch: 0xffffffff,
    candidateZxid: zxid(0xffffffff_00000001n),
    favoured: true,
    establishedEpoch: 0,
    store: 'suspect',
    hearsYou: true,
  },
  { kind: 'followerInfo', session: 2 ** 34, acceptedEpoch: 3, observer: true, store: 'blank', needsSnapshot: false },
  { kind: 'leaderInfo', session: 1, epoch: 4, clusterId: 'a cluster' },
  { kind: 'ackEpoch', epoch: 4, currentEpoch: 3, lastZxid: zxid(0x300000007n), counted: false },
  { kind: 'synchronize', epoch: 4, mode: 'trunc', keep: zxid(0x300000005n) },
  { kind: 'synchronizeBySnapshot', epoch: 4, zxid: zxid(0x300000005n) },
  {
    kind: 'history',
    epoch: 4,
    entries: [
      { zxid: zxid(1n), prev: zxid(0n), txn: bytes(1, 2, 3) },
      { zxid: zxid(2n), prev: zxid(1n), txn: bytes() },
    ],
  },
  { kind: 'newLeader', epoch: 4, last: zxid(0n), counted: false },
  { kind: 'ackNewLeader', epoch: 4, last: zxid(0x300000007n) },
  { kind: 'upToDate', epoch: 4, committed: zxid(0x300000007n) },
  {
    kind: 'propose',
    epoch: 4,
    committed: zxid(9n),
    entries: Array.from({ length: 40 }, (_, i) => ({
      zxid: zxid(BigInt(i + 10)),
      prev: zxid(BigInt(i + 9)),
      txn: new Uint8Array(i * 1000).fill(i),
    })),
  },
  { kind: 'propose', epoch: 4, committed: zxid(9n), entries: [] },
  { kind: 'ack', epoch: 4, zxid: zxid(0x7fffffff_ffffffffn) },
  { kind: 'commit', epoch: 4, zxid: zxid(0x400000001n) },
  { kind: 'heartbeat', epoch: 4, sequence: 2 ** 53 - 1 },
  { kind: 'heartbeatAck', epoch: 4, sequence: 0 },
  { kind: 'readmit', epoch: 4 },
  { kind: 'readmitted', epoch: 4 },
  { kind: 'takeOver', epoch: 4, last: zxid(5n) },
  {
    kind: 'request',
    sequence: 2 ** 33,
    sessionId: session,
    attachment: 1n,
    cxid: -7,
    opcode: -11,
    identity: [
      { scheme: 'ip', id: '127.0.0.1' },
      { scheme: 'digest', id: 'jürgen:x' },
    ],
    body: new Uint8Array(70_000).fill(7),
  },
  { kind: 'request', sequence: 1, sessionId: session, attachment: 1n, cxid: 0, opcode: 1, identity: [], body: bytes() },
  { kind: 'requestRefused', sequence: 3, reason: 'the session moved' },
  { kind: 'syncRequest', sequence: 3 },
  { kind: 'syncDone', sequence: 3, zxid: zxid(5n) },
  { kind: 'revalidate', sequence: 3, sessionId: session, timeoutMs: 30_000 },
  { kind: 'revalidated', sequence: 3, valid: true, attachment: 0x3_0000000005n },
  { kind: 'sessionMoved', sessionId: session, attachment: 9n },
  { kind: 'touched', sessionIds: [session, sessionIdFrom(5n)] },
  { kind: 'touched', sessionIds: [] },
  { kind: 'digest', zxid: zxid(5n), digest: 0xffffffffffffffffn },
  { kind: 'snapshotChunk', epoch: 4, zxid: zxid(5n), index: 0, last: true, bytes: new Uint8Array(300_000).fill(3) },
];

function plain(value: unknown): unknown {
  if (value instanceof Uint8Array) return Array.from(value);
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, field]) => [key, plain(field)]));
}

function bodyOf(message: PeerMessage): Uint8Array {
  return encodePeerMessage(message).subarray(PEER_FRAME_HEADER_BYTES);
}

function split(chunks: readonly Uint8Array[], limit = PEER_FRAME_BYTES_MAX): PeerMessage[] {
  const decoder = new PeerFrameDecoder(limit);
  const out: PeerMessage[] = [];
  for (const chunk of chunks) decoder.push(chunk, (body) => void out.push(decodePeerMessage(body)));
  return out;
}

/** Runs `work` and tells whether it ended well or by the one error it may end by. */
function survives(work: () => void): boolean {
  try {
    work();
  } catch (error) {
    return error instanceof PeerProtocolError;
  }
  return true;
}

describe('peer messages', () => {
  it.each(messages.map((m) => [m.kind, m] as const))('%s survives the round trip', (_, message) => {
    expect(plain(decodePeerMessage(bodyOf(message)))).toEqual(plain(message));
  });

  it('every kind of message is covered here', () => {
    const sent = new Set(messages.map((m) => m.kind));
    // 18 of Zab's and 10 of the replica's.
    expect(sent.size).toBe(28);
  });

  it('arrive whole however the stream is cut', () => {
    const small = messages.filter((m) => encodePeerMessage(m).length < 2000);
    const stream = Buffer.concat(small.map(encodePeerMessage));
    for (const size of [1, 2, 3, 7, 8, 9, 64, 1000, stream.length]) {
      const chunks: Uint8Array[] = [];
      for (let at = 0; at < stream.length; at += size) chunks.push(stream.subarray(at, at + size));
      expect(split(chunks).map(plain)).toEqual(small.map(plain));
    }
    const all = Buffer.concat(messages.map(encodePeerMessage));
    const chunks: Uint8Array[] = [];
    for (let at = 0; at < all.length; at += 65_536) chunks.push(all.subarray(at, at + 65_536));
    expect(split(chunks).map(plain)).toEqual(messages.map(plain));
  });

  it('are refused when a single bit of the frame is wrong', () => {
    for (const message of messages) {
      const frame = encodePeerMessage(message);
      if (frame.length > 500) continue;
      for (let bit = 0; bit < frame.length * 8; bit++) {
        const damaged = Uint8Array.from(frame);
        damaged[bit >> 3] = (damaged[bit >> 3] ?? 0) ^ (1 << (bit & 7));
        let got = 0;
        const isRefusedOrWaits = survives(() => {
          got = split([damaged]).length;
        });
        expect(isRefusedOrWaits).toBe(true);
        expect(got).toBe(0);
      }
    }
  });

  it('are refused when the frame is empty or longer than the limit, before anything is allocated', () => {
    const header = Buffer.alloc(8);
    header.writeUInt32BE(0xffffffff, 0);
    expect(() => split([header])).toThrow(PeerProtocolError);
    header.writeUInt32BE(1001, 0);
    expect(() => split([header], 1000)).toThrow(PeerProtocolError);
    header.writeUInt32BE(0, 0);
    expect(() => split([header])).toThrow(PeerProtocolError);
  });

  it('an announced length alone costs no memory', () => {
    const header = Buffer.alloc(9);
    header.writeUInt32BE(PEER_FRAME_BYTES_MAX, 0);
    const before = process.memoryUsage().arrayBuffers;
    const decoders = Array.from({ length: 100 }, () => new PeerFrameDecoder());
    for (const decoder of decoders) decoder.push(header, () => undefined);
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(32 * 1024 * 1024);
  });

  it('a message above the frame limit is refused at the sender', () => {
    const huge = new Uint8Array(PEER_FRAME_BYTES_MAX);
    expect(() =>
      encodePeerMessage({ kind: 'snapshotChunk', epoch: 1, zxid: zxid(1n), index: 0, last: true, bytes: huge }),
    ).toThrow(PeerProtocolError);
  });
});

describe('bytes that no server sends', () => {
  it('random bodies give a message or a PeerProtocolError', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (body) => survives(() => decodePeerMessage(body))),
      { numRuns: 20_000 },
    );
  });

  it('random scalars behind every tag give a message or a PeerProtocolError', () => {
    const scalar = fc.oneof(
      fc.integer(),
      fc.maxSafeInteger(),
      fc.double(),
      fc.bigInt({ min: -(2n ** 63n), max: 2n ** 64n - 1n }),
      fc.boolean(),
      fc.string(),
      fc.uint8Array({ maxLength: 20 }),
    );
    fc.assert(
      fc.property(fc.nat(45), fc.array(scalar, { maxLength: 10 }), (tag, fields) =>
        survives(() => decodePeerMessage(frameOf([tag, ...fields]).subarray(PEER_FRAME_HEADER_BYTES))),
      ),
      { numRuns: 20_000 },
    );
  });

  it('mutated messages give a message or a PeerProtocolError, and never another error', () => {
    const bodies = messages.map(bodyOf).filter((body) => body.length < 2000);
    fc.assert(
      fc.property(
        fc.nat(bodies.length - 1),
        fc.array(fc.tuple(fc.nat(2000), fc.nat(255)), { minLength: 1, maxLength: 4 }),
        fc.option(fc.nat(2000)),
        (which, changes, cut) => {
          const body = Uint8Array.from(bodies[which] ?? []);
          for (const [at, value] of changes) body[at % body.length] = value;
          return survives(() => decodePeerMessage(cut === null ? body : body.subarray(0, cut % (body.length + 1))));
        },
      ),
      { numRuns: 20_000 },
    );
  });

  it('maps, extensions, nested arrays and huge counts are refused', () => {
    for (const body of [
      bytes(),
      bytes(0x80),
      bytes(0x91, 0x81, 0xa1, 0x61, 1),
      bytes(0x91, 0x91, 1),
      bytes(0x91, 0xc0),
      bytes(0x91, 0xd4, 0x72, 0x40),
      bytes(0x91, 0xc7, 1, 1, 1),
      bytes(0xdd, 0xff, 0xff, 0xff, 0xff, 1),
      bytes(0xdd, 0xff, 0xff),
      bytes(0x91, 0xc6, 0xff, 0xff, 0xff, 0xff),
      bytes(0x91, 0xdb, 0xff),
      bytes(0x92, 16, 0xd3),
      bytes(0x92, 16, 1, 1),
    ]) {
      expect(() => decodePeerMessage(body)).toThrow(PeerProtocolError);
    }
  });

  it('an entry that does not come after the one before it is refused', () => {
    const entries = [{ zxid: zxid(5n), prev: zxid(5n), txn: bytes(1) }];
    expect(() => decodePeerMessage(bodyOf({ kind: 'history', epoch: 1, entries }))).toThrow(PeerProtocolError);
  });
});
