// Rebuilds the cluster from one tier and compares its rows: first at a point in time, then at the end of WAL.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { KlioError } from "../errors.ts";
import { type KlioCommand, klio } from "./klio-command.ts";
import { type Comparison, compareRows, type Ledger } from "./ledger.ts";
import { readRows } from "./load.ts";
import { type LocalPostgres, type PostgresVersion, preparePostgres } from "./local-postgres.ts";
import type { Narrator } from "./narrator.ts";

export type PointInTime = { time: string; rows: ReadonlyMap<number, string> };
export type Recovery = { postgres: LocalPostgres; atPoint: Comparison; atEnd: Comparison; recoverySeconds: number };

const REPLAY_LIMIT_MS = 120_000;

async function waitFor(what: string, postgres: LocalPostgres, sql: string, signal: AbortSignal): Promise<void> {
  const deadline = Date.now() + REPLAY_LIMIT_MS;
  for (;;) {
    signal.throwIfAborted();
    const [row] = await postgres.query(`select (${sql}) as holds`);
    if (row?.holds === true) return;
    if (Date.now() > deadline || postgres.pid === undefined) {
      const log = readFileSync(postgres.logFile, "utf8").trim().split("\n").slice(-6).join("\n");
      throw new KlioError(
        "KLIO-SOURCE-DOWN",
        `${what} did not come within ${REPLAY_LIMIT_MS / 1000} s; the recovered PostgreSQL says:\n${log}`,
      );
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/**
 * Restores into `directory/data` by `klio restore`, replays to the point in time through `klio get-wal`, compares, replays to
 * the end, compares. The PostgreSQL that is returned accepts writes; the caller stops it.
 */
export async function recover(options: {
  directory: string;
  version: PostgresVersion;
  port?: number;
  settings: Readonly<Record<string, string>>;
  command: Omit<KlioCommand, "args" | "onLine">;
  config: string;
  tier: "tier1" | "tier2";
  point: PointInTime;
  ledger: Ledger;
  narrator: Narrator;
  signal: AbortSignal;
}): Promise<Recovery> {
  const { narrator, ledger, point, signal } = options;
  let recoveryMs = 0;
  const timed = async <T>(work: () => Promise<T>): Promise<T> => {
    const since = Date.now();
    const result = await work();
    recoveryMs += Date.now() - since;
    return result;
  };
  // Makes the directory (and gives it to the right user) before the restore fills `data`.
  const paused = await preparePostgres({
    directory: options.directory,
    version: options.version,
    existing: true,
    settings: { ...options.settings, recovery_target_action: "pause" },
    ...(options.port !== undefined && { port: options.port }),
  });
  const destination = join(options.directory, "data");
  await timed(() =>
    klio({
      ...options.command,
      args: [
        "restore",
        destination,
        "--config",
        options.config,
        "--tier",
        options.tier,
        "--target-time",
        point.time,
        "--configure",
      ],
      onLine: (line) => narrator.progress(line),
    }),
  );
  await timed(async () => {
    await paused.start();
    await waitFor("the point in time", paused, "pg_get_wal_replay_pause_state() = 'paused'", signal);
  });
  const atPoint = compareRows(point.rows, await readRows(paused.dsn));
  narrator.note(
    `at ${point.time}: ${atPoint.found} rows, ${atPoint.lost} missing, ${atPoint.different + atPoint.unexpected} too many or different`,
  );
  await paused.stop();
  const postgres = await preparePostgres({
    directory: options.directory,
    version: options.version,
    existing: true,
    port: paused.port,
    settings: { ...options.settings, recovery_target_time: "", recovery_target_action: "promote" },
  });
  await timed(async () => {
    await postgres.start();
    await waitFor("the end of WAL", postgres, "not pg_is_in_recovery()", signal);
  });
  const atEnd = compareRows(ledger.snapshot(), await readRows(postgres.dsn), (id) => ledger.isDoubtful(id));
  narrator.note(
    `at the end of WAL: ${atEnd.found} rows, ${atEnd.lost} of ${atEnd.expected} acknowledged commits missing`,
  );
  return { postgres, atPoint, atEnd, recoverySeconds: recoveryMs / 1000 };
}
