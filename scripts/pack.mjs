// Packs the packages that a server needs into a folder, as they would be published: what deploy/ installs, and what its test proves.
// usage: node scripts/pack.mjs FOLDER       It expects a build and changes nothing but FOLDER.

import './node-version.mjs';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { root } from './setup.mjs';

const [folder] = process.argv.slice(2);
if (folder === undefined) {
  console.error('usage: node scripts/pack.mjs FOLDER');
  process.exit(2);
}
const packages = readdirSync(join(root, 'packages'));
const unbuilt = packages.filter((name) => !existsSync(join(root, 'packages', name, 'dist', 'index.js')));
if (unbuilt.length > 0) {
  console.error(`not built: ${unbuilt.join(', ')}; run npm run build first`);
  process.exit(1);
}
const target = resolve(folder);
mkdirSync(target, { recursive: true });
const workspaces = packages.flatMap((name) => ['--workspace', join('packages', name)]);
execFileSync('npm', ['pack', '--silent', '--pack-destination', target, ...workspaces], { cwd: root, stdio: 'inherit' });
