// The end of a test of loss: the primary and its data directory go, and a cluster is restored from what Klio holds.
import { rmSync } from "node:fs";
import { join } from "node:path";
import type { Load } from "../../src/demo/load.ts";
import type { PostgresVersion } from "../../src/demo/local-postgres.ts";
import type { Narrator } from "../../src/demo/narrator.ts";
import { type Recovery, recover } from "../../src/demo/recovery.ts";
import { POSTGRES_SETTINGS, type Stage } from "../../src/demo/stage.ts";

/**
 * Notes a point in time, commits at least `more` rows after it, destroys the primary, and restores from tier 1 to the end of
 * WAL and to that point. `stack` ends the restored cluster.
 */
export async function loseAndRecover(options: {
  stage: Stage;
  load: Load;
  command: Parameters<typeof recover>[0]["command"];
  directory: string;
  version: PostgresVersion;
  more: number;
  narrator: Narrator;
  signal: AbortSignal;
  stack: AsyncDisposableStack;
}): Promise<Recovery> {
  const { stage, load, command, directory, version, more, narrator, signal, stack } = options;
  const { postgres, surroundings } = stage;
  const point = await load.pausedDuring(async () => {
    const [row] = await postgres.query("select clock_timestamp()::text as t");
    return { time: new Date(String(row?.t)).toISOString(), rows: load.ledger.snapshot() };
  });
  await load.reached(load.ledger.count + more, signal);
  await postgres.kill();
  await load.stop(500);
  rmSync(postgres.dataDirectory, { recursive: true, force: true });
  const recovery = await recover({
    directory: join(directory, "recovered"),
    version,
    port: postgres.port,
    settings: { ...POSTGRES_SETTINGS, synchronous_standby_names: "" },
    command,
    config: surroundings.sidecarConfig,
    tier: "tier1",
    point,
    ledger: load.ledger,
    narrator,
    signal,
  });
  stack.use(recovery.postgres);
  return recovery;
}
