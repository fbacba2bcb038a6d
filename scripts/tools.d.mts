// The types of tools.mjs, for the tests.

export type Missing = { readonly available: false; readonly reason: string };
export type Program = { readonly available: true; readonly command: string; readonly args: readonly string[] };
export type Command = { readonly available: true; readonly command: string };
export type ZookeeperServer = {
  readonly available: true;
  readonly java: string;
  readonly version: string;
  readonly classPath: string;
};

export const zookeeperVersion: string;
export const toxiproxyVersion: string;
export function zookeeperServer(): Promise<ZookeeperServer | Missing>;
export function zookeeperCommandLine(): Promise<Program | Missing>;
export function toxiproxyServer(): Promise<Command | Missing>;
export function kazooClient(): Promise<Program | Missing>;
export function goClient(): Promise<Program | Missing>;
export function javaClient(): Promise<Program | Missing>;
export function nodeClient(): Promise<Program | Missing>;
export function networkNamespaces(): Promise<{ readonly available: true } | Missing>;
export function systemdAnalyze(): Promise<Command | Missing>;
