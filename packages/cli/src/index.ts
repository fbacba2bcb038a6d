// The one door of the command line package: explicit names, no logic.

export { runCommandLine } from './main.ts';
