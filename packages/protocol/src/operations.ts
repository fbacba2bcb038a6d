// The opcodes of ZooKeeper's client protocol: number on the wire, how the request travels.

/** Wire numbers. `createSession` and `deleteContainer` are internal: a client that sends them is refused. */
export const OpCode = {
  create: 1,
  delete: 2,
  exists: 3,
  getData: 4,
  setData: 5,
  getACL: 6,
  setACL: 7,
  getChildren: 8,
  sync: 9,
  ping: 11,
  getChildren2: 12,
  check: 13,
  multi: 14,
  create2: 15,
  reconfig: 16,
  checkWatches: 17,
  removeWatches: 18,
  createContainer: 19,
  deleteContainer: 20,
  createTTL: 21,
  multiRead: 22,
  auth: 100,
  setWatches: 101,
  sasl: 102,
  getEphemerals: 103,
  getAllChildrenNumber: 104,
  setWatches2: 105,
  addWatch: 106,
  whoAmI: 107,
  createSession: -10,
  closeSession: -11,
} as const satisfies Record<string, number>;
export type OpName = keyof typeof OpCode;
export type OpCode = (typeof OpCode)[OpName];

/** write: becomes a txn. read: answered from this server's tree. connection: handled on the connection. internal: refused from clients. */
export type OpClass = 'write' | 'read' | 'connection' | 'internal';

/** How a request of its own travels. `check` exists only inside a multi: on its own it is refused like an internal one. */
export const opClasses = {
  create: 'write',
  delete: 'write',
  exists: 'read',
  getData: 'read',
  setData: 'write',
  getACL: 'read',
  setACL: 'write',
  getChildren: 'read',
  sync: 'read',
  ping: 'read',
  getChildren2: 'read',
  check: 'internal',
  multi: 'write',
  create2: 'write',
  reconfig: 'write',
  checkWatches: 'read',
  removeWatches: 'read',
  createContainer: 'write',
  deleteContainer: 'internal',
  createTTL: 'write',
  multiRead: 'read',
  auth: 'connection',
  setWatches: 'read',
  sasl: 'connection',
  getEphemerals: 'read',
  getAllChildrenNumber: 'read',
  setWatches2: 'read',
  addWatch: 'read',
  whoAmI: 'read',
  createSession: 'internal',
  closeSession: 'write',
} as const satisfies Record<OpName, OpClass>;

const nameByNumber: ReadonlyMap<number, OpName> = new Map(
  // Object.entries forgets that the keys of a constant table are its names.
  (Object.keys(OpCode) as OpName[]).map((name) => [OpCode[name], name]),
);

/** The name of a wire number, or null when ZooKeeper has no such operation. */
export function opNameOf(number: number): OpName | null {
  return nameByNumber.get(number) ?? null;
}
