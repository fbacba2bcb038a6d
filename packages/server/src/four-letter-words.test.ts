import { describe, expect, it } from 'vitest';
import { answerWord, isFourLetterWord } from './four-letter-words.ts';
import type { StatusReport } from './status-report.ts';

const report: StatusReport = {
  version: '3.9.5-quorate-0.1.0, running on Node.js v20.20.2',
  serverId: 2,
  isServing: true,
  mode: 'leader',
  peerState: 'leading - broadcast',
  epoch: 3,
  zxid: '0x300000007',
  latencyMs: { min: 0, avg: 1.23456, max: 12.4 },
  packetsReceived: 100,
  packetsSent: 99,
  connections: [
    { remote: '127.0.0.1:50000', isReading: true, queued: 0, received: 1, sent: 0, session: null },
    {
      remote: '[::1]:50001',
      isReading: false,
      queued: 3,
      received: 20,
      sent: 17,
      session: {
        id: '0x200000000000001',
        lastOperation: 'GETD',
        establishedMs: 1700000000000.4,
        timeoutMs: 30_000,
        lastCxid: '0x14',
        lastZxid: '0x300000007',
        lastResponseMs: 1700000000100,
        minLatencyMs: 0,
        avgLatencyMs: 0.6,
        maxLatencyMs: 3,
      },
    },
  ],
  connectionCount: 2,
  outstandingCount: 4,
  uptimeMs: 5000.7,
  znodeCount: 9,
  dataBytes: 1234,
  ephemeralCount: 1,
  watchCount: 7,
  watchPathCount: 5,
  watcherCount: 2,
  sessions: [{ id: '0x200000000000001', timeoutMs: 30_000 }],
  ephemerals: [{ sessionId: '0x200000000000001', paths: ['/a', '/b'] }],
  proposalBytes: { last: 32, min: 16, max: 48 },
  learners: { all: 2, syncedFollowers: 1, syncedObservers: 1, leadingMs: 4000 },
  voterCount: 3,
  storeBytes: 777,
  config: {
    clientPort: 2182,
    dataDir: '/data',
    tickMs: 2000,
    perAddressMax: 60,
    minSessionTimeoutMs: 4000,
    maxSessionTimeoutMs: 40_000,
    backlog: -1,
    ensemble: {
      initLimit: 10,
      syncLimit: 5,
      electionPorts: '3888',
      peerPorts: '2888',
      isObserver: false,
      membership: 'server.2=a:2888:3888:participant;0.0.0.0:2182',
    },
  },
};

const say = (word: string, changed: Partial<StatusReport> = {}): string =>
  answerWord(word, null, () => ({ ...report, ...changed }));

describe('a four-letter word', () => {
  it('ruok, isro, wchs, dirs', () => {
    expect(say('ruok')).toBe('imok');
    expect(say('isro')).toBe('rw');
    expect(say('wchs')).toBe('2 connections watching 5 paths\nTotal watches:7\n');
    expect(say('dirs')).toBe('datadir_size: 777\nlogdir_size: 777\n');
  });

  it('srvr', () => {
    expect(say('srvr')).toBe(
      `Zookeeper version: 3.9.5-quorate-0.1.0, running on Node.js v20.20.2
Latency min/avg/max: 0/1.2346/12
Received: 100
Sent: 99
Connections: 2
Outstanding: 4
Zxid: 0x300000007
Mode: leader
Node count: 9
Proposal sizes last/min/max: 32/16/48
`,
    );
    expect(say('srvr', { mode: 'follower', learners: null })).not.toContain('Proposal');
    expect(say('srvr', { latencyMs: { min: 0, avg: 0, max: 0 } })).toContain('Latency min/avg/max: 0/0.0/0\n');
  });

  it('stat has the connections between the version and the rest', () => {
    expect(say('stat').split('\n').slice(0, 6)).toEqual([
      'Zookeeper version: 3.9.5-quorate-0.1.0, running on Node.js v20.20.2',
      'Clients:',
      ' /127.0.0.1:50000[1](queued=0,recved=1,sent=0)',
      ' /[::1]:50001[0](queued=3,recved=20,sent=17)',
      '',
      'Latency min/avg/max: 0/1.2346/12',
    ]);
  });

  it('cons', () => {
    expect(say('cons')).toBe(
      ' /127.0.0.1:50000[1](queued=0,recved=1,sent=0)\n' +
        ' /[::1]:50001[0](queued=3,recved=20,sent=17,sid=0x200000000000001,lop=GETD,est=1700000000000,to=30000,' +
        'lcxid=0x14,lzxid=0x300000007,lresp=1700000000100,minlat=0,avglat=1,maxlat=3)\n\n',
    );
  });

  it('mntr: every line is a key, a tab and a value', () => {
    const values = new Map<string, string>();
    for (const line of say('mntr').trimEnd().split('\n')) {
      const match = /^zk_([a-z_]+)\t(.+)$/.exec(line);
      expect(match, line).not.toBe(null);
      values.set(match?.[1] ?? '', match?.[2] ?? '');
    }
    expect(Object.fromEntries(values)).toMatchObject({
      version: '3.9.5-quorate-0.1.0, running on Node.js v20.20.2',
      server_state: 'leader',
      peer_state: 'leading - broadcast',
      avg_latency: '1.2346',
      max_latency: '12',
      packets_received: '100',
      num_alive_connections: '2',
      outstanding_requests: '4',
      uptime: '5001',
      znode_count: '9',
      watch_count: '7',
      ephemerals_count: '1',
      approximate_data_size: '1234',
      global_sessions: '1',
      quorum_size: '3',
      learners: '2',
      synced_followers: '1',
      synced_observers: '1',
      leader_uptime: '4000',
      last_proposal_size: '32',
    });
  });

  it('mntr of a standalone server knows no quorum, of a follower no learners', () => {
    const standalone = say('mntr', { mode: 'standalone' });
    expect(standalone).not.toMatch(/zk_(peer_state|quorum_size|learners|synced)/);
    expect(standalone).toContain('zk_avg_latency\t');
    const follower = say('mntr', { mode: 'follower', peerState: 'following - broadcast', learners: null });
    expect(follower).toContain('zk_peer_state\tfollowing - broadcast\n');
    expect(follower).not.toContain('zk_learners');
  });

  it('conf, with and without ensemble', () => {
    const text = say('conf');
    expect(text).toContain('clientPort=2182\nsecureClientPort=-1\ndataDir=/data\n');
    expect(text).toContain(
      'serverId=2\ninitLimit=10\nsyncLimit=5\nelectionAlg=3\nelectionPort=3888\nquorumPort=2888\n',
    );
    expect(text).toContain('peerType=0\nmembership: \nserver.2=a:2888:3888:participant;0.0.0.0:2182\nversion=0\n');
    const alone = say('conf', { config: { ...report.config, ensemble: null } });
    expect(alone).not.toContain('membership');
  });

  it('dump', () => {
    expect(say('dump')).toBe(`SessionTracker dump:
Global Sessions(1):
0x200000000000001\t30000ms
ephemeral nodes dump:
Sessions with Ephemerals (1):
0x200000000000001:
\t/a
\t/b
Connections dump:
Connections Sets (1)/(2):
\t/127.0.0.1:50000
\t/[::1]:50001
`);
  });

  it('envi is lines of key=value, as clients parse them for the version', () => {
    const [head, ...lines] = say('envi').trimEnd().split('\n');
    expect(head).toBe('Environment:');
    expect(lines.every((line) => /^[a-z.]+=/.test(line))).toBe(true);
    expect(lines[0]).toMatch(/^zookeeper\.version=3\.9\.5-/);
  });
});

describe('a server that does not serve', () => {
  it('says so, except where the word only asks for the process', () => {
    const idle = { isServing: false, mode: 'looking' } as const;
    for (const word of ['srvr', 'stat', 'mntr', 'conf', 'cons', 'wchs', 'dirs', 'dump']) {
      expect(say(word, idle)).toBe('This ZooKeeper instance is not currently serving requests\n');
    }
    expect(say('ruok', idle)).toBe('imok');
    expect(say('isro', idle)).toBe('null');
    expect(say('envi', idle)).toContain('Environment:');
  });
});

describe('the whitelist', () => {
  it('lets through what it lists and nothing else', () => {
    const only = new Set(['srvr']);
    expect(answerWord('srvr', only, () => report)).toContain('Mode: leader');
    expect(answerWord('stat', only, () => report)).toBe('stat is not executed because it is not in the whitelist.\n');
  });

  it('never has the words that this server does not offer', () => {
    expect(answerWord('crst', null, () => report)).toBe('crst is not executed because it is not in the whitelist.\n');
  });

  it('words are known by their letters only', () => {
    expect(['ruok', 'mntr', 'wchp', 'stmk'].every(isFourLetterWord)).toBe(true);
    expect(['RUOK', 'abcd', '', '\0\0\0\x2c', 'toString', '__proto__'].some(isFourLetterWord)).toBe(false);
  });
});
