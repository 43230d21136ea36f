// A total table, states × events, run through the pure `transition()`: no actor is started, no clock runs.

import { expect } from "vitest";
import {
  type AnyMachineSnapshot,
  type AnyStateMachine,
  type AnyStateNode,
  type SnapshotFrom,
  transition,
} from "xstate";

/** A state as `a` or `a.b`; "ignored" means that the event changes nothing. */
type Expected = string;
export type Table = Record<string, Record<string, Expected>>;

/** `{a: {b: "c"}}` as "a.b.c"; regions of a parallel state joined by " & ". */
export function stateName(value: unknown): string {
  if (typeof value === "string") return value;
  return Object.entries(value as Record<string, unknown>)
    .map(([key, inner]) =>
      typeof inner === "object" && Object.keys(inner as object).length === 0 ? key : `${key}.${stateName(inner)}`,
    )
    .join(" & ");
}

function stateValue(name: string): unknown {
  const [first = "", ...rest] = name.split(".");
  return rest.length === 0 ? first : { [first]: stateValue(rest.join(".")) };
}

/** States in which a machine can rest: no final ones, and none that is always left at once. */
function restingStates(node: AnyStateNode): string[] {
  const inner = Object.values(node.states);
  if (inner.length > 0) return inner.flatMap(restingStates);
  const isLeft = node.always?.some(({ guard }) => guard === undefined) === true;
  return node.type === "final" || isLeft ? [] : [node.path.join(".")];
}

/**
 * Checks each cell, and that the table is total: a row for every state in which the machine can rest, a column for every
 * event that it handles. `context`: of every starting snapshot. `events`: one event object per key of a row (a key may carry a
 * variant behind "/", as "xstate.done.actor.put/fatal").
 */
export function checkTransitionTable<M extends AnyStateMachine>(
  machine: M,
  context: SnapshotFrom<M>["context"],
  table: Table,
  events: Record<string, { type: string }>,
): void {
  const missing = restingStates(machine.root).filter((state) => table[state] === undefined);
  expect(missing, "states without a row").toEqual([]);
  const sent = Object.values(events).map(({ type }) => type);
  const isSent = (handled: string) =>
    sent.some((type) => type === handled || (handled.endsWith(".*") && type.startsWith(handled.slice(0, -1))));
  expect(
    // The end of an inner state comes from the machine itself, never from outside.
    machine.events.filter((handled) => !isSent(handled) && !handled.startsWith("xstate.done.state.")),
    "events without a column",
  ).toEqual([]);
  for (const [state, row] of Object.entries(table)) {
    expect(Object.keys(row).sort(), `row of ${state}`).toEqual(Object.keys(events).sort());
    for (const [key, expected] of Object.entries(row)) {
      const event = events[key];
      if (event === undefined) throw new Error(`no event for ${key}`);
      const before = machine.resolveState({ value: stateValue(state) as never, context });
      const [after, actions] = transition(machine, before as never, event as never) as unknown as [
        AnyMachineSnapshot,
        unknown[],
      ];
      const same = stateName(after.value) === stateName(before.value) && actions.length === 0;
      expect(same ? "ignored" : stateName(after.value), `${state} on ${key}`).toBe(expected);
    }
  }
}
