import { expect, test } from "vitest";
import { klio } from "../../src/demo/klio-command.ts";
import { isExact } from "../../src/demo/ledger.ts";
import { startLoad } from "../../src/demo/load.ts";
import { createNarrator } from "../../src/demo/narrator.ts";
import { descendantsOf } from "../../src/demo/process-tree.ts";
import { type Stage, setStage } from "../../src/demo/stage.ts";
import { eventually } from "../support/eventually.ts";
import { loseAndRecover } from "../support/lose-and-recover.ts";
import { temporaryDirectory } from "../support/temporary-directory.ts";

const COMMITS = 150;

function childOf(stage: Stage, command: string): number {
  const pid = stage.server.pid();
  const found = pid === undefined ? undefined : descendantsOf(pid).find((child) => child.command.startsWith(command));
  if (found === undefined) throw new Error(`the server has no child ${command}`);
  return found.pid;
}

test("P1, P8: kill -9 of server, sidecar, nats-server and Kopia server loses no acknowledged commit", async () => {
  await using dir = await temporaryDirectory();
  const { signal } = new AbortController();
  const narrator = createNarrator(process.stderr);
  await using stack = new AsyncDisposableStack();
  const stage = await setStage({
    directory: dir.path,
    version: 16,
    env: process.env,
    narrator,
    stack,
    usualPorts: false,
  });
  const { surroundings, program, clientEnv, runAs, postgres } = stage;
  const load = await startLoad({ dsn: postgres.dsn, sessions: 4, pauseMs: 2 });
  stack.defer(() => load.stop());
  await load.reached(COMMITS, signal);
  const command = { program, env: clientEnv, runAs, signal };
  const base = ["--config", surroundings.sidecarConfig];
  const backup = () =>
    klio({
      ...command,
      args: ["backup", "run", ...base, "--socket", surroundings.sidecarSocket, "--enable-tier2-backup"],
    });
  await backup();

  const victims: [string, () => number][] = [
    ["server", () => stage.server.pid() ?? 0],
    ["sidecar", () => stage.sidecar.pid() ?? 0],
    ["nats-server", () => childOf(stage, "nats-server")],
    ["kopia", () => childOf(stage, "kopia")],
  ];
  for (const [name, find] of victims) {
    const pid = find();
    const before = load.ledger.count;
    process.kill(pid, "SIGKILL");
    await eventually(() => load.ledger.count >= before + COMMITS, {
      timeoutMs: 60_000,
      what: `commits after the end of ${name}`,
    });
    await eventually(() => find() !== pid, { timeoutMs: 60_000, what: `a new ${name}` });
    narrator.note(`${name} (process ${pid}) killed; ${load.ledger.count - before} commits since`);
  }
  // Backups work again, too, once the killed Kopia server is back.
  await eventually(async () => (await backup()) !== "", { timeoutMs: 60_000, what: "a backup after the kills" });

  const recovery = await loseAndRecover({
    stage,
    load,
    command,
    directory: dir.path,
    version: 16,
    more: COMMITS,
    narrator,
    signal,
    stack,
  });
  expect(recovery.atEnd).toMatchObject({ lost: 0, different: 0, unexpected: 0 });
  expect(isExact(recovery.atPoint)).toBe(true);
  expect(recovery.atEnd.expected).toBeGreaterThan(5 * COMMITS);
});
