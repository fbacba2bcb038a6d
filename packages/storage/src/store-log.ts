// How this package speaks to the operator: the caller hands in its logger.

export type StoreLog = (
  level: 'info' | 'warn' | 'error',
  message: string,
  fields?: Readonly<Record<string, unknown>>,
) => void;
