// The leader's decision: a request against the tree plus what is outstanding becomes a txn that says the absolute result,
// or an error txn that says why not. The order of the checks is ZooKeeper's (PrepRequestProcessor), because the first
// failing one is what the client sees. It changes outstanding and closing flags only; it never throws for a client's fault.

import {
  CreateFlag,
  type CreateRequest,
  type DeleteRequest,
  ErrorCode,
  type Id,
  type MultiOperation,
  Perms,
  type SessionId,
  type SetAclRequest,
  type SetDataRequest,
  sequenceSuffix,
  validatePath,
  type WriteRequest,
} from '@quorate/protocol';
import { unreachable } from '@quorate/protocol/assert';
import { checkPermission, fixupAcl } from './acl.ts';
import { type DataTree, NO_SLOT } from './data-tree.ts';
import type { ChangeRecord, Outstanding } from './outstanding.ts';
import { CONTAINER_OWNER, kindOfOwner, ownerOfTtl, TTL_MS_MAX } from './owner.ts';
import type { Origin, Txn, TxnBody } from './txn.ts';

export type PrepareContext = {
  readonly tree: DataTree;
  readonly outstanding: Outstanding;
  readonly skipAcl: boolean;
};

/** Who asks: for createSession the id that was chosen for the new session, for an expiry the session that expired. */
export type Asker = {
  readonly sessionId: SessionId;
  readonly cxid: number;
  readonly identity: readonly Id[];
  readonly origin: Origin;
};

/** Requests that no client can send: the servers make them. */
export type InternalRequest =
  | { readonly kind: 'createSession'; readonly timeoutMs: number; readonly password: Uint8Array }
  /** A container or TTL znode whose time has come. Like closeSession it is asked for by nobody. */
  | { readonly kind: 'deleteContainer'; readonly path: string };

type Decision = TxnBody | ErrorCode;

const CVERSION_MAX = 0x7fffffff;
const CONFIG_PATH = '/zookeeper/config';
const UNDELETABLE = new Set(['/', '/zookeeper', '/zookeeper/quota', CONFIG_PATH]);

/** Decides `request`. The txn takes its place in the order whatever it says; `timeMs` is the leader's wall clock. */
export function prepare(
  context: PrepareContext,
  asker: Asker,
  request: WriteRequest | InternalRequest,
  timeMs: number,
): Txn {
  const { outstanding } = context;
  outstanding.begin();
  const decision = decide(context, asker, request);
  outstanding.end();
  const body: TxnBody = typeof decision === 'number' ? { kind: 'error', code: decision } : decision;
  return { origin: asker.origin, sessionId: asker.sessionId, cxid: asker.cxid, timeMs, body };
}

function decide(context: PrepareContext, asker: Asker, request: WriteRequest | InternalRequest): Decision {
  switch (request.kind) {
    case 'multi':
      return decideMulti(context, asker, request.operations);
    case 'setACL':
      return decideSetAcl(context, asker, request);
    case 'reconfig':
      return ErrorCode.reconfigDisabled;
    case 'createSession':
      return decideCreateSession(context, asker, request.timeoutMs, request.password);
    case 'closeSession':
      return decideCloseSession(context, asker);
    case 'deleteContainer':
      return decideDeleteContainer(context, request.path);
    default:
      return decideOperation(context, asker, request);
  }
}

function decideOperation(context: PrepareContext, asker: Asker, operation: MultiOperation): Decision {
  switch (operation.kind) {
    case 'create':
    case 'create2':
    case 'createContainer':
    case 'createTTL':
      return decideCreate(context, asker, operation);
    case 'delete':
      return decideDelete(context, asker, operation);
    case 'setData':
      return decideSetData(context, asker, operation);
    case 'check':
      return decideCheck(context, asker, operation.path, operation.version);
    default:
      return unreachable(operation);
  }
}

function decideCreate(context: PrepareContext, asker: Asker, request: CreateRequest): Decision {
  const { tree, outstanding } = context;
  const mode = modeOf(request, tree.extendedTypesEnabled);
  if (typeof mode === 'number') return mode;
  if (!isSessionOpen(context, asker.sessionId)) return ErrorCode.sessionExpired;
  const cut = request.path.lastIndexOf('/');
  if (cut === -1 || request.path.includes('\0')) return ErrorCode.badArguments;
  const acl = fixupAcl(request.acl, asker.identity);
  if (typeof acl === 'number') return acl;
  const parent = recordOf(context, cut === 0 ? '/' : request.path.slice(0, cut));
  // Before the whole path is validated: below a parent that is not there, an odd path is simply NoNode.
  if (parent === null) return ErrorCode.noNode;
  if (!checkPermission(parent.acl, Perms.CREATE, asker.identity, context.skipAcl)) return ErrorCode.noAuth;
  const path = mode.isSequential ? request.path + sequenceSuffix(parent.cversion) : request.path;
  if (validatePath(path) !== null) return ErrorCode.badArguments;
  if (recordOf(context, path) !== null) return ErrorCode.nodeExists;
  if (parent.isEphemeral) return ErrorCode.noChildrenForEphemerals;
  const owner = mode.isEphemeral ? asker.sessionId : mode.owner;
  // The counter sticks at its end, as ZooKeeper's applied one does: then the next sequential name exists already.
  const parentCVersion = Math.min(parent.cversion + 1, CVERSION_MAX);
  outstanding.put({ ...parent, cversion: parentCVersion, childCount: parent.childCount + 1 });
  outstanding.put({
    path,
    exists: true,
    version: 0,
    aversion: 0,
    cversion: 0,
    childCount: 0,
    owner,
    isEphemeral: mode.isEphemeral,
    acl,
  });
  if (mode.isEphemeral) outstanding.putEphemeral(asker.sessionId, path);
  return { kind: 'create', path, data: request.data, acl, owner, parentCVersion };
}

type CreateMode = { readonly isSequential: boolean; readonly isEphemeral: boolean; readonly owner: bigint };

const PERSISTENT: CreateMode = { isSequential: false, isEphemeral: false, owner: 0n };
const PERSISTENT_SEQUENTIAL: CreateMode = { isSequential: true, isEphemeral: false, owner: 0n };
const EPHEMERAL: CreateMode = { isSequential: false, isEphemeral: true, owner: 0n };
const EPHEMERAL_SEQUENTIAL: CreateMode = { isSequential: true, isEphemeral: true, owner: 0n };
const CONTAINER: CreateMode = { isSequential: false, isEphemeral: false, owner: CONTAINER_OWNER };

// The opcode and the flags must tell one story. Where ZooKeeper lets them differ, a replica could store what prepare did
// not mean; we take the container from either side and refuse a TTL that only one side knows of.
function modeOf(request: CreateRequest, extendedTypesEnabled: boolean): CreateMode | ErrorCode {
  const { kind, flags } = request;
  if (flags < CreateFlag.persistent || flags > CreateFlag.persistentSequentialWithTtl) return ErrorCode.badArguments;
  if (flags === CreateFlag.persistentWithTtl || flags === CreateFlag.persistentSequentialWithTtl) {
    if (!extendedTypesEnabled) return ErrorCode.unimplemented;
    if (kind !== 'createTTL' || request.ttl <= 0n || request.ttl > TTL_MS_MAX) return ErrorCode.badArguments;
    const isSequential = flags === CreateFlag.persistentSequentialWithTtl;
    return { isSequential, isEphemeral: false, owner: ownerOfTtl(request.ttl) };
  }
  if (kind === 'createTTL') return ErrorCode.badArguments;
  if (kind === 'createContainer') return CONTAINER;
  switch (flags) {
    case CreateFlag.ephemeral:
      return EPHEMERAL;
    case CreateFlag.persistentSequential:
      return PERSISTENT_SEQUENTIAL;
    case CreateFlag.ephemeralSequential:
      return EPHEMERAL_SEQUENTIAL;
    case CreateFlag.container:
      return CONTAINER;
    default:
      return PERSISTENT;
  }
}

function decideDelete(context: PrepareContext, asker: Asker, request: DeleteRequest): Decision {
  const { path } = request;
  if (!isSessionOpen(context, asker.sessionId)) return ErrorCode.sessionExpired;
  const parent = deletableParentOf(context, path);
  if (typeof parent === 'number') return parent;
  if (!checkPermission(parent.acl, Perms.DELETE, asker.identity, context.skipAcl)) return ErrorCode.noAuth;
  const record = recordOf(context, path);
  if (record === null) return ErrorCode.noNode;
  if (!versionMatches(request.version, record.version)) return ErrorCode.badVersion;
  if (record.childCount > 0) return ErrorCode.notEmpty;
  putDelete(context, parent, record);
  return { kind: 'delete', path };
}

function decideDeleteContainer(context: PrepareContext, path: string): Decision {
  const parent = deletableParentOf(context, path);
  if (typeof parent === 'number') return parent;
  const record = recordOf(context, path);
  if (record === null) return ErrorCode.noNode;
  if (record.childCount > 0) return ErrorCode.notEmpty;
  const kind = kindOfOwner(record.owner, context.tree.extendedTypesEnabled);
  if (kind !== 'container' && kind !== 'ttl') return ErrorCode.badVersion;
  putDelete(context, parent, record);
  return { kind: 'delete', path };
}

function deletableParentOf(context: PrepareContext, path: string): ChangeRecord | ErrorCode {
  const cut = path.lastIndexOf('/');
  if (cut === -1 || path.includes('\0') || UNDELETABLE.has(path)) return ErrorCode.badArguments;
  return recordOf(context, cut === 0 ? '/' : path.slice(0, cut)) ?? ErrorCode.noNode;
}

function putDelete(context: PrepareContext, parent: ChangeRecord, record: ChangeRecord): void {
  context.outstanding.put({ ...parent, childCount: parent.childCount - 1 });
  context.outstanding.put({ ...record, exists: false });
}

function decideSetData(context: PrepareContext, asker: Asker, request: SetDataRequest): Decision {
  const { path } = request;
  if (!isSessionOpen(context, asker.sessionId)) return ErrorCode.sessionExpired;
  if (validatePath(path) !== null) return ErrorCode.badArguments;
  const record = recordOf(context, path);
  if (record === null) return ErrorCode.noNode;
  if (!checkPermission(record.acl, Perms.WRITE, asker.identity, context.skipAcl)) return ErrorCode.noAuth;
  // Each server shows its own configuration there; ZooKeeper lets super change the text without changing the thing.
  if (path === CONFIG_PATH) return ErrorCode.badArguments;
  if (!versionMatches(request.version, record.version)) return ErrorCode.badVersion;
  const version = (record.version + 1) | 0;
  context.outstanding.put({ ...record, version });
  return { kind: 'setData', path, data: request.data, version };
}

function decideSetAcl(context: PrepareContext, asker: Asker, request: SetAclRequest): Decision {
  const { path } = request;
  if (!isSessionOpen(context, asker.sessionId)) return ErrorCode.sessionExpired;
  if (validatePath(path) !== null) return ErrorCode.badArguments;
  const acl = fixupAcl(request.acl, asker.identity);
  if (typeof acl === 'number') return acl;
  const record = recordOf(context, path);
  if (record === null) return ErrorCode.noNode;
  if (!checkPermission(record.acl, Perms.ADMIN, asker.identity, context.skipAcl)) return ErrorCode.noAuth;
  if (!versionMatches(request.version, record.aversion)) return ErrorCode.badVersion;
  const aversion = (record.aversion + 1) | 0;
  context.outstanding.put({ ...record, acl, aversion });
  return { kind: 'setACL', path, acl, aversion };
}

function decideCheck(context: PrepareContext, asker: Asker, path: string, version: number): Decision {
  if (!isSessionOpen(context, asker.sessionId)) return ErrorCode.sessionExpired;
  if (validatePath(path) !== null) return ErrorCode.badArguments;
  const record = recordOf(context, path);
  if (record === null) return ErrorCode.noNode;
  if (!checkPermission(record.acl, Perms.READ, asker.identity, context.skipAcl)) return ErrorCode.noAuth;
  if (!versionMatches(version, record.version)) return ErrorCode.badVersion;
  return { kind: 'check', path };
}

function decideMulti(context: PrepareContext, asker: Asker, operations: readonly MultiOperation[]): TxnBody {
  const bodies: TxnBody[] = [];
  for (const operation of operations) {
    const decision = decideOperation(context, asker, operation);
    if (typeof decision !== 'number') {
      bodies.push(decision);
      continue;
    }
    if (context.tree.mutations.multiNotAtomic) {
      // Mutant M33: what was decided before the failure stays decided, here and in the tree.
      bodies.push({ kind: 'error', code: decision });
      while (bodies.length < operations.length) bodies.push({ kind: 'error', code: ErrorCode.runtimeInconsistency });
      return { kind: 'multi', operations: bodies };
    }
    context.outstanding.rollback();
    const failedAt = bodies.length;
    const codes = operations.map((_, index): ErrorCode => {
      if (index === failedAt) return decision;
      return index < failedAt ? ErrorCode.ok : ErrorCode.runtimeInconsistency;
    });
    return { kind: 'multiError', codes };
  }
  return { kind: 'multi', operations: bodies };
}

function decideCreateSession(context: PrepareContext, asker: Asker, timeoutMs: number, password: Uint8Array): Decision {
  // A session that is on its way out does not come back under the same id (ZOOKEEPER-1496).
  if (context.tree.sessions.isClosing(asker.sessionId)) return ErrorCode.sessionExpired;
  context.outstanding.putSession(asker.sessionId);
  return { kind: 'createSession', timeoutMs, password };
}

/** The session's ephemerals: applied ones, plus outstanding creates, minus outstanding deletes; from here on it is closing. */
function decideCloseSession(context: PrepareContext, asker: Asker): Decision {
  const { tree, outstanding } = context;
  const { sessionId } = asker;
  tree.sessions.markClosing(sessionId);
  const recreated = new Set(outstanding.ephemeralsOf(sessionId));
  const paths: string[] = [];
  for (const path of tree.ephemeralsOf(sessionId)) {
    const newest = outstanding.newest(path);
    if (newest === undefined || (newest.owner === sessionId && newest.exists && !recreated.has(path))) {
      paths.push(path);
    }
  }
  for (const path of recreated) {
    const newest = outstanding.newest(path);
    if (newest?.exists && newest.owner === sessionId) paths.push(path);
  }
  for (const path of paths) {
    const record = recordOf(context, path);
    const parent = recordOf(context, path.slice(0, path.lastIndexOf('/')) || '/');
    if (record !== null && parent !== null) putDelete(context, parent, record);
  }
  return { kind: 'closeSession', paths };
}

/** The znode as it will be when everything outstanding is applied; null: it will not be there. */
function recordOf(context: PrepareContext, path: string): ChangeRecord | null {
  const pending = context.outstanding.newest(path);
  if (pending !== undefined) return pending.exists ? pending : null;
  const { tree } = context;
  const slot = tree.find(path);
  if (slot === NO_SLOT) return null;
  const owner = tree.ownerOf(slot);
  return {
    path,
    exists: true,
    version: tree.versionOf(slot),
    aversion: tree.aversionOf(slot),
    cversion: tree.storedCVersionOf(slot),
    childCount: tree.childCount(slot),
    owner,
    isEphemeral: kindOfOwner(owner, tree.extendedTypesEnabled) === 'ephemeral',
    acl: tree.aclOf(slot),
  };
}

function isSessionOpen(context: PrepareContext, sessionId: SessionId): boolean {
  const { sessions } = context.tree;
  if (sessions.isClosing(sessionId)) return false;
  return sessions.has(sessionId) || context.outstanding.isSessionToBeCreated(sessionId);
}

function versionMatches(expected: number, current: number): boolean {
  return expected === -1 || expected === current;
}
