import { createHash } from 'node:crypto';
import { type Acl, ErrorCode, type Id, Perms } from '@quorate/protocol';
import { expect, test } from 'vitest';
import { AclTable, checkPermission, digestOf, fixupAcl, isValidId, maskAcl, OPEN_ACL } from './acl.ts';
import { ALICE, aclFor, BOB, OPEN } from './leader.test-data.ts';

const anyone: Id = { scheme: 'world', id: 'anyone' };
const ip = (id: string): Id => ({ scheme: 'ip', id });
const may = (acl: readonly Acl[], wanted: number, ...identity: Id[]) => checkPermission(acl, wanted, identity);

test('an entry allows exactly its bits, to exactly its ids', () => {
  const acl = aclFor(ALICE, Perms.READ | Perms.WRITE);
  expect(may(acl, Perms.READ, ALICE)).toBe(true);
  expect(may(acl, Perms.WRITE, BOB, ALICE)).toBe(true);
  expect(may(acl, Perms.CREATE, ALICE)).toBe(false);
  expect(may(acl, Perms.READ, BOB)).toBe(false);
  expect(may(acl, Perms.READ)).toBe(false);
  expect(may(acl, Perms.READ, { scheme: 'sasl', id: ALICE.id })).toBe(false);
});

test('any one of several wanted bits is enough', () => {
  expect(may(aclFor(ALICE, Perms.ADMIN), Perms.READ | Perms.ADMIN, ALICE)).toBe(true);
  expect(may(aclFor(ALICE, Perms.WRITE), Perms.READ | Perms.ADMIN, ALICE)).toBe(false);
});

test('skipACL, no list at all, and super always pass', () => {
  const closed = aclFor(ALICE, 0);
  expect(checkPermission(closed, Perms.READ, [], true)).toBe(true);
  expect(checkPermission(null, Perms.READ, [])).toBe(true);
  expect(checkPermission([], Perms.READ, [])).toBe(true);
  expect(may(closed, Perms.ADMIN, { scheme: 'super', id: '' })).toBe(true);
  expect(may(closed, Perms.READ, ALICE)).toBe(false);
});

test('world means anyone, within its bits', () => {
  expect(may(aclFor(anyone, Perms.READ), Perms.READ)).toBe(true);
  expect(may(aclFor(anyone, Perms.READ), Perms.WRITE, ALICE)).toBe(false);
});

test('an ip entry compares the leading bits of the same family', () => {
  const matches = (range: string, address: string) => may(aclFor(ip(range), 1), 1, ip(address));
  expect(matches('10.1.2.3', '10.1.2.3')).toBe(true);
  expect(matches('10.1.2.3', '10.1.2.4')).toBe(false);
  expect(matches('10.1.0.0/16', '10.1.250.4')).toBe(true);
  expect(matches('10.1.0.0/16', '10.2.0.4')).toBe(false);
  expect(matches('10.1.2.128/25', '10.1.2.200')).toBe(true);
  expect(matches('10.1.2.128/25', '10.1.2.100')).toBe(false);
  expect(matches('10.1.2.99/0', '200.1.1.1')).toBe(true);
  expect(matches('::1', '0:0:0:0:0:0:0:1')).toBe(true);
  expect(matches('2001:db8::/32', '2001:db8:1::5')).toBe(true);
  expect(matches('2001:db8::/33', '2001:db8:8000::5')).toBe(false);
  expect(matches('2001:db8::/32', '10.1.2.3')).toBe(false);
  expect(matches('0.0.0.0/0', '::1')).toBe(false);
  expect(matches('10.1.2.3', '::ffff:10.1.2.3')).toBe(true);
  expect(matches('fe80::1', 'fe80::1%eth0')).toBe(true);
});

test('a sasl id matches itself, and the id super matches every sasl entry', () => {
  const acl = aclFor({ scheme: 'sasl', id: 'app/host@REALM' }, 1);
  expect(may(acl, 1, { scheme: 'sasl', id: 'app/host@REALM' })).toBe(true);
  expect(may(acl, 1, { scheme: 'sasl', id: 'other' })).toBe(false);
  expect(may(acl, 1, { scheme: 'sasl', id: 'super' })).toBe(true);
});

test('each scheme accepts its own form of id', () => {
  const valid: Id[] = [
    anyone,
    { scheme: 'digest', id: 'a:b' },
    { scheme: 'digest', id: ':b' },
    { scheme: 'digest', id: 'a:b:' },
    ip('1.2.3.4'),
    ip('1.2.3.4/0'),
    ip('::/128'),
    ip('1::'),
    ip('::1.2.3.4'),
    { scheme: 'sasl', id: 'me@HERE' },
    { scheme: 'x509', id: 'CN=me,O=us' },
  ];
  const invalid: Id[] = [
    { scheme: 'world', id: 'someone' },
    { scheme: 'digest', id: 'a:' },
    { scheme: 'digest', id: 'a' },
    { scheme: 'digest', id: 'a:b:c' },
    { scheme: 'digest', id: '' },
    ip('1.2.3'),
    ip('1.2.3.256'),
    ip('1.2.3.4/33'),
    ip('1.2.3.4/'),
    ip('1.2.3.4/-1'),
    ip('::1/129'),
    ip('1::2::3'),
    ip('1:2:3:4:5:6:7'),
    ip('1:2:3:4:5:6:7:8:9'),
    ip('g::'),
    ip('1.2.3.4::'),
    ip(''),
    { scheme: 'super', id: '' },
    { scheme: 'auth', id: '' },
    { scheme: 'ensemble', id: 'x' },
    { scheme: '__proto__', id: 'x' },
  ];
  expect(valid.filter((id) => !isValidId(id))).toEqual([]);
  expect(invalid.filter((id) => isValidId(id))).toEqual([]);
});

test('an empty or missing list is invalid, and so is any invalid entry', () => {
  expect(fixupAcl(null, [])).toBe(ErrorCode.invalidAcl);
  expect(fixupAcl([], [])).toBe(ErrorCode.invalidAcl);
  expect(fixupAcl([...OPEN, { perms: 1, id: { scheme: 'world', id: 'x' } }], [])).toBe(ErrorCode.invalidAcl);
  expect(fixupAcl([...OPEN, { perms: 1, id: { scheme: 'unknown', id: 'x' } }], [])).toBe(ErrorCode.invalidAcl);
});

test('duplicates go, the first stays, perms are stored as they came', () => {
  const entry = { perms: 1024, id: ALICE };
  expect(fixupAcl([entry, { perms: 0, id: BOB }, entry], [])).toEqual([entry, { perms: 0, id: BOB }]);
});

test('auth becomes one entry per authenticated id, with the same perms', () => {
  const auth = [{ perms: 5, id: { scheme: 'auth', id: 'whatever' } }];
  expect(fixupAcl(auth, [ip('1.2.3.4'), ALICE, { scheme: 'sasl', id: 's' }])).toEqual([
    { perms: 5, id: ALICE },
    { perms: 5, id: { scheme: 'sasl', id: 's' } },
  ]);
  expect(fixupAcl(auth, [ip('1.2.3.4')])).toBe(ErrorCode.invalidAcl);
  expect(fixupAcl(auth, [])).toBe(ErrorCode.invalidAcl);
});

test('without ADMIN the hash of a digest id is hidden', () => {
  const acl = [...aclFor(ALICE, Perms.READ), ...aclFor({ scheme: 'ip', id: '1.2.3.4' }, Perms.READ)];
  expect(maskAcl(acl, [ALICE])[0]?.id.id).toBe('alice:x');
  expect(maskAcl(acl, [ALICE])[1]?.id.id).toBe('1.2.3.4');
  expect(maskAcl(aclFor(ALICE, Perms.ADMIN), [ALICE])[0]?.id.id).toBe('alice:hash');
});

test('a digest id is the user and the hash of user and password', () => {
  const sha1 = (text: string) => createHash('sha1').update(text).digest('base64');
  expect(digestOf('super:super', sha1)).toBe('super:gG7s8t3oDEtIqF6DM9LlI/R+9Ss=');
});

test('equal lists share a number, and a number is free again after its last user', () => {
  const table = new AclTable();
  const first = table.acquire(aclFor(ALICE));
  expect(table.acquire([...aclFor({ ...ALICE })])).toBe(first);
  const second = table.acquire(aclFor(BOB));
  expect(second).not.toBe(first);
  table.release(first);
  expect(table.get(first)).toEqual(aclFor(ALICE));
  table.release(first);
  expect(() => table.get(first)).toThrow('names a list in use');
  expect(table.acquire(aclFor(ALICE, 1))).toBe(first);
  expect(table.acquire(OPEN)).toBe(table.acquire(OPEN_ACL));
  expect([...table.counts()].map(({ count }) => count).sort()).toEqual([1, 1, 2]);
});

test('no choice of scheme and id imitates another list', () => {
  const table = new AclTable();
  const a = table.acquire(aclFor({ scheme: 'ip', id: 'x;1,2,3' }));
  const b = table.acquire([...aclFor({ scheme: 'ip', id: 'x' }), ...aclFor({ scheme: 'ip', id: '3' }, 1)]);
  const c = table.acquire(aclFor({ scheme: 'ipx', id: ';1,2,3' }));
  expect(new Set([a, b, c]).size).toBe(3);
});
