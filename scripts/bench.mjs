// Measures this ensemble against Apache ZooKeeper's: both are up, the same raw-socket generator loads one and then the other in slices of
// two seconds (A B, B A, …), and only ratios of neighbouring slices count, because figures of one machine drift by more than they differ.
// It prints the table of throughput, latency, server CPU and memory, and the write gap when the leader dies or freezes.
//
// usage: npm run bench [-- --quick] [--json] [--self] [--pairs N] [--slice-ms N] [--only ROW,ROW] [--no-gaps]
//   --self: Apache ZooKeeper against itself (A/A), which shows the instrument's own error.

import { fork } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { Ensemble } from './ensemble.mjs';
import { zookeeperServer } from './tools.mjs';

const folder = dirname(fileURLToPath(import.meta.url));
const clockTicksPerSecond = 100;
const connections = 60;

const rows = [
  { name: 'getData, depth 1', load: 'get', depth: 1, connections },
  { name: 'getData, depth 16', load: 'get', depth: 16, connections },
  { name: 'setData, depth 1', load: 'set', depth: 1, connections },
  { name: 'setData, depth 16', load: 'set', depth: 16, connections },
  { name: 'create, depth 8', load: 'create', depth: 8, connections },
  { name: '90 % get, 10 % set, depth 1', load: 'mix', depth: 1, connections },
  { name: 'watch fan-out, 500 watchers', load: 'watch', depth: 1, connections: 500 },
  { name: 'one lonely client, set', load: 'set', depth: 1, connections: 1 },
  { name: 'one lonely client, get', load: 'get', depth: 1, connections: 1 },
];

function readOptions() {
  const { values } = parseArgs({
    options: {
      quick: { type: 'boolean', default: false },
      json: { type: 'boolean', default: false },
      self: { type: 'boolean', default: false },
      'no-gaps': { type: 'boolean', default: false },
      pairs: { type: 'string' },
      'slice-ms': { type: 'string' },
      only: { type: 'string' },
    },
  });
  const wanted = values.only?.split(',');
  return {
    json: values.json,
    self: values.self,
    gaps: !values['no-gaps'],
    pairs: Number(values.pairs ?? (values.quick ? 2 : 4)),
    sliceMs: Number(values['slice-ms'] ?? (values.quick ? 500 : 2000)),
    warmUpMs: values.quick ? 500 : 5000,
    rounds: values.quick ? 1 : 3,
    rows: wanted === undefined ? rows : rows.filter((row) => wanted.some((word) => row.name.includes(word))),
  };
}

class Generator {
  #child = fork(join(folder, 'bench-generator.mjs'), { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });

  ask(verb, details = {}) {
    return new Promise((done, fail) => {
      const onMessage = (message) => {
        this.#child.removeListener('exit', onExit);
        if (message.error === undefined) done(message.answer);
        else fail(new Error(`the generator: ${message.error}`));
      };
      const onExit = () => {
        this.#child.removeListener('message', onMessage);
        fail(new Error('the generator ended'));
      };
      this.#child.once('message', onMessage);
      this.#child.once('exit', onExit);
      this.#child.send({ verb, ...details });
    });
  }

  stop() {
    this.#child.kill('SIGKILL');
  }
}

const pidsOf = (ensemble) =>
  ensemble.servers.flatMap((server) => (server.process === null ? [] : [server.process.pid]));

/** User and system time of all servers, in seconds. Fields 14 and 15, counted behind the name, which may hold spaces. */
function cpuSeconds(ensemble) {
  return pidsOf(ensemble).reduce((sum, pid) => {
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ').at(-1).split(' ');
    return sum + (Number(fields[11]) + Number(fields[12])) / clockTicksPerSecond;
  }, 0);
}

function memoryMegabytes(ensemble, field) {
  return pidsOf(ensemble).reduce((sum, pid) => {
    const status = readFileSync(`/proc/${pid}/status`, 'utf8');
    return sum + Number(new RegExp(`^${field}:\\s+(\\d+)`, 'm').exec(status)?.[1]) / 1024;
  }, 0);
}

function percentile(counts, share) {
  const total = counts.reduce((sum, count) => sum + count, 0);
  let left = total * share;
  for (const [index, count] of counts.entries()) {
    left -= count;
    if (left <= 0 && count > 0) return (2 ** ((index + 0.5) / 32) - 1) / 1000;
  }
  return 0;
}

const median = (values) => {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
};

async function slice(generator, side, row, ms) {
  const cpuBefore = cpuSeconds(side.ensemble);
  const result = await generator.ask('run', { target: side.name, ...row, ms });
  const cpu = cpuSeconds(side.ensemble) - cpuBefore;
  return { ...result, cpu, perSecond: (result.operations * 1000) / result.elapsedMs };
}

function summarise(slices) {
  const counts = new Array(1024).fill(0);
  for (const one of slices) for (const [index, count] of one.counts.entries()) counts[index] += count;
  const operations = slices.reduce((sum, one) => sum + one.operations, 0);
  return {
    perSecond: median(slices.map((one) => one.perSecond)),
    p50: percentile(counts, 0.5),
    p99: percentile(counts, 0.99),
    cpuPer100k: (slices.reduce((sum, one) => sum + one.cpu, 0) / operations) * 100_000,
    errors: slices.reduce((sum, one) => sum + one.errors, 0),
  };
}

/** Slices of one row on all sides, in alternating order. With two sides, the ratios are second to first, pair by pair. */
async function measureRow(generator, sides, row, options) {
  const slices = new Map(sides.map((side) => [side, []]));
  for (const side of sides) await slice(generator, side, row, Math.min(options.sliceMs, 500));
  for (let pair = 0; pair < options.pairs; pair += 1) {
    for (const side of pair % 2 === 0 ? sides : sides.toReversed()) {
      slices.get(side).push(await slice(generator, side, row, options.sliceMs));
    }
  }
  const [first, second] = sides;
  const ratios =
    second === undefined
      ? []
      : slices.get(second).map((one, pair) => one.perSecond / slices.get(first)[pair].perSecond);
  return {
    name: row.name,
    sides: sides.map((side) => ({ name: side.name, ...summarise(slices.get(side)) })),
    ratio: ratios.length === 0 ? null : median(ratios),
    ratioMin: ratios.length === 0 ? null : Math.min(...ratios),
    ratioMax: ratios.length === 0 ? null : Math.max(...ratios),
  };
}

async function measureGap(generator, side, fault) {
  const { ensemble } = side;
  await ensemble.waitUntilReady();
  const leader = await ensemble.waitForLeader();
  // Writers sit on every server; those of the leader's lose their connection, as a third of all clients would.
  const ports = ensemble.servers.map((server) => server.clientPort);
  await generator.ask('gapStart', { target: side.name, ports });
  if (fault === 'killed') await ensemble.kill(leader);
  else ensemble.pause(leader);
  const { gapMs } = await generator.ask('gapEnd', { timeoutMs: 40_000 });
  if (fault === 'killed') await ensemble.startServer(leader);
  else ensemble.resume(leader);
  await ensemble.waitUntilReady();
  return gapMs;
}

async function measureGaps(generator, sides, options) {
  const gaps = [];
  for (const fault of ['killed', 'frozen']) {
    const found = new Map(sides.map((side) => [side, []]));
    for (let round = 0; round < options.rounds; round += 1) {
      for (const side of sides) found.get(side).push(await measureGap(generator, side, fault));
    }
    gaps.push({ fault, sides: sides.map((side) => ({ name: side.name, gapMs: found.get(side) })) });
  }
  return gaps;
}

const figure = (value, digits = 1) => (value === null ? '-' : value.toFixed(digits));
const thousands = (perSecond) => `${(perSecond / 1000).toFixed(perSecond < 10_000 ? 2 : 1)} k/s`;

function printRow(row) {
  for (const side of row.sides) {
    const cells = [
      row.name.padEnd(30),
      side.name.padEnd(12),
      thousands(side.perSecond).padStart(11),
      `${figure(side.p50, 2)} / ${figure(side.p99, 2)} ms`.padStart(20),
      `${figure(side.cpuPer100k, 2)} s`.padStart(10),
      side.errors === 0 ? '' : `${side.errors} ERRORS`,
    ];
    console.log(cells.join('  '));
  }
  if (row.ratio === null) return;
  const range = `${figure(row.ratioMin, 2)} … ${figure(row.ratioMax, 2)}`;
  const [first, second] = row.sides;
  const cpu = second.cpuPer100k / first.cpuPer100k;
  const latency = second.p99 / first.p99;
  console.log(
    `${''.padEnd(30)}  ${`${figure(row.ratio, 2)} × throughput (${range}), ${figure(latency, 2)} × p99, ${figure(cpu, 2)} × CPU`}`,
  );
}

async function startSides(options) {
  const zookeeper = await zookeeperServer();
  const reference = { kind: 'zookeeper', zookeeper, jvm: ['-Xms1g', '-Xmx1g'] };
  // ZooKeeper's own defaults, for both: they decide how long a silent leader is believed.
  const config = { tickTime: 2000, initLimit: 10, syncLimit: 5 };
  const wanted = [];
  if (zookeeper.available) wanted.push(['ZooKeeper', { ...reference, config }]);
  else console.error(`Apache ZooKeeper is missing, so there is nothing to compare with: ${zookeeper.reason}`);
  if (options.self && !zookeeper.available) throw new Error('--self needs Apache ZooKeeper');
  if (options.self) wanted.push(['ZooKeeper (2)', { ...reference, config }]);
  else if (existsSync(join(folder, '..', 'packages', 'server', 'dist', 'main.js')))
    wanted.push(['Quorate', { kind: 'quorate', config }]);
  else throw new Error('Quorate is not built: npm run build');
  const sides = [];
  try {
    for (const [name, settings] of wanted) sides.push({ name, ensemble: await Ensemble.start(settings) });
  } catch (error) {
    await Promise.all(sides.map((side) => side.ensemble.stop()));
    throw error;
  }
  return sides;
}

async function measure(options, sides, generator) {
  for (const side of sides) {
    const ports = side.ensemble.servers.map((server) => server.clientPort);
    await generator.ask('open', { target: side.name, ports, connections });
  }
  // The JVM needs its seconds; so does V8.
  for (const load of ['get', 'set']) {
    for (const side of sides) await slice(generator, side, { load, depth: 4, connections }, options.warmUpMs);
  }
  const measured = [];
  for (const row of options.rows) {
    const found = await measureRow(generator, sides, row, options);
    measured.push(found);
    if (!options.json) printRow(found);
  }
  const memory = sides.map((side) => ({
    name: side.name,
    residentMb: memoryMegabytes(side.ensemble, 'VmRSS'),
    peakMb: memoryMegabytes(side.ensemble, 'VmHWM'),
  }));
  await generator.ask('close');
  if (!options.json) {
    for (const one of memory) {
      console.log(
        `memory of three servers after this: ${one.name} ${figure(one.residentMb, 0)} MB, peak ${figure(one.peakMb, 0)} MB`,
      );
    }
  }
  const gaps = options.gaps ? await measureGaps(generator, sides, options) : [];
  if (!options.json) {
    for (const gap of gaps) {
      const cells = gap.sides.map((side) => `${side.name} ${side.gapMs.map((ms) => figure(ms, 0)).join(', ')} ms`);
      console.log(`write gap, leader ${gap.fault}: ${cells.join('; ')}`);
    }
  }
  return { rows: measured, memory, gaps };
}

async function main() {
  const options = readOptions();
  const generator = new Generator();
  let sides = [];
  const stop = async () => {
    generator.stop();
    await Promise.all(sides.map((side) => side.ensemble.stop()));
  };
  process.once('SIGINT', () => stop().then(() => process.exit(130)));
  try {
    sides = await startSides(options);
    if (!options.json) {
      console.log(
        `${options.pairs} pairs of slices of ${options.sliceMs} ms, ${connections} connections, ${valueBytes()} bytes\n`,
      );
      console.log(
        `${'load'.padEnd(30)}  ${'ensemble'.padEnd(12)}  ${'throughput'.padStart(11)}  ${'p50 / p99'.padStart(20)}  ${'CPU / 100k'.padStart(10)}`,
      );
    }
    const result = await measure(options, sides, generator);
    if (options.json) console.log(JSON.stringify({ options, ...result }, null, 2));
  } finally {
    await stop();
  }
}

const valueBytes = () => 128;

try {
  await main();
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
}
