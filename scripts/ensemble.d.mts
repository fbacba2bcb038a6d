// The types of ensemble.mjs, for the tests.
import type { ChildProcess } from 'node:child_process';
import type { Missing, ZookeeperServer } from './tools.mjs';

export type Mode = string;
export type EnsembleOptions = {
  readonly kind?: 'quorate' | 'zookeeper';
  /** Voters; 1 is a standalone server. */
  readonly servers?: number;
  readonly observers?: number;
  /** A folder that stays; without it a temporary one. */
  readonly directory?: string;
  /** Lines of zoo.cfg, over the defaults. */
  readonly config?: Readonly<Record<string, string | number | boolean>>;
  readonly env?: Readonly<Record<string, string>>;
  readonly nodeArgs?: readonly string[];
  readonly zookeeper?: ZookeeperServer | Missing;
  readonly jvm?: readonly string[];
};
export type ServerExit = { readonly code: number | null; readonly signal: string | null };
export type EnsembleServer = {
  readonly id: number;
  readonly observer: boolean;
  readonly clientPort: number;
  readonly peerPort: number;
  readonly electionPort: number;
  readonly adminPort: number;
  readonly directory: string;
  readonly dataDirectory: string;
  readonly configFile: string;
  readonly logFile: string;
  /** host:port for clients. */
  readonly address: string;
  readonly process: ChildProcess | null;
  readonly exit?: Promise<ServerExit>;
};

export function freePorts(count: number): Promise<number[]>;
export function waitFor<T>(
  what: string,
  probe: () => T | null | undefined | false | Promise<T | null | undefined | false>,
  timeoutMs?: number,
): Promise<T>;
export function fourLetterWord(
  port: number,
  word: string,
  options?: { readonly timeoutMs?: number; readonly address?: string },
): Promise<string | null>;
export function modeOf(
  port: number,
  options?: { readonly timeoutMs?: number; readonly address?: string },
): Promise<Mode | null>;

export class Ensemble implements AsyncDisposable {
  private constructor();
  static create(options?: EnsembleOptions): Promise<Ensemble>;
  static start(options?: EnsembleOptions): Promise<Ensemble>;
  readonly kind: 'quorate' | 'zookeeper';
  readonly directory: string;
  readonly servers: readonly EnsembleServer[];
  readonly connectString: string;
  server(id: number): EnsembleServer;
  dialThrough(from: number, to: number, port: number): Promise<void>;
  writeConfigurations(): Promise<void>;
  startAll(timeoutMs?: number): Promise<void>;
  spawnServer(id: number): void;
  startServer(id: number, timeoutMs?: number): Promise<void>;
  kill(id: number, signal?: NodeJS.Signals): Promise<ServerExit | null>;
  pause(id: number): void;
  resume(id: number): void;
  restart(id: number, signal?: NodeJS.Signals): Promise<void>;
  wipe(id: number): Promise<void>;
  modeOf(id: number): Promise<Mode | null>;
  findLeader(): Promise<number | null>;
  waitForLeader(options?: { readonly otherThan?: number; readonly timeoutMs?: number }): Promise<number>;
  waitUntilReady(timeoutMs?: number): Promise<void>;
  tailOfLog(id: number, lines?: number): Promise<string>;
  stop(options?: { readonly keepFiles?: boolean }): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}
