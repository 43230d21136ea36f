// The source of tasks with a parent that writes down what it hears.
import { createActor, setup } from "xstate";
import type { Queue } from "../../src/actors/jetstream/queue.ts";
import { taskSource } from "../../src/actors/jetstream/task-source.actor.ts";
import type { Fact } from "../../src/domain/facts.ts";
import type { OffloadTask } from "../../src/domain/offload-task.ts";
import type { QueueCommand } from "../../src/domain/task-scheduling.ts";
import type { TaskKind } from "../../src/wire/subject.ts";
import { testLog } from "./test-log.ts";

/** `window`: with so many in hand there is no more room. */
export function listenToTasks(
  queue: Queue,
  kind: TaskKind,
  log = testLog(),
  window = Number.POSITIVE_INFINITY,
  crowd = Number.POSITIVE_INFINITY,
) {
  const events: ({ type: "task.received"; task: OffloadTask } | { type: "tasks.forgotten" })[] = [];
  const facts: Fact[] = [];
  const report = (fact: Fact) => void facts.push(fact);
  const machine = setup({
    types: { events: {} as (typeof events)[number] | QueueCommand },
    actors: { taskSource: taskSource({ queue, kind, report, log, random: () => 0.5, crowd }) },
  }).createMachine({
    invoke: { id: "taskSource", src: "taskSource", input: { queue: kind } },
    on: {
      "task.received": {
        actions: ({ event }) => {
          events.push(event);
          if (events.length >= window) command({ type: "room.changed", room: 0 });
        },
      },
      "tasks.forgotten": { actions: ({ event }) => void events.push(event) },
    },
  });
  const actor = createActor(machine, { id: "parent" }).start();
  const command = (event: QueueCommand) => actor.getSnapshot().children.taskSource?.send(event);
  const tasks = () => events.flatMap((event) => (event.type === "task.received" ? [event.task] : []));
  return { actor, command, tasks, events, facts, log };
}
