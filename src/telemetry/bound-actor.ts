// One statechart that runs: which of its annotated states are open, and what a transition means for their spans.
//   N1. A span is open exactly while its state is active; a state that is entered again gets a new one.
//   N2. A span turns ERROR only by an `outcome: "error"`, by a fatal outcome of an actor that the state invoked, or by a
//       crash. A retryable outcome is an event on it; a cancellation or a stop is neither.
//   N3. A verdict is for the nearest span around the state that gives it, and for those left in the same transition.
//   N4. The exception is recorded once, at the innermost span that failed; those above get the status.
//   N5. A gauge goes down on the series on which it went up.
import { type Context, trace } from "@opentelemetry/api";
import { isNearestSpan, type MachinePlan, type PlannedState } from "./machine-plan.ts";
import { OpenState, type Reason, reasonOf, type SpanTools, type Verdict, valuesOf } from "./open-state.ts";
import type { StateTelemetry } from "./state-telemetry.ts";
import { traceparentIn } from "./traceparent.ts";

type Data = Record<string, unknown>;
export type MachineEvent = { type: string; actorId?: unknown; output?: unknown; error?: unknown };
/** Verdicts whose reason the entry actions of the state may still have to bring into the context. */
type Pending = { reasonKey: string; targets: OpenState[] };

/** The failure that an invoked actor answered, if its output is one. */
function failureIn(event: MachineEvent): { kind: "retryable" | "fatal"; reason: Reason } | undefined {
  const output = event.output;
  if (typeof output !== "object" || output === null || !("kind" in output)) return undefined;
  if (output.kind !== "retryable" && output.kind !== "fatal") return undefined;
  return { kind: output.kind, reason: reasonOf(output) ?? { message: output.kind } };
}

/** What is the same for all actors of a statechart. */
export type BoundPlan = MachinePlan & {
  /** Moves the count of actors in a state, for each state without others in it. */
  counts: ReadonlyMap<string, (by: number) => void>;
};

export class BoundActor {
  readonly plan: BoundPlan;
  readonly #tools: SpanTools;
  readonly #base: Context;
  /** Outermost first. */
  #open: OpenState[] = [];
  /** The states that the actor is counted in. */
  #active: readonly { id: string }[] = [];
  /** Left in the running macrostep; their spans end with it. */
  #leaving: { state: OpenState; microstep: number; failed: boolean }[] = [];
  #pending: Pending[] = [];
  #microstep = 0;
  #hasEntered = false;
  #first: Context | undefined;

  constructor(plan: BoundPlan, tools: SpanTools, base: Context) {
    this.plan = plan;
    this.#tools = tools;
    this.#base = base;
  }

  /** Names of the open spans, outermost first. */
  openSpans(): string[] {
    return this.#open.flatMap(({ telemetry: { span } }) => (span === undefined ? [] : [span]));
  }

  /** Where an actor of this id runs: in the state that invoked it, or in the outermost one when it was spawned. */
  contextOf(childId: string): Context {
    for (const around of this.plan.owners.get(childId) ?? [])
      for (const id of around) {
        const open = this.#openOf(id);
        if (open?.hasSpan) return open.context;
      }
    for (const open of this.#open) if (open.hasSpan) return open.context;
    return this.#base;
  }

  /** Of its outermost span, also after that has ended; else of what started it. */
  traceparent(): string | undefined {
    return traceparentIn(this.#first ?? this.#base);
  }

  /** Opens the spans of the initial states before the actors that they invoke are started. */
  openEarly(active: readonly { id: string }[], data: Data): void {
    for (const state of this.plan.annotated)
      if (isIn(active, state.id)) this.#openState(state, state.telemetry, data, true);
  }

  enter(state: PlannedState, event: MachineEvent, data: Data): void {
    if (!this.#hasEntered)
      for (const { state: left, microstep } of this.#leaving) {
        // The transition's own assignments have run, the entry actions of its target have not.
        if (microstep === this.#microstep) left.describe(data);
      }
    this.#hasEntered = true;
    const { telemetry } = state;
    if (telemetry === undefined) return;
    const early = this.#openOf(state.id);
    const open = early?.early ? early : this.#openState(state, telemetry, data, false);
    open.early = false;
    open.entered();
    const around = this.#enclosing(state);
    if (telemetry.event !== undefined) {
      const reason = telemetry.reason === undefined ? undefined : reasonOf(data[telemetry.reason])?.message;
      around?.event(telemetry.event, {
        ...(telemetry.span === undefined && valuesOf(telemetry.attributes, data)),
        ...(reason !== undefined && { reason }),
      });
    }
    if (telemetry.outcome !== undefined)
      this.#judge(telemetry.outcome, telemetry.reason, around, failureIn(event)?.reason, data);
  }

  exit(state: PlannedState, event: MachineEvent, data: Data): void {
    if (this.#hasEntered) {
      this.#hasEntered = false;
      this.#microstep += 1;
    }
    const open = this.#openOf(state.id);
    if (open === undefined) return;
    this.#open.splice(this.#open.indexOf(open), 1);
    open.describe(data);
    open.leave();
    const failed = this.#conclude(open, event);
    this.#leaving.push({ state: open, microstep: this.#microstep, failed });
  }

  /** The macrostep is over: what it left ends, innermost first. `active` are the states that the actor is in now. */
  settle(data: Data, active: readonly { id: string }[]): void {
    this.#count(active);
    if (this.#pending.length > 0) {
      for (const { reasonKey, targets } of this.#pending) {
        const told = reasonOf(data[reasonKey]);
        for (const target of targets) target.reason ??= told;
      }
      this.#pending = [];
    }
    if (this.#leaving.length > 0) {
      for (const { state } of this.#leaving) state.end();
      this.#leaving = [];
    }
    this.#hasEntered = false;
    this.#microstep = 0;
  }

  /** The actor is gone without having left its states: stopped from outside, or ended by an error. */
  close(verdict: "stopped" | "crashed", error: unknown, data: Data): void {
    this.settle(data, []);
    const reason = error === undefined ? undefined : (reasonOf(error) ?? { message: String(error) });
    const innermost = this.#open.toReversed();
    const origin = innermost.find(({ hasSpan }) => hasSpan);
    for (const open of innermost) {
      open.judge(verdict, reason, open === origin);
      open.end();
    }
    this.#open = [];
  }

  #openState(state: PlannedState, telemetry: StateTelemetry, data: Data, early: boolean): OpenState {
    const enclosing = this.#enclosing(state)?.context ?? this.#base;
    const { id } = state;
    const open = new OpenState(this.#tools, { id, machine: this.plan.machine, telemetry }, data, enclosing, early);
    this.#open.push(open);
    if (open.hasSpan && trace.getSpanContext(open.context) !== undefined) this.#first ??= open.context;
    return open;
  }

  #enclosing(state: PlannedState): OpenState | undefined {
    for (const id of state.ancestors) {
      const open = this.#openOf(id);
      if (open?.hasSpan) return open;
    }
    return undefined;
  }

  #openOf(stateId: string): OpenState | undefined {
    return this.#open.find(({ id }) => id === stateId);
  }

  /** N2: what the answer of an invoked actor says by itself about the span that is left with it. */
  #conclude(open: OpenState, event: MachineEvent): boolean {
    if (typeof event.actorId !== "string" || !isNearestSpan(this.plan, event.actorId, open.id)) return false;
    if (event.type.startsWith("xstate.error.actor.")) {
      open.judge("error", reasonOf(event.error) ?? { message: String(event.error) }, true);
      return true;
    }
    const failure = failureIn(event);
    if (failure === undefined) return false;
    if (open.verdict === undefined) {
      if (failure.kind === "fatal") open.judge("error", failure.reason, !this.#hasOrigin());
      else {
        const { code, message } = failure.reason;
        open.event("retryable", { reason: message, ...(code !== undefined && { "error.type": code }) });
      }
    }
    return true;
  }

  #hasOrigin(): boolean {
    return this.#leaving.some(({ state }) => state.isOrigin);
  }

  /** N3. In a later microstep of the same macrostep only spans that were left by a failure share the verdict. */
  #judge(
    verdict: Verdict,
    reasonKey: string | undefined,
    around: OpenState | undefined,
    failure: Reason | undefined,
    data: Data,
  ): void {
    const left =
      verdict === "ok"
        ? []
        : this.#leaving
            .filter(
              ({ state, microstep, failed }) =>
                state.verdict === undefined && (failed || microstep === this.#microstep),
            )
            .filter(({ state }) => state.hasSpan)
            .map(({ state }) => state);
    const targets = [...left, ...(around === undefined ? [] : [around])];
    const told = reasonKey === undefined ? failure : reasonOf(data[reasonKey]);
    const isTold = this.#hasOrigin();
    for (const [i, target] of targets.entries()) target.judge(verdict, told, verdict === "error" && i === 0 && !isTold);
    if (reasonKey !== undefined && told === undefined) this.#pending.push({ reasonKey, targets });
  }

  #count(active: readonly { id: string }[]): void {
    const { counts } = this.plan;
    const before = this.#active;
    this.#active = active;
    for (const { id } of before) if (!isIn(active, id)) counts.get(id)?.(-1);
    for (const { id } of active) if (!isIn(before, id)) counts.get(id)?.(1);
  }
}

function isIn(active: readonly { id: string }[], stateId: string): boolean {
  return active.some(({ id }) => id === stateId);
}
