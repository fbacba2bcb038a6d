// The two tables of numbers and their names.

import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { ErrorCode, errorMeanings, errorNameOf } from './error-codes.ts';
import { opcodeFixtures } from './fixtures.test-data.ts';
import { NO_MUTATIONS } from './mutations.ts';
import { OpCode, opClasses, opNameOf } from './operations.ts';

const readme = readFileSync(new URL('../README.md', import.meta.url), 'utf8');

describe('operations', () => {
  test('every number leads back to its name', () => {
    for (const [name, number] of Object.entries(OpCode)) expect(opNameOf(number)).toBe(name);
    for (const number of [0, 10, 23, 108, -1, 2000, Number.NaN]) expect(opNameOf(number)).toBeNull();
  });

  test('every operation has a class and a fixture', () => {
    expect(Object.keys(opClasses)).toEqual(Object.keys(OpCode));
    expect(Object.keys(opcodeFixtures)).toEqual(Object.keys(OpCode));
  });

  test('what clients may not send on its own is internal', () => {
    const internal = Object.entries(opClasses).filter(([, opClass]) => opClass === 'internal');
    expect(internal.map(([name]) => name)).toEqual(['check', 'deleteContainer', 'createSession']);
  });
});

describe('error codes', () => {
  test('every code leads back to its name', () => {
    for (const [name, code] of Object.entries(ErrorCode)) expect(errorNameOf(code)).toBe(name);
    for (const code of [1, -9, -99, -126, -128]) expect(errorNameOf(code)).toBeNull();
  });

  test('every code has a meaning and a row in the README', () => {
    for (const [name, code] of Object.entries(ErrorCode)) {
      expect(Object.keys(errorMeanings)).toContain(name);
      expect(readme).toContain(`| \`${name}\` | ${code} |`);
    }
  });

  test('every code of ProtocolError has a row in the README', () => {
    const source = readFileSync(new URL('./protocol-error.ts', import.meta.url), 'utf8');
    const names = [...source.matchAll(/^ {2}\| '(\w+)'/gm)].map((match) => match[1]);
    expect(names.length).toBeGreaterThan(5);
    for (const name of names) expect(readme).toContain(`| \`${name}\` |`);
  });
});

describe('mutations', () => {
  test('production has none', () => {
    expect(Object.values(NO_MUTATIONS).some((isOn) => isOn)).toBe(false);
    expect(Object.isFrozen(NO_MUTATIONS)).toBe(true);
  });
});
