// What FrameDecoder promises: the same frames however the stream is cut, and no memory for bytes that never came.

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { opcodeFixtures } from './fixtures.test-data.ts';
import { FrameDecoder, MAX_FRAME_BYTES_DEFAULT } from './framing.ts';
import { codeOf, fromHex, toHex } from './test-bytes.test-data.ts';

function framesOf(chunks: readonly Uint8Array[], frameBytesMax = MAX_FRAME_BYTES_DEFAULT): string[] {
  const decoder = new FrameDecoder(frameBytesMax);
  const frames: string[] = [];
  for (const chunk of chunks) {
    const taken = decoder.push(chunk, (bytes, start, end) => {
      frames.push(toHex(bytes.subarray(start, end)));
      return true;
    });
    expect(taken).toBe(chunk.length);
  }
  return frames;
}

function frameOf(payload: Uint8Array): Uint8Array {
  const frame = new Uint8Array(4 + payload.length);
  new DataView(frame.buffer).setInt32(0, payload.length);
  frame.set(payload, 4);
  return frame;
}

function cut(stream: Uint8Array, positions: readonly number[]): Uint8Array[] {
  const sorted = [...new Set(positions)].filter((at) => at < stream.length).toSorted((a, b) => a - b);
  const chunks: Uint8Array[] = [];
  let from = 0;
  for (const at of sorted) {
    chunks.push(stream.slice(from, at));
    from = at;
  }
  chunks.push(stream.slice(from));
  return chunks;
}

const stream = fromHex(Object.values(opcodeFixtures).join(''));
const payloads = Object.values(opcodeFixtures).map((frame) => frame.slice(8));

describe('FrameDecoder', () => {
  test('whole frames of a chunk are handed out in place', () => {
    const decoder = new FrameDecoder();
    const chunk = fromHex('00000001 aa 00000000 00000002 bbcc');
    const seen: [boolean, number, number][] = [];
    decoder.push(chunk, (bytes, start, end) => {
      seen.push([bytes === chunk, start, end]);
      return true;
    });
    expect(seen).toEqual([
      [true, 4, 5],
      [true, 9, 9],
      [true, 13, 15],
    ]);
    expect(decoder.isBetweenFrames).toBe(true);
    expect(decoder.assemblyCapacity).toBe(0);
  });

  test('a stream cut in two at any position gives the same frames', () => {
    for (let at = 0; at <= stream.length; at += 1) {
      expect(framesOf([stream.slice(0, at), stream.slice(at)])).toEqual(payloads);
    }
  });

  test('a stream that arrives byte by byte gives the same frames', () => {
    expect(framesOf([...stream].map((byte) => new Uint8Array([byte])))).toEqual(payloads);
  });

  test('any chunking of any frames gives the same frames', () => {
    const arbitraryPayload = fc.uint8Array({ maxLength: 3000 });
    fc.assert(
      fc.property(fc.array(arbitraryPayload, { maxLength: 8 }), fc.array(fc.nat(20_000)), (bodies, positions) => {
        const bytes = fromHex(bodies.map((body) => toHex(frameOf(body))).join(''));
        expect(framesOf(cut(bytes, positions))).toEqual(bodies.map(toHex));
      }),
      { numRuns: 200 },
    );
  });

  test('the limit itself passes and one byte more does not', () => {
    expect(framesOf([frameOf(new Uint8Array(100))], 100)).toHaveLength(1);
    expect(codeOf(() => framesOf([fromHex('00000065')], 100))).toBe('frameTooLarge');
    expect(codeOf(() => framesOf([fromHex('000fffff')]))).toBeNull();
    expect(codeOf(() => framesOf([fromHex('00100000')]))).toBe('frameTooLarge');
  });

  test('a negative length is refused, also when its bytes come one at a time', () => {
    expect(codeOf(() => framesOf([fromHex('ffffffff')]))).toBe('frameNegative');
    expect(codeOf(() => framesOf([fromHex('80'), fromHex('00'), fromHex('00'), fromHex('00')]))).toBe('frameNegative');
  });

  test('frames in front of a bad length are still handed out', () => {
    const decoder = new FrameDecoder();
    let count = 0;
    const act = () =>
      decoder.push(fromHex('00000001 aa ffffffff'), () => {
        count += 1;
        return true;
      });
    expect(codeOf(act)).toBe('frameNegative');
    expect(count).toBe(1);
  });

  test('memory follows the bytes that arrive, not the length that was announced', () => {
    const decoder = new FrameDecoder();
    const frame = frameOf(new Uint8Array(MAX_FRAME_BYTES_DEFAULT).fill(3));
    let frames = 0;
    let received = 0;
    for (let at = 0; at < frame.length; at += 1000) {
      const chunk = frame.subarray(at, at + 1000);
      received += chunk.length;
      decoder.push(chunk, (bytes, start, end) => {
        frames += 1;
        expect(end - start).toBe(MAX_FRAME_BYTES_DEFAULT);
        expect(bytes.every((byte) => byte === 3)).toBe(true);
        return true;
      });
      expect(decoder.assemblyCapacity).toBeLessThanOrEqual(Math.max(1024, received * 1.5));
    }
    expect(frames).toBe(1);
    expect(decoder.assemblyCapacity).toBe(0);
  });

  test('an assembled frame stays as it is while the next one is assembled', () => {
    const decoder = new FrameDecoder();
    const kept: Uint8Array[] = [];
    for (const chunk of ['00000002 01', '02 00000002 03', '04']) {
      decoder.push(fromHex(chunk), (bytes, start, end) => {
        kept.push(bytes.subarray(start, end));
        return true;
      });
    }
    expect(kept.map(toHex)).toEqual(['0102', '0304']);
  });

  test('a handler that stops gets the rest when the rest is pushed again', () => {
    const decoder = new FrameDecoder();
    const frames: string[] = [];
    const takeOne = (bytes: Uint8Array, start: number, end: number): boolean => {
      frames.push(toHex(bytes.subarray(start, end)));
      return false;
    };
    decoder.push(fromHex('0000'), takeOne);
    decoder.push(fromHex('0002 01'), takeOne);
    let rest = fromHex('02 00000000 00000001 03 0000');
    const taken: number[] = [];
    while (rest.length > 0) {
      const count = decoder.push(rest, takeOne);
      taken.push(count);
      rest = rest.subarray(count);
    }
    expect(frames).toEqual(['0102', '', '03']);
    expect(taken).toEqual([1, 4, 5, 2]);
    expect(decoder.isBetweenFrames).toBe(false);
  });
});
