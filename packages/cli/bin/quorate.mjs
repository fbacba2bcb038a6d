#!/usr/bin/env node
// The door of the command line: plain JavaScript, so that it can say what is missing when nothing has been built.
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const main = new URL('../dist/main.js', import.meta.url);
if (existsSync(fileURLToPath(main))) {
  const { runCommandLine } = await import(main.href);
  process.exitCode = await runCommandLine(process.argv.slice(2));
} else {
  console.error('quorate: this checkout has not been built: run `npm run build` first');
  process.exitCode = 2;
}
