import { expect, test } from "vitest";
import { createActor, fromPromise, SimulatedClock, toPromise } from "xstate";
import { getShortestPaths } from "xstate/graph";
import { failure, type Outcome, ok } from "../../../src/domain/outcome.ts";
import { baseBackup } from "../../../src/machines/base-backup.machine.ts";
import type {
  BackupInput,
  BackupRole,
  BackupVerification,
  MissingWal,
} from "../../../src/machines/base-backup-events.ts";
import { settle } from "../../support/eventually.ts";
import { recordedTelemetry } from "../../support/span-tree.ts";
import { checkTransitionTable, stateName } from "../../support/transition-table.ts";

const input: BackupInput = {
  name: "b1",
  waitForWals: true,
  maxLooks: 3,
  lookMs: 500,
  maxVerifications: 3,
  verifyWaitMs: 5_000,
};
const done: Outcome<null> = ok(null);
const primary = ok<{ role: BackupRole }>({ role: "primary" });
const stored = ok<MissingWal>({ missing: 0, first: "" });
const missing = ok<MissingWal>({ missing: 2, first: "000000010000000000000007" });
const sound = ok<BackupVerification>({ corrupt: [], coverage: 1 });
const corrupt = ok<BackupVerification>({ corrupt: ["base/1 is damaged"], coverage: 1 });
const down = failure("KLIO-REPOSITORY-DOWN", "no answer");
const lost = failure("KLIO-SOURCE-DOWN", "PostgreSQL is gone");

type Steps = "startBackup" | "copyTablespaces" | "copyData" | "copyControlFile" | "stopBackup" | "storeManifest";
type Script = Partial<Record<Steps | "maintainBackups" | "abandonBackup", Outcome<unknown> | "hangs">> & {
  closed?: Outcome<MissingWal>[];
  verified?: (Outcome<BackupVerification> | "hangs")[];
};

/** The machine with scripted IO; lists are answered in order, their last entry again and again. */
function scripted(script: Script) {
  const calls: string[] = [];
  const never = new Promise<never>(() => undefined);
  const answer = <T>(name: string, next: () => Outcome<T> | "hangs") =>
    fromPromise<Outcome<T>, null>(async () => {
      calls.push(name);
      const value = next();
      return value === "hangs" ? never : value;
    });
  const turns = <T>(list: T[]) => {
    let turn = 0;
    return () => list[Math.min(turn++, list.length - 1)] as T;
  };
  const step = (name: Steps | "maintainBackups" | "abandonBackup") =>
    answer<null>(name, () => (script[name] ?? done) as Outcome<null> | "hangs");
  const machine = baseBackup.provide({
    actors: {
      startBackup: answer("startBackup", () => (script.startBackup ?? primary) as typeof primary),
      copyTablespaces: step("copyTablespaces"),
      copyData: step("copyData"),
      copyControlFile: step("copyControlFile"),
      stopBackup: step("stopBackup"),
      storeManifest: step("storeManifest"),
      closeBackup: answer("closeBackup", turns(script.closed ?? [stored])),
      verifyBackup: answer("verifyBackup", turns(script.verified ?? [sound])),
      maintainBackups: step("maintainBackups"),
      abandonBackup: step("abandonBackup"),
    },
  });
  return { machine, calls };
}

function backup(script: Script, more: Partial<BackupInput> = {}) {
  const { machine, calls } = scripted(script);
  const clock = new SimulatedClock();
  const facts: string[] = [];
  const actor = createActor(machine, { id: "baseBackup", clock, input: { ...input, ...more } });
  actor.on("*", (fact) => {
    facts.push(fact.type === "backup.abandoned" ? `${fact.type}: ${fact.reason}` : fact.type);
  });
  actor.start();
  return { actor, clock, calls, facts };
}

const RUN = ["startBackup", "copyTablespaces", "copyData", "copyControlFile", "stopBackup", "storeManifest"];

test("B1, B2: control file last, then stop, then metadata; WAL and verification before the end", async () => {
  const { actor, calls, facts } = backup({});
  expect(await toPromise(actor)).toMatchObject({ kind: "completed" });
  expect(calls).toEqual([...RUN, "closeBackup", "verifyBackup", "maintainBackups"]);
  expect(facts).toEqual(["backup.verified"]);
});

test.each(RUN.map((name, at) => [name, at] as const))(
  "B3: a failure of %s ends the backup and abandons it",
  async (name, at) => {
    const { actor, calls } = backup({ [name]: lost });
    expect(await toPromise(actor)).toEqual({ kind: "failed", code: "KLIO-SOURCE-DOWN", reason: "PostgreSQL is gone" });
    expect(calls).toEqual([...RUN.slice(0, at + 1), "abandonBackup"]);
  },
);

test("B3: a stop during any step cancels and abandons; a second stop changes nothing", async () => {
  for (const name of RUN.slice(0, 6)) {
    const { actor, calls } = backup({ [name]: "hangs" });
    await settle(12);
    expect(calls.at(-1)).toBe(name);
    actor.send({ type: "shutdown.requested" });
    actor.send({ type: "shutdown.requested" });
    expect(await toPromise(actor)).toMatchObject({ kind: "cancelled", code: "KLIO-CANCELLED" });
    expect(calls.filter((call) => call === "abandonBackup")).toHaveLength(1);
  }
  const verifying = backup({ verified: ["hangs"] });
  await settle(12);
  verifying.actor.send({ type: "shutdown.requested" });
  expect(await toPromise(verifying.actor)).toMatchObject({ kind: "cancelled" });
  expect(verifying.calls.at(-1)).toBe("abandonBackup");
});

test("B3: what cannot be abandoned is told, and the first reason stays", async () => {
  const { actor, facts } = backup({ copyData: lost, abandonBackup: down });
  expect(await toPromise(actor)).toMatchObject({ kind: "failed", code: "KLIO-SOURCE-DOWN" });
  expect(facts).toEqual(["backup.abandoned: no answer"]);
});

test("B4: corruption fails the backup at once, and it is abandoned", async () => {
  const { actor, calls } = backup({ verified: [corrupt] });
  expect(await toPromise(actor)).toEqual({
    kind: "failed",
    code: "KLIO-BACKUP-CORRUPT",
    reason: "backup b1 is damaged: base/1 is damaged",
  });
  expect(calls.slice(-2)).toEqual(["verifyBackup", "abandonBackup"]);
});

test("B4: a verification that cannot be made is tried three times, 5 s and 10 s apart, then the backup counts", async () => {
  const { actor, clock, calls, facts } = backup({ verified: [down] });
  const attempts = () => calls.filter((call) => call === "verifyBackup").length;
  await settle(12);
  expect(attempts()).toBe(1);
  clock.increment(4_999);
  await settle();
  expect(attempts()).toBe(1);
  clock.increment(1);
  await settle();
  expect(attempts()).toBe(2);
  clock.increment(9_999);
  await settle();
  expect(attempts()).toBe(2);
  clock.increment(1);
  expect(await toPromise(actor)).toMatchObject({ kind: "completed" });
  expect(attempts()).toBe(3);
  expect(facts).toEqual(["verification.failed", "verification.failed", "backup.unverified"]);
});

test("B5: missing WAL is looked for again, and in the end fails the backup", async () => {
  const late = backup({ closed: [missing, down, stored] });
  for (let i = 0; i < 2; i++) {
    await settle(12);
    late.clock.increment(500);
  }
  expect(await toPromise(late.actor)).toMatchObject({ kind: "completed" });
  const never = backup({ closed: [missing] });
  for (let i = 0; i < 2; i++) {
    await settle(12);
    never.clock.increment(500);
  }
  expect(await toPromise(never.actor)).toMatchObject({
    kind: "failed",
    code: "KLIO-BACKUP-FAILED",
    reason: "2 WAL files of backup b1 did not reach the server, first 000000010000000000000007; is its WAL streamed?",
  });
  expect(never.calls.filter((call) => call === "closeBackup")).toHaveLength(3);
});

test("B2: nobody waits for WAL when told so, and a refusal of the server is not asked again", async () => {
  const hurried = backup({ closed: [missing] }, { waitForWals: false });
  expect(await toPromise(hurried.actor)).toMatchObject({ kind: "completed" });
  const refused = backup({ closed: [failure("KLIO-CLUSTER-DENIED", "no")] });
  expect(await toPromise(refused.actor)).toMatchObject({ kind: "failed", code: "KLIO-CLUSTER-DENIED" });
});

test("B6: maintenance that fails, or is stopped, leaves a complete backup", async () => {
  const failing = backup({ maintainBackups: down });
  expect(await toPromise(failing.actor)).toMatchObject({ kind: "completed" });
  expect(failing.facts).toEqual(["backup.verified", "maintenance.failed"]);
  const stopped = backup({ maintainBackups: "hangs" });
  await settle(14);
  stopped.actor.send({ type: "shutdown.requested" });
  expect(await toPromise(stopped.actor)).toMatchObject({ kind: "completed" });
  expect(stopped.calls).not.toContain("abandonBackup");
});

async function told(script: Script) {
  await using recorded = await recordedTelemetry("klio-plugin");
  const { machine } = scripted(script);
  const fast = { ...input, lookMs: 1, verifyWaitMs: 1 };
  const actor = recorded.telemetry.start(machine, { id: "baseBackup/main", input: fast });
  await toPromise(actor);
  const values = await recorded.values();
  const counts = Object.fromEntries(
    ["running", "successes", "failures", "verifications", "verification_failures"].map((name) => [
      name,
      values[`klio.backup.${name}`],
    ]),
  );
  return { tree: recorded.tree(), values, counts };
}

const attributes = { "backup.name": "b1", "backup.role": "primary" };
const tracer = "klio.backup";

test("a complete backup: three spans below one, and the metrics of a success", async () => {
  const { tree, values, counts } = await told({});
  expect(tree).toEqual([
    {
      name: "backup",
      tracer,
      attributes,
      children: [
        { name: "backup_run", tracer },
        { name: "backup_verify", tracer },
        { name: "backup_maintenance", tracer },
      ],
    },
  ]);
  expect(counts).toEqual({ running: 0, successes: 1, failures: 0, verifications: 1, verification_failures: 0 });
  expect(values["klio.backup.latest_completion_time"]).toBeGreaterThan(1_700_000_000);
  expect(values["klio.backup.latest_failure_time"]).toBeUndefined();
  expect(values["klio.backup.latest_duration_seconds"]).toBeGreaterThanOrEqual(0);
  expect(values["klio.backup.verification_coverage"]).toBe(1);
});

test("a failed copy: the run and the backup are red, and a failure is counted", async () => {
  const { tree, values, counts } = await told({ copyData: lost });
  expect(tree).toMatchObject([
    {
      name: "backup",
      status: "ERROR",
      message: "PostgreSQL is gone",
      children: [{ name: "backup_run", status: "ERROR", message: "PostgreSQL is gone" }],
    },
  ]);
  expect(counts).toEqual({ running: 0, successes: 0, failures: 1, verifications: 0, verification_failures: 0 });
  expect(values["klio.backup.latest_completion_time"]).toBeUndefined();
  expect(values["klio.backup.latest_failure_time"]).toBeGreaterThan(1_700_000_000);
});

test("corruption: backup and backup_verify are red, backup_run is not", async () => {
  const { tree, counts } = await told({ verified: [corrupt] });
  const [root] = tree;
  expect(root).toMatchObject({ name: "backup", status: "ERROR" });
  expect(root?.children?.map(({ name, status }) => [name, status])).toEqual([
    ["backup_run", undefined],
    ["backup_verify", "ERROR"],
  ]);
  expect(counts).toEqual({ running: 0, successes: 0, failures: 1, verifications: 1, verification_failures: 1 });
});

test("a verification that could not be made: events, no error, and no verdict is counted", async () => {
  const { tree, counts } = await told({ verified: [down] });
  const [root] = tree;
  expect(root?.status).toBeUndefined();
  const verify = root?.children?.find(({ name }) => name === "backup_verify");
  expect(verify?.status).toBeUndefined();
  expect(verify?.events).toEqual([
    "verification.failed: no answer",
    "verification.failed: no answer",
    "backup.unverified: no answer",
  ]);
  expect(counts).toEqual({ running: 0, successes: 1, failures: 0, verifications: 0, verification_failures: 0 });
});

test("maintenance that fails: its own span is red and nothing else", async () => {
  const { tree, counts } = await told({ maintainBackups: down });
  const [root] = tree;
  expect(root?.status).toBeUndefined();
  expect(root?.children?.map(({ name, status }) => [name, status])).toEqual([
    ["backup_run", undefined],
    ["backup_verify", undefined],
    ["backup_maintenance", "ERROR"],
  ]);
  expect(counts).toMatchObject({ successes: 1, failures: 0 });
});

test("a cancelled backup is neither red nor counted", async () => {
  await using recorded = await recordedTelemetry("klio-plugin");
  const { machine } = scripted({ copyData: "hangs" });
  const actor = recorded.telemetry.start(machine, { id: "baseBackup/main", input });
  await settle(10);
  actor.send({ type: "shutdown.requested" });
  await toPromise(actor);
  expect(recorded.tree()).toMatchObject([
    { name: "backup", outcome: "cancelled", children: [{ name: "backup_run", outcome: "cancelled" }] },
  ]);
  expect(recorded.tree()[0]?.status).toBeUndefined();
  expect(await recorded.values()).toMatchObject({ "klio.backup.failures": 0, "klio.backup.successes": 0 });
});

const invoked = [
  "startBackup",
  "copyTablespaces",
  "copyData",
  "copyControlFile",
  "stopBackup",
  "storeManifest",
  "closeBackup",
  "verifyBackup",
  "maintainBackups",
  "abandonFailed",
  "abandonCancelled",
] as const;
const successes: Record<string, Outcome<unknown>> = { startBackup: primary, closeBackup: stored, verifyBackup: sound };
const answers: Record<string, { type: string; output?: unknown }> = {
  ...Object.fromEntries(
    invoked.flatMap((id) => {
      const type = `xstate.done.actor.${id}`;
      return [
        [`${id}/ok`, { type, output: successes[id] ?? done }],
        [`${id}/failed`, { type, output: lost }],
      ];
    }),
  ),
  "closeBackup/missing": { type: "xstate.done.actor.closeBackup", output: missing },
  "verifyBackup/corrupt": { type: "xstate.done.actor.verifyBackup", output: corrupt },
  look: { type: "xstate.after.look.baseBackup.active.running.awaitingWal.waiting" },
  verifyWait: { type: "xstate.after.verifyWait.baseBackup.active.verifying.waiting" },
  stop: { type: "shutdown.requested" },
};

/** A row: what changes something; all else is ignored, and a stop cancels unless told otherwise. */
const row = (changes: Record<string, string>): Record<string, string> => ({
  ...Object.fromEntries(Object.keys(answers).map((key) => [key, "ignored"])),
  stop: "active.cancelling",
  ...changes,
});
const step = (id: string, next: string) => row({ [`${id}/ok`]: next, [`${id}/failed`]: "active.failing" });

test("every state answers every event as the table says", () => {
  const context = { ...baseBackup.getInitialSnapshot({} as never, input).context };
  checkTransitionTable(
    baseBackup,
    context,
    {
      "active.running.starting": step("startBackup", "active.running.copyingTablespaces"),
      "active.running.copyingTablespaces": step("copyTablespaces", "active.running.copyingData"),
      "active.running.copyingData": step("copyData", "active.running.copyingControlFile"),
      "active.running.copyingControlFile": step("copyControlFile", "active.running.stopping"),
      "active.running.stopping": step("stopBackup", "active.running.storingManifest"),
      "active.running.storingManifest": step("storeManifest", "active.running.awaitingWal.closing"),
      "active.running.awaitingWal.closing": row({
        "closeBackup/ok": "active.verifying.reading",
        "closeBackup/missing": "active.running.awaitingWal.waiting",
        "closeBackup/failed": "active.running.awaitingWal.waiting",
      }),
      "active.running.awaitingWal.waiting": row({ look: "active.running.awaitingWal.closing" }),
      "active.verifying.reading": row({
        "verifyBackup/ok": "active.maintaining.working",
        "verifyBackup/corrupt": "active.failing",
        "verifyBackup/failed": "active.verifying.waiting",
      }),
      "active.verifying.waiting": row({ verifyWait: "active.verifying.reading" }),
      "active.maintaining.working": row({
        "maintainBackups/ok": "completed",
        "maintainBackups/failed": "completed",
        stop: "completed",
      }),
      "active.failing": row({ "abandonFailed/ok": "failed", "abandonFailed/failed": "failed", stop: "ignored" }),
      "active.cancelling": row({
        "abandonCancelled/ok": "cancelled",
        "abandonCancelled/failed": "cancelled",
        stop: "ignored",
      }),
    },
    answers,
  );
});

test("every end is reachable, and no path looks or verifies more often than it may (B4, B5)", () => {
  const paths = getShortestPaths(baseBackup, { input, events: Object.values(answers) as never });
  const states = paths.map(({ state }) => state);
  const names = new Set(states.map(({ value }) => stateName(value)));
  for (const end of ["completed", "failed", "cancelled", "active.verifying.waiting"]) expect(names).toContain(end);
  for (const { context } of states) {
    expect(context.looks).toBeLessThanOrEqual(input.maxLooks);
    expect(context.verifications).toBeLessThanOrEqual(input.maxVerifications);
  }
});
