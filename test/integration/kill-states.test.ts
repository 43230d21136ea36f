// P8 at each state of the statecharts on the WAL path: the process that enters it is killed (-9) there and then.
// One state in five, and the first of each kind of way, unless KLIO_KILL_STATE names more: `all`, or how those begin that
// are wanted (walStream/).
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import type { AnyStateMachine } from "xstate";
import { isExact } from "../../src/demo/ledger.ts";
import { startManaged } from "../../src/demo/managed-process.ts";
import { childProcess } from "../../src/machines/child-process.machine.ts";
import { role } from "../../src/machines/role.machine.ts";
import { segmentShipment } from "../../src/machines/segment-shipment.machine.ts";
import { slotGuard } from "../../src/machines/slot-guard.machine.ts";
import { walIngest } from "../../src/machines/wal-ingest.machine.ts";
import { walServing } from "../../src/machines/wal-serving.machine.ts";
import { walStream } from "../../src/machines/wal-stream.machine.ts";
import { nodesOf } from "../../src/telemetry/machine-plan.ts";
import { killStates } from "../support/kill-states.ts";
import { openSweep, type Sweep } from "../support/kill-sweep.ts";

const machines: AnyStateMachine[] = [walStream, segmentShipment, walIngest, walServing, slotGuard, childProcess, role];

test("every state of the statecharts on the WAL path is killed in, or it is said why not", () => {
  const states = machines.map(({ id, root }) => {
    const leaves = [...nodesOf(root)].filter((node) => Object.keys(node.states).length === 0);
    return [id, leaves.map((node) => node.path.join(".")).toSorted()] as const;
  });
  const listed = Object.entries(killStates).map(([id, rows]) => [id, Object.keys(rows).toSorted()] as const);
  expect(Object.fromEntries(listed)).toEqual(Object.fromEntries(states));
});

const wanted = process.env.KLIO_KILL_STATE;
const isWanted = (point: string) => wanted === undefined || wanted === "all" || point.startsWith(wanted);
const all = Object.entries(killStates).flatMap(([machine, states]) =>
  Object.entries(states).flatMap(([state, row]) => {
    const point = `${machine}/${state}`;
    return "never" in row || !isWanted(point) ? [] : [{ point, ...row }];
  }),
);
const rows = all.filter(
  ({ needs }, index) =>
    wanted !== undefined || index % 5 === 0 || all.findIndex((other) => other.needs === needs) === index,
);

async function killAtEach(sweep: Sweep, needs: (typeof rows)[number]["needs"], before?: () => Promise<void>) {
  for (const { point, victim, way, undo } of rows.filter((row) => row.needs === needs)) {
    try {
      await before?.();
      await sweep.killAt(victim, point, way(sweep)).finally(() => undo?.(sweep));
      await sweep.goesOn();
    } catch (cause) {
      throw new Error(`a kill at ${point}: ${String(cause)}`, { cause });
    }
  }
}

/** Another sidecar in the place of the stage's, which takes a standby for a source, too. */
async function streamFromAnything({ stage }: Sweep, env: Record<string, string>) {
  const { program, clientEnv, runAs, surroundings, postgres } = stage;
  await stage.sidecar.stop();
  return startManaged({
    name: "send-wal",
    command: program.node,
    args: [program.main, "send-wal", "--config", surroundings.sidecarConfig, "--no-primary"],
    env: { ...clientEnv, ...env },
    runAs,
    cwd: join(surroundings.directory, "sidecar"),
    logFile: join(surroundings.directory, "sidecar", "send-wal.log"),
    isReady: async () =>
      (await postgres.query("select 1 from pg_stat_replication where application_name = 'klio'")).length > 0,
    readyWithinMs: 60_000,
    tell: () => undefined,
  });
}

/** PostgreSQL is a standby, which has replayed all it has, and is streamed from. */
async function demote({ stage: { postgres } }: Sweep): Promise<void> {
  await postgres.stop();
  writeFileSync(join(postgres.dataDirectory, "standby.signal"), "");
  await postgres.start();
  await expect
    .poll(() => postgres.query("select state from pg_stat_replication where application_name = 'klio'"), {
      timeout: 60_000,
    })
    .toEqual([{ state: "streaming" }]);
}

test("P1, P2, P8: whichever state is entered, its process may be killed there", { timeout: 600_000 }, async () => {
  await using stack = new AsyncDisposableStack();
  const { sweep, sidecarEnv, backup, finish } = await openSweep({
    stack,
    sidecarEnv: { SOURCE_GAP_POLICY: "record" },
    settings: { max_slot_wal_keep_size: "1GB" },
  });
  // Nothing here is on the way to tier 2, and a server without it is back sooner.
  await sweep.stage.server.stop();
  await sweep.stage.startServer({ tier1: true, tier2: false });
  await killAtEach(sweep, "gap");
  await backup();
  await killAtEach(sweep, undefined);
  sweep.sidecar = await streamFromAnything(sweep, sidecarEnv);
  stack.defer(async () => void (await sweep.sidecar.stop()));
  await killAtEach(sweep, "promotion", () => demote(sweep));
  const { restored, kills, segments } = await finish();
  expect(kills).toBe(rows.length);
  expect(segments).toBeGreaterThan(0);
  expect(restored.expected).toBeGreaterThan(5 * rows.length);
  expect(isExact(restored)).toBe(true);
});
