// node-zookeeper-client, unchanged, against a server that speaks ZooKeeper's protocol: a self-checking script.
//
// usage: stock-client.mjs CONNECT [--control] [--through-leader-kill] | stock-client.mjs CONNECT --hold PATH
// It prints `ok NAME` per proven point and exits with 1 at the first that fails. With --control it may ask the test that runs it, by a line
// that begins with @, to stop or start a server, and waits for `done` on standard input. It never starts or stops a server itself.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import zookeeper from 'node-zookeeper-client';

const { ACL, CreateMode, Event, Exception, Id, Permission } = zookeeper;
const [connectString, ...flags] = process.argv.slice(2);
const patienceMs = 30_000;

const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const ok = (name) => console.log(`ok ${name}`);

async function ask(directive) {
  console.log(`@${directive}`);
  assert.equal((await answers.next()).value, 'done', `the test answers ${directive}`);
}

async function waitUntil(what, condition) {
  const deadline = performance.now() + patienceMs;
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(`waited too long for ${what}`);
    await delay(10);
  }
}

/** The client calls back with (error, ...results); an error carries its code. */
function call(client, name, ...args) {
  return new Promise((done, fail) => {
    client[name](...args, (error, ...results) => (error ? fail(error) : done(results)));
  });
}

const create = async (client, path, data = '', mode = CreateMode.PERSISTENT, acls = ACL.OPEN_ACL_UNSAFE) =>
  (await call(client, 'create', path, Buffer.from(data), acls, mode))[0];
const getData = (client, path, watcher) => call(client, 'getData', path, watcher);
const setData = async (client, path, data, version = -1) =>
  (await call(client, 'setData', path, Buffer.from(data), version))[0];
const remove = (client, path, version = -1) => call(client, 'remove', path, version);
const exists = async (client, path, watcher) => (await call(client, 'exists', path, watcher))[0] ?? null;
const children = (client, path, watcher) => call(client, 'getChildren', path, watcher);

async function refused(name, what, promise) {
  const code = await promise.then(
    () => 'no error',
    (error) => error.name,
  );
  assert.equal(code, name, what);
}

class Events {
  #seen = [];
  watch = (event) => {
    this.#seen.push(`${event.getName()} ${event.getPath()}`);
  };

  async expect(...expected) {
    await waitUntil(`${expected} (found ${this.#seen})`, () => this.#seen.length >= expected.length);
    assert.deepEqual(this.#seen, expected, 'watch events');
    this.#seen = [];
  }

  get count() {
    return this.#seen.length;
  }
}
const event = (type, path) => `${Event.create({ type, path }).getName()} ${path}`;
const created = (path) => event(Event.NODE_CREATED, path);
const deleted = (path) => event(Event.NODE_DELETED, path);
const changed = (path) => event(Event.NODE_DATA_CHANGED, path);
const childrenChanged = (path) => event(Event.NODE_CHILDREN_CHANGED, path);

async function connect(sessionTimeout = 8000) {
  const client = zookeeper.createClient(connectString, { sessionTimeout, spinDelay: 50, retries: 0 });
  const session = { client, connected: false, expired: false, disconnects: 0 };
  client.on('connected', () => {
    session.connected = true;
  });
  client.on('disconnected', () => {
    session.connected = false;
    session.disconnects += 1;
  });
  client.on('expired', () => {
    session.expired = true;
  });
  client.connect();
  await waitUntil('a session', () => session.connected);
  return session;
}

const sessionOf = (client) => client.getSessionId().toString('hex');
/** The library hands 64-bit fields over as eight bytes. */
const ownerOf = (stat) => stat.ephemeralOwner.toString('hex');
const zxidOf = (bytes) => bytes.readBigInt64BE(0);

async function modes(zk, base) {
  const path = `${base}/plain`;
  assert.equal(await create(zk, path, 'one'), path, 'path of a persistent znode');
  const [data, stat] = await getData(zk, path);
  assert.equal(data.toString(), 'one');
  assert.deepEqual(
    [stat.version, stat.cversion, stat.aversion, stat.numChildren, stat.dataLength, ownerOf(stat)],
    [0, 0, 0, 0, 3, '0000000000000000'],
    'stat of a new znode',
  );
  assert.deepEqual([stat.mzxid, stat.pzxid], [stat.czxid, stat.czxid], 'zxids of a new znode');
  await refused('NODE_EXISTS', 'create twice', create(zk, path));
  await refused('NO_NODE', 'create below nothing', create(zk, `${base}/none/child`));
  await create(zk, `${base}/ephemeral`, '', CreateMode.EPHEMERAL);
  assert.equal(ownerOf(await exists(zk, `${base}/ephemeral`)), sessionOf(zk), 'owner of an ephemeral znode');
  await refused('NO_CHILDREN_FOR_EPHEMERALS', 'a child of it', create(zk, `${base}/ephemeral/child`));
  const numbers = [];
  for (let step = 0; step < 3; step += 1) {
    const name = await create(zk, `${base}/s-`, '', CreateMode.PERSISTENT_SEQUENTIAL);
    assert.match(name, /\/s-\d{10}$/);
    numbers.push(Number(name.slice(-10)));
  }
  assert.deepEqual(numbers, [numbers[0], numbers[0] + 1, numbers[0] + 2], 'sequence numbers');
  const name = await create(zk, `${base}/es-`, '', CreateMode.EPHEMERAL_SEQUENTIAL);
  assert.equal(ownerOf(await exists(zk, name)), sessionOf(zk), 'owner of an ephemeral sequential znode');
  ok('create of all modes');
}

async function versions(zk, base) {
  const path = `${base}/versions`;
  await create(zk, path, '0');
  assert.equal((await setData(zk, path, '1')).version, 1, 'version after a set');
  assert.equal((await setData(zk, path, '2', 1)).version, 2, 'version after a conditional set');
  await refused('BAD_VERSION', 'set with an old version', setData(zk, path, '3', 1));
  const [data, stat] = await getData(zk, path);
  assert.deepEqual([data.toString(), stat.version], ['2', 2], 'what a failed set leaves');
  assert.ok(zxidOf(stat.mzxid) > zxidOf(stat.czxid), 'mzxid grows');
  await create(zk, `${path}/child`);
  await refused('NOT_EMPTY', 'delete with a child', remove(zk, path));
  await remove(zk, `${path}/child`);
  const emptied = await exists(zk, path);
  assert.deepEqual([emptied.cversion, emptied.numChildren], [2, 0], 'cversion counts creates and deletes');
  await refused('BAD_VERSION', 'delete with an old version', remove(zk, path, 1));
  await remove(zk, path, 2);
  assert.equal(await exists(zk, path), null, 'a deleted znode');
  await refused('NO_NODE', 'get of nothing', getData(zk, path));
  await refused('NO_NODE', 'delete of nothing', remove(zk, path));
  ok('versions');
}

async function lists(zk, base) {
  const path = `${base}/children`;
  await create(zk, path);
  const expected = Array.from({ length: 50 }, (_, index) => `c${String(index).padStart(2, '0')}`);
  for (const name of expected) await create(zk, `${path}/${name}`);
  const [names, stat] = await children(zk, path);
  assert.deepEqual(names.sort(), expected, 'children');
  assert.deepEqual([stat.numChildren, stat.cversion], [50, 50], 'stat with the children');
  await refused('NO_NODE', 'children of nothing', children(zk, `${path}/none`));
  ok('children');
}

async function multi(zk, base) {
  const path = `${base}/multi`;
  await create(zk, path, 'x');
  const good = zk.transaction();
  good.check(path, -1);
  good.create(`${path}/a`, Buffer.from('1'), ACL.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
  good.create(`${path}/a/b`, Buffer.from('2'), ACL.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
  good.create(`${path}/seq-`, Buffer.from('3'), ACL.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT_SEQUENTIAL);
  good.setData(path, Buffer.from('y'), -1);
  good.remove(`${path}/a/b`, -1);
  const [results] = await call(good, 'commit');
  assert.equal(results.length, 6, 'results of a multi');
  assert.deepEqual([results[1].path, results[2].path], [`${path}/a`, `${path}/a/b`], 'paths created by a multi');
  assert.equal(results[4].stat.version, 1, 'version set by a multi');
  const zxids = [(await exists(zk, `${path}/a`)).czxid, (await exists(zk, results[3].path)).czxid];
  const parent = await exists(zk, path);
  assert.deepEqual(zxids, [parent.mzxid, parent.mzxid], 'one zxid for all of a multi');
  ok('multi');
  const bad = zk.transaction();
  bad.create(`${path}/never`, Buffer.from(''), ACL.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
  bad.check(path, 7); // This library sends version 0 of a check as -1, any version.
  bad.remove(`${path}/a`, -1);
  await refused('BAD_VERSION', 'a multi with a failing check', call(bad, 'commit'));
  assert.equal(await exists(zk, `${path}/never`), null, 'a failed multi changes nothing');
  assert.notEqual(await exists(zk, `${path}/a`), null, 'a failed multi changes nothing');
  ok('multi with a failing check');
}

async function acls(zk, base) {
  const path = `${base}/acl`;
  // The digest of user:word, as ZooKeeper's DigestAuthenticationProvider makes it: base64 of SHA-1.
  const digest = await import('node:crypto').then(({ createHash }) =>
    createHash('sha1').update('user:word').digest('base64'),
  );
  const all = (scheme, id) => [new ACL(Permission.ALL, new Id(scheme, id))];
  await create(zk, path, 'secret', CreateMode.PERSISTENT, all('digest', `user:${digest}`));
  await refused('NO_AUTH', 'get without rights', getData(zk, path));
  await refused('NO_AUTH', 'set without rights', setData(zk, path, ''));
  const owner = (await connect()).client;
  owner.addAuthInfo('digest', Buffer.from('user:word'));
  assert.equal((await getData(owner, path))[0].toString(), 'secret', 'get with rights');
  const wrong = (await connect()).client;
  wrong.addAuthInfo('digest', Buffer.from('user:other'));
  await refused('NO_AUTH', 'get with a wrong password', getData(wrong, path));
  await create(owner, `${base}/auth`, '', CreateMode.PERSISTENT, ACL.CREATOR_ALL_ACL);
  const [list] = await call(owner, 'getACL', `${base}/auth`);
  assert.deepEqual(
    list.map((acl) => [acl.permission, acl.id.scheme, acl.id.id]),
    [[Permission.ALL, 'digest', `user:${digest}`]],
    'scheme auth becomes who asks',
  );
  const readable = [new ACL(Permission.READ | Permission.ADMIN, Id.ANYONE_ID_UNSAFE)];
  await create(zk, `${base}/readable`, '', CreateMode.PERSISTENT, readable);
  await refused('NO_AUTH', 'set of what is only readable', setData(zk, `${base}/readable`, ''));
  const [stat] = await call(zk, 'setACL', `${base}/readable`, ACL.OPEN_ACL_UNSAFE, 0);
  assert.equal(stat.aversion, 1, 'aversion after setACL');
  const again = call(zk, 'setACL', `${base}/readable`, ACL.OPEN_ACL_UNSAFE, 0);
  await refused('BAD_VERSION', 'setACL with an old version', again);
  await create(zk, `${base}/local`, 'here', CreateMode.PERSISTENT, all('ip', '127.0.0.1'));
  assert.equal((await getData(zk, `${base}/local`))[0].toString(), 'here', 'an address that matches');
  await create(zk, `${base}/elsewhere`, '', CreateMode.PERSISTENT, all('ip', '10.1.0.0/16'));
  await refused('NO_AUTH', 'an address that does not match', getData(zk, `${base}/elsewhere`));
  owner.close();
  wrong.close();
  ok('ACLs: world, auth, digest, ip');
}

async function watches(zk, other, base) {
  const path = `${base}/watched`;
  const events = new Events();
  const listed = new Events();
  assert.equal(await exists(zk, path, events.watch), null, 'nothing yet');
  await create(other, path);
  await events.expect(created(path));
  await getData(zk, path, events.watch);
  await setData(other, path, '1');
  await events.expect(changed(path));
  await setData(other, path, '2');
  await children(zk, path, listed.watch);
  await create(other, `${path}/child`);
  await listed.expect(childrenChanged(path));
  await remove(other, `${path}/child`);
  await exists(zk, path, events.watch);
  await setData(other, path, '3');
  await events.expect(changed(path));
  await getData(zk, path, events.watch);
  await children(zk, path, listed.watch);
  await remove(other, path);
  await events.expect(deleted(path));
  await listed.expect(deleted(path));
  ok('one-shot watches of all kinds');
  await create(zk, path, '0');
  for (let round = 1; round <= 20; round += 1) {
    await getData(zk, path, events.watch);
    await setData(other, path, String(round));
    await waitUntil('the change', async () => (await getData(zk, path))[0].toString() === String(round));
    assert.equal(events.count, 1, 'a change was seen before its watch event');
    await events.expect(changed(path));
  }
  ok('a watch event comes before the reply that shows its change');
}

async function manyAtOnce(zk, base) {
  const path = `${base}/pipeline`;
  await create(zk, path);
  const order = [];
  await Promise.all(
    Array.from({ length: 500 }, async (_, index) => {
      await create(zk, `${path}/p${index}`);
      order.push(index);
    }),
  );
  assert.deepEqual(
    order,
    Array.from({ length: 500 }, (_, index) => index),
    'answers of one session come in order',
  );
  const stat = await exists(zk, path);
  assert.deepEqual([stat.numChildren, stat.cversion], [500, 500], '500 creates in flight');
  const big = randomBytes(700_000);
  await create(zk, `${path}/big`, big);
  assert.ok((await getData(zk, `${path}/big`))[0].equals(big), 'a large value comes back whole');
  ok('pipelining, and a large value');
}

async function expiry(zk, base) {
  const path = `${base}/held`;
  const program = fileURLToPath(import.meta.url);
  const holder = spawn(process.execPath, [program, connectString, '--hold', path], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const lines = createInterface({ input: holder.stdout })[Symbol.asyncIterator]();
  try {
    assert.equal((await lines.next()).value, 'held', 'the other process');
    const events = new Events();
    await setData(zk, base, ''); // This library has no sync; a write of its own brings its server as far as that.
    assert.notEqual(await exists(zk, path, events.watch), null, 'the ephemeral znode is there');
    holder.kill('SIGSTOP');
    await events.expect(deleted(path));
    holder.kill('SIGCONT');
    assert.equal((await lines.next()).value, 'expired', 'the frozen process, when it wakes');
  } finally {
    holder.kill('SIGKILL');
  }
  ok('expiry');
}

async function hold(path) {
  const session = await connect(2000);
  await create(session.client, path, '', CreateMode.EPHEMERAL);
  console.log('held');
  await waitUntil('the session to expire', () => session.expired);
  console.log('expired');
}

/** Repeats a call that is safe to repeat while connections are being made again. */
async function insist(what, attempt) {
  await waitUntil(what, () =>
    attempt().then(
      () => true,
      (error) => {
        if (error.getCode?.() === Exception.NODE_EXISTS) return true;
        if (error.getCode?.() === Exception.CONNECTION_LOSS) return false;
        throw error;
      },
    ),
  );
}

async function serverGoesAway(base) {
  const session = await connect(10_000);
  const zk = session.client;
  const other = (await connect(10_000)).client;
  const id = sessionOf(zk);
  const { remoteAddress, remotePort } = zk.connectionManager.socket;
  const address = `${remoteAddress}:${remotePort}`;
  await create(zk, `${base}/mine`, '', CreateMode.EPHEMERAL);
  await create(zk, `${base}/seen`, '0');
  const data = new Events();
  const listed = new Events();
  const absence = new Events();
  await getData(zk, `${base}/seen`, data.watch);
  await children(zk, `${base}/seen`, listed.watch);
  await exists(zk, `${base}/unborn`, absence.watch);
  const before = session.disconnects;
  await ask(`stop ${address}`);
  await waitUntil('the connection to be lost', () => session.disconnects > before);
  await waitUntil('the session to be connected again', () => session.connected);
  assert.equal(sessionOf(zk), id, 'the session is the same');
  await insist('exists', async () => {
    assert.equal(ownerOf(await exists(zk, `${base}/mine`)), id, 'the ephemeral znode');
  });
  await insist('set', () => setData(other, `${base}/seen`, '1'));
  await data.expect(changed(`${base}/seen`));
  await insist('create', () => create(other, `${base}/seen/child`));
  await listed.expect(childrenChanged(`${base}/seen`));
  await insist('create', () => create(other, `${base}/unborn`));
  await absence.expect(created(`${base}/unborn`));
  assert.equal(session.expired, false, 'the session never expired');
  ok('a session re-attaches to another server with its ephemeral znode and its watches');
  await ask(`start ${address}`);
  zk.close();
  await waitUntil('the ephemeral znode to go', async () => (await exists(other, `${base}/mine`)) === null);
  ok('closing a session removes its ephemeral znodes');
  other.close();
}

async function throughLeaderKill(base) {
  const session = await connect(10_000);
  const zk = session.client;
  const id = sessionOf(zk);
  const guard = new Events();
  await create(zk, `${base}/guard`);
  await create(zk, `${base}/alive`, '', CreateMode.EPHEMERAL);
  await getData(zk, `${base}/guard`, guard.watch);
  const acknowledged = new Map();
  const unknown = new Set();
  let killed = false;
  let asking = null;
  const deadline = performance.now() + 2 * patienceMs;
  for (let number = 1, after = 0; after < 200; number += 1) {
    assert.ok(performance.now() < deadline, 'writes go on after the leader was killed');
    if (acknowledged.size >= 100 && asking === null) {
      asking = ask('kill-leader').then(() => {
        killed = true;
      });
    }
    const wasKilled = killed;
    try {
      acknowledged.set(number, await create(zk, `${base}/w-`, String(number), CreateMode.PERSISTENT_SEQUENTIAL));
      if (wasKilled) after += 1;
    } catch (error) {
      assert.equal(error.getCode?.(), Exception.CONNECTION_LOSS, `an error that a client may see: ${error}`);
      unknown.add(number);
      console.log(`error ${number} ${error.name}`);
      await waitUntil('the client to be connected', () => session.connected);
    }
  }
  await asking;
  assert.equal(sessionOf(zk), id, 'the session is the same');
  assert.equal(session.expired, false, 'the session never expired');
  await insist('a write after which this server has all that was acknowledged', () => setData(zk, base, ''));
  const found = new Map();
  for (const name of (await children(zk, base))[0].filter((child) => child.startsWith('w-'))) {
    const number = Number((await getData(zk, `${base}/${name}`))[0].toString());
    assert.ok(!found.has(number), `write ${number} happened once`);
    assert.ok(acknowledged.has(number) || unknown.has(number), `write ${number} was asked for`);
    found.set(number, `${base}/${name}`);
  }
  for (const [number, path] of acknowledged) assert.equal(found.get(number), path, `acknowledged write ${number}`);
  await setData(zk, `${base}/guard`, '1');
  await guard.expect(changed(`${base}/guard`));
  assert.equal(ownerOf(await exists(zk, `${base}/alive`)), id, 'the ephemeral znode');
  console.log(`acknowledged ${acknowledged.size} unknown ${unknown.size}`);
  zk.close();
  ok('through a leader kill');
}

async function main() {
  if (flags.includes('--hold')) return hold(flags[flags.indexOf('--hold') + 1]);
  const zk = (await connect()).client;
  const base = await create(zk, '/node-', '', CreateMode.PERSISTENT_SEQUENTIAL);
  if (flags.includes('--through-leader-kill')) {
    zk.close();
    return throughLeaderKill(base);
  }
  const other = (await connect()).client;
  await modes(zk, base);
  await versions(zk, base);
  await lists(zk, base);
  await multi(zk, base);
  await acls(zk, base);
  await watches(zk, other, base);
  await manyAtOnce(zk, base);
  await expiry(zk, base);
  if (flags.includes('--control')) await serverGoesAway(base);
  zk.close();
  other.close();
  ok('all');
}

main().then(
  () => process.exit(0),
  (error) => {
    console.error(error);
    console.log(`FAILED ${error.message}`);
    process.exit(1);
  },
);
