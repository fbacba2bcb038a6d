// How a test asks for a program of another project: it gets it, or its tests are skipped with the reason said aloud.
// With CI=true a missing tool is a failure. Never skip in silence, and never let a test pass that could not run.
import { describe, test } from 'vitest';
import type { Missing } from '../../scripts/tools.mjs';

export {
  goClient,
  javaClient,
  kazooClient,
  networkNamespaces,
  nodeClient,
  systemdAnalyze,
  toxiproxyServer,
  zookeeperCommandLine,
  zookeeperServer,
} from '../../scripts/tools.mjs';
export type { Missing };

/** Defines `name` with the tool in hand. `tool` comes from `await` at the top of a test file, before any test is defined. */
export function describeWith<Tool extends { readonly available: true }>(
  name: string,
  tool: Tool | Missing,
  define: (tool: Tool) => void,
): void {
  if (tool.available) {
    describe(name, () => define(tool));
    return;
  }
  if (process.env['CI'] === 'true') {
    test(`${name}: the tool it needs is there`, () => {
      throw new Error(`CI must have this tool: ${tool.reason}`);
    });
    return;
  }
  console.warn(`SKIPPED ${name}: ${tool.reason}`);
  test.skip(`${name} (skipped: ${tool.reason})`, () => {});
}
