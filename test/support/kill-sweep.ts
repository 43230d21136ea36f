// Kills of each process of the WAL path, one seed each, on one stage under load; and what must be true after each of them.
import { chmodSync, copyFileSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { connectWal, type WalClient } from "../../src/actors/grpc/wal-client.ts";
import { klio } from "../../src/demo/klio-command.ts";
import type { Comparison } from "../../src/demo/ledger.ts";
import { type Load, startLoad } from "../../src/demo/load.ts";
import type { ManagedProcess } from "../../src/demo/managed-process.ts";
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

type Victim = "server" | "sidecar" | "postgres" | Child;
/** Of the server; of two Kopia servers either one. */
type Child = "nats-server" | "kopia";
const CHILDREN: readonly Child[] = ["nats-server", "kopia"];
export type Managed = "server" | "sidecar";

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
  const victim = chance.pick(["server", "sidecar", "sidecar", "server", "postgres", ...CHILDREN] as const);
  if (kind < 7) return { victim, afterMs };
  const second = chance.pick((["server", "sidecar", "postgres"] as const).filter((other) => other !== victim));
  return { victim, afterMs, second };
}

function told({ victim, point, afterMs, second }: Plan): string {
  if (point !== undefined) return `${victim} ${point}`;
  return second === undefined ? victim : `${victim}, then ${second} within ${afterMs} ms`;
}

const SEGMENT = /^[0-9A-F]{24}$/;

/**
 * Segments follow each other, and only the last one of a timeline may be unfinished; while they are under way, others may be for a
 * moment. `gaps`: the segments behind recorded gaps.
 */
function isWithoutGap(files: readonly { name: string; complete: boolean }[], gaps: readonly string[]): boolean {
  const complete = files.filter((file) => file.complete).map((file) => file.name);
  const names = files.map(({ name }) => name.slice(0, 24)).filter((name) => SEGMENT.test(name));
  const segments = [...new Set(names)].toSorted();
  return segments.slice(1).every((name, index) => {
    const before = segments[index]!;
    if (gaps.some((end) => before < end && end <= name)) return true; // retention may have taken what came first behind it
    // A new timeline begins with the segment in which the old one ended.
    if (before.slice(0, 8) !== name.slice(0, 8) && before.slice(8) === name.slice(8)) return true;
    const next = nextSegment(before, 16 << 20);
    return complete.includes(before) && next.slice(8) === name.slice(8);
  });
}

export type SweepResult = {
  kills: number;
  /** Stored segments that were compared with pg_wal. */
  segments: number;
  commits: number;
  /** The cluster that was restored at last. */
  restored: Comparison;
};

/** What brings a process to a point: something done once, or again and again. */
export type Provocation = { once?: (pid: number) => Promise<unknown> | unknown; often?: () => Promise<unknown> };

export class Sweep {
  readonly stage: Stage;
  readonly load: Load;
  readonly #killFiles: Readonly<Record<Managed, string>>;
  readonly #compared = new Set<string>();
  /** What streams: the stage's sidecar, unless another process has taken its place. */
  sidecar: ManagedProcess;
  kills = 0;

  constructor(stage: Stage, load: Load, killFiles: Readonly<Record<Managed, string>>) {
    this.stage = stage;
    this.load = load;
    this.sidecar = stage.sidecar;
    this.#killFiles = killFiles;
  }

  get segments(): number {
    return this.#compared.size;
  }

  async run(seed: number): Promise<void> {
    const plan = planOf(seed);
    try {
      await new Promise((resolve) => setTimeout(resolve, plan.afterMs)); // an instant of the seed's choice
      if (plan.point !== undefined) {
        // Before it streams, a sidecar passes its points once: in its next life.
        const provocation = plan.point.includes("_") ? { once: killHard } : {};
        await this.killAt(plan.victim as Managed, plan.point, { often: () => this.switchWal(), ...provocation });
      } else await this.#killNow(plan);
      await this.goesOn();
    } catch (error) {
      throw new Error(`seed ${seed} (${told(plan)}): ${error instanceof Error ? error.message : String(error)}`, {
        cause: error,
      });
    }
  }

  /** Commits are acknowledged again, all processes are back, and what is stored is PostgreSQL's own. */
  async goesOn(): Promise<void> {
    const before = this.load.ledger.count;
    try {
      await eventually(() => this.load.ledger.count >= before + 5, { timeoutMs: 60_000, what: "commits" });
    } catch (cause) {
      throw new Error(`${String(cause)}\n${this.#lastWords()}`, { cause });
    }
    for (const child of CHILDREN)
      await eventually(() => this.pid(child) !== undefined, { timeoutMs: 60_000, what: `a ${child}` });
    await this.#compare();
  }

  /** The ends of the logs, which go with the stage. */
  #lastWords(): string {
    const { directory } = this.stage.surroundings;
    const files = ["server/server.log", "sidecar/sidecar.log", "sidecar/send-wal.log"];
    return files
      .map((file) => join(directory, file))
      .filter((file) => existsSync(file))
      .map((file) => `${file}:\n${readFileSync(file, "utf8").split("\n").slice(-30).join("\n")}`)
      .join("\n");
  }

  pid(victim: Victim): number | undefined {
    if (victim === "postgres") return this.stage.postgres.pid;
    if (victim === "sidecar") return this.sidecar.pid();
    const server = this.stage.server.pid();
    if (victim === "server" || server === undefined) return server;
    return descendantsOf(server).find(({ command }) => command.startsWith(victim))?.pid;
  }

  async switchWal(): Promise<void> {
    await this.stage.postgres.query("select pg_switch_wal()").catch(() => undefined);
  }

  /** A segment with next to nothing in it: WAL by its positions. */
  async emptySegment(): Promise<void> {
    await this.stage.postgres.query("select pg_logical_emit_message(false, 'klio', '')");
    await this.stage.postgres.query("select pg_switch_wal()");
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
    const pid = this.pid(victim);
    if (pid === undefined) return;
    this.kills++;
    if (victim === "postgres") {
      await this.stage.postgres.kill();
      await this.stage.postgres.start();
    } else killHard(pid);
  }

  /** Has the process end itself at the point, in this life or the next, once it comes there; resolves when it has. */
  async killAt(victim: Managed, point: string, { once, often }: Provocation): Promise<void> {
    const file = this.#killFiles[victim];
    const pid = await eventually(() => this.pid(victim), { what: `a ${victim}` });
    writeFileSync(file, point);
    chmodSync(file, 0o666);
    rmSync(`${file}.armed`, { force: true });
    process.kill(pid, "SIGUSR2");
    await eventually(() => !existsSync(file) || existsSync(`${file}.armed`), {
      what: `${victim} that heard of ${point}`,
    });
    await once?.(pid);
    await eventually(
      async () => {
        if (!existsSync(file)) return true;
        await often?.();
        return false;
      },
      { timeoutMs: 60_000, what: `${victim} ${point}` },
    );
    this.kills++;
    await eventually(() => this.pid(victim) !== pid, { what: `the end of ${victim}` });
  }

  /** The caller closes it. */
  connect(): Promise<WalClient> {
    const { surroundings } = this.stage;
    const { cert, key } = surroundings.certificates.client(CLUSTER);
    return connectWal({
      address: `127.0.0.1:${surroundings.ports.wal1}`,
      tls: { serverCertPath: surroundings.certificates.caCert, clientCertPath: cert, clientKeyPath: key },
      clusterName: CLUSTER,
      telemetry: noTelemetry(),
      log: testLog(),
    });
  }

  /** All segments that are complete on the server and still in pg_wal, each once: byte for byte. */
  async #compare(): Promise<void> {
    const { postgres } = this.stage;
    const client = await this.connect();
    try {
      const listed = await eventually(
        async () => {
          const [answer, metadata] = [await client.list(), await client.metadata()];
          if (answer.kind !== "ok" || metadata.kind !== "ok") return undefined;
          const gaps = metadata.value.gaps.map(({ end }) => end);
          if (isWithoutGap(answer.value, gaps)) return answer.value;
          throw new Error(`${answer.value.map(({ name }) => name).join(" ")}, gaps before ${gaps.join(" ")}`);
        },
        { timeoutMs: 20_000, what: "a list of WAL without a gap" },
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

/** A stage whose processes can be killed at points, under load; `finish` loses the primary and restores. */
export async function openSweep(options: {
  stack: AsyncDisposableStack;
  sidecarEnv?: Record<string, string>;
  /** Of PostgreSQL. */
  settings?: Record<string, string>;
}): Promise<{
  sweep: Sweep;
  backup(): Promise<void>;
  sidecarEnv: Record<string, string>;
  finish(): Promise<SweepResult>;
}> {
  const { stack } = options;
  const { path: directory } = stack.use(await temporaryDirectory());
  const narrator = createNarrator(process.stderr);
  const kill = join(directory, "kill");
  mkdirSync(kill);
  chmodSync(kill, 0o777);
  const preload = join(directory, "kill-at.mts");
  copyFileSync(join(import.meta.dirname, "kill-at.mts"), preload);
  const killFiles = { server: join(kill, "server"), sidecar: join(kill, "sidecar") };
  const processEnv = (victim: Managed) => ({
    NODE_OPTIONS: `--import ${preload}`,
    KLIO_TEST_KILL_FILE: killFiles[victim],
  });
  const sidecarEnv = { ...processEnv("sidecar"), ...options.sidecarEnv };
  const stage = await setStage({
    directory,
    version: 17,
    env: process.env,
    narrator,
    stack,
    usualPorts: false,
    ...(options.settings !== undefined && { settings: options.settings }),
    processEnv: { server: processEnv("server"), sidecar: sidecarEnv },
  });
  const { postgres, surroundings } = stage;
  const { signal } = new AbortController();
  const command = { program: stage.program, env: stage.clientEnv, runAs: stage.runAs, signal };
  const load = await startLoad({ dsn: postgres.dsn, sessions: 4, pauseMs: 2 });
  stack.defer(() => load.stop());
  const sweep = new Sweep(stage, load, killFiles);
  return {
    sweep,
    sidecarEnv,
    async backup() {
      await klio({ ...command, args: ["backup", "run", "--socket", surroundings.sidecarSocket] });
    },
    async finish() {
      const recovery = await loseAndRecover({
        stage,
        load,
        command,
        directory,
        version: 17,
        more: 20,
        narrator,
        signal,
        stack,
      });
      return { kills: sweep.kills, segments: sweep.segments, commits: load.ledger.count, restored: recovery.atEnd };
    },
  };
}

/**
 * Runs the seeds one after the other, takes a backup, so that what was killed works again, then loses the primary and restores.
 * `tell`: after each seed.
 */
export async function sweepKills(options: {
  seeds: readonly number[];
  /** No new seed after this time. */
  deadlineMs?: number;
  tell: (text: string) => void;
}): Promise<SweepResult> {
  await using stack = new AsyncDisposableStack();
  const { sweep, backup, finish } = await openSweep({ stack });
  await backup();
  const until = Date.now() + (options.deadlineMs ?? Infinity);
  for (const seed of options.seeds) {
    if (Date.now() > until) break;
    await sweep.run(seed);
    options.tell(
      `seed ${seed}: ${told(planOf(seed))}; ${sweep.load.ledger.count} commits, ${sweep.segments} segments equal`,
    );
  }
  await eventually(() => backup().then(() => true), { timeoutMs: 60_000, what: "a backup after the kills" });
  return await finish(); // before the stage goes
}
