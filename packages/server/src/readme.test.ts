import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { configTable } from './config-keys.ts';
import { exitTable } from './exit-codes.ts';

const file = join(import.meta.dirname, '..', 'README.md');

function withTable(text: string, name: string, table: string): string {
  const start = text.indexOf(`<!-- ${name} -->`);
  const end = text.indexOf('<!-- end -->', start);
  expect(start, `the README has a place for the ${name}`).toBeGreaterThan(0);
  expect(end).toBeGreaterThan(start);
  return `${text.slice(0, start)}<!-- ${name} -->\n\n${table}\n\n${text.slice(end)}`;
}

it('the README shows the tables of configuration keys and exit codes as they are; `vitest -u` writes them', async () => {
  const text = readFileSync(file, 'utf8');
  const wanted = withTable(withTable(text, 'config keys', configTable()), 'exit codes', exitTable());
  await expect(wanted).toMatchFileSnapshot(file);
});
