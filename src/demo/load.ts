// The load of the demo: several sessions that each commit one row at a time, and remember what was acknowledged.
import { randomBytes } from "node:crypto";
import pg from "pg";
import { errorText } from "../errors.ts";
import { Ledger } from "./ledger.ts";

export interface Load {
  readonly ledger: Ledger;
  /** Waits until no commit is in flight, then runs `work`, then goes on. */
  pausedDuring<T>(work: () => Promise<T>): Promise<T>;
  /** Ends the sessions after their current commit; one that does not answer within `graceMs` is cut off. */
  stop(graceMs?: number): Promise<void>;
  /** Resolves when `count` rows are acknowledged. */
  reached(count: number, signal: AbortSignal): Promise<void>;
}

const TABLE = "create table if not exists klio_demo (id bigint primary key, payload text not null)";

/** Makes the table and starts `sessions` clients. They connect again when PostgreSQL was away. */
export async function startLoad(options: {
  dsn: string;
  sessions: number;
  /** First row number. */
  firstId?: number;
  ledger?: Ledger;
  /** Pause of each session between two commits, milliseconds. */
  pauseMs: number;
}): Promise<Load> {
  const setup = new pg.Client({ connectionString: options.dsn });
  setup.on("error", errorText); // the query rejects, too
  await setup.connect();
  await setup.query(TABLE);
  await setup.end();

  const ledger = options.ledger ?? new Ledger();
  let next = options.firstId ?? 1;
  let stopping = false;
  let inFlight = 0;
  let gate: Promise<void> = Promise.resolve();
  const watchers = new Set<() => void>();
  const clients = new Set<pg.Client>();
  const moved = () => {
    for (const watcher of watchers) watcher();
  };

  const commitOne = async (client: pg.Client) => {
    const row = { id: next++, payload: randomBytes(24).toString("base64url") };
    ledger.sent(row.id);
    inFlight += 1;
    try {
      await client.query("insert into klio_demo (id, payload) values ($1, $2)", [row.id, row.payload]);
      ledger.acknowledged(row, Date.now());
    } finally {
      inFlight -= 1;
      moved();
    }
  };
  const session = async () => {
    while (!stopping) {
      const client = new pg.Client({ connectionString: options.dsn, application_name: "klio-demo-load" });
      clients.add(client);
      client.on("error", errorText); // the pending commit rejects, too
      try {
        await client.connect();
        while (!stopping) {
          await gate;
          if (!stopping) await commitOne(client);
          await pause(options.pauseMs);
        }
        await client.end();
      } catch (error) {
        lastError = errorText(error);
        await pause(200);
      } finally {
        clients.delete(client);
      }
    }
  };
  let lastError = "";
  const sessions = Promise.all(Array.from({ length: options.sessions }, session));

  const until = (holds: () => boolean, signal?: AbortSignal) =>
    new Promise<void>((resolve, reject) => {
      const check = () => {
        if (!holds() && signal?.aborted !== true) return;
        watchers.delete(check);
        if (holds()) resolve();
        else reject(new Error(`the load was cancelled${lastError === "" ? "" : ` (${lastError})`}`));
      };
      watchers.add(check);
      signal?.addEventListener("abort", check, { once: true });
      check();
    });

  return {
    ledger,
    async pausedDuring(work) {
      const { promise, resolve } = Promise.withResolvers<void>();
      gate = promise;
      try {
        await until(() => inFlight === 0);
        return await work();
      } finally {
        resolve();
      }
    },
    async stop(graceMs = 2_000) {
      stopping = true;
      const cut = setTimeout(() => {
        for (const client of clients) client.connection.stream.destroy();
      }, graceMs);
      await sessions;
      clearTimeout(cut);
    },
    reached: (count, signal) => until(() => ledger.count >= count, signal),
  };
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** All rows of a restored cluster. */
export async function readRows(dsn: string): Promise<{ id: number; payload: string }[]> {
  const client = new pg.Client({ connectionString: dsn });
  client.on("error", errorText); // the query rejects, too
  await client.connect();
  try {
    const { rows } = await client.query<{ id: string; payload: string }>("select id, payload from klio_demo");
    return rows.map(({ id, payload }) => ({ id: Number(id), payload }));
  } finally {
    await client.end();
  }
}
