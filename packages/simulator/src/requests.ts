// Random requests of a client: every operation of everyday use, on few paths, so that clients meet. Each request is given twice,
// once for the wire and once for the history.

import type { MultiPart, OpArgs, OpResult } from '@quorate/checker';
import {
  type Acl,
  AddWatchMode,
  CreateFlag,
  type MultiOperation,
  type MultiResult,
  Perms,
  type Request,
  type Response,
  WatcherType,
} from '@quorate/protocol';
import { textOf } from './committed-log.ts';
import type { Random } from './random.ts';

export type Asked = { readonly request: Request; readonly args: OpArgs };

const OPEN_ACL: readonly Acl[] = [{ perms: Perms.ALL, id: { scheme: 'world', id: 'anyone' } }];
const PARENTS = ['/a', '/b'] as const;
const PATHS = ['/a', '/b', '/a/x', '/a/y', '/b/x', '/a/x/deep'] as const;

function bytesOf(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

function create(kind: 'create' | 'create2', path: string, data: string | null, flags: number): Asked {
  return {
    request: { kind, path, data: data === null ? null : bytesOf(data), acl: OPEN_ACL, flags, ttl: -1n },
    args: { path, data, flags },
  };
}

export function randomWrite(random: Random, value: string): Asked {
  const path = random.pick(PATHS);
  const version = random.chance(0.6) ? -1 : random.below(4);
  switch (random.below(10)) {
    case 0:
    case 1:
      return create(random.chance(0.5) ? 'create' : 'create2', path, random.chance(0.05) ? null : value, 0);
    case 2:
      return create('create2', `${random.pick(PARENTS)}/e${random.below(3)}`, value, CreateFlag.ephemeral);
    case 3: {
      const flags = random.chance(0.5) ? CreateFlag.persistentSequential : CreateFlag.ephemeralSequential;
      return create('create', `${random.pick(PARENTS)}/s-`, value, flags);
    }
    case 4:
      return { request: { kind: 'delete', path, version }, args: { path, version } };
    case 5:
    case 6:
    case 7:
      return {
        request: { kind: 'setData', path, data: bytesOf(value), version },
        args: { path, data: value, version },
      };
    case 8: {
      const asked = { path, version: random.chance(0.8) ? -1 : random.below(3) };
      return { request: { kind: 'setACL', acl: OPEN_ACL, ...asked }, args: asked };
    }
    default:
      return randomMulti(random, value);
  }
}

function randomMulti(random: Random, value: string): Asked {
  const operations: MultiOperation[] = [];
  const parts: MultiPart[] = [];
  for (let i = random.between(1, 4); i > 0; i--) {
    const path = random.pick(PATHS);
    const version = random.chance(0.7) ? -1 : random.below(4);
    const data = `${value}.${i}`;
    switch (random.below(5)) {
      case 0:
        operations.push({ kind: 'check', path, version });
        parts.push({ kind: 'check', path, version });
        break;
      case 1:
        operations.push({ kind: 'delete', path, version });
        parts.push({ kind: 'delete', path, version });
        break;
      case 2:
      case 3:
        operations.push({ kind: 'setData', path, data: bytesOf(data), version });
        parts.push({ kind: 'setData', path, data, version });
        break;
      default: {
        const flags = random.pick([CreateFlag.persistent, CreateFlag.persistentSequential, CreateFlag.ephemeral]);
        operations.push({ kind: 'create', path, data: bytesOf(data), acl: OPEN_ACL, flags, ttl: -1n });
        parts.push({ kind: 'create', path, data, flags });
      }
    }
  }
  return { request: { kind: 'multi', operations }, args: { operations: parts } };
}

export function randomRead(random: Random): Asked {
  const path = random.pick(PATHS);
  const watch = random.chance(0.4);
  switch (random.below(8)) {
    case 0:
      return { request: { kind: 'exists', path, watch }, args: { path, watch } };
    case 1:
    case 2:
      return { request: { kind: 'getData', path, watch }, args: { path, watch } };
    case 3:
    case 4:
      return {
        request: { kind: random.chance(0.5) ? 'getChildren' : 'getChildren2', path, watch },
        args: { path, watch },
      };
    case 5:
      return { request: { kind: 'sync', path }, args: { path } };
    case 6: {
      const mode = random.chance(0.5) ? AddWatchMode.persistent : AddWatchMode.persistentRecursive;
      return { request: { kind: 'addWatch', path, mode }, args: { path, mode } };
    }
    default: {
      const type = random.pick([
        WatcherType.children,
        WatcherType.data,
        WatcherType.any,
        WatcherType.persistent,
        WatcherType.persistentRecursive,
      ]);
      return { request: { kind: 'removeWatches', path, type }, args: { path, mode: type } };
    }
  }
}

export function resultOf(response: Response): OpResult {
  switch (response.kind) {
    case 'create':
      return { path: response.path };
    case 'create2':
    case 'createContainer':
    case 'createTTL':
      return { path: response.path, stat: response.stat };
    case 'setData':
    case 'setACL':
    case 'exists':
      return { stat: response.stat };
    case 'getData':
    case 'reconfig':
      return { data: textOf(response.data), stat: response.stat };
    case 'getChildren':
      return { children: response.children };
    case 'getChildren2':
      return { children: response.children, stat: response.stat };
    case 'multi':
    case 'multiRead':
      return { results: response.results.map(multiResultOf) };
    default:
      return {};
  }
}

function multiResultOf(result: MultiResult) {
  switch (result.kind) {
    case 'create':
      return { kind: result.kind, path: result.path };
    case 'create2':
      return { kind: result.kind, path: result.path, stat: result.stat };
    case 'setData':
      return { kind: result.kind, stat: result.stat };
    case 'error':
      return { kind: result.kind, code: result.code };
    default:
      return { kind: result.kind };
  }
}
