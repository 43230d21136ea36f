// Who works next and what follows from a verdict: the decisions of the offloadQueue machine, as pure functions over its
// context. The invariants Q1 to Q9 are listed there.
import { type FairLine, lineLength, lineUp, takeTurn } from "./fair-line.ts";
import { type Frontier, isHeld, noFrontier, withOffloaded } from "./frontier.ts";
import type { OffloadTask, TaskVerdict } from "./offload-task.ts";

export type QueueLimits = {
  maxConcurrent: number;
  perCluster: number;
  maxBytes: number;
  /** Tasks held in hand at most, waiting and running. */
  window: number;
  maxDeliveries: number;
  /** Wait after the n-th failed delivery; the last one repeats. */
  delaysMs: number[];
  /** Wait of a task that was deferred. */
  deferMs: number;
  probe: { firstMs: number; limitMs: number };
};

export type QueueCommand =
  | { type: "room.changed"; room: number }
  | { type: "task.acked"; id: number }
  | { type: "task.delayed"; id: number; delayMs: number }
  | { type: "task.deferred"; id: number; delayMs: number }
  | { type: "task.buried"; id: number; code: string; reason: string };

export type QueueFact =
  | { type: "queue.paused" | "queue.resumed"; queue: string; code: string; reason: string }
  | { type: "task.failed" | "task.buried"; queue: string; task: OffloadTask; code: string; reason: string }
  | { type: "frontier.advanced"; cluster: string; at: string }
  | { type: "horizon.reached"; cluster: string };

export type QueueSetup = { name: string; limits: QueueLimits; spread: number };
export type QueueState = QueueSetup & {
  line: FairLine;
  running: Record<string, OffloadTask>;
  /** The one task that tries whether tier 2 is back; empty outside of `probing`. */
  canary: string;
  outages: number;
  successes: number;
  /** Task -> how often it failed tier-wide although others had succeeded since its last try. */
  blamed: Record<string, { count: number; successes: number }>;
  frontiers: Record<string, Frontier>;
  code: string;
  reason: string;
};

type Patch = Partial<QueueState>;
/** What a decision changes, tells the source of tasks, starts, and says. */
export type Step = { patch: Patch; commands: QueueCommand[]; started: OffloadTask[]; facts: QueueFact[] };

/** Failed tier-wide this often while others succeeded: it is the task. */
export const BLAME_LIMIT = 3;

const without = <T>(record: Record<string, T>, key: string): Record<string, T> => {
  const { [key]: _, ...rest } = record;
  return rest;
};
export const idOf = (actorId: string) => actorId.slice(actorId.indexOf(":") + 1);
const bytesOf = (tasks: Record<string, OffloadTask>) => Object.values(tasks).reduce((sum, { bytes }) => sum + bytes, 0);
/** A cluster may have the name of something that every object inherits. */
export const frontierOf = ({ frontiers }: Pick<QueueState, "frontiers">, cluster: string): Frontier =>
  (Object.hasOwn(frontiers, cluster) ? frontiers[cluster] : undefined) ?? noFrontier;

/** How many workers may start now; `isOpen`: whether further tasks are asked for. */
export type Gate = { limit: number; isOpen: boolean };
export const open: Gate = { limit: Number.POSITIVE_INFINITY, isOpen: true };
export const oneOnly: Gate = { limit: 1, isOpen: false };
export const shut: Gate = { limit: 0, isOpen: false };

/** Starts what may start, settles what needs no worker, and says how much room is left. */
export function pump(context: QueueState, { limit, isOpen }: Gate): Step {
  const { maxConcurrent, perCluster, maxBytes, window } = context.limits;
  const step: Step = { patch: {}, commands: [], started: [], facts: [] };
  let { line } = context;
  let running = context.running;
  const isFree = (cluster: string) =>
    Object.values(running).filter((task) => task.cluster === cluster).length < perCluster;
  while (step.started.length < limit && Object.keys(running).length < maxConcurrent) {
    const inFlight = bytesOf(running);
    const taken = takeTurn(line, isFree, ({ bytes }) => inFlight === 0 || inFlight + bytes <= maxBytes);
    if (taken === undefined) break;
    line = taken.line;
    const { task } = taken;
    if (isHeld(frontierOf(context, task.cluster), task.name)) {
      step.commands.push({ type: "task.acked", id: task.id }); // Q3
      continue;
    }
    running = { ...running, [task.id]: task };
    step.started.push(task);
  }
  const room = !isOpen ? 0 : Math.max(0, window - lineLength(line) - Object.keys(running).length);
  step.commands.push({ type: "room.changed", room });
  step.patch = { line, running };
  return step;
}

export function advance(context: QueueState, cluster: string, next: Frontier): { patch: Patch; facts: QueueFact[] } {
  const before = frontierOf(context, cluster);
  const facts: QueueFact[] = [];
  if (next.at !== before.at && next.at !== "") facts.push({ type: "frontier.advanced", cluster, at: next.at });
  if (next.missing.length === 0 && next.horizon !== "") facts.push({ type: "horizon.reached", cluster });
  return { patch: { frontiers: { ...context.frontiers, [cluster]: next } }, facts };
}

/** What follows from a worker's verdict. */
function settle(context: QueueState, id: string, verdict: TaskVerdict): Step {
  const step: Step = { patch: {}, commands: [], started: [], facts: [] };
  const task = context.running[id];
  if (task === undefined) return step;
  const patch: Patch = { running: without(context.running, id) };
  step.patch = patch;
  const forget = () => {
    patch.blamed = without(context.blamed, id);
  };
  if (verdict.kind === "interrupted") return step;
  if (verdict.kind === "done") {
    forget();
    step.commands.push({ type: "task.acked", id: task.id }); // Q3
    const moved = advance(context, task.cluster, withOffloaded(frontierOf(context, task.cluster), verdict.name));
    Object.assign(patch, moved.patch, { successes: context.successes + 1, outages: 0 });
    step.facts.push(...moved.facts);
    return step;
  }
  if (verdict.kind === "deferred") {
    forget();
    step.commands.push({ type: "task.deferred", id: task.id, delayMs: context.limits.deferMs });
    return step;
  }
  const { code, reason } = verdict;
  if (verdict.scope === "tier") {
    const blame = blameOf(context, id);
    if (blame.count < BLAME_LIMIT) {
      patch.blamed = { ...context.blamed, [id]: blame };
      patch.line = lineUp(context.line, task); // behind the others of its cluster, so that another one is tried next
      Object.assign(patch, { code, reason });
      return step;
    }
  }
  forget();
  const isLast = task.deliveries >= context.limits.maxDeliveries;
  const isFatal = verdict.fatal && verdict.scope === "task";
  step.facts.push({ type: isFatal || isLast ? "task.buried" : "task.failed", queue: context.name, task, code, reason });
  const delays = context.limits.delaysMs;
  step.commands.push(
    isFatal || isLast
      ? { type: "task.buried", id: task.id, code, reason } // Q6
      : { type: "task.delayed", id: task.id, delayMs: delays[Math.min(task.deliveries, delays.length) - 1] ?? 0 },
  );
  return step;
}

export function settleAndPump(context: QueueState, id: string, verdict: TaskVerdict, gate: Gate): Step {
  const settled = settle(context, id, verdict);
  const pumped = pump({ ...context, ...settled.patch }, gate);
  return {
    patch: { ...settled.patch, ...pumped.patch },
    commands: [...settled.commands, ...pumped.commands],
    started: pumped.started,
    facts: [...settled.facts, ...pumped.facts],
  };
}

export function blameOf(context: QueueState, id: string): { count: number; successes: number } {
  const before = context.blamed[id];
  if (before === undefined) return { count: 1, successes: context.successes };
  const count = context.successes > before.successes ? before.count + 1 : before.count;
  return { count, successes: context.successes };
}
