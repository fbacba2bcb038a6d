// The connect exchange: recorded bytes, both forms, cuts.

import { describe, expect, test } from 'vitest';
import {
  decodeConnectRequest,
  decodeConnectResponse,
  encodeConnectRequest,
  encodeConnectResponse,
  refusedConnectResponse,
} from './handshake.ts';
import { codeOf, fromHex, readerOf, toHex, written } from './test-bytes.test-data.ts';
import { makeZxid, sessionIdFrom } from './zxid.ts';

// A new session with a timeout of ten seconds, from a client that knows the read-only byte.
const NEW_SESSION = `0000002d 00000000 0000000000000000 00002710 0000000000000000 00000010 ${'00'.repeat(16)} 00`;

const request = {
  protocolVersion: 0,
  lastZxidSeen: makeZxid(1, 2),
  timeoutMs: 30_000,
  sessionId: sessionIdFrom(-5n),
  password: new Uint8Array(16).fill(7),
  readOnly: null,
};

describe('handshake', () => {
  test('the recorded connect bytes are read and written', () => {
    const frame = fromHex(NEW_SESSION);
    const decoded = decodeConnectRequest(readerOf(frame.subarray(4)));
    expect(decoded).toEqual({
      protocolVersion: 0,
      lastZxidSeen: 0n,
      timeoutMs: 10_000,
      sessionId: 0n,
      password: new Uint8Array(16),
      readOnly: false,
    });
    const encoded = written((writer) => {
      writer.beginFrame();
      encodeConnectRequest(writer, decoded);
      writer.endFrame();
    });
    expect(toHex(encoded)).toBe(toHex(frame));
  });

  test('the presence of the read-only byte is remembered', () => {
    for (const [readOnly, length] of [
      [null, 44],
      [false, 45],
      [true, 45],
    ] as const) {
      const bytes = written((writer) => encodeConnectRequest(writer, { ...request, readOnly }));
      expect(bytes.length).toBe(length);
      expect(decodeConnectRequest(readerOf(bytes))).toEqual({ ...request, readOnly });
    }
  });

  test('a response has 36 bytes in the old form and 37 in the new one', () => {
    for (const [readOnly, length] of [
      [null, 36],
      [false, 37],
      [true, 37],
    ] as const) {
      const { protocolVersion, timeoutMs, sessionId, password } = request;
      const response = { protocolVersion, timeoutMs, sessionId, password, readOnly };
      const bytes = written((writer) => encodeConnectResponse(writer, response));
      expect(bytes.length).toBe(length);
      expect(decodeConnectResponse(readerOf(bytes))).toEqual(response);
    }
  });

  test('a refusal is zeros, with the read-only byte only for those who sent one', () => {
    const oldForm = written((writer) => encodeConnectResponse(writer, refusedConnectResponse(request, true)));
    expect(toHex(oldForm)).toBe('00000000 00000000 0000000000000000 00000010'.replaceAll(' ', '') + '00'.repeat(16));
    const newForm = refusedConnectResponse({ ...request, readOnly: false }, true);
    expect(toHex(written((writer) => encodeConnectResponse(writer, newForm)))).toBe(`${toHex(oldForm)}01`);
  });

  test('passwords that are null, short or long are carried through', () => {
    for (const password of [null, new Uint8Array(0), new Uint8Array(3).fill(1), new Uint8Array(40).fill(2)]) {
      const bytes = written((writer) => encodeConnectRequest(writer, { ...request, password }));
      expect(decodeConnectRequest(readerOf(bytes)).password).toEqual(password);
    }
  });

  test('a decoded password does not change with the chunk', () => {
    const bytes = written((writer) => encodeConnectRequest(writer, request));
    const decoded = decodeConnectRequest(readerOf(bytes));
    bytes.fill(0);
    expect(decoded.password).toEqual(request.password);
  });

  test('both messages cut at any byte in front of the optional one are typed errors', () => {
    const asked = written((writer) => encodeConnectRequest(writer, request));
    for (let length = 0; length < asked.length; length += 1) {
      expect(codeOf(() => decodeConnectRequest(readerOf(asked.slice(0, length))))).toBe('overrun');
    }
    const answered = written((writer) => encodeConnectResponse(writer, refusedConnectResponse(request, false)));
    for (let length = 0; length < answered.length; length += 1) {
      expect(codeOf(() => decodeConnectResponse(readerOf(answered.slice(0, length))))).toBe('overrun');
    }
  });
});
