// Makes a fresh clone runnable: installs the packages of the lock file when they are missing or stale, and builds. Only Node.js itself is
// needed before. It says what it does and leaves everything alone that is already as it should be.

import { spawn } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = resolve(dirname(fileURLToPath(import.meta.url)), '..');

/** A failure that a person can do something about: its message is shown without a stack. */
export class SetupError extends Error {
  constructor(message, options) {
    super(message, options);
    this.name = 'SetupError';
  }
}

/** Runs a program to its end with our output streams; resolves with its exit code. */
export function run(command, args, options = {}) {
  return new Promise((done, fail) => {
    const child = spawn(command, args, { cwd: root, stdio: ['ignore', 'inherit', 'inherit'], ...options });
    child.once('error', fail);
    child.once('exit', (code, signal) => done(code ?? (signal === null ? 1 : 128)));
  });
}

/** The lock file names what must be there; npm keeps a copy of what it installed. Packages for other platforms are optional. */
function isInstalled() {
  const installedFile = join(root, 'node_modules', '.package-lock.json');
  // The command line's own link is made only when its program was there at the time.
  if (!existsSync(installedFile) || !existsSync(join(root, 'node_modules', '.bin', 'quorate'))) return false;
  const wanted = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8')).packages;
  const installed = JSON.parse(readFileSync(installedFile, 'utf8')).packages;
  return Object.entries(wanted).every(([path, { version, optional, link }]) => {
    if (!path.startsWith('node_modules/') || optional === true) return true;
    if (link === true) return existsSync(join(root, path));
    return installed[path]?.version === version;
  });
}

export async function installPackages() {
  if (isInstalled()) return;
  console.log('Installing packages (npm)…');
  const verb = process.env.CI === 'true' ? 'ci' : 'install';
  const npm = process.platform === 'win32' ? 'npm.cmd' : 'npm';
  const code = await run(npm, [verb, '--no-audit', '--no-fund', '--loglevel=error']).catch((error) => {
    throw new SetupError('npm could not be started; it comes with Node.js.', { cause: error });
  });
  if (code !== 0) throw new SetupError(`npm ${verb} failed (exit code ${code}); its lines above say why.`);
}

export async function build() {
  const compiler = join(root, 'node_modules', 'typescript', 'bin', 'tsc');
  const code = await run(process.execPath, [compiler, '-b']);
  if (code !== 0) throw new SetupError('The build failed; the lines above say where.');
}
