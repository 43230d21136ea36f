// One question to PostgreSQL over an ordinary session of its own.
import { Socket } from "node:net";
import pg from "pg";
import { failureOf, type Outcome, ok } from "../../domain/outcome.ts";
import { errorText, KlioError } from "../../errors.ts";
import { sourceError } from "./classify.ts";
import { clientConfig, parseConninfo } from "./conninfo.ts";

export type Row = Readonly<Record<string, unknown>>;
export const ANSWER_MS = 15_000;

/** The rows of the last statement. Rejects for bugs only (and for a connection string that is none: KLIO-CONFIG). */
export async function askSource(
  dsn: string,
  sql: string,
  options: { values?: unknown[]; signal?: AbortSignal; applicationName?: string } = {},
): Promise<Outcome<Row[]>> {
  const { signal } = options;
  if (signal?.aborted) return cancelled();
  const config = clientConfig(parseConninfo(dsn), { applicationName: options.applicationName ?? "klio-control" });
  const client = new pg.Client({ ...config, query_timeout: ANSWER_MS });
  client.on("error", errorText); // the pending question rejects with the same error
  const abort = () => socketOf(client).destroy(new Error("cancelled"));
  signal?.addEventListener("abort", abort, { once: true });
  try {
    await client.connect();
    const result: pg.QueryResult | pg.QueryResult[] = await client.query(sql, options.values ?? []);
    return ok((Array.isArray(result) ? result.at(-1) : result)?.rows ?? []);
  } catch (error) {
    return signal?.aborted ? cancelled() : failureOf(sourceError(error));
  } finally {
    signal?.removeEventListener("abort", abort);
    client.end().catch(errorText); // the answer is there; how the session ends changes nothing
  }
}

/** The socket below a client; what is detached from it and attached to it is the caller's to know. */
export function socketOf(client: pg.Client): Socket {
  const { stream } = client.connection;
  if (!(stream instanceof Socket)) throw new KlioError("KLIO-BUG", "this version of pg has no socket where it was");
  return stream;
}

function cancelled() {
  return { kind: "retryable", code: "KLIO-CANCELLED", reason: "the question to PostgreSQL was cancelled" } as const;
}
