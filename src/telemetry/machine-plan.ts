// What the binder knows of a statechart: its states in document order, what each says for telemetry, and which state
// invokes which actor. Computed once per machine; the machine itself stays as it is.
import type { AnyStateMachine, AnyStateNode } from "xstate";
import type { StateMeta, StateTelemetry } from "./state-telemetry.ts";

export type PlannedState = {
  id: string;
  /** Path below the machine, "copying.data"; the machine's id for the root. */
  path: string;
  telemetry: StateTelemetry | undefined;
  /** Has no states in it: one series of `klio.machine.state`. */
  isLeaf: boolean;
  /** The states around it, innermost first. */
  ancestors: readonly string[];
};

export type MachinePlan = {
  machine: string;
  states: ReadonlyMap<string, PlannedState>;
  /** Those that say something, in document order. */
  annotated: readonly (PlannedState & { telemetry: StateTelemetry })[];
  /** No span but the root's, which is left once, when all is over: which microstep left a span is no question then. */
  isRootOnly: boolean;
  /** Invoke id -> for each state that invokes it: that state and those around it, innermost first. */
  owners: ReadonlyMap<string, readonly (readonly string[])[]>;
};

/** All states below and including `node`, in document order; history states are no states to be in. */
export function* nodesOf(node: AnyStateNode): Generator<AnyStateNode> {
  if (node.type === "history") return;
  yield node;
  for (const child of Object.values(node.states)) yield* nodesOf(child);
}

export function planOf(machine: AnyStateMachine): MachinePlan {
  const states = new Map<string, PlannedState>();
  const owners = new Map<string, string[][]>();
  for (const node of nodesOf(machine.root)) {
    const meta: StateMeta | undefined = node.meta;
    const ancestors: string[] = [];
    for (let up = node.parent; up !== undefined; up = up.parent) ancestors.push(up.id);
    states.set(node.id, {
      id: node.id,
      path: node.path.join(".") || machine.id,
      telemetry: meta?.telemetry,
      isLeaf: node.type === "atomic" || node.type === "final",
      ancestors,
    });
    for (const { id } of node.invoke) owners.set(id, [...(owners.get(id) ?? []), [node.id, ...ancestors]]);
  }
  const annotated = [...states.values()].flatMap(({ telemetry, ...state }) =>
    telemetry === undefined ? [] : { ...state, telemetry },
  );
  const isRootOnly =
    !isRootReentered(machine) &&
    annotated.every(({ telemetry, ancestors }) => telemetry.span === undefined || ancestors.length === 0);
  return { machine: machine.id, states, annotated, owners, isRootOnly };
}

function isRootReentered({ root }: AnyStateMachine): boolean {
  return [...nodesOf(root)]
    .flatMap((node) => [...[...node.transitions.values()].flat(), ...(node.always ?? [])])
    .some(({ reenter, source, target }) => reenter && (source === root || target?.includes(root)));
}

/** Whether the binder must hear of each entry and exit of the state: it says something itself, or a span may be left with it. */
export function isMarked({ telemetry, isLeaf }: PlannedState, { isRootOnly }: MachinePlan): boolean {
  return telemetry !== undefined || (isLeaf && !isRootOnly);
}

/** The state whose span is the nearest around what a state invokes as `actorId`: the state itself or one around it. */
export function isNearestSpan(plan: MachinePlan, actorId: string, stateId: string): boolean {
  return (plan.owners.get(actorId) ?? []).some(
    (around) => around.find((id) => plan.states.get(id)?.telemetry?.span !== undefined) === stateId,
  );
}
