import { expect, test } from "vitest";
import { createActor, fromPromise } from "xstate";
import { getShortestPaths } from "xstate/graph";
import { type ReceiveOutcome, type SealOutcome, walIngest } from "../../../src/machines/wal-ingest.machine.ts";
import { settle } from "../../support/eventually.ts";
import { checkTransitionTable, stateName, type Table } from "../../support/transition-table.ts";

const input = { call: "1", cluster: "alpha", name: "000000010000000000000001", traceparent: "00-a-b-01" };
const whole: ReceiveOutcome = { kind: "ok", isWhole: true, rawBytes: 100, sendToTier2: true };
const early: ReceiveOutcome = { ...whole, isWhole: false, rawBytes: 40 };
const nothing: ReceiveOutcome = { ...early, rawBytes: 0 };
const refused: ReceiveOutcome = {
  kind: "fatal",
  code: "KLIO-WAL-MISMATCH",
  reason: "wrong page",
  rawBytes: 40,
  sendToTier2: false,
};
const full: ReceiveOutcome = {
  kind: "retryable",
  code: "KLIO-DISK-FULL",
  reason: "full",
  rawBytes: 0,
  sendToTier2: true,
};
const sealed: SealOutcome = { kind: "ok" };
const unsealed: SealOutcome = { kind: "retryable", code: "KLIO-DISK-FULL", reason: "full" };

/** Answers of IO; `receive` undefined: blocks never end. */
async function ingest(receive: ReceiveOutcome | undefined, seal: SealOutcome = sealed, drain = early) {
  const calls: string[] = [];
  const facts: { type: string }[] = [];
  const actor = createActor(
    walIngest.provide({
      actors: {
        receiveWal: fromPromise<ReceiveOutcome, { call: string }>(({ signal }) => {
          calls.push("receive");
          signal.addEventListener("abort", () => calls.push("aborted"));
          return receive === undefined ? new Promise<never>(() => undefined) : Promise.resolve(receive);
        }),
        sealWal: fromPromise<SealOutcome, { call: string }>(async () => {
          calls.push("seal");
          return seal;
        }),
        drainWal: fromPromise<ReceiveOutcome, { call: string }>(async () => {
          calls.push("drain");
          return drain;
        }),
      },
    }),
    { id: "test", input },
  );
  actor.on("*", (fact) => facts.push(fact));
  actor.start();
  if (receive === undefined) actor.send({ type: "shutdown.requested" });
  await settle();
  const snapshot = actor.getSnapshot();
  return { state: stateName(snapshot.value), output: snapshot.output, calls, facts };
}

test("I1, I2: a whole file is sealed, then stored", async () => {
  expect(await ingest(whole)).toEqual({
    state: "stored",
    output: { kind: "stored", rawBytes: 100 },
    calls: ["receive", "seal"],
    facts: [
      {
        type: "wal.stored",
        cluster: "alpha",
        name: input.name,
        rawBytes: 100,
        sendToTier2: true,
        traceparent: "00-a-b-01",
      },
    ],
  });
});

test("I1: a file that could not be sealed is not stored; its bytes are told", async () => {
  const { state, output, facts } = await ingest(whole, unsealed);
  expect({ state, output }).toEqual({ state: "failed", output: { ...unsealed, rawBytes: 100 } });
  expect(facts.map((fact) => fact.type)).toEqual(["wal.interrupted"]);
});

test("I2, I3: a file that ends early is left partial", async () => {
  const { state, output, calls, facts } = await ingest(early);
  expect({ state, output, calls }).toEqual({
    state: "partial",
    output: { kind: "partial", rawBytes: 40 },
    calls: ["receive"],
  });
  expect(facts).toEqual([
    expect.objectContaining({ type: "wal.interrupted", name: `${input.name}.partial`, rawBytes: 40 }),
  ]);
});

test("I3: nothing is told of a file without bytes; a refusal and a failure tell theirs", async () => {
  expect(await ingest(nothing)).toMatchObject({ state: "empty", facts: [] });
  expect(await ingest(full)).toMatchObject({
    state: "failed",
    output: { code: "KLIO-DISK-FULL" },
    facts: [],
  });
  expect(await ingest(refused)).toMatchObject({
    state: "refused",
    output: { kind: "fatal", code: "KLIO-WAL-MISMATCH", reason: "wrong page", rawBytes: 40 },
    facts: [{ type: "wal.interrupted", sendToTier2: false }],
  });
});

test("I4: a stop drains what has come before the file is left, and seals it when that is all of it", async () => {
  expect(await ingest(undefined)).toMatchObject({
    state: "partial",
    output: { kind: "stopped", rawBytes: 40 },
    calls: ["receive", "aborted", "drain"],
    facts: [{ type: "wal.interrupted", rawBytes: 40 }],
  });
  expect(await ingest(undefined, sealed, whole)).toMatchObject({ state: "stored", facts: [{ type: "wal.stored" }] });
  expect(await ingest(undefined, sealed, full)).toMatchObject({ state: "failed" });
});

const done = (id: string, output: unknown) => ({ type: `xstate.done.actor.${id}`, output });
const events = {
  "shutdown.requested": { type: "shutdown.requested" },
  "receiveWal/whole": done("receiveWal", whole),
  "receiveWal/early": done("receiveWal", early),
  "receiveWal/nothing": done("receiveWal", nothing),
  "receiveWal/refused": done("receiveWal", refused),
  "receiveWal/full": done("receiveWal", full),
  "drainWal/early": done("drainWal", early),
  "drainWal/whole": done("drainWal", whole),
  "drainWal/full": done("drainWal", full),
  "sealWal/sealed": done("sealWal", sealed),
  "sealWal/unsealed": done("sealWal", unsealed),
};
const ignored = Object.fromEntries(Object.keys(events).map((key) => [key, "ignored"]));

export const transitionTable: Table = {
  receiving: {
    ...ignored,
    "shutdown.requested": "draining",
    "receiveWal/whole": "sealing",
    "receiveWal/early": "partial",
    "receiveWal/nothing": "empty",
    "receiveWal/refused": "refused",
    "receiveWal/full": "failed",
  },
  draining: { ...ignored, "drainWal/early": "partial", "drainWal/whole": "sealing", "drainWal/full": "failed" },
  sealing: { ...ignored, "sealWal/sealed": "stored", "sealWal/unsealed": "failed" },
  stored: ignored,
  partial: ignored,
  empty: ignored,
  refused: ignored,
  failed: ignored,
};

test("every state answers every event as the table says", () => {
  checkTransitionTable(
    walIngest,
    { ...input, rawBytes: 0, sendToTier2: false, ending: "stopped", reason: "" },
    transitionTable,
    events,
  );
});

test("every state is reachable, and only a sealed file is stored (I1)", () => {
  const paths = getShortestPaths(walIngest, { input, events: Object.values(events) as never });
  const reached = new Set(paths.map((path) => stateName(path.state.value)));
  expect(reached).toEqual(new Set(Object.keys(transitionTable)));
  for (const path of paths.filter(({ state }) => state.value === "stored"))
    expect(path.steps.some(({ event }) => String(event.type) === "xstate.done.actor.sealWal")).toBe(true);
});
