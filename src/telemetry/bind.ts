// The binder: makes the transitions of a statechart drive spans and metrics. The machine's file stays free of it; a copy
// of the machine gets a first entry action and a last exit action in each state, and its actors run in the context of
// the state that invoked them. Watching a machine from outside would miss transient states and re-entries.
//   N6. Telemetry never changes what a machine does: whatever throws here goes to `onFault`.
//   N7. A root's error stays the caller's: nothing here subscribes to a root.
import { type Context, context, type Tracer } from "@opentelemetry/api";
import {
  Actor,
  type AnyActorLogic,
  type AnyActorRef,
  type AnyMachineSnapshot,
  type AnyStateMachine,
  type AnyStateNode,
  type InputFrom,
  type InspectionEvent,
  StateMachine,
} from "xstate";
import { BoundActor, type BoundPlan, type MachineEvent } from "./bound-actor.ts";
import type { Instruments } from "./instruments.ts";
import { isMarked, type MachinePlan, nodesOf, planOf } from "./machine-plan.ts";
import type { SpanTools } from "./open-state.ts";
import type { TracerName } from "./state-telemetry.ts";

export type BinderOptions = {
  tracer: (name: TracerName) => Tracer;
  instruments: Instruments;
  /** Facts that instrumented machines emit. */
  onFact: (fact: { type: string }) => void;
  onFault: (error: unknown) => void;
  /** Milliseconds since the epoch; `Date.now` by default. */
  now?: () => number;
};

export type StartOptions<M extends AnyStateMachine> = {
  id: string;
  input: InputFrom<M>;
  /** What the actor's spans are below; the active context by default. */
  parent?: Context | undefined;
  inspect?: ((event: InspectionEvent) => void) | undefined;
};

type ActionArgs = { self: AnyActorRef; event: MachineEvent; context: Record<string, unknown> };

function parentOf(actor: AnyActorRef): AnyActorRef | undefined {
  return actor._parent;
}

export function createRoot<M extends AnyStateMachine>(
  machine: M,
  { id, input, inspect }: Pick<StartOptions<M>, "id" | "input" | "inspect">,
): Actor<M> {
  return new Actor(machine, { id, input, ...(inspect !== undefined && { inspect }) });
}

export class StatechartBinder {
  readonly #options: BinderOptions;
  readonly #tools: SpanTools;
  readonly #plans = new WeakMap<object, BoundPlan>();
  readonly #instrumented = new WeakMap<object, AnyStateMachine>();
  readonly #bound = new WeakMap<AnyActorRef, BoundActor>();

  constructor(options: BinderOptions) {
    this.#options = options;
    this.#tools = {
      tracer: options.tracer,
      instruments: options.instruments,
      now: options.now ?? Date.now,
      safely: (act) => this.#safely(act),
    };
  }

  /** The same machine with its telemetry bound. Provide its actors first: a later `provide` makes an unbound one. */
  instrument<M extends AnyStateMachine>(machine: M): M {
    if (this.#plans.has(machine)) return machine;
    const known = this.#instrumented.get(machine) ?? this.#bind(machine);
    this.#instrumented.set(machine, known);
    return known as M; // a copy by `provide`, whose type cannot name M
  }

  /** Creates and starts a root. Its errors are the caller's to hear. */
  start<M extends AnyStateMachine>(machine: M, { id, input, parent, inspect }: StartOptions<M>): Actor<M> {
    const instrumented = this.instrument(machine);
    const actor = createRoot(instrumented, { id, input, inspect });
    this.#boundOf(actor, parent ?? context.active());
    actor.start();
    this.#afterStart(actor);
    return actor;
  }

  /** Of the actor's outermost span, also when that has ended. */
  traceparentOf(actor: AnyActorRef): string | undefined {
    return this.#bound.get(actor)?.traceparent();
  }

  /** Names of the spans that the actor has open, outermost first. */
  openSpans(actor: AnyActorRef): string[] {
    return this.#bound.get(actor)?.openSpans() ?? [];
  }

  #bind(machine: AnyStateMachine): AnyStateMachine {
    const actors: Record<string, AnyActorLogic> = {};
    for (const [name, logic] of Object.entries(machine.implementations.actors ?? {}))
      actors[name] = this.#logic(logic as AnyActorLogic);
    const copy: AnyStateMachine = machine.provide({ actors });
    const planned = planOf(copy);
    const plan = { ...planned, counts: this.#countsOf(planned) };
    for (const node of nodesOf(copy.root)) this.#mark(node, plan);
    this.#plans.set(copy, plan);
    const { start, transition, getTransitionData } = copy;
    let processed: unknown; // the event whose transitions are selected; `snapshot.can()` asks, too
    copy.start = (...args: Parameters<typeof start>) => {
      const [snapshot] = args;
      const scope: unknown = Reflect.get(args, 1);
      const self = selfOf(scope);
      if (self !== undefined) this.#safely(() => this.#openEarly(self, snapshot));
      start(...args);
      if (self !== undefined && parentOf(self) !== undefined) queueMicrotask(() => this.#afterStart(self));
    };
    copy.getTransitionData = (snapshot, event) => {
      const found = getTransitionData.call(copy, snapshot, event);
      if (found.length === 0 && event === processed && !event.type.startsWith("xstate."))
        this.#options.instruments.add("klio.machine.ignored", 1, { machine: plan.machine, event: event.type });
      return found;
    };
    copy.transition = (snapshot, event, scope) => {
      processed = event;
      const bound = this.#boundOf(scope.self);
      try {
        const next = transition(snapshot, event, scope);
        if (bound !== undefined) this.#safely(() => settle(bound, next));
        return next;
      } catch (error) {
        this.#safely(() => bound?.close("crashed", error, snapshot.context));
        throw error;
      } finally {
        processed = undefined;
      }
    };
    return copy;
  }

  #mark(node: AnyStateNode, plan: MachinePlan): void {
    const state = plan.states.get(node.id);
    if (state === undefined || !isMarked(state, plan)) return;
    const tell = (act: (bound: BoundActor, event: MachineEvent, data: Record<string, unknown>) => void) => {
      return ({ self, event, context: data }: ActionArgs) =>
        this.#safely(() => {
          const bound = this.#boundOf(self);
          if (bound !== undefined) act(bound, event, data);
        });
    };
    node.entry.unshift(tell((bound, event, data) => bound.enter(state, event, data)));
    node.exit.push(tell((bound, event, data) => bound.exit(state, event, data)));
  }

  /** All states of a machine are there from the first of its kind on: a series that is missing cannot be alerted on. */
  #countsOf({ machine, states }: MachinePlan): BoundPlan["counts"] {
    const counts = new Map<string, (by: number) => void>();
    for (const { id, isLeaf, path } of states.values())
      if (isLeaf) counts.set(id, this.#options.instruments.level("klio.machine.state", { machine, state: path }));
    return counts;
  }

  #logic(logic: AnyActorLogic): AnyActorLogic {
    if (logic instanceof StateMachine) return this.instrument(logic);
    const inside = <T>(scope: { self: AnyActorRef }, act: () => T): T =>
      within(this.#contextOf(parentOf(scope.self), scope.self.id), act);
    const { start } = logic;
    return {
      ...logic,
      transition: (snapshot, event, scope) => inside(scope, () => logic.transition(snapshot, event, scope)),
      ...(start !== undefined && {
        start: (snapshot: unknown, scope: Parameters<typeof start>[1]) => inside(scope, () => start(snapshot, scope)),
      }),
    };
  }

  #boundOf(actor: AnyActorRef, base?: Context): BoundActor | undefined {
    const known = this.#bound.get(actor);
    if (known !== undefined) return known;
    const logic: unknown = Reflect.get(actor, "logic");
    const plan = typeof logic === "object" && logic !== null ? this.#plans.get(logic) : undefined;
    if (plan === undefined) return undefined;
    const around = base ?? this.#contextOf(parentOf(actor), actor.id);
    const bound = new BoundActor(plan, this.#tools, around);
    this.#bound.set(actor, bound);
    actor.on("*", (fact) => this.#safely(() => this.#options.onFact(fact)));
    return bound;
  }

  /** Where an actor runs that `parent` invoked or spawned as `childId`; the active context below what is not instrumented. */
  #contextOf(parent: AnyActorRef | undefined, childId: string): Context {
    return (parent && this.#boundOf(parent))?.contextOf(childId) ?? context.active();
  }

  #openEarly(actor: AnyActorRef, snapshot: AnyMachineSnapshot): void {
    this.#boundOf(actor)?.openEarly(snapshot._nodes, snapshot.context);
  }

  /** Entry actions of the initial states run outside of any transition. */
  #afterStart(actor: AnyActorRef): void {
    const bound = this.#boundOf(actor);
    if (bound !== undefined) this.#safely(() => settle(bound, actor.getSnapshot()));
  }

  #safely(act: () => void): void {
    try {
      act();
    } catch (error) {
      this.#options.onFault(error);
    }
  }
}

/** The step that led to `snapshot` is over. */
function settle(bound: BoundActor, snapshot: AnyMachineSnapshot): void {
  if (snapshot.status === "stopped") bound.close("stopped", undefined, snapshot.context);
  else if (snapshot.status === "error") bound.close("crashed", snapshot.error, snapshot.context);
  else bound.settle(snapshot.context, snapshot.status === "done" ? [] : snapshot._nodes);
}

/** Runs `act` in the context, which it often is in already. */
function within<T>(wanted: Context, act: () => T): T {
  return wanted === context.active() ? act() : context.with(wanted, act);
}

function selfOf(scope: unknown): AnyActorRef | undefined {
  return typeof scope === "object" && scope !== null && "self" in scope ? (scope.self as AnyActorRef) : undefined;
}
