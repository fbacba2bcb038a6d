// A process to be killed: opens a store from the sources, writes groups of records without end, and prints the last counter that was
// answered, line by line. Run by process-crash.test.ts only; plain JavaScript, because tests need no build.

import { createViteServer } from 'vitest/node';

const [root, directory] = process.argv.slice(2);
const vite = await createViteServer({
  configFile: false,
  root,
  logLevel: 'error',
  server: { middlewareMode: true, watch: null, hmr: false, ws: false },
  optimizeDeps: { noDiscovery: true },
  ssr: { resolve: { conditions: ['source'], externalConditions: ['source'] } },
});
const { openDisk } = await vite.ssrLoadModule('/packages/storage/src/index.ts');
const { makeZxid } = await vite.ssrLoadModule('/packages/protocol/src/zxid.ts');

const at = (counter) => (counter === 0 ? 0n : makeZxid(1, counter));
const options = { serverId: 1, windowCount: 1e6, windowBytes: 1e9, ballastBytes: 0, writeBufferSize: 256 * 1024 };
const { disk, restored } = await openDisk(directory, options);
let counter = restored.entries.length;
const formed = { clusterId: 'c', mark: 'clean', epochs: { acceptedEpoch: 1, acceptedFrom: 1, currentEpoch: 1 } };
let group = counter === 0 ? { entries: [], ...formed } : { entries: [] };

process.stdout.write(`open ${restored.classification} ${counter}\n`);
for (let outstanding = 0; outstanding < 3; outstanding++) writeOn();

function writeOn() {
  for (let n = 0; n < 7; n++) {
    const prev = at(counter++);
    group.entries.push({ zxid: at(counter), prev, txn: Buffer.alloc(500, counter) });
  }
  const last = counter;
  disk.write(group, (error) => {
    if (error !== null) {
      process.stdout.write(`failed ${error.code}\n`);
      disk.write({ entries: [] }, (second) =>
        process.stdout.write(`then ${second === null ? 'answered' : second.code}\n`),
      );
      return;
    }
    process.stdout.write(`durable ${last}\n`);
    writeOn();
  });
  group = { entries: [] };
}
