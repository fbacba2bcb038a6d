// The entry of the command line: words to a command of the table, its outcome to an exit code. Errors are one line.
// Exit codes: 0 done, 1 the operation failed, 2 wrong usage, 3 no server could be reached.

import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { ZkError } from '@quorate/client';
import { commands, findCommand, globalOptions, UsageError } from './commands.ts';
import { formatTable, type Output } from './format.ts';
import { UnreachableError } from './open.ts';

export const ExitCode = { ok: 0, failed: 1, usage: 2, unreachable: 3 } as const;

const processOutput: Output = {
  isTerminal: process.stdout.isTTY === true,
  out: (text) => void process.stdout.write(text),
  err: (text) => void process.stderr.write(text),
};

/** Runs `quorate <args>` and answers its exit code. Ctrl-C ends a command that waits, as something done. */
export async function runCommandLine(args: readonly string[], output: Output = processOutput): Promise<number> {
  const [name, ...rest] = args;
  if (name === undefined || name === '--help' || name === '-h' || (name === 'help' && rest.length === 0)) {
    output.out(overview());
    return name === undefined ? ExitCode.usage : ExitCode.ok;
  }
  if (name === '--version') {
    output.out(`${packageVersion()}\n`);
    return ExitCode.ok;
  }
  const command = findCommand(name === 'help' ? rest[0] : name);
  if (command === undefined) {
    output.err(`quorate: there is no command "${name === 'help' ? rest[0] : name}"; \`quorate --help\` lists them\n`);
    return ExitCode.usage;
  }
  if (name === 'help' || (!command.isPassedThrough && (rest.includes('--help') || rest.includes('-h')))) {
    output.out(commandHelp(command.name));
    return ExitCode.ok;
  }
  let isJson = false;
  try {
    if (command.isPassedThrough) return await command.run({ positionals: rest, values: {}, isJson, output });
    const { values, positionals } = parseArgs({
      args: rest,
      options: { ...globalOptions, ...command.options },
      allowPositionals: true,
    });
    isJson = values['json'] === true;
    const [min, max] = command.positionals;
    if (positionals.length < min || positionals.length > max) throw new UsageError(`usage: ${command.usage}`);
    return await command.run({ positionals, values, isJson, output });
  } catch (error) {
    return report(error, command.name, isJson, output);
  }
}

function report(error: unknown, commandName: string, isJson: boolean, output: Output): number {
  const code = exitCodeOf(error);
  if (code === undefined) throw error;
  const text = error instanceof Error ? error.message : String(error);
  // What parseArgs advises behind its first sentence is about words that start with a dash, which no path does.
  const message = code === ExitCode.usage ? text.split('. To specify')[0] : text;
  if (isJson) {
    const name = codeOf(error);
    output.err(`${JSON.stringify({ error: { code: name, message } })}\n`);
  } else {
    output.err(`quorate: ${message}\n`);
    if (code === ExitCode.usage) output.err(`\`quorate ${commandName} --help\` tells more\n`);
  }
  return code;
}

/** undefined: not an outcome of a command but a fault of ours. */
function exitCodeOf(error: unknown): number | undefined {
  if (error instanceof UnreachableError) return ExitCode.unreachable;
  if (error instanceof UsageError) return ExitCode.usage;
  const code = codeOf(error);
  if (code?.startsWith('ERR_PARSE_ARGS') === true) return ExitCode.usage;
  if (error instanceof ZkError && error.code === 'badArguments' && error.path === undefined) return ExitCode.usage;
  return code === undefined ? undefined : ExitCode.failed;
}

function codeOf(error: unknown): string | undefined {
  if (error instanceof Error && 'code' in error && typeof error.code === 'string') return error.code;
  return undefined;
}

function overview(): string {
  const rows = commands.map(({ usage, summary }) => [`  ${usage}`, summary]);
  return `quorate: the command line of Quorate; speaks to every server of ZooKeeper's protocol

${formatTable(rows)}

Options of the commands that connect:
${optionsHelp(globalOptions)}

Exit codes: 0 done, 1 the operation failed, 2 wrong usage, 3 no server could be reached.
\`quorate COMMAND --help\` tells more about one command.
`;
}

function commandHelp(name: string): string {
  const command = findCommand(name);
  if (command === undefined) return '';
  const parts = [`usage: ${command.usage}`, '', command.summary];
  if (command.details !== '') parts.push('', command.details);
  if (!command.isPassedThrough) {
    if (Object.keys(command.options).length > 0) parts.push('', 'Options:', optionsHelp(command.options));
    if (command.connects) parts.push('', 'Options of every command that connects:', optionsHelp(globalOptions));
    else parts.push('', 'With --json, every line is a JSON object.');
  }
  if (command.examples.length > 0) parts.push('', 'Examples:', ...command.examples.map((example) => `  ${example}`));
  return `${parts.join('\n')}\n`;
}

function optionsHelp(options: (typeof commands)[number]['options']): string {
  return formatTable(
    Object.entries(options).map(([name, { short, type, argument, help }]) => [
      `  ${short === undefined ? '   ' : `-${short},`} --${name}${type === 'string' ? ` ${argument ?? 'TEXT'}` : ''}`,
      help,
    ]),
  );
}

function packageVersion(): string {
  const text = readFileSync(new URL('../package.json', import.meta.url), 'utf8');
  const parsed: unknown = JSON.parse(text);
  if (typeof parsed === 'object' && parsed !== null && 'version' in parsed) return String(parsed.version);
  return 'unknown';
}
