// ZooKeeper's error codes, as they stand in a reply header.

export const ErrorCode = {
  ok: 0,
  systemError: -1,
  runtimeInconsistency: -2,
  dataInconsistency: -3,
  connectionLoss: -4,
  marshallingError: -5,
  unimplemented: -6,
  operationTimeout: -7,
  badArguments: -8,
  unknownSession: -12,
  newConfigNoQuorum: -13,
  reconfigInProgress: -14,
  apiError: -100,
  noNode: -101,
  noAuth: -102,
  badVersion: -103,
  noChildrenForEphemerals: -108,
  nodeExists: -110,
  notEmpty: -111,
  sessionExpired: -112,
  invalidCallback: -113,
  invalidAcl: -114,
  authFailed: -115,
  sessionMoved: -118,
  notReadOnly: -119,
  ephemeralOnLocalSession: -120,
  noWatcher: -121,
  requestTimeout: -122,
  reconfigDisabled: -123,
  sessionClosedRequireSaslAuth: -124,
  quotaExceeded: -125,
  throttledOp: -127,
} as const satisfies Record<string, number>;
export type ErrorName = keyof typeof ErrorCode;
export type ErrorCode = (typeof ErrorCode)[ErrorName];

/** What each code says to the one who gets it. */
export const errorMeanings = {
  ok: 'The request succeeded.',
  systemError: 'The server failed; also the boundary of the system errors.',
  runtimeInconsistency: 'The state contradicts itself; in a failed multi: an operation behind the one that failed.',
  dataInconsistency: 'The stored data contradicts itself.',
  connectionLoss: 'The connection ended before the reply came; the request may have taken place. Made by clients.',
  marshallingError: 'The server could not read the request.',
  unimplemented: 'The server does not know this operation, or does not accept it from clients.',
  operationTimeout: 'The operation took too long. Made by clients.',
  badArguments: 'An argument is illegal: a path, a flag, a time to live.',
  unknownSession: 'The server does not know the session.',
  newConfigNoQuorum: 'No quorum of the new membership is connected and up to date.',
  reconfigInProgress: 'Another change of the membership is under way.',
  apiError: 'The boundary of the errors below: they answer a request that was understood.',
  noNode: 'The znode does not exist, or its parent does not.',
  noAuth: 'None of the identities of the connection has the permission.',
  badVersion: 'The version in the request is not the version of the znode.',
  noChildrenForEphemerals: 'An ephemeral znode has no children.',
  nodeExists: 'The znode exists already.',
  notEmpty: 'The znode has children.',
  sessionExpired: 'The session has expired: its ephemerals and watches are gone.',
  invalidCallback: 'The client was given an unusable callback. Made by clients.',
  invalidAcl: 'The ACL is empty, malformed or names an unknown scheme.',
  authFailed: 'The credentials were refused.',
  sessionMoved: 'The session is served by another server now. Never in a reply: the connection is closed.',
  notReadOnly: 'The server is read-only at present and the request writes.',
  ephemeralOnLocalSession: 'A local session cannot own an ephemeral znode.',
  noWatcher: 'There is no such watch.',
  requestTimeout: 'No reply came within the limit of the client. Made by clients.',
  reconfigDisabled: 'Changes of the membership are switched off.',
  sessionClosedRequireSaslAuth: 'The server requires authentication, and this session has none.',
  quotaExceeded: 'The request would exceed a quota that is enforced.',
  throttledOp: 'The server is overloaded and did not start the request.',
} as const satisfies Record<ErrorName, string>;

const nameByCode: ReadonlyMap<number, ErrorName> = new Map(
  // Object.keys forgets that the keys of a constant table are its names.
  (Object.keys(ErrorCode) as ErrorName[]).map((name) => [ErrorCode[name], name]),
);

/** The name of a code, or null for one that ZooKeeper does not have. */
export function errorNameOf(code: number): ErrorName | null {
  return nameByCode.get(code) ?? null;
}
