// Tasks waiting for a worker, in one line per cluster; the clusters take turns. Plain data for a statechart's context.
import type { OffloadTask } from "./offload-task.ts";

export type FairLine = {
  /** Cluster -> its tasks, first come first. A cluster without tasks has no entry. */
  waiting: Record<string, OffloadTask[]>;
  /** Clusters with waiting tasks; the first is next. */
  turns: string[];
};

export const emptyLine: FairLine = { waiting: {}, turns: [] };

export function lineUp(line: FairLine, task: OffloadTask): FairLine {
  // A cluster may have the name of something that every object inherits.
  const own = Object.hasOwn(line.waiting, task.cluster) ? line.waiting[task.cluster] : undefined;
  return {
    waiting: { ...line.waiting, [task.cluster]: [...(own ?? []), task] },
    turns: own === undefined ? [...line.turns, task.cluster] : line.turns,
  };
}

/**
 * The task of the first cluster, in turn, that `isFree`; that cluster goes to the end. Undefined when there is none, or when
 * the task whose turn it is does not fit: a smaller one is not let past it, or a large one would wait for ever.
 */
export function takeTurn(
  line: FairLine,
  isFree: (cluster: string) => boolean,
  fits: (task: OffloadTask) => boolean,
): { task: OffloadTask; line: FairLine } | undefined {
  const cluster = line.turns.find(isFree);
  const [task, ...rest] = cluster === undefined ? [] : (line.waiting[cluster] ?? []);
  if (cluster === undefined || task === undefined || !fits(task)) return undefined;
  const others = line.turns.filter((name) => name !== cluster);
  const { [cluster]: _, ...waiting } = line.waiting;
  return rest.length === 0
    ? { task, line: { waiting, turns: others } }
    : { task, line: { waiting: { ...waiting, [cluster]: rest }, turns: [...others, cluster] } };
}

export function lineLength(line: FairLine): number {
  return Object.values(line.waiting).reduce((sum, tasks) => sum + tasks.length, 0);
}
