// Watches the replication slot from outside the stream: how much WAL PostgreSQL keeps for it, and whether it is safe.
//   G1. `lost` is entered only when PostgreSQL says that the slot lost its WAL, and left only when a later look says otherwise.
//   G2. A look that fails changes nothing: the level stays what it was.
//   G3. A fact is emitted when the level changes, and only then.
//   G4. A missing slot is endangered, not lost: nothing keeps WAL for us, and the stream makes the slot again. On a standby
//       from which nothing is streamed none is due.
//   G5. A slot whose room is forecast to be used up within `soonSeconds` is endangered, however much room that still is.
//   G6. Levels follow the part of its room that the slot uses, never an amount, where a limit is known: that of the slot or the
//       free space of the volume, whichever is nearer.
import { assign, emit, setup } from "xstate";
import type { Outcome } from "../domain/outcome.ts";
import { roomOf } from "../domain/slot-forecast.ts";
import type { StateMeta } from "../telemetry/state-telemetry.ts";
import { unprovided } from "./unprovided.ts";

/**
 * What PostgreSQL says about the slot. `status`: its wal_status. `safeBytes`: WAL that may still be written before the slot
 * loses its own; null: no limit. `freeBytes`: of the volume of pg_wal; null: not known. `secondsToFull`: until the nearer of
 * the two is reached; null: what is kept does not grow.
 */
export type SlotAmounts = {
  status: string;
  retainedBytes: number;
  safeBytes: number | null;
  freeBytes: number | null;
  secondsToFull: number | null;
};
export type SlotLook = { kind: "missing" } | { kind: "notDue" } | ({ kind: "present"; active: boolean } & SlotAmounts);
export type SlotLevel = "watching" | "lagging" | "endangered" | "lost";
export type SlotGuardInput = {
  cluster: string;
  slot: string;
  pollMs: number;
  /** Parts of the room, 0 to 1: more in use is a lag, and a danger. */
  lagPart: number;
  nearPart: number;
  /** More retained WAL than this is a lag where no limit is known. */
  lagBytes: number;
  /** A forecast below this is a danger, too. */
  soonSeconds: number;
};
export type SlotFact = { type: "slot.changed"; slot: string; level: SlotLevel } & SlotAmounts;

type Context = SlotGuardInput & SlotAmounts & { level: SlotLevel; active: boolean; isPresent: boolean };

const nothing: SlotAmounts = { status: "", retainedBytes: 0, safeBytes: null, freeBytes: null, secondsToFull: null };

export const slotGuard = setup({
  types: {
    input: {} as SlotGuardInput,
    context: {} as Context,
    events: {} as { type: "shutdown.requested" },
    emitted: {} as SlotFact,
    meta: {} as StateMeta,
  },
  actors: { readSlot: unprovided<Outcome<SlotLook>, { slot: string }>("readSlot") },
  actions: {
    keepLook: assign((_, look: Outcome<SlotLook>) => {
      if (look.kind !== "ok") return {};
      if (look.value.kind !== "present") return { isPresent: false, active: false, ...nothing };
      const { kind, ...seen } = look.value;
      return { isPresent: kind === "present", ...seen };
    }),
    changeLevel: assign({ level: (_, { level }: { level: SlotLevel }) => level }),
    emitChanged: emit(
      ({ context: { slot, level, status, retainedBytes, safeBytes, freeBytes, secondsToFull } }): SlotFact => ({
        type: "slot.changed",
        slot,
        level,
        status,
        retainedBytes,
        safeBytes,
        freeBytes,
        secondsToFull,
      }),
    ),
  },
  guards: {
    becomes: ({ context }, { look, level }: { look: Outcome<SlotLook>; level: SlotLevel }) =>
      look.kind === "ok" && context.level !== level && levelOf(context, look.value) === level,
    isAt: ({ context }, level: SlotLevel) => context.level === level,
  },
  delays: { poll: ({ context }) => context.pollMs },
}).createMachine({
  id: "slotGuard",
  context: ({ input }) => ({ ...input, ...nothing, level: "watching", active: false, isPresent: false }),
  initial: "watching",
  on: { "shutdown.requested": ".stopped" },
  states: {
    reading: {
      meta: { description: "asking PostgreSQL" },
      invoke: {
        id: "readSlot",
        src: "readSlot",
        input: ({ context: { slot } }) => ({ slot }),
        onDone: [
          {
            guard: { type: "becomes", params: ({ event }) => ({ look: event.output, level: "watching" }) },
            target: "watching",
            actions: [
              { type: "keepLook", params: ({ event }) => event.output },
              { type: "changeLevel", params: { level: "watching" } },
              "emitChanged",
            ],
          },
          {
            guard: { type: "becomes", params: ({ event }) => ({ look: event.output, level: "lagging" }) },
            target: "lagging",
            actions: [
              { type: "keepLook", params: ({ event }) => event.output },
              { type: "changeLevel", params: { level: "lagging" } },
              "emitChanged",
            ],
          },
          {
            guard: { type: "becomes", params: ({ event }) => ({ look: event.output, level: "endangered" }) },
            target: "endangered",
            actions: [
              { type: "keepLook", params: ({ event }) => event.output },
              { type: "changeLevel", params: { level: "endangered" } },
              "emitChanged",
            ],
          },
          {
            guard: { type: "becomes", params: ({ event }) => ({ look: event.output, level: "lost" }) },
            target: "lost",
            actions: [
              { type: "keepLook", params: ({ event }) => event.output },
              { type: "changeLevel", params: { level: "lost" } },
              "emitChanged",
            ],
          },
          { target: "settled", actions: { type: "keepLook", params: ({ event }) => event.output } },
        ],
      },
    },
    settled: {
      meta: { description: "nothing changed" },
      always: [
        { guard: { type: "isAt", params: "lagging" }, target: "lagging" },
        { guard: { type: "isAt", params: "endangered" }, target: "endangered" },
        { guard: { type: "isAt", params: "lost" }, target: "lost" },
        { target: "watching" },
      ],
    },
    watching: { meta: { description: "the slot uses little of its room, and is safe" }, after: { poll: "reading" } },
    lagging: { meta: { description: "the slot uses much of its room" }, after: { poll: "reading" } },
    endangered: {
      meta: { description: "the slot is missing, or close to losing its WAL" },
      after: { poll: "reading" },
    },
    lost: { meta: { description: "PostgreSQL removed WAL that the slot needed" }, after: { poll: "reading" } },
    stopped: { type: "final" },
  },
});

function levelOf(limits: SlotGuardInput, look: SlotLook): SlotLevel {
  if (look.kind === "notDue") return "watching";
  if (look.kind === "missing") return "endangered"; // G4
  const { status, retainedBytes, safeBytes, freeBytes, secondsToFull } = look;
  if (status === "lost") return "lost";
  const left = roomOf(safeBytes, freeBytes);
  const isBeyond = (part: number) => left !== null && retainedBytes > part * (retainedBytes + Math.max(0, left)); // G6
  const isSoon = secondsToFull !== null && secondsToFull < limits.soonSeconds; // G5
  if (status === "unreserved" || isBeyond(limits.nearPart) || isSoon) return "endangered";
  const isMuch = left === null ? retainedBytes > limits.lagBytes : isBeyond(limits.lagPart);
  return isMuch ? "lagging" : "watching";
}
