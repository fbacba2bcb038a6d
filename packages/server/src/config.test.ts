import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { serverIdFrom } from '@quorate/protocol/zxid';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type Config, ConfigError, loadConfig, membershipText, parseServerLine, replicaConfig } from './config.ts';
import { configKeys, type KeySpec } from './config-keys.ts';
import { parseProperties } from './properties.ts';

let folder = '';
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'quorate-config-'));
  mkdirSync(join(folder, 'data'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

function write(name: string, text: string): string {
  const file = join(folder, name);
  writeFileSync(file, text);
  return file;
}

function load(text: string, myid: string | null = null): Config {
  if (myid !== null) write('data/myid', myid);
  return loadConfig(write('zoo.cfg', text.replaceAll('$DATA', join(folder, 'data'))));
}

function failure(text: string, myid: string | null = null): ConfigError {
  try {
    load(text, myid);
  } catch (error) {
    if (error instanceof ConfigError) return error;
    throw error;
  }
  throw new Error('this configuration was accepted');
}

const SINGLE = 'dataDir=$DATA\nclientPort=2181\n';
const THREE = `tickTime=2000
dataDir=$DATA
initLimit=10
syncLimit=5
server.1=127.0.0.1:2881:3881;127.0.0.1:2181
server.2=127.0.0.1:2882:3882:participant;2182
server.3=[::1]:2883:3883:observer;[::1]:2183
`;

describe('properties', () => {
  it('are read as Java reads them', () => {
    const text = [
      '# a comment',
      '! another',
      '',
      '  a = 1  ',
      'b:2',
      'c 3',
      'd=one \\',
      '   two',
      'e\\=f=x\\:y\\u0041\\t.',
      'g==h',
      'i',
      'j=back\\\\',
      'k=last\\',
    ].join('\r\n');
    expect(parseProperties(text)).toEqual([
      { key: 'a', value: '1', line: 4 },
      { key: 'b', value: '2', line: 5 },
      { key: 'c', value: '3', line: 6 },
      { key: 'd', value: 'one two', line: 7 },
      { key: 'e=f', value: 'x:yA\t.', line: 9 },
      { key: 'g', value: '=h', line: 10 },
      { key: 'i', value: '', line: 11 },
      { key: 'j', value: 'back\\', line: 12 },
      { key: 'k', value: 'last', line: 13 },
    ]);
  });
});

describe('a configuration that works', () => {
  it('of one server needs a folder and a port, and has ZooKeeper defaults', () => {
    const config = load(SINGLE);
    expect(config).toMatchObject({
      isStandalone: true,
      id: 1,
      voters: [1],
      observers: [],
      tickMs: 3000,
      minSessionTimeoutMs: 6000,
      maxSessionTimeoutMs: 60_000,
      outstandingMax: 1000,
      notices: [],
    });
    expect(config.client).toMatchObject({ host: null, port: 2181, perAddressMax: 60, frameBytesMax: 0xfffff });
    expect(config.peers.listen).toEqual([]);
  });

  it('of three servers: this one listens on its own address and dials the others', () => {
    const config = load(THREE, '2\n');
    expect(config).toMatchObject({ isStandalone: false, id: 2, voters: [1, 2], observers: [3] });
    expect(config.client).toMatchObject({ host: null, port: 2182 });
    expect(config.peers.listen).toEqual([{ host: '127.0.0.1', port: 2882 }]);
    expect([...config.peers.others]).toEqual([
      [1, [{ host: '127.0.0.1', port: 2881 }]],
      [3, [{ host: '::1', port: 2883 }]],
    ]);
    expect(membershipText(config)).toBe(
      [
        'server.1=127.0.0.1:2881:3881:participant;127.0.0.1:2181',
        'server.2=127.0.0.1:2882:3882:participant;0.0.0.0:2182',
        'server.3=[::1]:2883:3883:observer;[::1]:2183',
      ].join('\n'),
    );
  });

  it('notices a silent peer far sooner than ZooKeeper, but never later than syncLimit says', () => {
    expect(load(THREE, '1').peerSilenceMs).toBe(700);
    expect(load(THREE.replace('syncLimit=5', 'syncLimit=1').replace('=2000', '=400'), '1').peerSilenceMs).toBe(400);
    expect(load(`${THREE}quorate.peerSilenceMs=5000`, '1').peerSilenceMs).toBe(5000);
  });

  it('becomes the numbers of a replica, counted in ticks', () => {
    const replica = replicaConfig(load(`${THREE}quorate.zabTickMs=20\nquorate.heartbeatMs=90`, '3'), 77);
    expect(replica).toMatchObject({ id: 3, incarnation: 77, tickMs: 2000, zabTickMs: 20 });
    expect(replica.zab).toMatchObject({
      heartbeatTicks: 5,
      syncLimitTicks: 35,
      initLimitTicks: 1000,
      finalizeTicks: 10,
      counterMax: 0xffffffff,
    });
    expect(Object.values(replica.mutations)).not.toContain(true);
    expect(replica.snapshots.stagger).toBeCloseTo(2 / 3);
  });

  it('may keep its server lines in a dynamic file, found beside the main file', () => {
    const servers = THREE.split('\n').filter((line) => line.startsWith('server.'));
    write('zoo.cfg.dynamic', `${servers.join('\n')}\nversion=100000003\n`);
    const rest = THREE.split('\n').filter((line) => !line.startsWith('server.'));
    const config = load(`${rest.join('\n')}\ndynamicConfigFile=zoo.cfg.dynamic`, '1');
    expect(config.voters).toEqual([1, 2]);
    expect(config.client.port).toBe(2181);
  });

  it('may be one server line alone: standalone, unless standaloneEnabled=false', () => {
    const one = `${SINGLE}initLimit=5\nsyncLimit=2\nserver.7=127.0.0.1:2888:3888\n`;
    expect(load(one)).toMatchObject({ isStandalone: true, id: 7, voters: [7] });
    expect(load(`${one}standaloneEnabled=false`, '7')).toMatchObject({ isStandalone: false, id: 7 });
  });

  it('accepts the prefix of system properties', () => {
    const config = load(`${SINGLE}zookeeper.extendedTypesEnabled=true\nzookeeper.skipACL=yes`);
    expect(config).toMatchObject({ extendedTypesEnabled: true, skipAcl: true, notices: [] });
  });

  it('answers the words of the whitelist, and srvr always', () => {
    expect(load(`${SINGLE}4lw.commands.whitelist= stat , ruok`).fourLetterWords).toEqual(
      new Set(['stat', 'ruok', 'srvr']),
    );
    expect(load(`${SINGLE}4lw.commands.whitelist=*`).fourLetterWords).toBe(null);
    expect(load(SINGLE).fourLetterWords?.has('mntr')).toBe(true);
    expect(load(SINGLE).fourLetterWords?.has('crst')).toBe(false);
  });

  it('peerType is overruled by the server line, with a warning', () => {
    const config = load(`${THREE}peerType=observer`, '1');
    expect(config.voters).toEqual([1, 2]);
    expect(config.notices.map((notice) => notice.fields)).toContainEqual({ peerType: 'observer', role: 'participant' });
  });
});

describe('a notice is given for', () => {
  const messages = (text: string) => load(text).notices.map((n) => [n.level, n.fields['key'], n.fields['nearest']]);

  it('an unknown key, once, with the nearest known name', () => {
    expect(messages(`${SINGLE}ticktime=5`)).toEqual([['warn', 'ticktime', 'tickTime']]);
    expect(messages(`${SINGLE}maxClientCnxn=5`)).toEqual([['warn', 'maxClientCnxn', 'maxClientCnxns']]);
    expect(messages(`${SINGLE}entirely.different.words=5`)).toEqual([['warn', 'entirely.different.words', undefined]]);
    expect(messages(`${SINGLE}ssl.*=5`)).toEqual([['warn', 'ssl.*', undefined]]);
    expect(messages(`${SINGLE}__proto__=5`)).toEqual([['warn', '__proto__', undefined]]);
  });

  it('a key that has no effect here, with the reason', () => {
    const config = load(`${SINGLE}snapCount=1000\nssl.keyStore.location=x\nmetricsProvider.className=y`);
    expect(config.notices.map((n) => [n.level, n.fields['key']])).toEqual([
      ['info', 'snapCount'],
      ['info', 'ssl.keyStore.location'],
      ['info', 'metricsProvider.className'],
    ]);
    expect(config.notices.every((n) => String(n.fields['reason']).length > 10)).toBe(true);
  });

  it('a key that stands there twice', () => {
    const config = load(`${SINGLE}tickTime=5\ntickTime=6`);
    expect(config.tickMs).toBe(6);
    expect(config.notices.map((n) => n.fields['key'])).toEqual(['tickTime']);
  });

  it('an even number of voters', () => {
    const config = load(THREE, '1');
    expect(config.notices.map((n) => n.fields)).toEqual([{ voters: 2 }]);
  });
});

describe('the start stops with key, value, line and what was expected', () => {
  it.each([
    ['a word instead of a number', `${SINGLE}tickTime=fast`, 'tickTime', 'fast', 'a whole number between 1 and', ':3'],
    ['zero ticks', `${SINGLE}tickTime=0`, 'tickTime', '0', 'whole number', ':3'],
    ['a number too large to be one', `${SINGLE}tickTime=99999999999999999999`, 'tickTime', '9', 'whole number', ':3'],
    ['a fraction', `${SINGLE}tickTime=2.5`, 'tickTime', '2.5', 'whole number', ':3'],
    ['a port out of range', 'dataDir=$DATA\nclientPort=65536', 'clientPort', '65536', 'between 0 and 65535', ':2'],
    ['an empty value', `${SINGLE}tickTime=`, 'tickTime', '', 'a value', ':3'],
    ['no folder', 'clientPort=2181', 'dataDir', '', 'a value', 'zoo.cfg'],
    ['no port', 'dataDir=$DATA', 'clientPort', '', 'a port', 'zoo.cfg'],
    ['an address without port', 'dataDir=$DATA\nclientPortAddress=::1', 'clientPort', '', 'a port', 'zoo.cfg'],
    ['a flag that is none', `${SINGLE}skipACL=maybe`, 'skipACL', 'maybe', 'true or false', ':3'],
    ['min above max', `${SINGLE}minSessionTimeout=9\nmaxSessionTimeout=8`, 'minSessionTimeout', '9', 'not above', ':3'],
    ['another election', `${SINGLE}electionAlg=0`, 'electionAlg', '0', '3 (only algorithm 3', ':3'],
    ['TLS', `${SINGLE}secureClientPort=2281`, 'secureClientPort', '2281', 'TLS is not available yet', ':3'],
    ['SASL', `${SINGLE}authProvider.1=x`, 'authProvider.1', 'x', 'SASL is not available yet', ':3'],
    ['groups', `${SINGLE}group.1=1:2:3`, 'group.1', '1:2:3', 'hierarchical', ':3'],
    ['a secret', `${SINGLE}quorate.peerSecretFile=x`, 'quorate.peerSecretFile', 'x', 'not available yet', ':3'],
    [
      'a bad super digest',
      `${SINGLE}DigestAuthenticationProvider.superDigest=super:x`,
      'Digest',
      'super:x',
      'SHA-1',
      ':3',
    ],
    ['a log format', `${SINGLE}quorate.logFormat=xml`, 'quorate.logFormat', 'xml', 'auto, json, pretty', ':3'],
    ['too small a silence', `${THREE}quorate.peerSilenceMs=200`, 'quorate.peerSilenceMs', '200', 'three', ':8'],
    ['no initLimit', THREE.replace('initLimit=10', ''), 'initLimit', '', 'a value', 'zoo.cfg'],
    ['a line without port', THREE.replace(':2881:3881', ''), 'server.1', '', 'host:peerPort', ':5'],
    ['a server number too large', `${THREE}server.256=h:1:2`, 'server.256', '256', 'between 0 and 255', ':8'],
    ['one server twice', `${THREE}server.01=h:1:2`, 'server.01', 'h:1:2', 'each server once', ':8'],
    ['one address twice', `${THREE}server.4=127.0.0.1:2881:1`, 'server.4', '127', 'server.1 does not have', ':8'],
    ['two client ports', `${THREE}clientPort=2199`, 'clientPort', '2199', '2181, as in the line of server.1', ':8'],
    ['observers only', THREE.replace(/server.1.*\nserver.2.*\n/, ''), 'server.N', '', 'a participant', 'zoo.cfg', '3'],
  ])('%s', (_, text, key, value, expected, where, myid = '1') => {
    const error = failure(text, text.includes('server.1') || text.includes('server.3') ? myid : null);
    expect(error.key).toContain(key);
    expect(error.value).toContain(value);
    expect(error.expected).toContain(expected);
    expect(error.where).toContain(where);
    expect(error.message).toContain(error.expected);
    expect(error.message).not.toContain('\n');
  });

  it('no myid, a myid that is no number, a myid that is no server', () => {
    expect(failure(THREE)).toMatchObject({ key: 'myid', value: '' });
    expect(failure(THREE, 'one')).toMatchObject({ key: 'myid', value: 'one' });
    expect(failure(THREE, '9')).toMatchObject({ key: 'myid', value: '9', expected: 'one of 1, 2, 3' });
  });

  it('no such file', () => {
    expect(() => loadConfig(join(folder, 'missing.cfg'))).toThrow(ConfigError);
  });

  it('a dynamic file beside server lines, or with other keys', () => {
    write('d.cfg', 'tickTime=5\n');
    expect(failure(`${THREE}dynamicConfigFile=d.cfg`, '1')).toMatchObject({ key: 'dynamicConfigFile' });
    const error = failure(`${SINGLE}dynamicConfigFile=d.cfg`);
    expect(error).toMatchObject({ key: 'tickTime', value: '5' });
    expect(error.where).toContain('d.cfg:1');
  });

  it('harmless values of refused keys are no reason', () => {
    expect(load(`${SINGLE}sslQuorum=false\nelectionAlg=3\nportUnification=false`).notices).toEqual([]);
  });
});

describe('a server line', () => {
  const parse = (text: string) => parseServerLine(serverIdFrom(1), text);

  it('has several addresses, a role and a client address', () => {
    expect(parse('a:1:2|[fe80::1]:3:4:observer;[::]:5')).toEqual({
      id: 1,
      peerAddresses: [
        { host: 'a', port: 1 },
        { host: 'fe80::1', port: 3 },
      ],
      electionPorts: [2, 4],
      role: 'observer',
      client: { host: '::', port: 5 },
    });
  });

  it('needs no election port', () => {
    expect(parse('a:1;host:5')).toMatchObject({ electionPorts: [null], client: { host: 'host', port: 5 } });
  });

  it.each(['', 'a', 'a:', ':1:2', 'a:b:c', 'a:1:2:3', 'a:1:2:leader', '[::1:1:2', 'a:1:2;b:c', 'a:1:2;1;2', 'a:0:1'])(
    'is refused when it is "%s"',
    (text) => {
      expect(() => parse(text)).toThrow(/expected/);
    },
  );
});

describe('the table of keys', () => {
  it('says something about every key, and no default fails its own parser', () => {
    for (const [key, spec] of Object.entries<KeySpec>(configKeys)) {
      expect(spec.text, key).not.toBe('');
      if (spec.status !== 'honoured' || spec.fallback === null || spec.fallback === '') continue;
      expect(spec.parse(String(spec.fallback)), key).toEqual(spec.fallback);
    }
  });
});
