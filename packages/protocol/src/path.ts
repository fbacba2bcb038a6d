// Paths of znodes: which are legal, and how they come apart. Nothing here looks at a tree; paths come from the network,
// so every function is total.

const SLASH = 0x2f;
const DOT = 0x2e;

/** Why a path is illegal, or null when it is legal. The order of the checks is that of ZooKeeper's PathUtils. */
export function validatePath(path: string): string | null {
  const length = path.length;
  if (length === 0) return 'a path is not empty';
  if (path.charCodeAt(0) !== SLASH) return 'a path starts with a slash';
  if (length === 1) return null;
  if (path.charCodeAt(length - 1) === SLASH) return 'a path does not end with a slash';
  // Where the present component starts.
  let componentStart = 1;
  for (let index = 1; index < length; index += 1) {
    const code = path.charCodeAt(index);
    if (code > DOT + 1 && code < 0x7f) continue;
    if (code === 0) return 'a path holds no null character';
    if (code === SLASH) {
      if (index === componentStart) return 'a path has no empty component';
      componentStart = index + 1;
    } else if (code === DOT) {
      if (isRelativeComponent(path, componentStart, index)) return 'a path has no relative component';
    } else if (isIllegalCodeUnit(code)) {
      return 'a path holds no control, surrogate or private-use character';
    }
  }
  return null;
}

// True when the dot at `index` ends a component that is `.` or `..`.
function isRelativeComponent(path: string, componentStart: number, index: number): boolean {
  const next = index + 1;
  if (next < path.length && path.charCodeAt(next) !== SLASH) return false;
  if (index === componentStart) return true;
  return index === componentStart + 1 && path.charCodeAt(componentStart) === DOT;
}

function isIllegalCodeUnit(code: number): boolean {
  if (code < 0x20) return true;
  if (code < 0x7f) return false;
  return code <= 0x9f || (code >= 0xd800 && code <= 0xf8ff) || code >= 0xfff0;
}

/** `/a` for `/a/b`, `/` for `/a`. The root is its own parent. */
export function parentOf(path: string): string {
  const slash = path.lastIndexOf('/');
  return slash <= 0 ? '/' : path.slice(0, slash);
}

/** The last component; empty for the root. */
export function nameOf(path: string): string {
  return path.slice(path.lastIndexOf('/') + 1);
}

/** Java's `%010d` of an int: ten characters, the sign included, more only when the digits need it. */
export function sequenceSuffix(counter: number): string {
  const value = counter | 0;
  if (value >= 0) return String(value).padStart(10, '0');
  return `-${String(-value).padStart(9, '0')}`;
}

/** The four znodes that every tree has from the start and that nobody may delete. */
export function isSpecialPath(path: string): boolean {
  return path === '/' || path === '/zookeeper' || path === '/zookeeper/quota' || path === '/zookeeper/config';
}
