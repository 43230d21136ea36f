import { spawn } from "node:child_process";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { type Actor, createActor } from "xstate";
import {
  type ChildSpec,
  endLeftOver,
  processStartTime,
  runChild,
} from "../../../src/actors/process/run-child.actor.ts";
import { type ChildFact, childProcess } from "../../../src/machines/child-process.machine.ts";
import { eventually } from "../../support/eventually.ts";
import { temporaryDirectory } from "../../support/temporary-directory.ts";

const SERVE = `console.log("listening"); process.on("SIGTERM", () => process.exit(0)); setInterval(() => {}, 1000);`;

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

function childSpec(directory: string, script: string, more: Partial<ChildSpec> = {}): ChildSpec {
  return {
    command: process.execPath,
    args: ["-e", script],
    env: {},
    lockFile: join(directory, "child.lock"),
    ready: { line: /^listening/ },
    readyWithinMs: 10_000,
    onLine: () => undefined,
    stopWithinMs: 5_000,
    ...more,
  };
}

function start(spec: ChildSpec) {
  const gone: string[] = [];
  const facts: ChildFact[] = [];
  const logic = runChild(
    () => spec,
    (name) => gone.push(name),
  );
  const input = { name: "probe", firstMs: 10, limitMs: 50, stableMs: 60_000 };
  const actor: Actor<typeof childProcess> = createActor(childProcess.provide({ actors: { runChild: logic } }), {
    id: "childProcess/probe",
    input,
  });
  actor.on("*", (fact) => facts.push(fact));
  actor.start();
  const pid = () =>
    eventually(() => (actor.getSnapshot().matches({ running: "ready" }) ? actor.getSnapshot().context.pid : undefined));
  return { actor, gone, facts, pid };
}

test("a child that is killed is started again; a stop ends it and removes its lock", async () => {
  await using dir = await temporaryDirectory();
  const { actor, gone, facts, pid } = start(childSpec(dir.path, SERVE));
  const first = await pid();
  expect(readFileSync(join(dir.path, "child.lock"), "utf8").split(" ")[0]).toBe(String(first));
  process.kill(first, "SIGKILL");
  const second = await eventually(() => {
    const { value, context } = actor.getSnapshot();
    return typeof value === "object" && value.running === "ready" && context.pid !== first ? context.pid : undefined;
  });
  expect(facts.map((fact) => fact.type)).toEqual(["child.ready", "child.restarted", "child.ready"]);
  expect(facts[1]?.reason).toMatch(/signal SIGKILL/);
  actor.send({ type: "shutdown.requested" });
  await eventually(() => gone.length === 2);
  expect(isAlive(second)).toBe(false);
  expect(existsSync(join(dir.path, "child.lock"))).toBe(false);
});

test("a refusal ends in failed with the child's own words; a missing program likewise", async () => {
  await using dir = await temporaryDirectory();
  const refusing = childSpec(dir.path, `console.error("FATAL: port 1 is busy"); process.exit(1)`, {
    refusal: (line) => (line.includes("busy") ? line : undefined),
  });
  const one = start(refusing);
  await eventually(() => one.actor.getSnapshot().matches("failed"));
  expect(one.actor.getSnapshot().context.reason).toBe("FATAL: port 1 is busy");
  const two = start(childSpec(dir.path, "", { command: "/nowhere/kopia" }));
  await eventually(() => two.actor.getSnapshot().status !== "active" || two.facts.length > 0);
  expect(two.facts[0]?.reason).toMatch(/nowhere\/kopia/);
  two.actor.send({ type: "shutdown.requested" });
});

test("a child that never gets ready is killed and counts as ended", async () => {
  await using dir = await temporaryDirectory();
  const { actor, facts } = start(childSpec(dir.path, "setInterval(() => {}, 1000)", { readyWithinMs: 200 }));
  await eventually(() => facts.some((fact) => fact.type === "child.restarted"));
  expect(facts[0]?.reason).toMatch(/not ready within 200 ms/);
  actor.send({ type: "shutdown.requested" });
});

test("a left-over of a killed run is ended by its lock file, another process with that id is not", async () => {
  await using dir = await temporaryDirectory();
  const script = fileURLToPath(new URL("../../support/spawn-untied.mjs", import.meta.url));
  const parent = spawn(process.execPath, [script, join(dir.path, "child.lock")], { stdio: "inherit" });
  await new Promise((resolve) => parent.once("exit", resolve));
  const orphan = Number(readFileSync(join(dir.path, "child.lock"), "utf8").split(" ")[0]);
  expect(isAlive(orphan)).toBe(true);
  expect(endLeftOver(join(dir.path, "child.lock"))).toBe(orphan);
  await eventually(
    () => processStartTime(orphan) === undefined || /^\d+ \(.*\) Z/.test(readFileSync(`/proc/${orphan}/stat`, "utf8")),
  );
  writeFileSync(join(dir.path, "other.lock"), `${process.pid} 1\n`);
  expect(endLeftOver(join(dir.path, "other.lock"))).toBeUndefined();
});

test.runIf(process.platform === "linux").each(["child", "command"])(
  "P8: a %s dies with its parent, even when that is killed",
  async (kind) => {
    const script = fileURLToPath(new URL("../../support/spawn-tied.mts", import.meta.url));
    const parent = spawn(process.execPath, [script, kind], { stdio: ["ignore", "pipe", "inherit"] });
    const line = await new Promise<string>((resolve) => parent.stdout.setEncoding("utf8").once("data", resolve));
    const child = Number(line);
    expect(isAlive(child)).toBe(true);
    parent.kill("SIGKILL");
    await eventually(() => !isAlive(child) || /\) Z/.test(readFileSync(`/proc/${child}/stat`, "utf8")));
  },
);
