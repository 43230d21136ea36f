// Kills of each process of the WAL path, one seed each, on one stage under load; and what must be true after each of them.
import { chmodSync, copyFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { connectWal } from "../../src/actors/grpc/wal-client.ts";
import { klio } from "../../src/demo/klio-command.ts";
import type { Comparison } from "../../src/demo/ledger.ts";
import { type Load, startLoad } from "../../src/demo/load.ts";
import { createNarrator } from "../../src/demo/narrator.ts";
import { descendantsOf, killHard } from "../../src/demo/process-tree.ts";
import { type Stage, setStage } from "../../src/demo/stage.ts";
import { CLUSTER } from "../../src/demo/surroundings.ts";
import { nextSegment } from "../../src/domain/wal-segment.ts";
import { noTelemetry } from "../../src/telemetry/telemetry.ts";
import { eventually } from "./eventually.ts";
import { loseAndRecover } from "./lose-and-recover.ts";
import { type Random, random } from "./random.ts";
import { temporaryDirectory } from "./temporary-directory.ts";
import { testLog } from "./test-log.ts";

type Victim = "server" | "sidecar" | "postgres" | "nats-server";
type Managed = "server" | "sidecar";

const POINTS: Readonly<Record<Managed, readonly string[]>> = {
  server: [
    "before a file is made",
    "after a file is made",
    "before names are synced",
    "after names are synced",
    "before a write",
    "during a write",
    "after a write",
    "before a file is renamed",
    "after a file is renamed",
  ],
  sidecar: [
    "before IDENTIFY_SYSTEM",
    "after IDENTIFY_SYSTEM",
    "before pg_replication_slots",
    "after pg_replication_slots",
    "before START_REPLICATION",
    "after START_REPLICATION",
    "before a status",
    "after a status",
  ],
};

/** What a seed does. `second` follows a moment later. */
type Plan = { victim: Victim; point?: string; afterMs: number; second?: Victim };

function planOf(seed: number): Plan {
  const chance: Random = random(seed);
  const afterMs = chance.int(150);
  const kind = chance.int(10);
  if (kind < 4) {
    const victim = chance.pick(["server", "sidecar"] as const);
    return { victim, point: chance.pick(POINTS[victim]), afterMs };
  }
  const victim = chance.pick(["server", "sidecar", "sidecar", "server", "postgres", "nats-server"] as const);
  if (kind < 7) return { victim, afterMs };
  const second = chance.pick((["server", "sidecar", "postgres"] as const).filter((other) => other !== victim));
  return { victim, afterMs, second };
}

function told({ victim, point, afterMs, second }: Plan): string {
  if (point !== undefined) return `${victim} ${point}`;
  return second === undefined ? victim : `${victim}, then ${second} within ${afterMs} ms`;
}

/** Segments follow each other, and only the last one may be unfinished; while they are under way, others may be for a moment. */
function isWithoutGap(files: readonly { name: string; complete: boolean }[]): boolean {
  const complete = files.filter((file) => file.complete).map((file) => file.name);
  const segments = [...new Set(files.map(({ name }) => name.slice(0, 24)))].filter((name) =>
    /^[0-9A-F]{24}$/.test(name),
  );
  return segments
    .toSorted()
    .slice(0, -1)
    .every(
      (name, index, all) => complete.includes(name) && (index === 0 || nextSegment(all[index - 1]!, 16 << 20) === name),
    );
}

export type SweepResult = {
  kills: number;
  /** Stored segments that were compared with pg_wal. */
  segments: number;
  commits: number;
  /** The cluster that was restored at last. */
  restored: Comparison;
};

class Sweep {
  readonly #stage: Stage;
  readonly #load: Load;
  readonly #killFiles: Readonly<Record<Managed, string>>;
  readonly #compared = new Set<string>();
  kills = 0;

  constructor(stage: Stage, load: Load, killFiles: Readonly<Record<Managed, string>>) {
    this.#stage = stage;
    this.#load = load;
    this.#killFiles = killFiles;
  }

  get segments(): number {
    return this.#compared.size;
  }

  async run(seed: number): Promise<void> {
    const plan = planOf(seed);
    try {
      await new Promise((resolve) => setTimeout(resolve, plan.afterMs)); // an instant of the seed's choice
      if (plan.point !== undefined) await this.#killAt(plan.victim as Managed, plan.point);
      else await this.#killNow(plan);
      const before = this.#load.ledger.count;
      await eventually(() => this.#load.ledger.count >= before + 5, { timeoutMs: 60_000, what: "commits" });
      await eventually(() => this.#pid("nats-server") !== undefined, { timeoutMs: 60_000, what: "a nats-server" });
      await this.#compare();
    } catch (error) {
      throw new Error(`seed ${seed} (${told(plan)}): ${error instanceof Error ? error.message : String(error)}`, {
        cause: error,
      });
    }
  }

  #pid(victim: Victim): number | undefined {
    if (victim === "postgres") return this.#stage.postgres.pid;
    if (victim !== "nats-server") return this.#stage[victim].pid();
    const server = this.#stage.server.pid();
    return server === undefined
      ? undefined
      : descendantsOf(server).find(({ command }) => command.startsWith(victim))?.pid;
  }

  async #killNow({ victim, second, afterMs }: Plan): Promise<void> {
    const restarts = [this.#kill(victim)];
    if (second !== undefined) {
      await new Promise((resolve) => setTimeout(resolve, afterMs));
      restarts.push(this.#kill(second));
    }
    await Promise.all(restarts);
  }

  /** PostgreSQL has no supervisor here but us. */
  async #kill(victim: Victim): Promise<void> {
    const pid = this.#pid(victim);
    if (pid === undefined) return;
    this.kills++;
    if (victim === "postgres") {
      await this.#stage.postgres.kill();
      await this.#stage.postgres.start();
    } else killHard(pid);
  }

  async #killAt(victim: Managed, point: string): Promise<void> {
    const file = this.#killFiles[victim];
    const pid = await eventually(() => this.#pid(victim), { what: `a ${victim}` });
    writeFileSync(file, point);
    chmodSync(file, 0o666);
    this.kills++;
    // Before it streams, a sidecar passes its points once: in its next life.
    if (point.includes("_")) killHard(pid);
    else process.kill(pid, "SIGUSR2");
    await eventually(
      async () => {
        if (!existsSync(file)) return true;
        await this.#stage.postgres.query("select pg_switch_wal()").catch(() => undefined);
        return false;
      },
      { timeoutMs: 60_000, what: `${victim} ${point}` },
    );
    await eventually(() => this.#pid(victim) !== pid, { what: `the end of ${victim}` });
  }

  /** All segments that are complete on the server and still in pg_wal, each once: byte for byte. */
  async #compare(): Promise<void> {
    const { surroundings, postgres } = this.#stage;
    const { cert, key } = surroundings.certificates.client(CLUSTER);
    const tls = { serverCertPath: surroundings.certificates.caCert, clientCertPath: cert, clientKeyPath: key };
    const address = `127.0.0.1:${surroundings.ports.wal1}`;
    const client = await connectWal({
      address,
      tls,
      clusterName: CLUSTER,
      telemetry: noTelemetry(),
      log: testLog(),
    });
    try {
      const listed = await eventually(
        async () => {
          const answer = await client.list();
          return answer.kind === "ok" && isWithoutGap(answer.value) ? answer.value : undefined;
        },
        { timeoutMs: 60_000, what: "a list of WAL without a gap" },
      );
      for (const { name, complete } of listed) {
        const source = join(postgres.dataDirectory, "pg_wal", name);
        if (!complete || name.length !== 24 || this.#compared.has(name) || !existsSync(source)) continue;
        const expected = readFileSync(source);
        const answer = await client.get(name);
        if (answer.kind !== "ok" || answer.value === undefined) throw new Error(`${name} cannot be had`);
        const parts: Uint8Array[] = [];
        for await (const block of answer.value.blocks) parts.push(block);
        if (!Buffer.concat(parts).equals(expected)) throw new Error(`${name} differs from PostgreSQL's`);
        this.#compared.add(name);
      }
    } finally {
      client.close();
    }
  }
}

/** Runs the seeds one after the other, then loses the primary and restores. `tell`: after each seed. */
export async function sweepKills(options: {
  seeds: readonly number[];
  /** No new seed after this time. */
  deadlineMs?: number;
  tell: (text: string) => void;
}): Promise<SweepResult> {
  await using dir = await temporaryDirectory();
  await using stack = new AsyncDisposableStack();
  const narrator = createNarrator(process.stderr);
  const kill = join(dir.path, "kill");
  mkdirSync(kill);
  chmodSync(kill, 0o777);
  const preload = join(dir.path, "kill-at.mts");
  copyFileSync(join(import.meta.dirname, "kill-at.mts"), preload);
  const killFiles = { server: join(kill, "server"), sidecar: join(kill, "sidecar") };
  const processEnv = (victim: Managed) => ({
    NODE_OPTIONS: `--import ${preload}`,
    KLIO_TEST_KILL_FILE: killFiles[victim],
  });
  const stage = await setStage({
    directory: dir.path,
    version: 17,
    env: process.env,
    narrator,
    stack,
    usualPorts: false,
    processEnv: { server: processEnv("server"), sidecar: processEnv("sidecar") },
  });
  const { postgres, surroundings } = stage;
  const { signal } = new AbortController();
  const command = { program: stage.program, env: stage.clientEnv, runAs: stage.runAs, signal };
  const load = await startLoad({ dsn: postgres.dsn, sessions: 4, pauseMs: 2 });
  stack.defer(() => load.stop());
  await klio({ ...command, args: ["backup", "run", "--socket", surroundings.sidecarSocket] });

  const sweep = new Sweep(stage, load, killFiles);
  const until = Date.now() + (options.deadlineMs ?? Infinity);
  for (const seed of options.seeds) {
    if (Date.now() > until) break;
    await sweep.run(seed);
    options.tell(`seed ${seed}: ${told(planOf(seed))}; ${load.ledger.count} commits, ${sweep.segments} segments equal`);
  }

  const recovery = await loseAndRecover({
    stage,
    load,
    command,
    directory: dir.path,
    version: 17,
    more: 20,
    narrator,
    signal,
    stack,
  });
  return { kills: sweep.kills, segments: sweep.segments, commits: load.ledger.count, restored: recovery.atEnd };
}
