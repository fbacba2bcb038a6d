// Which paths are legal, as ZooKeeper's PathUtils decides it, and how they come apart.

import { describe, expect, test } from 'vitest';
import { isSpecialPath, nameOf, parentOf, sequenceSuffix, validatePath } from './path.ts';

const EMPTY_COMPONENT = 'a path has no empty component';
const RELATIVE = 'a path has no relative component';
const CHARACTER = 'a path holds no control, surrogate or private-use character';

describe('validatePath', () => {
  test.each([
    '/',
    '/a',
    '/a/b',
    '/...',
    '/.a',
    '/a.',
    '/a..',
    '/..a',
    '/a/.../b',
    '/a b',
    '/ü',
    '/日本',
    '/a-b_c:d,e~',
    '/\u00a0',
    '/\ud7ff',
    '/\uf900',
    '/\uffef',
  ])('%j is legal', (path) => {
    expect(validatePath(path)).toBeNull();
  });

  test.each([
    ['', 'a path is not empty'],
    ['a', 'a path starts with a slash'],
    ['a/b', 'a path starts with a slash'],
    ['//', 'a path does not end with a slash'],
    ['/a/', 'a path does not end with a slash'],
    ['/a\u0000b', 'a path holds no null character'],
    ['//a', EMPTY_COMPONENT],
    ['/a//b', EMPTY_COMPONENT],
    ['/.', RELATIVE],
    ['/..', RELATIVE],
    ['/a/.', RELATIVE],
    ['/a/..', RELATIVE],
    ['/./a', RELATIVE],
    ['/a/../b', RELATIVE],
    ['/\u0001', CHARACTER],
    ['/\u001f', CHARACTER],
    ['/\u007f', CHARACTER],
    ['/\u009f', CHARACTER],
    ['/\ud800', CHARACTER],
    ['/😀', CHARACTER],
    ['/\uf8ff', CHARACTER],
    ['/\ufff0', CHARACTER],
    ['/\uffff', CHARACTER],
  ])('%j is illegal: %s', (path, reason) => {
    expect(validatePath(path)).toBe(reason);
  });

  test('of two faults the first in the order of the checks is told', () => {
    expect(validatePath('/\u0000/')).toBe('a path does not end with a slash');
    expect(validatePath('/\u0001/../x')).toBe(CHARACTER);
    expect(validatePath('/../\u0001')).toBe(RELATIVE);
  });
});

describe('parts of a path', () => {
  test('parent and name', () => {
    expect([parentOf('/'), nameOf('/')]).toEqual(['/', '']);
    expect([parentOf('/a'), nameOf('/a')]).toEqual(['/', 'a']);
    expect([parentOf('/a/b/c'), nameOf('/a/b/c')]).toEqual(['/a/b', 'c']);
  });

  test('a sequence suffix is ten characters of a Java int', () => {
    expect(sequenceSuffix(0)).toBe('0000000000');
    expect(sequenceSuffix(42)).toBe('0000000042');
    expect(sequenceSuffix(2_147_483_647)).toBe('2147483647');
    expect(sequenceSuffix(2_147_483_648)).toBe('-2147483648');
    expect(sequenceSuffix(-1)).toBe('-000000001');
    expect(sequenceSuffix(-2_147_483_648)).toBe('-2147483648');
  });

  test('four znodes are special and their neighbours are not', () => {
    for (const path of ['/', '/zookeeper', '/zookeeper/quota', '/zookeeper/config'])
      expect(isSpecialPath(path)).toBe(true);
    for (const path of ['/zookeeper/quota/a', '/zookeeperx', '/zookeeper/other', '/a', '']) {
      expect(isSpecialPath(path)).toBe(false);
    }
  });
});
