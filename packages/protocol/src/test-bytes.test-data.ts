// What the protocol's tests share: hex in and out, and the question "which ProtocolError was that?".

import { ProtocolError } from './protocol-error.ts';
import { JuteReader } from './reader.ts';
import { JuteWriter } from './writer.ts';

export function fromHex(fields: string): Uint8Array {
  return new Uint8Array(Buffer.from(fields.replaceAll(/\s/g, ''), 'hex'));
}

export function toHex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}

/** What `write` wrote, as bytes of its own. */
export function written(write: (writer: JuteWriter) => void): Uint8Array {
  const writer = new JuteWriter(1);
  write(writer);
  return writer.bytes().slice();
}

export function readerOf(bytes: Uint8Array | string): JuteReader {
  return new JuteReader(typeof bytes === 'string' ? fromHex(bytes) : bytes);
}

/** The code of the ProtocolError that `act` throws; null when it throws nothing. Any other error passes through. */
export function codeOf(act: () => unknown): string | null {
  try {
    act();
    return null;
  } catch (error) {
    if (error instanceof ProtocolError) return error.code;
    throw error;
  }
}
