// Java's properties syntax, in which zoo.cfg is written: comments, three separators, continued lines, escapes.
// Must know nothing of any key.

export type Property = { readonly key: string; readonly value: string; readonly line: number };

/** Every property in order of appearance; `line` is where it begins, from 1. Values are trimmed, as ZooKeeper does. */
export function parseProperties(text: string): Property[] {
  const lines = text.split(/\r\n|\n|\r/);
  const properties: Property[] = [];
  for (let i = 0; i < lines.length; i++) {
    const start = i + 1;
    let logical = (lines[i] ?? '').trimStart();
    if (logical === '' || logical.startsWith('#') || logical.startsWith('!')) continue;
    while (isContinued(logical) && i + 1 < lines.length) {
      i += 1;
      logical = logical.slice(0, -1) + (lines[i] ?? '').trimStart();
    }
    if (isContinued(logical)) logical = logical.slice(0, -1);
    const { key, value } = splitProperty(logical);
    properties.push({ key: unescapeText(key), value: unescapeText(value).trim(), line: start });
  }
  return properties;
}

/** An odd number of backslashes at the end. */
function isContinued(line: string): boolean {
  let count = 0;
  while (line[line.length - 1 - count] === '\\') count += 1;
  return count % 2 === 1;
}

/** The key ends at the first `=`, `:` or white space that no backslash protects; one `=` or `:` may follow the white space. */
function splitProperty(line: string): { key: string; value: string } {
  let end = 0;
  while (end < line.length && !/[=:\s]/.test(line[end] ?? '')) end += line[end] === '\\' ? 2 : 1;
  const rest = line.slice(end).replace(/^\s*[=:]?\s*/, '');
  return { key: line.slice(0, end), value: rest };
}

function unescapeText(text: string): string {
  if (!text.includes('\\')) return text;
  return text.replace(/\\(u[0-9a-fA-F]{4}|.)/gs, (_, escaped: string) => {
    if (escaped.length === 5) return String.fromCharCode(Number.parseInt(escaped.slice(1), 16));
    switch (escaped) {
      case 't':
        return '\t';
      case 'n':
        return '\n';
      case 'r':
        return '\r';
      case 'f':
        return '\f';
      default:
        return escaped;
    }
  });
}
