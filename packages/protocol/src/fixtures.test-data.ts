// Recorded request frames, one per opcode, written out by hand from the jute layout (never by our own encoder: a
// fixture that the encoder made proves nothing). Spaces separate the fields: length, xid, type, then the record.

import type { OpName } from './operations.ts';
import type { Request } from './requests.ts';
import type { MultiResult, Response } from './responses.ts';
import { makeZxid } from './zxid.ts';

const hex = (fields: string): string => fields.replaceAll(/\s/g, '');

/** Whole frames, length included, as lower-case hex. */
export const opcodeFixtures: Record<OpName, string> = {
  create: hex(`00000033 00000001 00000001 00000002 2f61 00000002 6869
    00000001 0000001f 00000005 776f726c64 00000006 616e796f6e65 00000000`),
  delete: hex('00000012 00000002 00000002 00000002 2f61 ffffffff'),
  exists: hex('0000000f 00000003 00000003 00000002 2f61 01'),
  getData: hex('0000000f 00000004 00000004 00000002 2f61 00'),
  setData: hex('00000016 00000005 00000005 00000002 2f61 ffffffff 00000007'),
  getACL: hex('0000000e 00000006 00000006 00000002 2f61'),
  setACL: hex(`0000002d 00000007 00000007 00000002 2f61
    00000001 0000001f 00000005 776f726c64 00000006 616e796f6e65 ffffffff`),
  getChildren: hex('0000000f 00000008 00000008 00000002 2f61 01'),
  sync: hex('0000000e 00000009 00000009 00000002 2f61'),
  ping: hex('00000008 fffffffe 0000000b'),
  getChildren2: hex('0000000f 0000000c 0000000c 00000002 2f61 00'),
  check: hex('00000012 0000000d 0000000d 00000002 2f61 00000003'),
  multi: hex(`00000058 0000000e 0000000e
    00000001 00 ffffffff 00000002 2f61 00000002 6869
    00000001 0000001f 00000005 776f726c64 00000006 616e796f6e65 00000000
    0000000d 00 ffffffff 00000002 2f62 00000003
    ffffffff 01 ffffffff`),
  create2: hex(`00000033 0000000f 0000000f 00000002 2f61 00000002 6869
    00000001 0000001f 00000005 776f726c64 00000006 616e796f6e65 00000003`),
  reconfig: hex('0000001d 00000010 00000010 ffffffff 00000001 33 ffffffff ffffffffffffffff'),
  checkWatches: hex('00000012 00000011 00000011 00000002 2f61 00000003'),
  removeWatches: hex('00000012 00000012 00000012 00000002 2f61 00000001'),
  createContainer: hex(`00000033 00000013 00000013 00000002 2f61 00000002 6869
    00000001 0000001f 00000005 776f726c64 00000006 616e796f6e65 00000004`),
  deleteContainer: hex('0000000e 00000014 00000014 00000002 2f61'),
  createTTL: hex(`0000003b 00000015 00000015 00000002 2f61 00000002 6869
    00000001 0000001f 00000005 776f726c64 00000006 616e796f6e65 00000005 000000000000ea60`),
  multiRead: hex(`00000031 00000016 00000016
    00000004 00 ffffffff 00000002 2f61 00
    00000008 00 ffffffff 00000002 2f62 00
    ffffffff 01 ffffffff`),
  auth: hex('0000001d fffffffc 00000064 00000000 00000006 646967657374 00000003 753a70'),
  setWatches: hex(`00000028 fffffff8 00000065 0000000100000005
    00000001 00000002 2f61 00000000 00000001 00000002 2f62`),
  sasl: hex('0000000f 00000066 00000066 00000003 010203'),
  getEphemerals: hex('0000000e 00000067 00000067 00000002 2f61'),
  getAllChildrenNumber: hex('0000000e 00000068 00000068 00000002 2f61'),
  setWatches2: hex(`00000036 fffffff8 00000069 0000000100000005
    00000001 00000002 2f61 00000000 00000001 00000002 2f62 00000001 00000002 2f63 00000000`),
  addWatch: hex('00000012 0000006a 0000006a 00000002 2f61 00000001'),
  whoAmI: hex('00000008 0000006b 0000006b'),
  createSession: hex('0000000c 00000000 fffffff6 00002710'),
  closeSession: hex('00000008 00000021 fffffff5'),
};

const WORLD = [{ perms: 31, id: { scheme: 'world', id: 'anyone' } }];
const HI = new Uint8Array([0x68, 0x69]);

/** What each fixture says; null for the opcodes that are refused from clients before their record is read. */
export const fixtureRequests: Record<OpName, Request | null> = {
  create: { kind: 'create', path: '/a', data: HI, acl: WORLD, flags: 0, ttl: -1n },
  delete: { kind: 'delete', path: '/a', version: -1 },
  exists: { kind: 'exists', path: '/a', watch: true },
  getData: { kind: 'getData', path: '/a', watch: false },
  setData: { kind: 'setData', path: '/a', data: null, version: 7 },
  getACL: { kind: 'getACL', path: '/a' },
  setACL: { kind: 'setACL', path: '/a', acl: WORLD, version: -1 },
  getChildren: { kind: 'getChildren', path: '/a', watch: true },
  sync: { kind: 'sync', path: '/a' },
  ping: { kind: 'ping' },
  getChildren2: { kind: 'getChildren2', path: '/a', watch: false },
  check: null,
  multi: {
    kind: 'multi',
    operations: [
      { kind: 'create', path: '/a', data: HI, acl: WORLD, flags: 0, ttl: -1n },
      { kind: 'check', path: '/b', version: 3 },
    ],
  },
  create2: { kind: 'create2', path: '/a', data: HI, acl: WORLD, flags: 3, ttl: -1n },
  reconfig: { kind: 'reconfig', joiningServers: null, leavingServers: '3', newMembers: null, curConfigId: -1n },
  checkWatches: { kind: 'checkWatches', path: '/a', type: 3 },
  removeWatches: { kind: 'removeWatches', path: '/a', type: 1 },
  createContainer: { kind: 'createContainer', path: '/a', data: HI, acl: WORLD, flags: 4, ttl: -1n },
  deleteContainer: null,
  createTTL: { kind: 'createTTL', path: '/a', data: HI, acl: WORLD, flags: 5, ttl: 60_000n },
  multiRead: {
    kind: 'multiRead',
    operations: [
      { kind: 'getData', path: '/a' },
      { kind: 'getChildren', path: '/b' },
    ],
  },
  auth: { kind: 'auth', type: 0, scheme: 'digest', auth: new Uint8Array([0x75, 0x3a, 0x70]) },
  setWatches: {
    kind: 'setWatches',
    relativeZxid: makeZxid(1, 5),
    dataWatches: ['/a'],
    existWatches: [],
    childWatches: ['/b'],
    persistentWatches: [],
    persistentRecursiveWatches: [],
  },
  sasl: { kind: 'sasl', token: new Uint8Array([1, 2, 3]) },
  getEphemerals: { kind: 'getEphemerals', path: '/a' },
  getAllChildrenNumber: { kind: 'getAllChildrenNumber', path: '/a' },
  setWatches2: {
    kind: 'setWatches2',
    relativeZxid: makeZxid(1, 5),
    dataWatches: ['/a'],
    existWatches: [],
    childWatches: ['/b'],
    persistentWatches: ['/c'],
    persistentRecursiveWatches: [],
  },
  addWatch: { kind: 'addWatch', path: '/a', mode: 1 },
  whoAmI: { kind: 'whoAmI' },
  createSession: null,
  closeSession: { kind: 'closeSession' },
};

/** One Stat whose fields all differ, so that a swapped pair shows. */
export const sampleStat = {
  czxid: makeZxid(1, 2),
  mzxid: makeZxid(3, 4),
  ctime: 1_700_000_000_123,
  mtime: 1_700_000_000_456,
  version: 5,
  cversion: 6,
  aversion: 7,
  ephemeralOwner: -0x7ffffffffffffff8n,
  dataLength: 9,
  numChildren: 10,
  pzxid: makeZxid(11, 12),
};

/** The 68 bytes of sampleStat, by hand. */
export const sampleStatHex = hex(`0000000100000002 0000000300000004 0000018bcfe5687b 0000018bcfe569c8
  00000005 00000006 00000007 8000000000000008 00000009 0000000a 0000000b0000000c`);

const everyMultiResult: readonly MultiResult[] = [
  { kind: 'create', path: '/a' },
  { kind: 'create2', path: '/b', stat: sampleStat },
  { kind: 'delete' },
  { kind: 'check' },
  { kind: 'setData', stat: sampleStat },
  { kind: 'getData', data: HI, stat: sampleStat },
  { kind: 'getData', data: null, stat: sampleStat },
  { kind: 'getChildren', children: ['x', 'y'] },
  { kind: 'error', code: -2 },
];

/** At least one response of every kind. */
export const sampleResponses: readonly Response[] = [
  { kind: 'create', path: '/a0000000001' },
  { kind: 'create2', path: '/a', stat: sampleStat },
  { kind: 'createContainer', path: '/a', stat: sampleStat },
  { kind: 'createTTL', path: '/a', stat: sampleStat },
  { kind: 'setData', stat: sampleStat },
  { kind: 'setACL', stat: sampleStat },
  { kind: 'exists', stat: sampleStat },
  { kind: 'getData', data: HI, stat: sampleStat },
  { kind: 'getData', data: null, stat: sampleStat },
  { kind: 'getData', data: new Uint8Array(0), stat: sampleStat },
  { kind: 'reconfig', data: HI, stat: sampleStat },
  { kind: 'getChildren', children: [] },
  { kind: 'getChildren', children: ['x', 'grüße', '日本'] },
  { kind: 'getChildren2', children: ['x'], stat: sampleStat },
  { kind: 'getACL', acl: WORLD, stat: sampleStat },
  { kind: 'sync', path: '/a' },
  { kind: 'getEphemerals', paths: ['/a', '/b/c'] },
  { kind: 'getAllChildrenNumber', total: 123_456 },
  { kind: 'whoAmI', clients: [{ scheme: 'ip', user: '127.0.0.1' }] },
  { kind: 'sasl', token: null },
  { kind: 'sasl', token: HI },
  { kind: 'addWatch', err: 0 },
  { kind: 'multi', results: [] },
  { kind: 'multi', results: everyMultiResult },
  { kind: 'multiRead', results: everyMultiResult },
  { kind: 'delete' },
  { kind: 'ping' },
  { kind: 'auth' },
  { kind: 'setWatches' },
  { kind: 'setWatches2' },
  { kind: 'checkWatches' },
  { kind: 'removeWatches' },
  { kind: 'closeSession' },
];
