// Typed placeholder for the machine that does a queue's work; the composition root provides segmentOffload or backupRelay.
import { type AnyStateMachine, setup } from "xstate";
import type { OffloadTask, TaskVerdict } from "../domain/offload-task.ts";

/** Loosely typed, because either machine has a context of its own; input and output are as written here. */
export const taskWorker: AnyStateMachine = setup({
  types: {
    input: {} as { task: OffloadTask },
    output: {} as TaskVerdict,
    events: {} as { type: "shutdown.requested" },
  },
}).createMachine({
  id: "taskWorker",
  initial: "unprovided",
  states: { unprovided: { type: "final" } },
  output: (): TaskVerdict => ({ kind: "interrupted" }),
});
