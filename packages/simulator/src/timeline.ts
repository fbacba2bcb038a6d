// Virtual time: integer microseconds and one heap of events ordered by (time, sequence).
// The only clock of a simulation. Its trace hash folds in everything that is noted, so two runs of one seed can be compared.

type Scheduled = { readonly time: number; readonly sequence: number; readonly work: () => void };

function isBefore(left: Scheduled, right: Scheduled): boolean {
  return left.time < right.time || (left.time === right.time && left.sequence < right.sequence);
}

export class Timeline {
  /** Virtual microseconds since the run began. */
  now = 0;
  /** Events run so far. */
  events = 0;
  #sequence = 0;
  #heap: Scheduled[] = [];
  #hashA = 0x811c9dc5;
  #hashB = 0x1b873593;

  after(delayUs: number, work: () => void): void {
    this.at(this.now + delayUs, work);
  }

  at(timeUs: number, work: () => void): void {
    const item: Scheduled = { time: Math.max(this.now, Math.floor(timeUs)), sequence: this.#sequence++, work };
    const heap = this.#heap;
    let index = heap.length;
    heap.push(item);
    while (index > 0) {
      const parentIndex = (index - 1) >> 1;
      const parent = heap[parentIndex];
      if (parent === undefined || !isBefore(item, parent)) break;
      heap[index] = parent;
      index = parentIndex;
    }
    heap[index] = item;
  }

  /** Runs the next event; false when nothing is left. */
  step(): boolean {
    const heap = this.#heap;
    const next = heap[0];
    if (next === undefined) return false;
    const last = heap.pop();
    if (last !== undefined && last !== next) this.#sink(last);
    this.now = next.time;
    this.events++;
    this.note(next.time);
    next.work();
    return true;
  }

  #sink(item: Scheduled): void {
    const heap = this.#heap;
    let index = 0;
    for (;;) {
      let childIndex = 2 * index + 1;
      let child = heap[childIndex];
      if (child === undefined) break;
      const right = heap[childIndex + 1];
      if (right !== undefined && isBefore(right, child)) {
        child = right;
        childIndex++;
      }
      if (!isBefore(child, item)) break;
      heap[index] = child;
      index = childIndex;
    }
    heap[index] = item;
  }

  note(value: number): void {
    this.#hashA = Math.imul(this.#hashA ^ (value >>> 0), 0x01000193);
    this.#hashB = Math.imul((this.#hashB << 13) | (this.#hashB >>> 19), 5) ^ (value >>> 0);
  }

  noteText(text: string): void {
    for (let i = 0; i < text.length; i++) this.note(text.charCodeAt(i));
  }

  get traceHash(): string {
    const high = (this.#hashA >>> 0).toString(16).padStart(8, '0');
    return high + (this.#hashB >>> 0).toString(16).padStart(8, '0');
  }
}
