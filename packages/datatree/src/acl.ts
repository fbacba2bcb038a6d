// ACLs: which lists may be set, who may do what, and one shared copy of each list that znodes use.
// Pure functions over data. Nothing here knows a connection: identities arrive as ids; digests arrive hashed.

import { type Acl, ErrorCode, type Id, Perms } from '@quorate/protocol';
import { assert } from '@quorate/protocol/assert';
import { crcOfText, crcOfWord } from './crc32.ts';

export const OPEN_ACL: readonly Acl[] = Object.freeze([
  Object.freeze({ perms: Perms.ALL, id: Object.freeze({ scheme: 'world', id: 'anyone' }) }),
]);
export const READ_ACL: readonly Acl[] = Object.freeze([
  Object.freeze({ perms: Perms.READ, id: Object.freeze({ scheme: 'world', id: 'anyone' }) }),
]);

export function isOpenAcl(acl: readonly Acl[]): boolean {
  if (acl === OPEN_ACL) return true;
  const entry = acl[0];
  return (
    acl.length === 1 &&
    entry !== undefined &&
    entry.perms === Perms.ALL &&
    entry.id.id === 'anyone' &&
    entry.id.scheme === 'world'
  );
}

/** Schemes whose ids prove something, so that an `auth` entry may expand to them. */
function isAuthenticated(scheme: string): boolean {
  return scheme === 'digest' || scheme === 'sasl' || scheme === 'x509';
}

/** The list that is stored for what the client sent, or the error code: ZooKeeper's PrepRequestProcessor#fixupACL. */
export function fixupAcl(acl: readonly Acl[] | null, identity: readonly Id[]): readonly Acl[] | ErrorCode {
  if (acl === null || acl.length === 0) return ErrorCode.invalidAcl;
  if (isOpenAcl(acl)) return OPEN_ACL;
  const fixed: Acl[] = [];
  const seen = new Set<string>();
  const add = (perms: number, scheme: string, id: string): void => {
    const key = entryKey(perms, scheme, id);
    if (seen.has(key)) return;
    seen.add(key);
    fixed.push({ perms, id: { scheme, id } });
  };
  for (const { perms, id } of acl) {
    // The records are typed, but these strings may be null on the wire.
    if (typeof id?.scheme !== 'string' || typeof id.id !== 'string') return ErrorCode.invalidAcl;
    if (id.scheme === 'auth') {
      let expanded = false;
      for (const own of identity) {
        if (!isAuthenticated(own.scheme)) continue;
        expanded = true;
        add(perms, own.scheme, own.id);
      }
      if (!expanded) return ErrorCode.invalidAcl;
    } else {
      if (!isValidId(id)) return ErrorCode.invalidAcl;
      add(perms, id.scheme, id.id);
    }
  }
  return fixed;
}

/** Whether an ACL may name this id (the provider's isValid). `auth` and `super` are not ids that can be stored. */
export function isValidId(id: Id): boolean {
  switch (id.scheme) {
    case 'world':
      return id.id === 'anyone';
    case 'digest':
      return isValidDigestId(id.id);
    case 'ip':
      return parseIpRange(id.id) !== null;
    case 'sasl':
      return id.id.length > 0 && !/[\0-\x20]/.test(id.id);
    case 'x509':
      return isDistinguishedName(id.id);
    default:
      return false;
  }
}

// Java's split(":") drops trailing empty parts: `a:` has one part, `:b` and `a:b:` have two.
function isValidDigestId(id: string): boolean {
  const parts = id.split(':');
  while (parts.length > 1 && parts[parts.length - 1] === '') parts.pop();
  return parts.length === 2;
}

// A distinguished name is `type=value` pairs; what a real parser would refuse beyond that can match no certificate.
function isDistinguishedName(id: string): boolean {
  return id === '' || /^\s*[A-Za-z0-9.-]+\s*=/.test(id);
}

/** ZooKeeper's ZooKeeperServer#checkACL: any entry with any wanted bit that matches any of the asker's ids. */
export function checkPermission(
  acl: readonly Acl[] | null,
  wanted: number,
  identity: readonly Id[],
  skipAcl = false,
): boolean {
  if (skipAcl || acl === OPEN_ACL || acl === null || acl.length === 0) return true;
  for (const own of identity) if (own.scheme === 'super') return true;
  for (const { perms, id } of acl) {
    if ((perms & wanted) === 0) continue;
    if (id.scheme === 'world') {
      if (id.id === 'anyone') return true;
      continue;
    }
    for (const own of identity) if (own.scheme === id.scheme && matches(id, own)) return true;
  }
  return false;
}

function matches(entry: Id, own: Id): boolean {
  if (entry.scheme === 'ip') return ipMatches(entry.id, own.id);
  if (entry.scheme === 'sasl' && own.id === 'super') return true;
  return entry.id === own.id;
}

/** What getACL shows to an asker without ADMIN: the hash of a digest id is hidden. */
export function maskAcl(acl: readonly Acl[], identity: readonly Id[], skipAcl = false): readonly Acl[] {
  if (checkPermission(acl, Perms.ADMIN, identity, skipAcl)) return acl;
  return acl.map((entry) => {
    if (entry.id.scheme !== 'digest') return entry;
    const colon = entry.id.id.indexOf(':');
    const user = colon === -1 ? entry.id.id : entry.id.id.slice(0, colon);
    return { perms: entry.perms, id: { scheme: 'digest', id: `${user}:x` } };
  });
}

/** `user:base64(SHA1("user:password"))`. The hash is the caller's: this package computes none but CRC32. */
export function digestOf(userPassword: string, sha1Base64: (text: string) => string): string {
  const colon = userPassword.indexOf(':');
  const user = colon === -1 ? userPassword : userPassword.slice(0, colon);
  return `${user}:${sha1Base64(userPassword)}`;
}

type IpRange = { readonly bytes: readonly number[]; readonly bits: number };

function ipMatches(range: string, address: string): boolean {
  const allowed = parseIpRange(range);
  const own = parseIpAddress(address);
  if (allowed === null || own === null || own.length !== allowed.bytes.length) return false;
  let bits = allowed.bits;
  for (let index = 0; index < own.length && bits > 0; index += 1, bits -= 8) {
    const mask = bits >= 8 ? 0xff : (0xff00 >> bits) & 0xff;
    if (((own[index] ?? 0) & mask) !== ((allowed.bytes[index] ?? 0) & mask)) return false;
  }
  return true;
}

function parseIpRange(text: string): IpRange | null {
  const slash = text.indexOf('/');
  const bytes = parseIpAddress(slash === -1 ? text : text.slice(0, slash));
  if (bytes === null) return null;
  const bitsMax = bytes.length * 8;
  if (slash === -1) return { bytes, bits: bitsMax };
  const bitsText = text.slice(slash + 1);
  if (!/^[0-9]{1,3}$/.test(bitsText)) return null;
  const bits = Number(bitsText);
  return bits <= bitsMax ? { bytes, bits } : null;
}

function parseIpAddress(text: string): number[] | null {
  return text.includes(':') ? parseIpv6(text) : parseIpv4(text);
}

function parseIpv4(text: string): number[] | null {
  const parts = text.split('.');
  if (parts.length !== 4) return null;
  const bytes: number[] = [];
  for (const part of parts) {
    if (!/^[0-9]{1,3}$/.test(part)) return null;
    const value = Number(part);
    if (value > 255) return null;
    bytes.push(value);
  }
  return bytes;
}

function parseIpv6(text: string): number[] | null {
  // A zone (`fe80::1%eth0`) says which interface, not which address.
  const zone = text.indexOf('%');
  const halves = (zone === -1 ? text : text.slice(0, zone)).split('::');
  if (halves.length > 2) return null;
  // Dotted decimals may stand at the very end only.
  const head = parseIpv6Groups(halves[0] ?? '', halves.length === 1);
  const tail = halves.length === 2 ? parseIpv6Groups(halves[1] ?? '', true) : [];
  if (head === null || tail === null) return null;
  const missing = 16 - head.length - tail.length;
  if (halves.length === 1 ? missing !== 0 : missing < 2) return null;
  const bytes = [...head, ...new Array<number>(missing).fill(0), ...tail];
  // `::ffff:1.2.3.4` is how a dual-stack socket names an IPv4 peer.
  const isMapped = bytes.slice(0, 10).every((byte) => byte === 0) && bytes[10] === 0xff && bytes[11] === 0xff;
  return isMapped ? bytes.slice(12) : bytes;
}

function parseIpv6Groups(text: string, mayEndDotted: boolean): number[] | null {
  if (text === '') return [];
  const bytes: number[] = [];
  const groups = text.split(':');
  for (const [index, group] of groups.entries()) {
    if (group.includes('.')) {
      const v4 = mayEndDotted && index === groups.length - 1 ? parseIpv4(group) : null;
      if (v4 === null) return null;
      bytes.push(...v4);
    } else {
      if (!/^[0-9a-fA-F]{1,4}$/.test(group)) return null;
      const value = Number.parseInt(group, 16);
      bytes.push(value >> 8, value & 255);
    }
  }
  return bytes;
}

// Lengths first: no choice of scheme and id can imitate another pair.
function entryKey(perms: number, scheme: string, id: string): string {
  return `${perms},${scheme.length},${id.length},${scheme}${id}`;
}

function keyOf(acl: readonly Acl[]): string {
  let key = '';
  for (const { perms, id } of acl) key += `${entryKey(perms, id.scheme, id.id)};`;
  return key;
}

type Interned = { acl: readonly Acl[]; key: string; crc: number; count: number };

/** The open list's number: nearly every znode has it, so it is never looked up and never freed. */
export const OPEN_ACL_ID = 0;

/** One copy of each list in use, by a small number that is reused when its last user is gone. */
export class AclTable {
  readonly #entries: (Interned | null)[] = [];
  readonly #byKey = new Map<string, number>();
  readonly #free: number[] = [];

  constructor() {
    const id = this.acquire(OPEN_ACL.slice());
    assert(id === OPEN_ACL_ID, 'the open list is the first one');
    const open = this.#entry(id);
    open.acl = OPEN_ACL;
    open.count = 0;
  }

  /** The number of an equal list, with one more user. */
  acquire(acl: readonly Acl[]): number {
    if (this.#entries.length > 0 && isOpenAcl(acl)) {
      this.#entry(OPEN_ACL_ID).count += 1;
      return OPEN_ACL_ID;
    }
    const key = keyOf(acl);
    const known = this.#byKey.get(key);
    if (known !== undefined) {
      this.#entry(known).count += 1;
      return known;
    }
    const id = this.#free.pop() ?? this.#entries.length;
    let crc = 0;
    for (const entry of acl) {
      crc = crcOfWord(crc, entry.perms | 0);
      crc = crcOfWord(crcOfText(crc, entry.id.scheme), entry.id.scheme.length);
      crc = crcOfWord(crcOfText(crc, entry.id.id), entry.id.id.length);
    }
    this.#entries[id] = {
      acl: acl.map(({ perms, id: { scheme, id } }) => ({ perms, id: { scheme, id } })),
      key,
      crc,
      count: 1,
    };
    this.#byKey.set(key, id);
    return id;
  }

  release(id: number): void {
    const entry = this.#entry(id);
    assert(entry.count > 0, 'a released list has a user');
    entry.count -= 1;
    if (entry.count > 0 || id === OPEN_ACL_ID) return;
    this.#byKey.delete(entry.key);
    this.#entries[id] = null;
    this.#free.push(id);
  }

  get(id: number): readonly Acl[] {
    return this.#entry(id).acl;
  }

  /** CRC32 of the list's content. */
  crcOf(id: number): number {
    return this.#entry(id).crc;
  }

  /** Users by list: for tests and metrics. */
  *counts(): Iterable<{ readonly acl: readonly Acl[]; readonly count: number }> {
    for (const entry of this.#entries)
      if (entry !== null && entry.count > 0) yield { acl: entry.acl, count: entry.count };
  }

  #entry(id: number): Interned {
    const entry = this.#entries[id];
    assert(entry !== undefined && entry !== null, 'an ACL number names a list in use');
    return entry;
  }
}
