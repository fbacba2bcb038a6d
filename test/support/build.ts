// Vitest's global setup for the projects that start server processes: those run dist, so dist must be what the sources say.
// It builds and does nothing else; a build that fails fails the run.
import { execFileSync } from 'node:child_process';
import { resolve } from 'node:path';

const root = resolve(import.meta.dirname, '..', '..');

export default function build(): void {
  execFileSync(process.execPath, [resolve(root, 'node_modules', 'typescript', 'bin', 'tsc'), '-b'], {
    cwd: root,
    stdio: ['ignore', 'inherit', 'inherit'],
  });
}
