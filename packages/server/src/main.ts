// A server as a process: configuration, log, signals, and the exit code. The one place that may end the process.
// Whatever ends it, the last line says why, and is written before the process is gone: the log is synchronous.

import { unlinkSync } from 'node:fs';
import { join } from 'node:path';
import { type DestinationStream, type Logger, pino, stdSerializers, stdTimeFunctions } from 'pino';
import pretty from 'pino-pretty';
import { type Config, ConfigError, loadConfig } from './config.ts';
import { exitCodes, exitOf, StartError } from './exit-codes.ts';
import { type Log, type RunningServer, startServer } from './server.ts';

export type RunOptions = {
  /** Where the log goes; standard output without it. */
  readonly destination?: DestinationStream;
  /** Ends the process at once after a fatal error: nothing may be answered any more. */
  readonly exit?: (code: number) => void;
  /** For embedding: the server runs. */
  readonly onStarted?: (server: RunningServer) => void;
};

/** Threads of libuv's pool that LevelDB, fsync and name look-ups share; set in the environment before the pool starts. */
const POOL_THREADS_MIN = 8;

/** Runs a server until it is stopped by SIGTERM or SIGINT, and answers the exit code. */
export async function runServer(configFile: string, options: RunOptions = {}): Promise<number> {
  const exit = options.exit ?? ((code: number) => process.exit(code));
  let config: Config;
  try {
    config = loadConfig(configFile);
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    write(options.destination, `quorate: configuration error: ${error.message}\n`);
    return exitCodes.badConfiguration.code;
  }
  const logger = makeLogger(config, options.destination);
  const log: Log = (level, message, fields = {}) => logger[level](fields, message);
  for (const { level, message, fields } of config.notices) log(level, message, fields);
  if (Number(process.env['UV_THREADPOOL_SIZE'] ?? 4) < POOL_THREADS_MIN) {
    log('debug', 'UV_THREADPOOL_SIZE is small for a server', { wanted: POOL_THREADS_MIN });
  }

  let isDying = false;
  const fatal = (error: unknown): void => {
    if (isDying) return;
    isDying = true;
    const { code, text } = exitCodes[exitOf(error)];
    log('fatal', `this server ends: ${text}`, { error, exitCode: code });
    removePidFile(config);
    exit(code);
  };
  process.on('uncaughtException', fatal);
  process.on('unhandledRejection', fatal);
  // Signals count from here on: one that comes during the start stops the server as soon as it is up.
  const signals = watchSignals(log, exit);
  try {
    const server = await startServer(config, { log, fatal });
    options.onStarted?.(server);
    await signals.first;
    await server.stop();
    log('info', 'this server stopped in order');
    return exitCodes.ok.code;
  } catch (error) {
    if (!(error instanceof StartError)) {
      fatal(error);
      return exitCodes[exitOf(error)].code;
    }
    log('fatal', error.message, { exitCode: exitCodes[error.exit].code });
    return exitCodes[error.exit].code;
  } finally {
    signals.release();
    process.removeListener('uncaughtException', fatal);
    process.removeListener('unhandledRejection', fatal);
  }
}

function makeLogger(config: Config, destination: DestinationStream | undefined): Logger {
  const isPretty =
    config.logFormat === 'pretty' || (config.logFormat === 'auto' && destination === undefined && process.stdout.isTTY);
  const settings = {
    level: config.logLevel,
    base: { server: config.id },
    timestamp: stdTimeFunctions.isoTime,
    serializers: { error: stdSerializers.err },
  };
  if (destination !== undefined && !isPretty) return pino(settings, destination);
  // Both are synchronous: a line that explains the end must not be lost with the process.
  if (!isPretty) return pino(settings, pino.destination({ dest: 1, sync: true }));
  const target = destination === undefined ? {} : { destination };
  return pino(settings, pretty({ sync: true, ignore: 'server', messageFormat: 'server {server}: {msg}', ...target }));
}

/** The first signal resolves; a second one ends the process at once. */
function watchSignals(log: Log, exit: (code: number) => void): { first: Promise<void>; release: () => void } {
  const names = ['SIGTERM', 'SIGINT'] as const;
  let count = 0;
  let onFirst: () => void = () => undefined;
  const first = new Promise<void>((resolve) => {
    onFirst = resolve;
  });
  const onSignal = (signal: NodeJS.Signals): void => {
    count += 1;
    if (count === 1) {
      log('info', 'this server stops: leadership is handed over, then connections are closed', { signal });
      onFirst();
      return;
    }
    log('warn', 'a second signal: this server ends at once', { signal });
    exit(exitCodes.unexpected.code);
  };
  for (const name of names) process.on(name, onSignal);
  return {
    first,
    release: () => {
      for (const name of names) process.removeListener(name, onSignal);
    },
  };
}

function write(destination: DestinationStream | undefined, line: string): void {
  if (destination !== undefined) destination.write(line);
  else process.stderr.write(line);
}

function removePidFile(config: Config): void {
  try {
    unlinkSync(join(config.dataDir, 'quorate.pid'));
  } catch {
    // It was never written, or the disk is what failed; the process ends anyway.
  }
}
