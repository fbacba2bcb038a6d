// npm test: everything that shows that Quorate works, in stages, cheapest first; all stages run, also behind a failed one. It installs and
// builds what is missing, gives each stage a time box, and closes with the one line `N passed, N failed` that adds them all.
// With CI=true the budgets are larger and a missing tool is a failure. It ends what its stages left running, and nothing else.
//
// usage: npm test [-- --only STAGE,STAGE] [--list]

import './node-version.mjs';
import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { build, installPackages, root, SetupError } from './setup.mjs';

const isCi = process.env.CI === 'true';
const minute = 60_000;
/** Never more than this in all, whatever the boxes of the stages add up to; what has not run then has failed. */
const totalMsMax = (isCi ? 44 : 30) * minute;

const bin = (...path) => join(root, 'node_modules', ...path);
const quorate = join(root, 'packages', 'cli', 'bin', 'quorate.mjs');

const vitest = (project) => (report) => [
  bin('vitest', 'vitest.mjs'),
  'run',
  '--config',
  'test/vitest.config.ts',
  '--project',
  project,
  '--reporter=default',
  '--reporter=json',
  `--outputFile.json=${report}`,
];
const simulate =
  (...args) =>
  () => [quorate, 'simulate', ...args];

/** What runs, and its time box in minutes: here, and in CI. A stage of Vitest counts its tests, any other stage counts as one. */
const stages = [
  { name: 'tools', args: () => ['scripts/tools.mjs'], minutes: 8, ciMinutes: 10 },
  {
    name: 'lint',
    args: () => [bin('@biomejs', 'biome', 'bin', 'biome'), 'check', '--config-path=.biome.json', '.'],
    minutes: 1,
    ciMinutes: 2,
  },
  { name: 'types', args: () => [bin('typescript', 'bin', 'tsc'), '-p', 'test'], minutes: 2, ciMinutes: 3 },
  { name: 'house', args: vitest('house'), isVitest: true, minutes: 1, ciMinutes: 2 },
  { name: 'unit', args: vitest('unit'), isVitest: true, minutes: 4, ciMinutes: 6 },
  { name: 'seeds', args: simulate('--seeds', isCi ? '2000' : '1000'), minutes: 3, ciMinutes: 5 },
  {
    name: 'seeds of whole replicas',
    args: simulate('--seeds', isCi ? '1000' : '200', '--profile', 'replica-tiny'),
    minutes: 3,
    ciMinutes: 5,
  },
  { name: 'mutants', args: simulate('--mutants'), minutes: 4, ciMinutes: 6 },
  { name: 'conformance', args: vitest('conformance'), isVitest: true, minutes: 5, ciMinutes: 8 },
  { name: 'ensemble', args: vitest('ensemble'), isVitest: true, minutes: 8, ciMinutes: 12 },
  { name: 'chaos', args: vitest('chaos'), isVitest: true, minutes: 8, ciMinutes: 12 },
];

/** Every process below us carries this word in its environment, whoever its parent is by then. */
const mark = `QUORATE_TEST_RUN=${randomUUID()}`;

/** Processes of this run that outlived their stage: they carry the mark, so they are ours. */
function leftovers() {
  if (process.platform !== 'linux') return [];
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .filter((pid) => {
      try {
        return readFileSync(`/proc/${pid}/environ`, 'latin1').includes(mark);
      } catch {
        return false; // It has ended, or is not ours to look at.
      }
    })
    .map(Number);
}

function endLeftovers(stage) {
  for (const pid of leftovers()) {
    try {
      const words = readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ');
      console.warn(`the stage ${stage} left process ${pid} running: ${words.slice(0, 120)}`);
      process.kill(pid, 'SIGKILL');
    } catch {
      // It ended by itself in between.
    }
  }
}

function runProgram(args, boxMs) {
  return new Promise((done) => {
    const [name, value] = mark.split('=');
    const env = { ...process.env, [name]: value };
    const child = spawn(process.execPath, args, { cwd: root, env, stdio: ['ignore', 'inherit', 'inherit'] });
    running = child;
    let isLate = false;
    const box = setTimeout(() => {
      isLate = true;
      child.kill('SIGTERM');
      setTimeout(() => child.kill('SIGKILL'), 5_000).unref();
    }, boxMs);
    child.once('error', () => done({ code: 1, isLate }));
    child.once('exit', (code) => {
      clearTimeout(box);
      running = null;
      done({ code: code ?? 1, isLate });
    });
  });
}

let running = null;

/** What Vitest counted. A file that could not even be loaded has no test that failed, but the run did. */
function countTests(report, code) {
  let counted;
  try {
    counted = JSON.parse(readFileSync(report, 'utf8'));
  } catch {
    return { passed: 0, failed: 1, skipped: 0 };
  }
  const { numPassedTests: passed, numFailedTests, numPendingTests, numTodoTests } = counted;
  const isOtherwiseBroken = numFailedTests === 0 && (code !== 0 || passed === 0);
  return { passed, failed: numFailedTests + (isOtherwiseBroken ? 1 : 0), skipped: numPendingTests + numTodoTests };
}

async function runStage(stage, folder, msLeft) {
  const boxMs = Math.min((isCi ? stage.ciMinutes : stage.minutes) * minute, msLeft);
  console.log(`\n=== ${stage.name}`);
  if (boxMs <= 0) return { passed: 0, failed: 1, skipped: 0, note: 'no time left' };
  const started = performance.now();
  const report = join(folder, `${stage.name.replaceAll(' ', '-')}.json`);
  const { code, isLate } = await runProgram(stage.args(report), boxMs);
  endLeftovers(stage.name);
  const single = { passed: code === 0 ? 1 : 0, failed: code === 0 ? 0 : 1, skipped: 0 };
  const counts = stage.isVitest === true ? countTests(report, code) : single;
  const seconds = ((performance.now() - started) / 1000).toFixed(1);
  if (isLate && counts.failed === 0) counts.failed = 1;
  return { ...counts, note: isLate ? `stopped at its time box, ${seconds} s` : `${seconds} s` };
}

function readOptions() {
  try {
    const { values } = parseArgs({ options: { only: { type: 'string' }, list: { type: 'boolean', default: false } } });
    const wanted = values.only?.split(',');
    const unknown = wanted?.find((word) => !stages.some((stage) => stage.name === word));
    if (unknown !== undefined) throw new SetupError(`There is no stage "${unknown}"; npm test -- --list names them.`);
    return { list: values.list, stages: stages.filter((stage) => wanted?.includes(stage.name) ?? true) };
  } catch (error) {
    if (error instanceof SetupError) throw error;
    throw new SetupError(error.message);
  }
}

async function main() {
  const options = readOptions();
  if (options.list) {
    for (const stage of stages) console.log(stage.name);
    return 0;
  }
  const started = performance.now();
  await installPackages();
  await build();
  const folder = mkdtempSync(join(tmpdir(), 'quorate-test-'));
  const results = [];
  try {
    for (const stage of options.stages) {
      const msLeft = totalMsMax - (performance.now() - started);
      results.push({ name: stage.name, ...(await runStage(stage, folder, msLeft)) });
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  console.log('');
  for (const { name, passed, failed, skipped, note } of results) {
    const mark = failed > 0 ? 'FAILED' : 'ok';
    console.log(
      `${mark.padEnd(7)} ${name.padEnd(24)} ${passed} passed, ${failed} failed, ${skipped} skipped (${note})`,
    );
  }
  const sum = (field) => results.reduce((total, result) => total + result[field], 0);
  console.log(`\n${sum('passed')} passed, ${sum('failed')} failed`);
  return sum('failed') === 0 && sum('passed') > 0 ? 0 : 1;
}

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
  process.once(signal, () => {
    running?.kill('SIGKILL');
    endLeftovers('that was interrupted');
    process.exit(130);
  });
}

try {
  process.exitCode = await main();
} catch (error) {
  if (!(error instanceof SetupError)) throw error;
  console.error(error.message);
  console.log('\n0 passed, 1 failed');
  process.exitCode = 1;
}
