// The time as the client sees it. A test gives another one and moves it; nothing else in this package asks the system.

export type Timer = { cancel(): void };

export type Clock = {
  /** Monotonic milliseconds. */
  nowMs(): number;
  after(waitMs: number, work: () => void): Timer;
};

export const systemClock: Clock = {
  nowMs: () => performance.now(),
  after(waitMs, work) {
    const timer = setTimeout(work, waitMs);
    return { cancel: () => clearTimeout(timer) };
  },
};
