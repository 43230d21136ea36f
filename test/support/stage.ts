// The demo's cast for a test: real PostgreSQL, S3, server and sidecar as processes, on free ports, and what a user does to them.
import type { CommandResult } from "../../src/actors/process/run-command.ts";
import { type KlioCommand, tryKlio } from "../../src/demo/klio-command.ts";
import { createNarrator } from "../../src/demo/narrator.ts";
import { type Stage, setStage } from "../../src/demo/stage.ts";
import { temporaryDirectory } from "./temporary-directory.ts";

export type TestStage = AsyncDisposable & {
  stage: Stage;
  directory: string;
  /** `klio backup run` through the sidecar; the result, whatever its exit status. */
  backup(name: string, flags?: string[], more?: Pick<KlioCommand, "onLine">): Promise<CommandResult>;
  /** Text of the metrics page. Rejects while nobody listens. */
  page(process: "server" | "sidecar"): Promise<string>;
};

/** `telemetry`: as of `setStage`; a function gets the directory, before anything is started. */
export async function openStage(options: {
  version?: 15 | 16 | 17 | 18;
  telemetry?: (directory: string) => Promise<NonNullable<Parameters<typeof setStage>[0]["telemetry"]>>;
}): Promise<TestStage> {
  await using stack = new AsyncDisposableStack();
  const { path: directory } = stack.use(await temporaryDirectory());
  const telemetry = await options.telemetry?.(directory);
  const stage = await setStage({
    directory,
    version: options.version ?? 18,
    env: process.env,
    narrator: createNarrator(process.stderr),
    stack,
    usualPorts: false,
    ...(telemetry !== undefined && { telemetry }),
  });
  const { surroundings } = stage;
  const opened = stack.move();
  return {
    stage,
    directory,
    backup: (name, flags = [], more = {}) =>
      tryKlio({
        program: stage.program,
        env: stage.clientEnv,
        runAs: stage.runAs,
        args: ["backup", "run", "--socket", surroundings.sidecarSocket, "--name", name, ...flags],
        ...more,
      }),
    async page(process) {
      const port = process === "server" ? surroundings.ports.serverMetrics : surroundings.ports.sidecarMetrics;
      return (await fetch(`http://127.0.0.1:${port}/metrics`)).text();
    },
    [Symbol.asyncDispose]: () => opened.disposeAsync(),
  };
}
