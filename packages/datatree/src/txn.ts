// Txns: the absolute results that the leader decided, and their bytes. They are data, safe to apply twice, and never
// contain their own zxid. The leader encodes a txn once; those bytes are the log value and the proposal on every server,
// so what cannot be decoded was written by us and wrongly: that is an assertion, not a peer's fault.

import { type Acl, ErrorCode, type SessionId, sessionIdFrom } from '@quorate/protocol';
import { AssertionError, assert, unreachable } from '@quorate/protocol/assert';
import { Packr } from 'msgpackr';
import { isOpenAcl, OPEN_ACL } from './acl.ts';

/** Where a write came from: the forwarding server, its incarnation, a number that never repeats within it. sequence 0: internal. */
export type Origin = { readonly server: number; readonly incarnation: number; readonly sequence: number };

export type TxnBody =
  | {
      readonly kind: 'create';
      readonly path: string;
      readonly data: Uint8Array | null;
      readonly acl: readonly Acl[];
      /** Stored ephemeralOwner: 0, a session id, the container mark, or 0xff.. with a TTL (zookeeper-semantics 3.1). */
      readonly owner: bigint;
      /** The parent's stored cversion after this create: absolute. */
      readonly parentCVersion: number;
    }
  | { readonly kind: 'delete'; readonly path: string }
  | { readonly kind: 'setData'; readonly path: string; readonly data: Uint8Array | null; readonly version: number }
  | { readonly kind: 'setACL'; readonly path: string; readonly acl: readonly Acl[]; readonly aversion: number }
  /** Part of a multi only: it held when the leader decided. */
  | { readonly kind: 'check'; readonly path: string }
  | {
      readonly kind: 'createSession';
      readonly timeoutMs: number;
      /** 16 bytes, chosen by the server that the client is connected to. */
      readonly password: Uint8Array;
    }
  /** paths: the session's ephemerals in creation order. */
  | { readonly kind: 'closeSession'; readonly paths: readonly string[] }
  | { readonly kind: 'multi'; readonly operations: readonly TxnBody[] }
  /** A failed multi: one code per operation; the state is unchanged. */
  | { readonly kind: 'multiError'; readonly codes: readonly ErrorCode[] }
  | { readonly kind: 'error'; readonly code: ErrorCode };

export type Txn = {
  readonly origin: Origin;
  /** The session that asked, or that is created or closed. 0n for internal ones. */
  readonly sessionId: SessionId;
  readonly cxid: number;
  /** The leader's wall clock, ms since 1970: ctime and mtime. */
  readonly timeMs: number;
  readonly body: TxnBody;
};

/** The first element of every encoded txn. A reader that does not know it must not guess. */
export const TXN_FORMAT = 1;

// [format, server, incarnation, sequence, sessionId, cxid, timeMs, kind, ...fields of the kind]
// An operation in a multi: [kind, ...fields]. An ACL: 0 for the open one, else [perms, scheme, id, perms, scheme, id, ...].
const KINDS = [
  'error',
  'create',
  'delete',
  'setData',
  'setACL',
  'check',
  'createSession',
  'closeSession',
  'multi',
  'multiError',
] as const satisfies readonly TxnBody['kind'][];
const KIND_NUMBERS = new Map<TxnBody['kind'], number>(KINDS.map((kind, index) => [kind, index]));
const HEADER_FIELDS = 8;

// Arrays only: no record structures to agree on, and no key of a map could ever name a prototype's property.
const packr = new Packr({ useRecords: false, int64AsType: 'bigint', moreTypes: false, copyBuffers: false });

export function encodeTxn(txn: Txn): Uint8Array {
  const { origin, body } = txn;
  const fields: unknown[] = [
    TXN_FORMAT,
    origin.server,
    origin.incarnation,
    origin.sequence,
    txn.sessionId,
    txn.cxid,
    txn.timeMs,
  ];
  pushBody(fields, body);
  return packr.pack(fields);
}

function pushBody(fields: unknown[], body: TxnBody): void {
  fields.push(KIND_NUMBERS.get(body.kind));
  switch (body.kind) {
    case 'error':
      fields.push(body.code);
      return;
    case 'create':
      fields.push(body.path, body.data, aclFields(body.acl), body.owner, body.parentCVersion);
      return;
    case 'delete':
    case 'check':
      fields.push(body.path);
      return;
    case 'setData':
      fields.push(body.path, body.data, body.version);
      return;
    case 'setACL':
      fields.push(body.path, aclFields(body.acl), body.aversion);
      return;
    case 'createSession':
      fields.push(body.timeoutMs, body.password);
      return;
    case 'closeSession':
      fields.push(body.paths);
      return;
    case 'multi': {
      fields.push(
        body.operations.map((operation) => {
          const own: unknown[] = [];
          pushBody(own, operation);
          return own;
        }),
      );
      return;
    }
    case 'multiError':
      fields.push(body.codes);
      return;
    default:
      unreachable(body);
  }
}

function aclFields(acl: readonly Acl[]): unknown {
  return isOpenAcl(acl) ? 0 : acl.flatMap(({ perms, id }) => [perms, id.scheme, id.id]);
}

/** The data of the txn is a view of `bytes`. */
export function decodeTxn(bytes: Uint8Array): Txn {
  let fields: unknown;
  try {
    fields = packr.unpack(bytes);
  } catch (cause) {
    throw new AssertionError('a txn in the log is msgpack', cause);
  }
  assert(isArray(fields), 'a txn is an array');
  assert(fields.length > HEADER_FIELDS - 1, 'a txn has a header', fields.length);
  assert(fields[0] === TXN_FORMAT, 'a txn has a format this server knows', fields[0]);
  return {
    origin: { server: uintOf(fields[1]), incarnation: uintOf(fields[2]), sequence: uintOf(fields[3]) },
    sessionId: sessionIdFrom(bigintOf(fields[4])),
    cxid: intOf(fields[5]),
    timeMs: uintOf(fields[6]),
    body: bodyOf(fields, HEADER_FIELDS - 1, true),
  };
}

function bodyOf(fields: readonly unknown[], at: number, mayBeMulti: boolean): TxnBody {
  const kind = KINDS[uintOf(fields[at])];
  assert(kind !== undefined, 'a txn has a kind this server knows', fields[at]);
  assert(mayBeMulti || OPERATION_KINDS.has(kind), 'a multi holds operations only', kind);
  assert(fields.length === at + 1 + FIELD_COUNTS[kind], 'a txn has the fields of its kind', kind);
  switch (kind) {
    case 'error':
      return { kind, code: codeOf(fields[at + 1]) };
    case 'create':
      return {
        kind,
        path: pathOf(fields[at + 1]),
        data: dataOf(fields[at + 2]),
        acl: aclOf(fields[at + 3]),
        owner: bigintOf(fields[at + 4]),
        parentCVersion: intOf(fields[at + 5]),
      };
    case 'delete':
    case 'check':
      return { kind, path: pathOf(fields[at + 1]) };
    case 'setData':
      return { kind, path: pathOf(fields[at + 1]), data: dataOf(fields[at + 2]), version: intOf(fields[at + 3]) };
    case 'setACL':
      return { kind, path: pathOf(fields[at + 1]), acl: aclOf(fields[at + 2]), aversion: intOf(fields[at + 3]) };
    case 'createSession':
      return { kind, timeoutMs: intOf(fields[at + 1]), password: bytesOf(fields[at + 2]) };
    case 'closeSession':
      return { kind, paths: arrayOf(fields[at + 1]).map(pathOf) };
    case 'multi':
      return { kind, operations: arrayOf(fields[at + 1]).map((own) => bodyOf(arrayOf(own), 0, false)) };
    case 'multiError':
      return { kind, codes: arrayOf(fields[at + 1]).map(codeOf) };
    default:
      return unreachable(kind);
  }
}

const ERROR_CODES: ReadonlySet<number> = new Set(Object.values(ErrorCode));
const OPERATION_KINDS: ReadonlySet<TxnBody['kind']> = new Set(['create', 'delete', 'setData', 'check', 'error']);
const FIELD_COUNTS = {
  error: 1,
  create: 5,
  delete: 1,
  setData: 3,
  setACL: 3,
  check: 1,
  createSession: 2,
  closeSession: 1,
  multi: 1,
  multiError: 1,
} as const satisfies Record<TxnBody['kind'], number>;

function isArray(value: unknown): value is readonly unknown[] {
  return Array.isArray(value);
}

function arrayOf(value: unknown): readonly unknown[] {
  assert(isArray(value), 'a list in a txn is an array');
  return value;
}

function intOf(value: unknown): number {
  assert(typeof value === 'number' && (value | 0) === value, 'a 32-bit field of a txn is an int', value);
  return value;
}

function uintOf(value: unknown): number {
  assert(typeof value === 'number' && Number.isSafeInteger(value) && value >= 0, 'a number of a txn is whole', value);
  return value;
}

function bigintOf(value: unknown): bigint {
  assert(typeof value === 'bigint' && BigInt.asIntN(64, value) === value, 'a 64-bit field of a txn is a bigint', value);
  return value;
}

function bytesOf(value: unknown): Uint8Array {
  assert(value instanceof Uint8Array, 'bytes in a txn are bytes');
  return value;
}

function dataOf(value: unknown): Uint8Array | null {
  return value === null ? null : bytesOf(value);
}

function pathOf(value: unknown): string {
  assert(typeof value === 'string' && value.charCodeAt(0) === 0x2f, 'a path in a txn starts with a slash', value);
  return value;
}

function codeOf(value: unknown): ErrorCode {
  assert(isErrorCode(value), "a code in a txn is one of ZooKeeper's", value);
  return value;
}

function isErrorCode(value: unknown): value is ErrorCode {
  return typeof value === 'number' && ERROR_CODES.has(value);
}

function aclOf(value: unknown): readonly Acl[] {
  if (value === 0) return OPEN_ACL;
  const fields = arrayOf(value);
  assert(fields.length > 0 && fields.length % 3 === 0, 'an ACL in a txn is perms, scheme, id, again and again');
  const acl: Acl[] = [];
  for (let at = 0; at < fields.length; at += 3) {
    const scheme = fields[at + 1];
    const id = fields[at + 2];
    assert(typeof scheme === 'string' && typeof id === 'string', 'scheme and id of an ACL are strings');
    acl.push({ perms: intOf(fields[at]), id: { scheme, id } });
  }
  return acl;
}
