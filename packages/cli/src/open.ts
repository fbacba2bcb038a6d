// Opens the client that a command works with, and ends it with the command. Says clearly when nobody answers.

import { Client, type ClientOptions } from '@quorate/client';

/** No server of the connect string served a session in time. */
export class UnreachableError extends Error {
  readonly code = 'unreachable';
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'UnreachableError';
  }
}

export type Target = {
  readonly servers: string;
  readonly timeoutMs: number;
  readonly auth: readonly { readonly scheme: string; readonly auth: string }[];
};

/** Runs `work` with a connected client and closes the session after it. */
export async function withClient<T>(
  target: Target,
  work: (client: Client) => Promise<T>,
  options: Partial<ClientOptions> = {},
): Promise<T> {
  const client = new Client({ servers: target.servers, auth: target.auth, sessionTimeoutMs: 10_000, ...options });
  try {
    await connected(client, target);
    return await work(client);
  } finally {
    await client.close();
  }
}

async function connected(client: Client, target: Target): Promise<void> {
  const signal = AbortSignal.timeout(target.timeoutMs);
  try {
    await client.whenConnected({ signal });
  } catch (error) {
    if (!signal.aborted) throw error;
    const cause = client.lastFailure;
    const why = cause === undefined ? 'no answer' : cause.message || 'no connection';
    throw new UnreachableError(
      `no server at ${target.servers} took a session within ${target.timeoutMs} ms (${why})`,
      cause === undefined ? undefined : { cause },
    );
  }
}

/** Resolves on Ctrl-C or SIGTERM, once; afterwards the signals end the process again. */
export function untilInterrupted(): Promise<void> {
  return new Promise((resolve) => {
    const onSignal = (): void => {
      process.off('SIGINT', onSignal);
      process.off('SIGTERM', onSignal);
      resolve();
    };
    process.on('SIGINT', onSignal);
    process.on('SIGTERM', onSignal);
  });
}
