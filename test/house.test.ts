// The style guide, executable: it guards the architecture, not taste. It reads lines, not syntax trees, because TypeScript 7 has no
// compiler API. Each rule collects what breaks it and compares with nothing, so that a failure lists all at once.
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { basename, dirname, join, relative, resolve } from 'node:path';
import { ErrorCode, NO_MUTATIONS, OpCode } from '@quorate/protocol';
import { describe, expect, test } from 'vitest';
import { opcodeFixtures } from '../packages/protocol/src/fixtures.test-data.ts';
import { configKeys } from '../packages/server/src/config-keys.ts';

const root = resolve(import.meta.dirname, '..');

type Import = { readonly from: string; readonly typeOnly: boolean; readonly dynamic: boolean };
type Source = {
  readonly path: string;
  readonly room: string;
  readonly text: string;
  /** Lines of code: comments are blanked out. */
  readonly code: string;
  readonly imports: readonly Import[];
  readonly isTest: boolean;
};

function filesBelow(folder: string): string[] {
  if (!existsSync(folder)) return [];
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    if (entry.name === 'node_modules' || entry.name === 'dist') return [];
    const path = join(folder, entry.name);
    return entry.isDirectory() ? filesBelow(path) : [path];
  });
}

function withoutComments(text: string): string {
  const blank = (comment: string): string => comment.replaceAll(/[^\n]/g, ' ');
  return text.replaceAll(/\/\*[\s\S]*?\*\//g, blank).replaceAll(/(?<=^|[\s;{(,])\/\/.*$/gm, blank);
}

function importsOf(code: string): Import[] {
  const found: Import[] = [];
  for (const match of code.matchAll(/^\s*(import|export)\s+(type\s)?(?:[^;']*?\sfrom\s+)?'([^']+)'/gm)) {
    found.push({ from: match[3] ?? '', typeOnly: match[2] !== undefined, dynamic: false });
  }
  for (const match of code.matchAll(/\bimport\(\s*'([^']+)'/g)) {
    found.push({ from: match[1] ?? '', typeOnly: false, dynamic: true });
  }
  return found;
}

function read(path: string): Source {
  const text = readFileSync(path, 'utf8');
  const code = withoutComments(text);
  const inside = relative(root, path);
  const room = inside.startsWith('packages/') ? (inside.split('/')[1] ?? '') : '';
  return {
    path: inside,
    room,
    text,
    code,
    imports: importsOf(code),
    isTest: /\.test(-data)?\.ts$|-suite\.ts$|\.test-process\.mjs$/.test(path),
  };
}

const packages = readdirSync(join(root, 'packages'));
const sources = packages.flatMap((name) => filesBelow(join(root, 'packages', name, 'src')).map(read));
const production = sources.filter((source) => !source.isTest);
const byPath = new Map(sources.map((source) => [source.path, source]));

/** Table 1.2 of the house: what each package's production files may import from outside themselves. */
const mayImport: Readonly<Record<string, readonly RegExp[]>> = {
  protocol: [],
  zab: [/^@quorate\/protocol\/(zxid|assert|mutations)$/],
  datatree: [/^@quorate\/protocol(\/\w+)?$/, /^msgpackr$/],
  storage: [/^@quorate\/protocol\/(zxid|assert|mutations)$/, /^level$/, /^node:(fs|fs\/promises|path|zlib)$/],
  client: [/^@quorate\/protocol(\/\w+)?$/, /^node:(net|tls)$/],
  server: [/^@quorate\/(protocol|zab|datatree|storage)(\/\w+)?$/, /^(pino|pino-pretty|msgpackr)$/, /^node:/],
  checker: [/^@quorate\/protocol(\/\w+)?$/],
  simulator: [
    /^@quorate\/(protocol|zab|datatree|checker)(\/\w+)?$/,
    /^@quorate\/server\/(replica|ports)$/,
    /^@quorate\/storage\/disk$/,
  ],
  cli: [/^@quorate\/(client|protocol)(\/\w+)?$/, /^node:/],
};

/** What one file may import beyond its package, and why. */
const mayAlsoImport: Readonly<Record<string, readonly RegExp[]>> = {
  // The one place where the tree's digest meets a checksum that the runtime has natively.
  'packages/datatree/src/crc32.ts': [/^node:zlib$/],
  // The reserve on a nearly full disk is random bytes, which no file system can compress away.
  'packages/storage/src/ballast.ts': [/^node:crypto$/],
  // The simulator's command line reads its options; what it runs knows nothing of Node.js.
  'packages/simulator/src/main.ts': [/^node:util$/],
};

/** The command line starts a server or the simulator only when asked to: these come by a dynamic import. */
const mayImportDynamically: Readonly<Record<string, readonly RegExp[]>> = {
  cli: [/^@quorate\/(server|simulator)\/main$/, /^@quorate\/server\/config$/],
};

/** Files that both worlds run, the real one and the simulated one. */
const withoutNode = [
  'packages/server/src/replica.ts',
  'packages/server/src/pipeline.ts',
  'packages/server/src/session-tracker.ts',
];

/** The simulator's door to a terminal: it reads options and the wall clock, to report speed. Everything behind it is virtual. */
const simulatorDoor = 'packages/simulator/src/main.ts';

const resolveImport = (source: Source, from: string): string =>
  relative(root, resolve(root, dirname(source.path), from));

describe('the way imports point', () => {
  test('every package has its line in the table', () => {
    expect(packages.filter((name) => !(name in mayImport))).toEqual([]);
  });

  test('no file imports what its package may not', () => {
    const broken = production.flatMap((source) =>
      source.imports
        .filter(({ from }) => !from.startsWith('.'))
        .filter(({ from, dynamic }) => {
          const allowed = [
            ...(mayImport[source.room] ?? []),
            ...(mayAlsoImport[source.path] ?? []),
            ...(dynamic ? (mayImportDynamically[source.room] ?? []) : []),
          ];
          return !allowed.some((pattern) => pattern.test(from));
        })
        .map(({ from }) => `${source.path} imports ${from}`),
    );
    expect(broken).toEqual([]);
  });

  test('a relative import stays in its package and names a file', () => {
    const broken = production.flatMap((source) =>
      source.imports
        .filter(({ from }) => from.startsWith('.'))
        .filter(({ from }) => {
          const target = byPath.get(resolveImport(source, from));
          return target === undefined || target.room !== source.room || target.isTest;
        })
        .map(({ from }) => `${source.path} imports ${from}`),
    );
    expect(broken).toEqual([]);
  });

  test('what runs in the simulator imports nothing of Node.js', () => {
    const shared = production.filter(
      ({ room, path }) => (room === 'simulator' && path !== simulatorDoor) || withoutNode.includes(path),
    );
    const broken = shared.flatMap((source) =>
      source.imports.filter(({ from }) => from.startsWith('node:')).map(({ from }) => `${source.path} imports ${from}`),
    );
    expect(broken).toEqual([]);
    expect(shared.length).toBeGreaterThan(withoutNode.length);
  });

  test('no file imports itself through others', () => {
    const cycles: string[] = [];
    const done = new Set<string>();
    const visit = (path: string, trail: readonly string[]): void => {
      if (trail.includes(path)) cycles.push([...trail.slice(trail.indexOf(path)), path].join(' -> '));
      if (trail.includes(path) || done.has(path)) return;
      const source = byPath.get(path);
      for (const { from, typeOnly } of source?.imports ?? []) {
        if (source !== undefined && from.startsWith('.') && !typeOnly)
          visit(resolveImport(source, from), [...trail, path]);
      }
      done.add(path);
    };
    for (const source of production) visit(source.path, []);
    expect(cycles).toEqual([]);
  });

  test('every file is reached from a door of its package', () => {
    const reached = new Set<string>();
    const visit = (path: string): void => {
      if (reached.has(path)) return;
      reached.add(path);
      const source = byPath.get(path);
      for (const { from } of source?.imports ?? []) {
        if (source !== undefined && from.startsWith('.')) visit(resolveImport(source, from));
      }
    };
    for (const name of packages) for (const door of doorsOf(name)) visit(door);
    const orphans = production.map((source) => source.path).filter((path) => !reached.has(path));
    expect(orphans).toEqual([]);
  });
});

function doorsOf(name: string): string[] {
  const folder = join('packages', name);
  const exported = readFileSync(join(root, folder, 'package.json'), 'utf8').matchAll(/"source": "([^"]+)"/g);
  const doors = [...exported].map((match) => join(folder, match[1] ?? ''));
  for (const program of filesBelow(join(root, folder, 'bin'))) {
    for (const match of readFileSync(program, 'utf8').matchAll(/'\.\.\/dist\/([\w-]+)\.js'/g)) {
      doors.push(join(folder, 'src', `${match[1]}.ts`));
    }
  }
  return doors;
}

describe('the pure rooms', () => {
  test('zab and datatree know no clock, no luck and no waiting', () => {
    const forbidden = [
      /\bDate\.now\b/,
      /\bnew Date\b/,
      /\bperformance\b/,
      /\bMath\.random\b/,
      /\bset(Timeout|Interval|Immediate)\b/,
      /\bqueueMicrotask\b/,
      /\b(async|await)\b/,
      /\bPromise\b/,
      /\bprocess\./,
    ];
    expect(
      linesWith(
        production.filter(({ room }) => room === 'zab' || room === 'datatree'),
        forbidden,
      ),
    ).toEqual([]);
  });

  test('the simulator and what it runs know no clock and no luck of their own', () => {
    const forbidden = [/\bDate\.now\b/, /\bMath\.random\b/, /\bset(Timeout|Interval|Immediate)\b/];
    const rooms = production.filter(
      ({ room, path }) => (room === 'simulator' && path !== simulatorDoor) || withoutNode.includes(path),
    );
    expect(linesWith(rooms, forbidden)).toEqual([]);
  });
});

function linesWith(files: readonly Source[], patterns: readonly RegExp[]): string[] {
  return files.flatMap((source) =>
    source.code
      .split('\n')
      .flatMap((line, index) =>
        patterns.some((pattern) => pattern.test(line)) ? [`${source.path}:${index + 1} ${line.trim()}`] : [],
      ),
  );
}

describe('names', () => {
  test('no file has a name that says nothing', () => {
    const banned =
      /^(utils?|helpers?|common|misc|base|manager|types)\.|-(utils?|helpers?|manager|impl)\.|\bV?\d+\.(ts|mjs)$/;
    const places = [...packages.map((name) => join('packages', name, 'src')), 'test', 'scripts'];
    const files = places.flatMap((place) => filesBelow(join(root, place)));
    // crc32 is the checksum's own name.
    const broken = files.filter((path) => banned.test(basename(path)) && basename(path) !== 'crc32.ts');
    expect(broken.map((path) => relative(root, path))).toEqual([]);
  });

  test('no word that the house has another one for', () => {
    const banned = [/\b(master|slave)\b/i, /\b\w+Impl\b/, /\binterface I[A-Z]/, /\bexport default\b/];
    expect(linesWith(production, banned)).toEqual([]);
  });

  test('every file opens with what it owns', () => {
    const silent = production.filter(({ text }) => !/^(#!.*\n)?\/[/*]/.test(text)).map(({ path }) => path);
    expect(silent).toEqual([]);
  });

  test('no path of one machine and no unnumbered promise is in a file', () => {
    const banned = [
      /(?<![\w.])\/(root|work|home)\/\w/,
      /\bTODO(?! #\d)|\bFIXME\b|\bXXX\b/,
      /c8 ignore|istanbul ignore|v8 ignore/,
    ];
    const broken = sources.flatMap((source) =>
      source.text
        .split('\n')
        .flatMap((line, index) =>
          banned.some((pattern) => pattern.test(line)) ? [`${source.path}:${index + 1}`] : [],
        ),
    );
    expect(broken).toEqual([]);
  });
});

describe('tables that must be whole', () => {
  const tableRows = packages
    .map((name) => join(root, 'packages', name, 'README.md'))
    .filter((path) => existsSync(path))
    .flatMap((path) => readFileSync(path, 'utf8').split('\n'))
    .filter((line) => line.startsWith('|'))
    .join('\n');

  test('every error code has its row in a README', () => {
    expect(Object.keys(ErrorCode).filter((name) => !tableRows.includes(`\`${name}\``))).toEqual([]);
  });

  test('every configuration key has its row in a README', () => {
    // A family such as `server.*` stands in the table as `server.N`.
    const rowOf = (key: string): string => `\`${key}\``;
    const isMissing = (key: string): boolean =>
      !tableRows.includes(rowOf(key)) && !tableRows.includes(rowOf(key.replace('*', 'N')));
    expect(Object.keys(configKeys).filter(isMissing)).toEqual([]);
  });

  test('every opcode has a recorded frame that carries its number', () => {
    const numbers = Object.entries(opcodeFixtures).map(([name, hex]) => [name, Buffer.from(hex, 'hex').readInt32BE(8)]);
    expect(Object.fromEntries(numbers)).toEqual(OpCode);
  });
});

describe('deliberate faults', () => {
  test('NO_MUTATIONS switches none of them on', () => {
    const switches = Object.values(NO_MUTATIONS);
    expect(switches.length).toBeGreaterThanOrEqual(12);
    expect(switches.filter((isOn) => isOn !== false)).toEqual([]);
  });

  test('production hands out no others', () => {
    const names = Object.keys(NO_MUTATIONS).join('|');
    const switchedOn = new RegExp(`\\b(${names})\\b['"]?\\s*:\\s*(?!\\s|boolean\\b|false\\b)|\\.\\.\\.NO_MUTATIONS`);
    const outside = production.filter(({ room }) => room !== 'simulator');
    expect(linesWith(outside, [switchedOn])).toEqual([]);
    // The configuration of a real server names the harmless set, and nothing else of the server names any.
    const naming = production.filter(({ room, code }) => room === 'server' && /\bmutations: /.test(code));
    expect(naming.some(({ path, code }) => path.endsWith('config.ts') && /mutations: NO_MUTATIONS\b/.test(code))).toBe(
      true,
    );
  });
});
