// What a server answers. A response follows a ReplyHeader with err 0; any other err has no body.

import type { ErrorCode } from './error-codes.ts';
import type { Acl, Stat } from './records.ts';

export type MultiResult =
  | { readonly kind: 'create'; readonly path: string }
  | { readonly kind: 'create2'; readonly path: string; readonly stat: Stat }
  | { readonly kind: 'delete' | 'check' }
  | { readonly kind: 'setData'; readonly stat: Stat }
  | { readonly kind: 'getData'; readonly data: Uint8Array | null; readonly stat: Stat }
  | { readonly kind: 'getChildren'; readonly children: readonly string[] }
  | { readonly kind: 'error'; readonly code: ErrorCode };

export type Response =
  | { readonly kind: 'create'; readonly path: string }
  | { readonly kind: 'create2' | 'createContainer' | 'createTTL'; readonly path: string; readonly stat: Stat }
  | { readonly kind: 'setData' | 'setACL' | 'exists'; readonly stat: Stat }
  | { readonly kind: 'getData' | 'reconfig'; readonly data: Uint8Array | null; readonly stat: Stat }
  | { readonly kind: 'getChildren'; readonly children: readonly string[] }
  | { readonly kind: 'getChildren2'; readonly children: readonly string[]; readonly stat: Stat }
  | { readonly kind: 'getACL'; readonly acl: readonly Acl[]; readonly stat: Stat }
  | { readonly kind: 'sync'; readonly path: string }
  | { readonly kind: 'getEphemerals'; readonly paths: readonly string[] }
  | { readonly kind: 'getAllChildrenNumber'; readonly total: number }
  | { readonly kind: 'whoAmI'; readonly clients: readonly { readonly scheme: string; readonly user: string }[] }
  | { readonly kind: 'sasl'; readonly token: Uint8Array | null }
  /** addWatch answers ErrorResponse{int err}. */
  | { readonly kind: 'addWatch'; readonly err: number }
  | { readonly kind: 'multi' | 'multiRead'; readonly results: readonly MultiResult[] }
  | {
      readonly kind:
        | 'delete'
        | 'ping'
        | 'auth'
        | 'setWatches'
        | 'setWatches2'
        | 'checkWatches'
        | 'removeWatches'
        | 'closeSession';
    };
