// Types of view.js, which the browser runs as it stands.
import type { ActorRow, ChartSummary, Step } from "../actor-log.ts";
import type { Hello, Update } from "../console.ts";

export type ViewRow = Omit<ActorRow, "status"> & { status: ActorRow["status"] | "unknown" };
export type View = {
  title: string;
  window: number;
  charts: ChartSummary[];
  actors: Map<number, ActorRow>;
  steps: Step[];
};
export function emptyView(): View;
export function viewOf(hello: Hello): View;
export function updated(view: View, update: Update): View;
export function stepsOf(view: View, chart: string, actor: number): Step[];
export function rowsAt(view: View, chart: string, seq: number | undefined): ViewRow[];
export function activePaths(chart: string, state: string): string[];
export function countsOf(chart: string, inState: Record<string, number>): Map<string, number>;
export function tally(rows: readonly ViewRow[]): Record<string, number>;
export function stepBeside(steps: readonly Step[], seq: number | undefined, by: number): number | undefined;
export function spanText(ms: number): string;
