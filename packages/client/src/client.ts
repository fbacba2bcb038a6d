// The public API: paths below the chroot in, promises out, every call with { signal }.
// It turns calls into requests and answers into values; when and to whom they are sent is the session's business.

import type { ConnectionOptions as TlsOptions } from 'node:tls';
import {
  type Acl,
  AddWatchMode,
  assert,
  CreateFlag,
  type CreateRequest,
  ErrorCode,
  MAX_FRAME_BYTES_DEFAULT,
  type MultiOperation,
  type MultiResult,
  Perms,
  type Response,
  type SessionId,
  type Stat,
  validatePath,
  WatcherType,
  type Zxid,
} from '@quorate/protocol';
import { type Clock, systemClock } from './clock.ts';
import type { Call } from './connection.ts';
import { answeredError, MultiError, ZkError } from './errors.ts';
import { formatAddress, type HostProvider, parseConnectString, roundRobin } from './servers.ts';
import { type Credentials, Session, type SessionState } from './session.ts';
import {
  deliver,
  type OneShotKind,
  type PersistentWatch,
  type RemoveWatchesKind,
  type Watcher,
  WatchStream,
  WatchTables,
} from './watches.ts';

export type ClientOptions = {
  /** `host:port,host:port/chroot`. */
  readonly servers: string;
  /** What is asked for; the servers clamp it. Default 10,000. */
  readonly sessionTimeoutMs?: number;
  /** The default watcher: told of every change of the session's state, and of the events of calls with `watch: true`. */
  readonly watcher?: Watcher;
  /** Accept a server that has no quorum and serves reads only. Default false. */
  readonly canBeReadOnly?: boolean;
  /** Said first on every connection. If a server refuses one, the client closes with authFailed. */
  readonly auth?: readonly Credentials[];
  /** Chooses the server to dial instead of the shuffled list in `servers`; the chroot of `servers` still counts. */
  readonly hostProvider?: HostProvider;
  /** Speak TLS, with these options of node:tls. */
  readonly tls?: TlsOptions;
  /** The servers' `jute.maxbuffer`: a longer request is refused here, with badArguments. Default 1,048,575. */
  readonly requestBytesMax?: number;
  /** A longer reply ends its read with marshallingError. Default 16 MiB: a long list of children may exceed what may be sent. */
  readonly replyBytesMax?: number;
  /** Calls that may wait for an answer at one time; one more is refused with throttledOp. Default 65,536. */
  readonly outstandingMax?: number;
  /** For tests. */
  readonly clock?: Clock;
};

export type CallOptions = { readonly signal?: AbortSignal | undefined };
/** true: the default watcher. */
export type Watch = boolean | Watcher;
export type WatchOptions = CallOptions & { readonly watch?: Watch | undefined };
export type VersionOptions = CallOptions & {
  /** Refuse with badVersion unless the znode has this version. Default -1: any. */
  readonly version?: number | undefined;
};
/** Text becomes UTF-8; null is a value of its own. */
export type Data = string | Uint8Array | null;

export type CreateMode = 'persistent' | 'ephemeral' | 'persistentSequential' | 'ephemeralSequential' | 'container';
export type CreateDetails = {
  /** Default persistent. */
  readonly mode?: CreateMode | undefined;
  /** Default OPEN_ACL: everybody may do everything. */
  readonly acl?: readonly Acl[] | undefined;
  /** The znode goes when it has had no children and no change for so long. Persistent modes only; the server must allow it. */
  readonly ttlMs?: number | undefined;
};
export type CreateOptions = CallOptions & CreateDetails;

export type Operation =
  | ({ readonly kind: 'create'; readonly path: string; readonly data?: Data } & CreateDetails)
  | { readonly kind: 'delete'; readonly path: string; readonly version?: number | undefined }
  | { readonly kind: 'set'; readonly path: string; readonly data: Data; readonly version?: number | undefined }
  | { readonly kind: 'check'; readonly path: string; readonly version?: number | undefined };
export type OperationResult =
  | { readonly kind: 'create'; readonly path: string; readonly stat: Stat }
  | { readonly kind: 'set'; readonly stat: Stat }
  | { readonly kind: 'delete' }
  | { readonly kind: 'check' };
/** The results stand where their operations stand. */
export type OperationResults<T extends readonly Operation[]> = {
  -readonly [Index in keyof T]: Extract<OperationResult, { readonly kind: T[Index]['kind'] }>;
};

export type ReadOperation = { readonly kind: 'get' | 'children'; readonly path: string };
export type ReadResult =
  | { readonly kind: 'get'; readonly data: Buffer | null; readonly stat: Stat }
  | { readonly kind: 'children'; readonly children: readonly string[] }
  | { readonly kind: 'error'; readonly error: ZkError };

export type AddWatchOptions = CallOptions & {
  /** Also everything below the path. Default false. */
  readonly recursive?: boolean | undefined;
  /** How many unread events may wait before the watch ends with WatchOverflowError. Default 4,096. */
  readonly eventsMax?: number | undefined;
};
export type RemoveWatchesOptions = CallOptions & {
  /** Which watches of this client on the path. Default any: all of them. */
  readonly kind?: RemoveWatchesKind | undefined;
};

export const OPEN_ACL: readonly Acl[] = [{ perms: Perms.ALL, id: { scheme: 'world', id: 'anyone' } }];
export const READ_ACL: readonly Acl[] = [{ perms: Perms.READ, id: { scheme: 'world', id: 'anyone' } }];
export const CREATOR_ALL_ACL: readonly Acl[] = [{ perms: Perms.ALL, id: { scheme: 'auth', id: '' } }];

const SESSION_TIMEOUT_MS_DEFAULT = 10_000;
const REPLY_BYTES_MAX_DEFAULT = 16 * 1024 * 1024;
const OUTSTANDING_MAX_DEFAULT = 65_536;
const EVENTS_MAX_DEFAULT = 4_096;

/** A client whose session is served. Rejects when the signal aborts first, or the credentials are refused. */
export async function connect(
  servers: string,
  options: Omit<ClientOptions, 'servers'> & CallOptions = {},
): Promise<Client> {
  options.signal?.throwIfAborted();
  const client = new Client({ ...options, servers });
  try {
    await client.whenConnected(options);
  } catch (error) {
    await client.close();
    throw error;
  }
  return client;
}

export class Client {
  readonly #session: Session;
  readonly #tables: WatchTables;
  readonly #chroot: string;
  readonly #watcher: Watcher | undefined;

  /** Starts to connect in the background; calls made meanwhile wait. */
  constructor(options: ClientOptions) {
    const { servers, chroot } = parseConnectString(options.servers);
    if (chroot !== '') checkPath(chroot);
    this.#chroot = chroot;
    this.#watcher = options.watcher;
    this.#tables = new WatchTables(
      (serverPath) => this.#userPath(serverPath),
      (stream) => void this.#release(stream),
    );
    this.#session = new Session({
      hostProvider: options.hostProvider ?? roundRobin(servers),
      sessionTimeoutMs: options.sessionTimeoutMs ?? SESSION_TIMEOUT_MS_DEFAULT,
      canBeReadOnly: options.canBeReadOnly ?? false,
      auth: options.auth ?? [],
      tls: options.tls,
      requestBytesMax: options.requestBytesMax ?? MAX_FRAME_BYTES_DEFAULT,
      replyBytesMax: options.replyBytesMax ?? REPLY_BYTES_MAX_DEFAULT,
      outstandingMax: options.outstandingMax ?? OUTSTANDING_MAX_DEFAULT,
      clock: options.clock ?? systemClock,
      tables: this.#tables,
      onSessionEvent: (event) => {
        if (this.#watcher !== undefined) deliver(this.#watcher, event);
      },
    });
    this.#session.start();
  }

  get state(): SessionState {
    return this.#session.state;
  }

  /** Connected to a server that has no quorum: reads are answered, and may be old. */
  get isReadOnly(): boolean {
    return this.#session.isReadOnly;
  }

  /** 0 until the first server has answered. */
  get sessionId(): SessionId {
    return this.#session.sessionId;
  }

  /** As the servers granted it. */
  get sessionTimeoutMs(): number {
    return this.#session.timeoutMs;
  }

  /** The newest zxid that a reply or an event has shown to this session. */
  get lastZxid(): Zxid {
    return this.#session.lastZxid;
  }

  /** `host:port` of the server that serves the session now. */
  get server(): string | undefined {
    const server = this.#session.server;
    return server === undefined ? undefined : formatAddress(server);
  }

  /** Why the last attempt to reach a server failed. */
  get lastFailure(): Error | undefined {
    return this.#session.lastFailure;
  }

  /** Resolves at once when connected. Rejects when the session ends, or the signal aborts, before that. */
  whenConnected(options: CallOptions = {}): Promise<void> {
    return untilAborted(this.#session.whenConnected(), options.signal);
  }

  create(path: string, data: Data = null, options: CreateOptions = {}): Promise<{ path: string; stat: Stat }> {
    return this.#call(
      () => this.#createRequest({ kind: 'create', path, data, ...options }),
      options,
      path,
      (response) => {
        assert('path' in response && 'stat' in response, 'create2 is answered by path and stat');
        return { path: this.#userPath(response.path), stat: response.stat };
      },
    );
  }

  get(path: string, options: WatchOptions = {}): Promise<{ data: Buffer | null; stat: Stat }> {
    return this.#read('getData', path, options, 'data', (response) => {
      assert(response.kind === 'getData', 'getData is answered by its response');
      return { data: ownData(response.data), stat: response.stat };
    });
  }

  set(path: string, data: Data, options: VersionOptions = {}): Promise<Stat> {
    return this.#call(
      () => ({
        kind: 'setData',
        path: this.#serverPath(path),
        data: dataBytes(data),
        version: options.version ?? -1,
      }),
      options,
      path,
      statOf,
    );
  }

  delete(path: string, options: VersionOptions = {}): Promise<void> {
    return this.#call(
      () => ({ kind: 'delete', path: this.#serverPath(path), version: options.version ?? -1 }),
      options,
      path,
      nothing,
    );
  }

  /** The Stat, or null when there is no such znode; a watch then waits for its creation. */
  exists(path: string, options: WatchOptions = {}): Promise<Stat | null> {
    return this.#read('exists', path, options, 'data', statOf, () => null);
  }

  /** Names, not paths, in no order. */
  children(path: string, options: WatchOptions = {}): Promise<{ children: readonly string[]; stat: Stat }> {
    return this.#read('getChildren2', path, options, 'child', (response) => {
      assert(response.kind === 'getChildren2', 'getChildren2 is answered by its response');
      return { children: response.children, stat: response.stat };
    });
  }

  getAcl(path: string, options: CallOptions = {}): Promise<{ acl: readonly Acl[]; stat: Stat }> {
    return this.#call(
      () => ({ kind: 'getACL', path: this.#serverPath(path) }),
      options,
      path,
      (response) => {
        assert(response.kind === 'getACL', 'getACL is answered by its response');
        return { acl: response.acl, stat: response.stat };
      },
    );
  }

  /** `version` is compared with the aversion of the znode. */
  setAcl(path: string, acl: readonly Acl[], options: VersionOptions = {}): Promise<Stat> {
    return this.#call(
      () => ({ kind: 'setACL', path: this.#serverPath(path), acl, version: options.version ?? -1 }),
      options,
      path,
      statOf,
    );
  }

  /** All of the operations take place, or none does: then it rejects with a MultiError that says which one failed. */
  multi<const T extends readonly Operation[]>(operations: T, options?: CallOptions): Promise<OperationResults<T>>;
  multi(operations: readonly Operation[], options: CallOptions = {}): Promise<readonly OperationResult[]> {
    return this.#call(
      () => ({ kind: 'multi', operations: operations.map((operation) => this.#multiOperation(operation)) }),
      options,
      undefined,
      (response) => {
        assert(response.kind === 'multi', 'multi is answered by its response');
        const { results } = response;
        const index = results.findIndex((result) => result.kind === 'error' && result.code !== ErrorCode.ok);
        const failed = results[index];
        if (failed?.kind === 'error') throw new MultiError(failed.code, index, operations[index]?.path);
        return results.map((result) => this.#operationResult(result));
      },
    );
  }

  /** Reads of one moment of one server. Each has its own result; a failed one does not fail the others. */
  multiRead(operations: readonly ReadOperation[], options: CallOptions = {}): Promise<readonly ReadResult[]> {
    return this.#call(
      () => ({
        kind: 'multiRead',
        operations: operations.map(({ kind, path }) => ({
          kind: kind === 'get' ? ('getData' as const) : ('getChildren' as const),
          path: this.#serverPath(path),
        })),
      }),
      options,
      undefined,
      (response) => {
        assert(response.kind === 'multiRead', 'multiRead is answered by its response');
        return response.results.map((result, index) => readResult(result, operations[index]?.path));
      },
    );
  }

  /** Resolves when this server has everything that was committed before the call. */
  sync(path = '/', options: CallOptions = {}): Promise<void> {
    return this.#call(() => ({ kind: 'sync', path: this.#serverPath(path) }), options, path, nothing);
  }

  /** Adds an identity to this session, on this and on every later connection. */
  addAuth(scheme: string, auth: string | Uint8Array, options: CallOptions = {}): Promise<void> {
    return untilAborted(this.#session.addAuth({ scheme, auth }), options.signal);
  }

  /**
   * A watch that stays, as an endless iteration of events. It tells of the session too: `suspended` opens a gap, and after
   * the next `connected` whatever matters must be read again, because ZooKeeper does not tell what happened in the gap.
   */
  async addWatch(path: string, options: AddWatchOptions = {}): Promise<PersistentWatch> {
    const isRecursive = options.recursive ?? false;
    const serverPath = this.#serverPath(path);
    const eventsMax = options.eventsMax ?? EVENTS_MAX_DEFAULT;
    const stream = new WatchStream(path, serverPath, isRecursive, eventsMax, (it) => this.#release(it));
    const mode = isRecursive ? AddWatchMode.persistentRecursive : AddWatchMode.persistent;
    // In the tables from now on, so that another watch on the same path does not take the server's entry away on its end.
    this.#tables.addStream(stream);
    try {
      await this.#call(
        () => ({ kind: 'addWatch', path: serverPath, mode }),
        options,
        path,
        () => stream.arm(),
      );
    } catch (error) {
      await this.#release(stream);
      throw error;
    }
    return stream;
  }

  /** Removes watches of this client; their watchers get one watchRemoved, persistent ones end. Rejects with noWatcher if there is none. */
  removeWatches(path: string, options: RemoveWatchesOptions = {}): Promise<void> {
    const kind = options.kind ?? 'any';
    return this.#call(
      () => ({ kind: 'removeWatches', path: this.#serverPath(path), type: WatcherType[kind] }),
      options,
      path,
      () => this.#tables.remove(kind, this.#serverPath(path)),
    );
  }

  /** The ephemeral znodes of this session whose path starts with the text `prefix`. */
  getEphemerals(prefix = '/', options: CallOptions = {}): Promise<readonly string[]> {
    return this.#call(
      () => ({ kind: 'getEphemerals', path: this.#serverPath(prefix) }),
      options,
      prefix,
      (response) => {
        assert(response.kind === 'getEphemerals', 'getEphemerals is answered by its response');
        // A prefix is text to the server: /app also finds /apple/x, which is not below this chroot.
        const isBelow = (path: string): boolean => path === this.#chroot || path.startsWith(`${this.#chroot}/`);
        return response.paths.filter(isBelow).map((path) => this.#userPath(path));
      },
    );
  }

  /** How many znodes there are below the path, at any depth. */
  getAllChildrenNumber(path: string, options: CallOptions = {}): Promise<number> {
    return this.#call(
      () => ({ kind: 'getAllChildrenNumber', path: this.#serverPath(path) }),
      options,
      path,
      (response) => {
        assert(response.kind === 'getAllChildrenNumber', 'getAllChildrenNumber is answered by its response');
        return response.total;
      },
    );
  }

  /** The identities by which the servers judge this session. */
  whoAmI(options: CallOptions = {}): Promise<readonly { readonly scheme: string; readonly user: string }[]> {
    return this.#call(
      () => ({ kind: 'whoAmI' }),
      options,
      undefined,
      (response) => {
        assert(response.kind === 'whoAmI', 'whoAmI is answered by its response');
        return response.clients;
      },
    );
  }

  /** Ends the session: its ephemeral znodes go. Without a connection the servers do that when the session times out. */
  close(): Promise<void> {
    return this.#session.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /**
   * One promise per call and no async wrapper around it: so its continuation runs in the order of the wire, also
   * relative to the watchers.
   */
  #call<T>(
    makeRequest: () => Call['request'],
    options: CallOptions,
    path: string | undefined,
    onResponse: (response: Response) => T,
    onNoNode?: () => T,
  ): Promise<T> {
    const { signal } = options;
    return new Promise<T>((resolve, reject) => {
      signal?.throwIfAborted();
      const release = (): void => signal?.removeEventListener('abort', onAbort);
      const call: Call = {
        request: makeRequest(),
        isAbandoned: false,
        lostCount: 0,
        onReply(code, response) {
          release();
          if (response !== null) {
            try {
              resolve(onResponse(response));
            } catch (error) {
              reject(error);
            }
          } else if (code === ErrorCode.noNode && onNoNode !== undefined) {
            resolve(onNoNode());
          } else {
            reject(answeredError(code, path));
          }
        },
        onFailed(error) {
          release();
          reject(error);
        },
      };
      const onAbort = (): void => {
        this.#session.abandon(call);
        reject(signal?.reason);
      };
      signal?.addEventListener('abort', onAbort, { once: true });
      this.#session.submit(call);
    });
  }

  /** A read that may leave a one-shot watch. The watch is entered with the reply: before that there is nothing to be told. */
  #read<T>(
    kind: 'getData' | 'exists' | 'getChildren2',
    path: string,
    options: WatchOptions,
    watchKind: OneShotKind,
    onResponse: (response: Response) => T,
    onNoNode?: () => T,
  ): Promise<T> {
    const { watch } = options;
    if (watch === undefined || watch === false) {
      return this.#call(
        () => ({ kind, path: this.#serverPath(path), watch: false }),
        options,
        path,
        onResponse,
        onNoNode,
      );
    }
    const watcher = watch === true ? this.#watcher : watch;
    const enter = (table: OneShotKind): void => {
      if (watcher !== undefined) this.#tables.addOneShot(table, this.#serverPath(path), watcher);
    };
    return this.#call(
      () => {
        if (watcher === undefined) {
          throw new ZkError('badArguments', 'badArguments: watch: true needs a watcher in the options of the client');
        }
        return { kind, path: this.#serverPath(path), watch: true };
      },
      options,
      path,
      (response) => {
        enter(watchKind);
        return onResponse(response);
      },
      onNoNode === undefined
        ? undefined
        : () => {
            enter('exist');
            return onNoNode();
          },
    );
  }

  /** Takes a stream out of the tables, and its entry from the server when no other stream needs it. */
  async #release(stream: WatchStream): Promise<void> {
    if (!this.#tables.deleteStream(stream)) return;
    if (this.#session.hasEnded) return;
    const type = stream.isRecursive ? WatcherType.persistentRecursive : WatcherType.persistent;
    try {
      await this.#call(() => ({ kind: 'removeWatches', path: stream.serverPath, type }), {}, stream.path, nothing);
    } catch (error) {
      // What stays on the server then tells nobody anything, and goes with the session or the connection.
      if (!(error instanceof ZkError)) throw error;
    }
  }

  #createRequest(operation: Extract<Operation, { kind: 'create' }>): CreateRequest {
    const mode = operation.mode ?? 'persistent';
    const isSequential = mode === 'persistentSequential' || mode === 'ephemeralSequential';
    const common = {
      path: this.#serverPath(operation.path, isSequential),
      data: dataBytes(operation.data ?? null),
      acl: operation.acl ?? OPEN_ACL,
    };
    if (operation.ttlMs !== undefined) {
      if (mode !== 'persistent' && mode !== 'persistentSequential') {
        throw new ZkError('badArguments', `badArguments: a znode of mode ${mode} has no ttlMs`, {
          path: operation.path,
        });
      }
      const flags = isSequential ? CreateFlag.persistentSequentialWithTtl : CreateFlag.persistentWithTtl;
      return { kind: 'createTTL', ...common, flags, ttl: BigInt(Math.trunc(operation.ttlMs)) };
    }
    const kind = mode === 'container' ? 'createContainer' : 'create2';
    return { kind, ...common, flags: CreateFlag[mode], ttl: -1n };
  }

  #multiOperation(operation: Operation): MultiOperation {
    if (operation.kind === 'create') return this.#createRequest(operation);
    const path = this.#serverPath(operation.path);
    const version = operation.version ?? -1;
    if (operation.kind === 'set') return { kind: 'setData', path, data: dataBytes(operation.data), version };
    return { kind: operation.kind, path, version };
  }

  #operationResult(result: MultiResult): OperationResult {
    switch (result.kind) {
      case 'create2':
        return { kind: 'create', path: this.#userPath(result.path), stat: result.stat };
      case 'setData':
        return { kind: 'set', stat: result.stat };
      case 'delete':
      case 'check':
        return { kind: result.kind };
      default:
        throw new ZkError('marshallingError', `marshallingError: a multi was answered by ${result.kind}`);
    }
  }

  #serverPath(path: string, isSequential = false): string {
    // The server appends digits to a sequential name, so that a path may end with a slash there.
    checkPath(isSequential ? `${path}1` : path);
    if (this.#chroot === '') return path;
    return path === '/' ? this.#chroot : this.#chroot + path;
  }

  #userPath(serverPath: string): string {
    const chroot = this.#chroot;
    if (chroot === '') return serverPath;
    if (serverPath === chroot) return '/';
    return serverPath.startsWith(`${chroot}/`) ? serverPath.slice(chroot.length) : serverPath;
  }
}

function checkPath(path: string): void {
  const reason = validatePath(path);
  if (reason !== null) throw new ZkError('badArguments', `badArguments: "${path}": ${reason}`, { path });
}

function dataBytes(data: Data): Uint8Array | null {
  return typeof data === 'string' ? Buffer.from(data) : data;
}

/** A copy: the reply's bytes are a view of the socket's chunk, which they would hold in memory. */
function ownData(data: Uint8Array | null): Buffer | null {
  return data === null ? null : Buffer.from(data);
}

function nothing(): void {}

function statOf(response: Response): Stat {
  assert('stat' in response, 'this request is answered by a stat');
  return response.stat;
}

function readResult(result: MultiResult, path: string | undefined): ReadResult {
  switch (result.kind) {
    case 'getData':
      return { kind: 'get', data: ownData(result.data), stat: result.stat };
    case 'getChildren':
      return { kind: 'children', children: result.children };
    case 'error':
      return { kind: 'error', error: answeredError(result.code, path) };
    default:
      throw new ZkError('marshallingError', `marshallingError: a multiRead was answered by ${result.kind}`);
  }
}

/** What the promise says, or the signal's reason if it aborts first. */
function untilAborted<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return promise;
  return new Promise<T>((resolve, reject) => {
    signal.throwIfAborted();
    const onAbort = (): void => reject(signal.reason);
    signal.addEventListener('abort', onAbort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort));
  });
}
