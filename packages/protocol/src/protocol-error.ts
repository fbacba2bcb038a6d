// ProtocolError: bytes that do not say what the protocol allows. Thrown only for broken bytes, never for a request that
// is well formed and illegal (those are error codes in a reply). Each code has its line in the package's README.

/** Why the bytes were refused. The catcher decides by `code` and by where it caught, never by the text. */
export type ProtocolErrorName =
  | 'frameNegative'
  | 'frameTooLarge'
  | 'overrun'
  | 'badLength'
  | 'nullString'
  | 'marshalling'
  | 'unknownOpcode';

export class ProtocolError extends Error {
  readonly code: ProtocolErrorName;
  constructor(code: ProtocolErrorName, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'ProtocolError';
    this.code = code;
  }
}
