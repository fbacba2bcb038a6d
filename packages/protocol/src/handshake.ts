// The connect exchange that opens every connection. It has no headers, and two forms: old clients (Go, Node) neither
// send nor expect the last byte, so its presence is part of the message and is echoed (ZOOKEEPER-4814).

import type { JuteReader } from './reader.ts';
import type { JuteWriter } from './writer.ts';
import type { SessionId, Zxid } from './zxid.ts';
import { sessionIdFrom } from './zxid.ts';

/** The C client reads exactly this many password bytes, whatever the length field says. */
export const SESSION_PASSWORD_BYTES = 16;

export type ConnectRequest = {
  /** Clients send 0; the server ignores it. */
  readonly protocolVersion: number;
  readonly lastZxidSeen: Zxid;
  readonly timeoutMs: number;
  /** 0 asks for a new session. */
  readonly sessionId: SessionId;
  readonly password: Uint8Array | null;
  /** null: the old form, without the byte. */
  readonly readOnly: boolean | null;
};

export type ConnectResponse = {
  readonly protocolVersion: number;
  /** 0 when the session is refused. */
  readonly timeoutMs: number;
  readonly sessionId: SessionId;
  readonly password: Uint8Array | null;
  /** null exactly when it was null in the request. */
  readonly readOnly: boolean | null;
};

// ConnectRequest: {protocolVersion: int, lastZxidSeen: long, timeOut: int, sessionId: long, passwd: buffer
//                  [, readOnly: boolean]}
export function encodeConnectRequest(writer: JuteWriter, request: ConnectRequest): void {
  writer.writeInt(request.protocolVersion);
  writer.writeZxid(request.lastZxidSeen);
  writer.writeInt(request.timeoutMs);
  writer.writeLong(request.sessionId);
  writer.writeBuffer(request.password);
  if (request.readOnly !== null) writer.writeBool(request.readOnly);
}

export function decodeConnectRequest(reader: JuteReader): ConnectRequest {
  const protocolVersion = reader.readInt();
  const lastZxidSeen = reader.readZxid();
  const timeoutMs = reader.readInt();
  const sessionId = sessionIdFrom(reader.readLong());
  // A copy: the password outlives the chunk while the session is being settled.
  const password = reader.readBufferCopy();
  const readOnly = reader.remaining > 0 ? reader.readBool() : null;
  return { protocolVersion, lastZxidSeen, timeoutMs, sessionId, password, readOnly };
}

// ConnectResponse: {protocolVersion: int, timeOut: int, sessionId: long, passwd: buffer [, readOnly: boolean]}
export function encodeConnectResponse(writer: JuteWriter, response: ConnectResponse): void {
  writer.writeInt(response.protocolVersion);
  writer.writeInt(response.timeoutMs);
  writer.writeLong(response.sessionId);
  writer.writeBuffer(response.password);
  if (response.readOnly !== null) writer.writeBool(response.readOnly);
}

export function decodeConnectResponse(reader: JuteReader): ConnectResponse {
  const protocolVersion = reader.readInt();
  const timeoutMs = reader.readInt();
  const sessionId = sessionIdFrom(reader.readLong());
  const password = reader.readBufferCopy();
  const readOnly = reader.remaining > 0 ? reader.readBool() : null;
  return { protocolVersion, timeoutMs, sessionId, password, readOnly };
}

/** The answer to an expired or unknown session and to a wrong password alike; the connection closes behind it. */
export function refusedConnectResponse(request: ConnectRequest, isServerReadOnly: boolean): ConnectResponse {
  return {
    protocolVersion: 0,
    timeoutMs: 0,
    sessionId: sessionIdFrom(0n),
    password: new Uint8Array(SESSION_PASSWORD_BYTES),
    readOnly: request.readOnly === null ? null : isServerReadOnly,
  };
}
