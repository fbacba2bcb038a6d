// The load generator of bench.mjs, a process of its own so that it shares no event loop with anything it measures. It speaks ZooKeeper's
// client protocol on raw sockets with prebuilt frames: no promise, closure or parse per request, one write per connection and turn.
// It is told what to do by messages, answers each with one message, and knows nothing of ensembles or processes.

import { connect } from 'node:net';

const Op = { create: 1, getData: 4, setData: 5, ping: 11 };
const headerBytes = 8;
const sessionTimeoutMs = 30_000;
const pingEveryMs = 4_000;
const openTimeoutMs = 30_000;
const drainTimeoutMs = 15_000;
const handshakeTimeoutMs = 250;
const valueBytes = 128;

/** Latencies in logarithmic buckets, 32 to the octave of a microsecond: an error of about two per cent, and no memory per request. */
class Histogram {
  counts = new Uint32Array(1024);
  total = 0;

  add(ms) {
    this.counts[Math.min(1023, Math.floor(Math.log2(ms * 1000 + 1) * 32))] += 1;
    this.total += 1;
  }
}

function frame(xid, op, ...fields) {
  const body = Buffer.concat([int(xid), int(op), ...fields]);
  return Buffer.concat([int(body.length), body]);
}

function int(value) {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32BE(value);
  return bytes;
}

const buffer = (bytes) => Buffer.concat([int(bytes.length), bytes]);
const string = (text) => buffer(Buffer.from(text));
const openAcl = Buffer.concat([int(1), int(31), string('world'), string('anyone')]);
const value = Buffer.alloc(valueBytes, 0x71);

const getFrame = (path, watch) => frame(0, Op.getData, string(path), Buffer.from([watch ? 1 : 0]));
const setFrame = (path) => frame(0, Op.setData, string(path), buffer(value), int(-1));
const createFrame = (path) => frame(0, Op.create, string(path), buffer(value), openAcl, int(0));
const pingFrame = frame(-2, Op.ping);

function handshake(session) {
  const body = Buffer.alloc(45);
  body.writeInt32BE(0, 0);
  body.writeBigInt64BE(0n, 4);
  body.writeInt32BE(sessionTimeoutMs, 12);
  body.writeBigInt64BE(session.id, 16);
  body.writeInt32BE(16, 24);
  session.password.copy(body, 28);
  return Buffer.concat([int(body.length), body]);
}

const newSession = () => ({ id: 0n, password: Buffer.alloc(16) });

/** One socket and one session. `onReplies(count, now)` is told of replies, `onEvent(now)` of watch events. */
class Connection {
  constructor(port) {
    this.port = port;
    this.session = newSession();
    this.socket = null;
    this.rest = null;
    this.ready = false;
    this.xid = 1;
    this.errors = 0;
    this.inFlight = 0;
    this.sentAt = new Float64Array(64);
    this.head = 0;
    this.tail = 0;
    this.onReplies = null;
    this.onEvent = null;
    this.onReady = null;
    this.onClosed = null;
  }

  open() {
    this.rest = null;
    this.ready = false;
    this.inFlight = 0;
    this.head = 0;
    this.tail = 0;
    const socket = connect({ port: this.port, host: '127.0.0.1', noDelay: true });
    this.socket = socket;
    socket.on('connect', () => socket.write(handshake(this.session)));
    socket.on('data', (chunk) => this.onData(chunk));
    socket.on('error', () => {});
    socket.on('close', () => {
      this.ready = false;
      if (this.socket === socket) this.onClosed?.();
    });
  }

  /** A frozen server accepts a connection and never answers it; whoever waits there longer misses the new leader. */
  openOrLeave(timeoutMs) {
    this.open();
    const { socket } = this;
    setTimeout(() => {
      if (this.socket === socket && !this.ready) socket.destroy();
    }, timeoutMs);
  }

  close() {
    this.onClosed = null;
    this.socket?.destroy();
  }

  /** Sends `count` copies of a frame, each with its own xid, in one write. */
  send(template, count, now) {
    const size = template.length;
    const bytes = Buffer.allocUnsafe(size * count);
    for (let index = 0; index < count; index += 1) {
      template.copy(bytes, index * size);
      bytes.writeInt32BE(this.xid, index * size + 4);
      this.xid = this.xid === 0x7fff_ffff ? 1 : this.xid + 1;
      this.sentAt[this.tail & 63] = now;
      this.tail += 1;
    }
    this.inFlight += count;
    this.socket.write(bytes);
  }

  onData(chunk) {
    const data = this.rest === null ? chunk : Buffer.concat([this.rest, chunk]);
    const now = performance.now();
    let at = 0;
    let replies = 0;
    while (at + 4 <= data.length) {
      const length = data.readInt32BE(at);
      if (at + 4 + length > data.length) break;
      if (!this.ready) this.onHandshake(data, at + 4);
      else replies += this.onFrame(data, at + 4, now);
      at += 4 + length;
    }
    this.rest = at === data.length ? null : data.subarray(at);
    if (replies > 0) this.onReplies?.(replies, now);
  }

  onHandshake(data, at) {
    if (data.readInt32BE(at + 4) <= 0) {
      this.session = newSession(); // The old one is gone; the close that follows brings a new one.
      return;
    }
    this.session = { id: data.readBigInt64BE(at + 8), password: Buffer.from(data.subarray(at + 20, at + 36)) };
    this.ready = true;
    this.onReady?.();
  }

  onFrame(data, at, now) {
    const xid = data.readInt32BE(at);
    if (xid === -1) this.onEvent?.(now);
    if (xid < 0) return 0;
    if (data.readInt32BE(at + 12) !== 0) this.errors += 1;
    this.inFlight -= 1;
    this.histogram?.add(now - this.sentAt[this.head & 63]);
    this.head += 1;
    return 1;
  }
}

/** A condition that callbacks bring about, with a deadline; only used outside of measured time. */
function until(what, arm, timeoutMs = openTimeoutMs) {
  return new Promise((done, fail) => {
    const timer = setTimeout(() => fail(new Error(`waited ${timeoutMs} ms for ${what}`)), timeoutMs);
    arm(() => {
      clearTimeout(timer);
      done();
    });
  });
}

async function openMany(ports, count) {
  const opened = Array.from({ length: count }, (_, index) => new Connection(ports[index % ports.length]));
  let waiting = count;
  await until(`${count} sessions`, (done) => {
    for (const connection of opened) {
      connection.onReady = () => {
        waiting -= 1;
        if (waiting === 0) done();
      };
      connection.open();
    }
  });
  for (const connection of opened) {
    connection.onReady = null;
    connection.onClosed = () => {
      connection.errors += 1;
    };
  }
  return opened;
}

/** One request at a time, for preparation; the error code of the reply is not looked at, a later read is. */
function once(connection, template) {
  return until('a reply', (done) => {
    connection.onReplies = () => {
      connection.onReplies = null;
      done();
    };
    connection.send(template, 1, performance.now());
  });
}

const targets = new Map();

async function open({ target, ports, connections }) {
  const opened = await openMany(ports, connections);
  const first = opened[0];
  const base = `/bench-${target}-${process.pid}`;
  await once(first, createFrame(base));
  await once(first, createFrame(`${base}/read`));
  await once(first, createFrame(`${base}/watched`));
  for (const index of opened.keys()) {
    await once(first, createFrame(`${base}/w${index}`));
    await once(first, createFrame(`${base}/c${index}`));
  }
  const state = { base, ports, all: opened, watchers: [], created: 0 };
  targets.set(target, state);
  return {};
}

/** What one connection sends next, `count` times. */
const loads = {
  get(state) {
    const template = getFrame(`${state.base}/read`, false);
    return (connection, _index, count, now) => connection.send(template, count, now);
  },
  set(state) {
    const templates = state.all.map((_, index) => setFrame(`${state.base}/w${index}`));
    return (connection, index, count, now) => connection.send(templates[index], count, now);
  },
  mix(state) {
    const read = getFrame(`${state.base}/read`, false);
    const writes = state.all.map((_, index) => setFrame(`${state.base}/w${index}`));
    let turn = 0;
    return (connection, index, count, now) => {
      for (let one = 0; one < count; one += 1) {
        turn += 1;
        connection.send(turn % 10 === 0 ? writes[index] : read, 1, now);
      }
    };
  },
  create(state) {
    const digits = 9;
    const templates = state.all.map((_, index) => createFrame(`${state.base}/c${index}/${'0'.repeat(digits)}`));
    // The name's digits end where the value's length begins.
    const nameEnd = templates.map((_, index) => 4 + headerBytes + 4 + `${state.base}/c${index}/`.length + digits);
    return (connection, index, count, now) => {
      for (let one = 0; one < count; one += 1) {
        let number = state.created++;
        for (let digit = 1; digit <= digits; digit += 1) {
          templates[index][nameEnd[index] - digit] = 0x30 + (number % 10);
          number = Math.floor(number / 10);
        }
        connection.send(templates[index], 1, now);
      }
    };
  },
};

/** Keeps `depth` requests in flight on each connection for `ms`, then waits for the last reply. */
async function run({ target, load, depth, connections, ms }) {
  const state = targets.get(target);
  if (load === 'watch') return runWatches(state, connections, ms);
  const used = state.all.slice(0, connections);
  const send = loads[load](state);
  const histogram = new Histogram();
  let running = true;
  let replies = 0;
  let inFlight = 0;
  const errorsBefore = used.reduce((sum, connection) => sum + connection.errors, 0);
  const started = performance.now();
  let finished = started;
  await until(
    'the last reply of a slice',
    (done) => {
      used.forEach((connection, index) => {
        connection.histogram = histogram;
        connection.onReplies = (count, now) => {
          replies += count;
          inFlight -= count;
          if (running) {
            inFlight += count;
            send(connection, index, count, now);
          } else if (inFlight === 0) {
            finished = now;
            done();
          }
        };
        inFlight += depth;
        send(connection, index, depth, performance.now());
      });
      setTimeout(() => {
        running = false;
      }, ms);
    },
    ms + drainTimeoutMs,
  );
  for (const connection of used) {
    connection.onReplies = null;
    connection.histogram = null;
  }
  const errors = used.reduce((sum, connection) => sum + connection.errors, 0) - errorsBefore;
  return { operations: replies, errors, elapsedMs: finished - started, counts: [...histogram.counts] };
}

/** Every watcher reads the znode with a watch; one set fires all of them; each reads again with a watch; then the next set. */
async function runWatches(state, count, ms) {
  if (state.watchers.length < count)
    state.watchers.push(...(await openMany(state.ports, count - state.watchers.length)));
  const watchers = state.watchers.slice(0, count);
  const writer = state.all[0];
  const arm = getFrame(`${state.base}/watched`, true);
  const change = setFrame(`${state.base}/watched`);
  const histogram = new Histogram();
  let running = true;
  let events = 0;
  let armed = 0;
  let changedAt = 0;
  const started = performance.now();
  let finished = started;
  await until(
    'the last watch event of a slice',
    (done) => {
      for (const watcher of watchers) {
        watcher.onReplies = (_count, now) => {
          armed += 1;
          if (armed < count) return;
          armed = 0;
          finished = now;
          if (!running) return done();
          changedAt = performance.now();
          writer.send(change, 1, changedAt);
        };
        watcher.onEvent = (now) => {
          events += 1;
          histogram.add(now - changedAt);
          watcher.send(arm, 1, now);
        };
        watcher.send(arm, 1, performance.now());
      }
      setTimeout(() => {
        running = false;
      }, ms);
    },
    ms + drainTimeoutMs,
  );
  await disarm(watchers, writer, change);
  return { operations: events, errors: 0, elapsedMs: finished - started, counts: [...histogram.counts] };
}

/** The watches of the last round are still armed: fired and seen now, they are not counted in a later slice. */
function disarm(watchers, writer, change) {
  let left = watchers.length;
  return until('the watches of the last round', (done) => {
    for (const watcher of watchers) {
      watcher.onReplies = null;
      watcher.onEvent = () => {
        watcher.onEvent = null;
        left -= 1;
        if (left === 0) done();
      };
    }
    writer.send(change, 1, performance.now());
  });
}

/** Writers that go on through a fault, each on its own server, re-attaching as a client would; the longest silence of all is the gap. */
let gap = null;

async function gapStart({ ports, target }) {
  const base = `/gap-${target}-${process.pid}-${Date.now()}`;
  const preparing = new Connection(ports[0]);
  await until('a session', (done) => {
    preparing.onReady = done;
    preparing.open();
  });
  await once(preparing, createFrame(base));
  preparing.close();
  const template = setFrame(base);
  gap = { last: performance.now(), longest: 0, acknowledged: 0, connections: [], running: true };
  const acknowledged = (now) => {
    gap.acknowledged += 1;
    gap.longest = Math.max(gap.longest, now - gap.last);
    gap.last = now;
  };
  for (const index of ports.keys()) {
    const connection = new Connection(ports[index]);
    let next = index;
    connection.onReady = () => connection.send(template, 1, performance.now());
    connection.onReplies = (_count, now) => {
      if (connection.errors === 0) acknowledged(now);
      connection.errors = 0;
      if (gap.running) connection.send(template, 1, now);
    };
    connection.onClosed = () => {
      if (!gap.running) return;
      next += 1;
      connection.port = ports[next % ports.length];
      setTimeout(() => gap.running && connection.openOrLeave(handshakeTimeoutMs), 5);
    };
    connection.open();
    gap.connections.push(connection);
  }
  await until('the first write', (done) => {
    const check = setInterval(() => {
      if (gap.acknowledged < 100) return;
      clearInterval(check);
      done();
    }, 5);
  });
  gap.longest = 0;
  return {};
}

/** Ends when writes have gone on for a second after the silence, or at the deadline. */
async function gapEnd({ timeoutMs }) {
  const since = performance.now();
  while (performance.now() - since < timeoutMs) {
    const before = gap.acknowledged;
    await new Promise((done) => setTimeout(done, 1000));
    if (gap.longest > 0 && gap.acknowledged - before > 50) break;
  }
  gap.running = false;
  const silence = Math.max(gap.longest, performance.now() - gap.last > 1500 ? performance.now() - gap.last : 0);
  for (const connection of gap.connections) connection.close();
  return { gapMs: silence };
}

function close() {
  for (const state of targets.values()) for (const one of [...state.all, ...state.watchers]) one.close();
  targets.clear();
  return {};
}

const ping = setInterval(() => {
  for (const state of targets.values()) {
    for (const one of [...state.all, ...state.watchers])
      if (one.ready && one.inFlight === 0) one.socket.write(pingFrame);
  }
}, pingEveryMs);
ping.unref();

const verbs = { open, run, gapStart, gapEnd, close };
process.on('message', async (message) => {
  try {
    process.send({ answer: await verbs[message.verb](message) });
  } catch (error) {
    process.send({ error: error.message });
  }
});
process.on('disconnect', () => process.exit(0));
