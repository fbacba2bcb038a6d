import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { ErrorCode } from '@quorate/protocol';
import { expect, test } from 'vitest';

const README = readFileSync(join(import.meta.dirname, '../README.md'), 'utf8');

test('the README explains every error that a caller can see, once', () => {
  const explained = [...README.matchAll(/^\| `(\w+)` \| [^|]+ \|[^|]*\|$/gm)].map((match) => match[1] ?? '');
  const codes = explained.filter((name) => name in ErrorCode);
  const expected = Object.keys(ErrorCode).filter((name) => name !== 'ok');
  expect(codes.toSorted()).toEqual(expected.toSorted());
});
