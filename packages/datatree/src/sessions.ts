// The replicated session table. What the log agreed on (id, timeout at creation, password) is part of the state digest;
// the latest timeout a client negotiated and the closing flag are this server's own and are neither replicated nor kept.
// Ephemeral znodes by owner are the tree's business.

import type { SessionId } from '@quorate/protocol';
import { assert } from '@quorate/protocol/assert';
import { crcOfBytes, crcOfWord, mix32 } from './crc32.ts';

/** Immutable: a change makes a new record, so that a snapshot may hold on to the old one. */
export type Session = {
  readonly id: SessionId;
  /** From the createSession txn: replicated. */
  readonly agreedTimeoutMs: number;
  /** The latest negotiated on this server; agreedTimeoutMs until it hears another. */
  readonly timeoutMs: number;
  readonly password: Uint8Array;
};

export class SessionTable {
  readonly #sessions = new Map<SessionId, Session>();
  readonly #closing = new Set<SessionId>();
  #digestLow = 0;
  #digestHigh = 0;

  get count(): number {
    return this.#sessions.size;
  }

  /** Sums over all sessions, as two 32-bit halves: equal for equal tables, whatever the order of events. */
  get digestLow(): number {
    return this.#digestLow;
  }

  get digestHigh(): number {
    return this.#digestHigh;
  }

  has(id: SessionId): boolean {
    return this.#sessions.has(id);
  }

  get(id: SessionId): Session | undefined {
    return this.#sessions.get(id);
  }

  /** Of each known session once, in creation order. */
  all(): Iterable<Session> {
    return this.#sessions.values();
  }

  /** Applies a createSession txn. A known id takes the new timeout and password: applying twice changes nothing. */
  create(id: SessionId, timeoutMs: number, password: Uint8Array): void {
    const known = this.#sessions.get(id);
    if (known !== undefined) this.#mixIn(known, -1);
    // The txn's bytes live in a buffer that is reused; the table outlives it.
    const session: Session = { id, agreedTimeoutMs: timeoutMs, timeoutMs, password: new Uint8Array(password) };
    this.#sessions.set(id, session);
    this.#mixIn(session, 1);
  }

  /** Applies a closeSession txn. False: it was not there. */
  close(id: SessionId): boolean {
    const session = this.#sessions.get(id);
    this.#closing.delete(id);
    if (session === undefined) return false;
    this.#mixIn(session, -1);
    this.#sessions.delete(id);
    return true;
  }

  /** A client re-attached or touched with a newly negotiated timeout. Local: not replicated, not in the digest. */
  touch(id: SessionId, timeoutMs: number): boolean {
    const session = this.#sessions.get(id);
    if (session === undefined) return false;
    if (session.timeoutMs !== timeoutMs) this.#sessions.set(id, { ...session, timeoutMs });
    return true;
  }

  /** Leader only: its closeSession is decided; nothing of this session is accepted any more. */
  markClosing(id: SessionId): void {
    this.#closing.add(id);
  }

  isClosing(id: SessionId): boolean {
    return this.#closing.has(id);
  }

  /** On loss of leadership: what was decided and not committed may never happen. */
  clearClosing(): void {
    this.#closing.clear();
  }

  #mixIn(session: Session, sign: 1 | -1): void {
    assert(this.#sessions.get(session.id) === session, 'only a session in the table counts in its digest');
    const low = Number(session.id & 0xffffffffn) | 0;
    const high = Number((session.id >> 32n) & 0xffffffffn) | 0;
    let crc = crcOfWord(crcOfWord(0, high), low);
    crc = crcOfBytes(crcOfWord(crc, session.agreedTimeoutMs | 0), session.password);
    this.#digestLow = (this.#digestLow + sign * crc) | 0;
    this.#digestHigh = (this.#digestHigh + sign * mix32(crc, high ^ low)) | 0;
  }
}
