// Stops a script that runs on a too old Node.js with one sentence, before anything newer than that is needed. Import it first:
// it must itself run on any Node.js that knows modules, and import nothing that an old one may not have.

const [majorMin, minorMin] = [20, 20];
const [major, minor] = process.versions.node.split('.').map(Number);

if (major < majorMin || (major === majorMin && minor < minorMin)) {
  console.error(`Quorate needs Node.js ${majorMin}.${minorMin} or newer; this is ${process.versions.node}.`);
  process.exit(1);
}
