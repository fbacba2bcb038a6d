// The server package's door: run a server, or embed one. Its core (replica, ports) has doors of its own.

export { type Config, ConfigError, loadConfig, replicaConfig } from './config.ts';
export { configTable } from './config-keys.ts';
export { exitCodes, exitTable, StartError } from './exit-codes.ts';
export { type RunOptions, runServer } from './main.ts';
export { type RunningServer, serverVersion, startServer } from './server.ts';
export type { StatusReport } from './status-report.ts';
