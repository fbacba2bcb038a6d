// How patient and how long the tests with real processes are: QUORATE_TEST_SCALE stretches deadlines and traffic. 1 fits a free machine;
// with CI=true the default is 2, because a shared machine stands still now and then.

const given = Number(process.env['QUORATE_TEST_SCALE'] ?? (process.env['CI'] === 'true' ? 2 : 1));

export const scale = Number.isFinite(given) && given > 0 ? given : 1;

/** A deadline in milliseconds. */
export function within(ms: number): number {
  return Math.round(ms * scale);
}
