// A statechart as plain data for drawing: its states and transitions, named the same way in pictures, log and page.
//   Z1. A state is named by its path (`machine.outer.inner`), a transition by its source, event and place in the list of
//       that event; both follow from the machine alone, so that a picture drawn once serves every actor of the machine.
import type { AnyStateMachine, AnyStateNode } from "xstate";
import type { StateMeta, StateTelemetry } from "../telemetry/state-telemetry.ts";

export type ChartState = {
  id: string;
  name: string;
  kind: "atomic" | "compound" | "parallel" | "final" | "history";
  description: string;
  telemetry?: StateTelemetry;
  /** Names of the actors that run while the state is active. */
  invokes: string[];
  /** Id of the initial child. */
  initial?: string;
  states: ChartState[];
};

export type ChartEdge = {
  id: string;
  source: string;
  /** Empty: the transition changes no state. */
  targets: string[];
  /** As people read it: "putSegment done", "after backoff", "shutdown.requested". */
  event: string;
  guard: string;
  actions: string[];
};

export type Chart = { id: string; root: ChartState; edges: ChartEdge[] };

type Transition = ReturnType<AnyStateNode["transitions"]["get"]> extends (infer T)[] | undefined ? T : never;

/** Path of a state node, `machine.outer.inner`. */
function statePath(node: AnyStateNode): string {
  return [node.machine.id, ...node.path].join(".");
}

/** `{a: {b: "c"}}` as "a.b.c"; regions of a parallel state joined by " & ". Empty for a machine of one state. */
export function stateText(value: unknown): string {
  if (typeof value === "string") return value;
  if (typeof value !== "object" || value === null) return "";
  return Object.entries(value)
    .map(([name, inner]) => {
      const text = stateText(inner);
      return text === ""
        ? name
        : text
            .split(" & ")
            .map((part) => `${name}.${part}`)
            .join(" & ");
    })
    .join(" & ");
}

/** Event types of XState itself in words; any other type as it is. */
export function eventText(type: string): string {
  const match = /^xstate\.(done|error|snapshot)\.(actor|state)\.(.+)$/.exec(type);
  if (match !== null) {
    const [, what = "", of, id = ""] = match;
    const word = { done: "done", error: "failed", snapshot: "changed" }[what] ?? what;
    if (of === "state") return "all done";
    return id === "*" ? `any actor ${word}` : `${id} ${word}`;
  }
  const after = /^xstate\.after\.([^.]+)\./.exec(type);
  return after === null ? type : `after ${after[1]}`;
}

/** Name of a guard or an action, also of an inline one. */
function nameOf(part: unknown): string {
  if (typeof part === "string") return part;
  if (typeof part === "function") return part.name === "" ? "(inline)" : part.name;
  if (typeof part === "object" && part !== null && "type" in part) return String(part.type);
  return "";
}

/** Transitions of a node in the order in which they are tried, each with its id. */
function transitionsOf(node: AnyStateNode): { id: string; event: string; transition: Transition }[] {
  const listed = [...node.transitions.entries()];
  const always = node.always === undefined || node.always.length === 0 ? [] : [["", node.always] as const];
  return [...always, ...listed].flatMap(([event, transitions]) =>
    transitions.map((transition, index) => ({ id: `${statePath(node)}|${event}|${index}`, event, transition })),
  );
}

/** Id of a transition that was taken, as in the chart. The event's own list names its place. */
export function edgeId(transition: { source: AnyStateNode; eventType: string }): string {
  const { source, eventType } = transition;
  const list: readonly unknown[] = (eventType === "" ? source.always : source.transitions.get(eventType)) ?? [];
  return `${statePath(source)}|${eventType}|${Math.max(0, list.indexOf(transition))}`;
}

function stateOf(node: AnyStateNode): ChartState {
  const meta: StateMeta = node.meta ?? {};
  const [initial] = node.type === "compound" ? (node.initial.target ?? []) : [];
  return {
    id: statePath(node),
    name: node.path.length === 0 ? node.machine.id : node.key,
    kind: node.type,
    description: meta.description ?? node.description ?? "",
    ...(meta.telemetry !== undefined && { telemetry: meta.telemetry }),
    invokes: node.invoke.map((invoke) => (typeof invoke.src === "string" ? invoke.src : invoke.id)),
    ...(initial !== undefined && { initial: statePath(initial) }),
    states: Object.values(node.states).map(stateOf),
  };
}

function edgesOf(node: AnyStateNode): ChartEdge[] {
  const own = transitionsOf(node).map(({ id, event, transition }) => ({
    id,
    source: statePath(node),
    targets: (transition.target ?? []).map(statePath),
    event: eventText(event),
    guard: nameOf(transition.guard),
    actions: transition.actions.map(nameOf),
  }));
  return [...own, ...Object.values(node.states).flatMap(edgesOf)];
}

/** The chart of a machine. */
export function chartOf(machine: AnyStateMachine): Chart {
  return { id: machine.id, root: stateOf(machine.root), edges: edgesOf(machine.root) };
}
