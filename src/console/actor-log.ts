// What the console knows: the actors that live, the last ones that ended, and the last steps of each chart. Fed by
// XState's inspection; it serves people, never spans or metrics.
//   Z6. Memory is bounded: a window of steps and of ended actors per chart, a limit of living actors.
//   Z7. An inspected actor never notices: nothing here throws, subscribes or keeps an ended actor.
//   Z8. Events are kept as their type, contexts as the listed keys (J1); payloads, inputs and outputs are never read.
//   Z10. A step that repeats its actor's last one and changes no state takes no place of its own in the window.
import {
  Actor,
  type AnyActorRef,
  type AnyMachineSnapshot,
  type AnyStateMachine,
  type AnyStateNode,
  type InspectionEvent,
} from "xstate";
import { edgeId, eventText, stateText } from "./chart.ts";
import { type Fields, pickFields } from "./context-fields.ts";
import { Ring } from "./ring.ts";

export type ActorStatus = "active" | "done" | "stopped" | "error";
export type ActorRow = {
  /** Number of the actor within this process. */
  key: number;
  /** Number of the parent; 0 for a root. */
  parent: number;
  chart: string;
  id: string;
  state: string;
  /** Milliseconds since the epoch at which it came into this state, or ended. */
  sinceMs: number;
  status: ActorStatus;
  fields: Fields;
};
export type Step = {
  seq: number;
  atMs: number;
  actor: number;
  id: string;
  chart: string;
  event: string;
  /** State after the step. */
  state: string;
  status: ActorStatus;
  /** Ids of the transitions taken; none: the event changed nothing. */
  edges: string[];
  fields: Fields;
  /** How often in a row (Z10); `atMs` and `fields` are those of the last time. */
  times: number;
};
/** Living actors of a chart, by their state. */
export type ChartSummary = { chart: string; living: number; ended: number; inState: Record<string, number> };
export type LogLimits = { stepsPerChart: number; endedPerChart: number; living: number };

type ChartRecord = {
  machine: AnyStateMachine;
  steps: Ring<Step>;
  ended: Ring<number>;
  living: number;
  endedTotal: number;
};
type Living = { ref: AnyActorRef; row: ActorRow; last?: Step };

/** Called for each change; a step that repeats comes again, a `row` is undefined when the actor was forgotten. */
type ChangeListener = { step(step: Step): void; row(key: number, row: ActorRow | undefined): void };

/** Hours of a quiet server, seconds of a busy one; about a megabyte for all charts together. */
export const LIMITS: LogLimits = { stepsPerChart: 250, endedPerChart: 30, living: 5_000 };

function isMachine(logic: unknown): logic is AnyStateMachine {
  return typeof logic === "object" && logic !== null && "root" in logic && "id" in logic && "resolveState" in logic;
}

function transitionsIn(event: object): { source: AnyStateNode; eventType: string }[] {
  // Declared private by its underscore; without it the picture merely does not mark the line that was taken.
  const taken: unknown = Reflect.get(event, "_transitions");
  return Array.isArray(taken) ? taken : [];
}

function snapshotIn(event: object): AnyMachineSnapshot | undefined {
  const snapshot: unknown = Reflect.get(event, "snapshot");
  return typeof snapshot === "object" && snapshot !== null && "value" in snapshot
    ? (snapshot as AnyMachineSnapshot) // an edge: inspection types it as a snapshot of any logic
    : undefined;
}

function isSame(last: Step, next: Pick<Step, "event" | "state" | "status" | "edges">): boolean {
  return (
    last.event === next.event &&
    last.state === next.state &&
    last.status === next.status &&
    last.edges.length === next.edges.length &&
    last.edges.every((edge, index) => edge === next.edges[index])
  );
}

export class ActorLog {
  private readonly charts = new Map<string, ChartRecord>();
  private readonly living = new Map<AnyActorRef, Living>();
  private readonly ended = new Map<number, ActorRow>();
  private readonly numbers = new WeakMap<AnyActorRef, number>();
  private readonly limits: LogLimits;
  private readonly now: () => number;
  private lastKey = 0;
  private lastSeq = 0;
  /** Set while somebody watches. */
  listener: ChangeListener | undefined;

  constructor(options: { limits?: Partial<LogLimits>; now?: () => number } = {}) {
    this.limits = { ...LIMITS, ...options.limits };
    this.now = options.now ?? Date.now;
  }

  /** Takes one inspection event. Never throws. */
  take(event: InspectionEvent): void {
    const { actorRef } = event;
    if (!(actorRef instanceof Actor)) return;
    if (event.type === "@xstate.microstep") this.step(actorRef, event);
    else if (event.type === "@xstate.event") this.event(actorRef, event.event, event.sourceRef);
  }

  /**
   * Looks at the roots: one that ended by an exception of its own tells nobody, and to subscribe to its error would hide
   * it from its owner.
   */
  look(): void {
    for (const { ref, row } of [...this.living.values()])
      if (row.parent === 0 && ref.getSnapshot().status === "error") this.fail(ref, "exception");
  }

  /** The machine of a chart that was seen. */
  machine(chart: string): AnyStateMachine | undefined {
    return this.charts.get(chart)?.machine;
  }

  /** Charts in the order in which they were first seen. */
  summary(): ChartSummary[] {
    const states = new Map<string, Record<string, number>>();
    for (const { row } of this.living.values()) {
      const inState = states.get(row.chart) ?? {};
      inState[row.state] = (inState[row.state] ?? 0) + 1;
      states.set(row.chart, inState);
    }
    return [...this.charts].map(([chart, { living, endedTotal: ended }]) => ({
      chart,
      living,
      ended,
      inState: states.get(chart) ?? {},
    }));
  }

  /** Living actors, at most `perChart` of each chart (those whose state changed last), and the ended ones still kept. */
  rows(perChart: number): ActorRow[] {
    const byChart = new Map<string, ActorRow[]>();
    for (const { row } of this.living.values()) {
      const rows = byChart.get(row.chart);
      if (rows === undefined) byChart.set(row.chart, [row]);
      else rows.push(row);
    }
    const latest = [...byChart.values()].flatMap((rows) =>
      rows.length <= perChart ? rows : rows.sort((a, b) => b.sinceMs - a.sinceMs).slice(0, perChart),
    );
    return [...latest, ...this.ended.values()];
  }

  /** All kept steps, oldest first. */
  steps(): Step[] {
    return [...this.charts.values()].flatMap(({ steps }) => steps.toArray()).sort((a, b) => a.seq - b.seq);
  }

  private event(ref: AnyActorRef, event: { type: string }, source: unknown): void {
    if (event.type === "xstate.init") this.begin(ref);
    // A child that failed tells its parent; by then nothing else was heard of it.
    else if (source instanceof Actor && event.type.startsWith("xstate.error.actor.")) this.fail(source, "exception");
  }

  private chartOf(machine: AnyStateMachine): ChartRecord {
    const known = this.charts.get(machine.id);
    if (known !== undefined) return known;
    const record: ChartRecord = {
      machine,
      steps: new Ring(this.limits.stepsPerChart),
      ended: new Ring(this.limits.endedPerChart),
      living: 0,
      endedTotal: 0,
    };
    this.charts.set(machine.id, record);
    return record;
  }

  private keyOf(ref: AnyActorRef): number {
    const known = this.numbers.get(ref);
    if (known !== undefined) return known;
    this.lastKey += 1;
    this.numbers.set(ref, this.lastKey);
    return this.lastKey;
  }

  private begin(ref: AnyActorRef): void {
    const logic: unknown = Reflect.get(ref, "logic");
    if (!isMachine(logic)) return;
    const snapshot: AnyMachineSnapshot = ref.getSnapshot();
    const chart = this.chartOf(logic);
    const row: ActorRow = {
      key: this.keyOf(ref),
      parent: ref._parent === undefined ? 0 : this.keyOf(ref._parent),
      chart: logic.id,
      id: ref.id,
      state: stateText(snapshot.value),
      sinceMs: this.now(),
      status: "active",
      fields: pickFields(snapshot.context),
    };
    const alive: Living = { ref, row };
    this.living.set(ref, alive);
    chart.living += 1;
    this.record(chart, alive, "started", []);
    if (snapshot.status === "active") this.boundLiving();
    else this.end(ref, row, snapshot.status === "done" ? "done" : "error");
  }

  private step(ref: AnyActorRef, event: Extract<InspectionEvent, { type: "@xstate.microstep" }>): void {
    const alive = this.living.get(ref);
    const snapshot = snapshotIn(event);
    // Steps before the start belong to the initial state, which `begin` records.
    if (alive === undefined || snapshot === undefined) return;
    const { row } = alive;
    const chart = this.chartOf(snapshot.machine);
    const state = stateText(snapshot.value);
    const edges = transitionsIn(event).map(edgeId);
    if (state !== row.state || snapshot.status !== row.status) row.sinceMs = this.now();
    row.state = state;
    row.fields = pickFields(snapshot.context);
    row.status = snapshot.status;
    this.record(chart, alive, eventText(event.event.type), edges);
    if (snapshot.status !== "active") this.end(ref, row, snapshot.status);
  }

  private record(chart: ChartRecord, alive: Living, event: string, edges: string[]): void {
    const { key: actor, id, state, status, fields } = alive.row;
    const atMs = this.now();
    const { last } = alive;
    const isKept = last !== undefined && last.seq >= (chart.steps.oldest?.seq ?? 0);
    if (isKept && isSame(last, { event, state, status, edges })) {
      Object.assign(last, { atMs, fields, times: last.times + 1 });
      this.listener?.step(last);
    } else {
      this.lastSeq += 1;
      const step = { seq: this.lastSeq, atMs, actor, id, chart: alive.row.chart, event, state, status, edges, fields };
      alive.last = { ...step, times: 1 };
      chart.steps.push(alive.last);
      this.listener?.step(alive.last);
    }
    this.listener?.row(actor, alive.row);
  }

  private fail(ref: AnyActorRef, event: string): void {
    const alive = this.living.get(ref);
    const chart = alive === undefined ? undefined : this.charts.get(alive.row.chart);
    if (alive === undefined || chart === undefined) return;
    alive.row.status = "error";
    alive.row.sinceMs = this.now();
    this.record(chart, alive, event, []);
    this.end(ref, alive.row, "error");
  }

  private end(ref: AnyActorRef, row: ActorRow, status: ActorStatus): void {
    const chart = this.charts.get(row.chart);
    if (chart === undefined || !this.living.delete(ref)) return;
    row.status = status;
    chart.living -= 1;
    chart.endedTotal += 1;
    this.ended.set(row.key, row);
    this.listener?.row(row.key, row);
    const gone = chart.ended.push(row.key);
    if (gone !== undefined) this.forget(gone);
  }

  private forget(key: number): void {
    this.ended.delete(key);
    this.listener?.row(key, undefined);
  }

  /** Actors that nobody ends would be kept for ever: the oldest is let go. It goes on living, unseen. */
  private boundLiving(): void {
    if (this.living.size <= this.limits.living) return;
    const [oldest] = this.living.values();
    if (oldest === undefined) return;
    this.living.delete(oldest.ref);
    const chart = this.charts.get(oldest.row.chart);
    if (chart !== undefined) chart.living -= 1;
    this.listener?.row(oldest.row.key, undefined);
  }
}
