import { expect, test } from "vitest";
import { createActor, SimulatedClock, toPromise } from "xstate";
import { getShortestPaths } from "xstate/graph";
import { failure, type Outcome } from "../../../src/domain/outcome.ts";
import { baseBackup } from "../../../src/machines/base-backup.machine.ts";
import type { BackupInput } from "../../../src/machines/base-backup-events.ts";
import { settle } from "../../support/eventually.ts";
import {
  type BackupScript,
  corrupt,
  done,
  down,
  input,
  lost,
  missing,
  primary,
  scripted,
  sound,
  stored,
} from "../../support/scripted-backup.ts";
import { checkTransitionTable, stateName } from "../../support/transition-table.ts";

function backup(script: BackupScript, more: Partial<BackupInput> = {}) {
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
  expect(facts).toEqual(["backup.verified", "backup.completed"]);
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
  expect(facts).toEqual(["verification.failed", "verification.failed", "backup.unverified", "backup.completed"]);
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
  expect(failing.facts).toEqual(["backup.verified", "maintenance.failed", "backup.completed"]);
  const stopped = backup({ maintainBackups: "hangs" });
  await settle(14);
  stopped.actor.send({ type: "shutdown.requested" });
  expect(await toPromise(stopped.actor)).toMatchObject({ kind: "completed" });
  expect(stopped.calls).not.toContain("abandonBackup");
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
