// Reads: answered from this server's own tree, in place, into the connection's outgoing bytes. Never enters consensus, never waits:
// the pipeline calls it when the request's turn has come. A watch is registered in the same breath as the read (W8).

import { catchUp, checkPermission, type DataTree, maskAcl, type WatchTable } from '@quorate/datatree';
import {
  AddWatchMode,
  type ErrorCode as Code,
  ErrorCode,
  type EventType,
  encodeReplyHeader,
  encodeResponse,
  type MultiReadRequest,
  type MultiResult,
  Perms,
  type ReadRequest,
  type ReadWithWatchRequest,
  type Response,
  unreachable,
} from '@quorate/protocol';
import type { ClientSession } from './client-session.ts';

/** The replicated state as this server has it; a snapshot from a leader replaces it. */
export type ReplicatedState = { tree: DataTree; watches: WatchTable };

export class Reads {
  readonly #state: ReplicatedState;
  readonly #skipAcl: boolean;
  readonly #sendEvent: (connection: ClientSession, type: EventType, path: string) => void;

  constructor(
    state: ReplicatedState,
    skipAcl: boolean,
    sendEvent: (connection: ClientSession, type: EventType, path: string) => void,
  ) {
    this.#state = state;
    this.#skipAcl = skipAcl;
    this.#sendEvent = sendEvent;
  }

  /** Appends exactly one reply frame, after the events it may cause. */
  answer(connection: ClientSession, xid: number, request: ReadRequest): void {
    const { tree, watches } = this.#state;
    switch (request.kind) {
      case 'getData':
      case 'exists':
      case 'getChildren':
      case 'getChildren2':
        this.#znode(connection, xid, request);
        return;
      case 'getACL': {
        connection.lastOperation = 'GETA';
        const slot = tree.find(request.path);
        if (slot < 0) {
          this.#header(connection, xid, ErrorCode.noNode);
          return;
        }
        const acl = tree.aclOf(slot);
        if (!this.#may(connection, acl, Perms.READ | Perms.ADMIN)) {
          this.#header(connection, xid, ErrorCode.noAuth);
          return;
        }
        const shown = maskAcl(acl, connection.identity, this.#skipAcl);
        this.#response(connection, xid, { kind: 'getACL', acl: shown, stat: tree.statOf(slot) });
        return;
      }
      case 'getAllChildrenNumber': {
        connection.lastOperation = 'GETACN';
        const slot = tree.find(request.path);
        if (slot < 0) {
          this.#header(connection, xid, ErrorCode.noNode);
          return;
        }
        if (!this.#may(connection, tree.aclOf(slot), Perms.READ)) {
          this.#header(connection, xid, ErrorCode.noAuth);
          return;
        }
        const total = tree.countDescendants(slot);
        this.#response(connection, xid, { kind: 'getAllChildrenNumber', total });
        return;
      }
      case 'getEphemerals': {
        connection.lastOperation = 'GETE';
        const prefix = request.path.trim() === '' || request.path === '/' ? '' : request.path;
        const paths: string[] = [];
        for (const path of tree.ephemeralsOf(connection.sessionId)) if (path.startsWith(prefix)) paths.push(path);
        this.#response(connection, xid, { kind: 'getEphemerals', paths });
        return;
      }
      case 'whoAmI': {
        connection.lastOperation = 'HOMI';
        const clients = connection.identity.map(({ scheme, id }) => ({
          scheme,
          user: scheme === 'digest' ? userOf(id) : id,
        }));
        this.#response(connection, xid, { kind: 'whoAmI', clients });
        return;
      }
      case 'multiRead':
        connection.lastOperation = 'MLTR';
        this.#response(connection, xid, {
          kind: 'multiRead',
          results: this.#multiRead(connection, request),
        });
        return;
      case 'setWatches':
      case 'setWatches2':
        connection.lastOperation = request.kind === 'setWatches' ? 'SETW' : 'STW2';
        catchUp(tree, watches, connection.watcher, request, request.relativeZxid, (_watcher, type, path) =>
          this.#sendEvent(connection, type, path),
        );
        this.#header(connection, xid, ErrorCode.ok);
        return;
      case 'addWatch':
        connection.lastOperation = 'ADDW';
        watches.add(
          connection.watcher,
          request.path,
          request.mode === AddWatchMode.persistent ? 'persistent' : 'persistentRecursive',
        );
        this.#response(connection, xid, { kind: 'addWatch', err: 0 });
        return;
      case 'checkWatches':
        connection.lastOperation = 'CHKW';
        this.#header(
          connection,
          xid,
          watches.has(connection.watcher, request.path, request.type) ? ErrorCode.ok : ErrorCode.noWatcher,
        );
        return;
      case 'removeWatches':
        connection.lastOperation = 'REMW';
        this.#header(
          connection,
          xid,
          watches.remove(connection.watcher, request.path, request.type) ? ErrorCode.ok : ErrorCode.noWatcher,
        );
        return;
      case 'ping':
      case 'sync':
        throw new Error('ping and sync are answered elsewhere');
      default:
        unreachable(request);
    }
  }

  #znode(connection: ClientSession, xid: number, request: ReadWithWatchRequest): void {
    const { tree, watches } = this.#state;
    const isExists = request.kind === 'exists';
    if (isExists) connection.lastOperation = 'EXIS';
    if (isExists && request.path.includes('\0')) {
      this.#header(connection, xid, ErrorCode.badArguments);
      return;
    }
    const slot = tree.find(request.path);
    if (slot < 0) {
      // An exists watch is left also where nothing is: it fires when the znode is created.
      if (isExists && request.watch) watches.add(connection.watcher, request.path, 'data');
      this.#header(connection, xid, ErrorCode.noNode);
      return;
    }
    if (!this.#may(connection, tree.aclOf(slot), Perms.READ)) {
      this.#header(connection, xid, ErrorCode.noAuth);
      return;
    }
    const writer = connection.writer;
    writer.beginFrame();
    encodeReplyHeader(writer, xid, tree.lastZxid, ErrorCode.ok);
    switch (request.kind) {
      case 'getData':
        connection.lastOperation = 'GETD';
        tree.writeData(slot, writer);
        tree.writeStat(slot, writer);
        if (request.watch) watches.add(connection.watcher, request.path, 'data');
        break;
      case 'exists':
        tree.writeStat(slot, writer);
        if (request.watch) watches.add(connection.watcher, request.path, 'data');
        break;
      case 'getChildren':
      case 'getChildren2':
        connection.lastOperation = 'GETC';
        writer.writeVectorCount(tree.childCount(slot));
        for (const name of tree.children(slot)) writer.writeString(name);
        if (request.kind === 'getChildren2') tree.writeStat(slot, writer);
        if (request.watch) watches.add(connection.watcher, request.path, 'child');
        break;
      default:
        unreachable(request.kind);
    }
    writer.endFrame();
  }

  #multiRead(connection: ClientSession, request: MultiReadRequest): MultiResult[] {
    const { tree } = this.#state;
    return request.operations.map((operation): MultiResult => {
      const slot = tree.find(operation.path);
      if (slot < 0) return { kind: 'error', code: ErrorCode.noNode };
      if (!this.#may(connection, tree.aclOf(slot), Perms.READ)) return { kind: 'error', code: ErrorCode.noAuth };
      return operation.kind === 'getData'
        ? { kind: 'getData', data: tree.dataOf(slot), stat: tree.statOf(slot) }
        : { kind: 'getChildren', children: [...tree.children(slot)] };
    });
  }

  #may(connection: ClientSession, acl: Parameters<typeof checkPermission>[0], wanted: number): boolean {
    return checkPermission(acl, wanted, connection.identity, this.#skipAcl);
  }

  #header(connection: ClientSession, xid: number, code: Code): void {
    connection.writer.beginFrame();
    encodeReplyHeader(connection.writer, xid, this.#state.tree.lastZxid, code);
    connection.writer.endFrame();
  }

  #response(connection: ClientSession, xid: number, response: Response): void {
    connection.writer.beginFrame();
    encodeReplyHeader(connection.writer, xid, this.#state.tree.lastZxid, ErrorCode.ok);
    encodeResponse(connection.writer, response);
    connection.writer.endFrame();
  }
}

function userOf(digestId: string): string {
  const colon = digestId.indexOf(':');
  return colon < 0 ? digestId : digestId.slice(0, colon);
}
