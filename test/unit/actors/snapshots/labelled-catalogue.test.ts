import { expect, test } from "vitest";
import { formatDescription } from "../../../../src/actors/snapshots/description.ts";
import { LabelledListing } from "../../../../src/actors/snapshots/labelled-catalogue.ts";
import { testLog } from "../../../support/test-log.ts";

const time = "2026-01-01T00:00:00Z";
const description = formatDescription({ backup: "b1", content: "pgdata", host: "h" });
const snapshot = (id: string, host = "alpha") => ({
  id,
  source: { host, userName: "klio", path: "/p/pgdata" },
  description,
  startTime: time,
  endTime: time,
  rootEntry: { obj: "k1" },
});
const label = (id: string, labels: Record<string, string> = {}) => ({
  id,
  labels: { type: "snapshot", username: "klio", hostname: "alpha", path: "/p/pgdata", ...labels },
});

/** Answers of the program, in order. */
function listing(...answers: unknown[]) {
  const asked: string[] = [];
  const log = testLog();
  const run = async (args: readonly string[]) => {
    asked.push(args[0] ?? "");
    const stdout = typeof answers[0] === "string" ? answers[0] : JSON.stringify(answers[0]);
    answers.shift();
    return { code: 0, signal: undefined, stdout, stderr: "", aborted: false };
  };
  return { asked, log, listing: new LabelledListing({ peer: "directory", run }, log) };
}

const ids = (outcome: Awaited<ReturnType<LabelledListing["read"]>>) =>
  outcome.kind === "ok" ? outcome.value.entries.map(({ id }) => id) : outcome;

test.each([
  ["user", { username: "other" }],
  ["host", { hostname: "beta" }],
  ["path", { path: "/q/pgdata" }],
])("L1: a snapshot that names another %s than its labels is not listed", async (_, labels) => {
  const { listing: one, log } = listing([snapshot("a"), snapshot("b")], [label("a"), label("b", labels)]);
  const read = await one.read();
  expect(ids(read)).toEqual(["a"]);
  expect(read).toMatchObject({ value: { mislabelled: [{ says: { id: "b", cluster: "alpha" } }] } });
  expect(log.events()).toEqual(["repository.snapshot.mislabelled"]);
});

test("L1: a snapshot without labels of its own is nobody's", async () => {
  const { listing: one } = listing([snapshot("a")], [{ id: "a", labels: { type: "snapshot" } }]);
  expect(ids(await one.read())).toEqual([]);
});

test("L2: labels are asked for when there is a snapshot that no listing had before", async () => {
  const both = [snapshot("a"), snapshot("b")];
  const { listing: one, asked } = listing(
    [snapshot("a")],
    [label("a")],
    [snapshot("a")],
    both,
    [label("a"), label("b")],
    both,
  );
  for (const wanted of [["a"], ["a"], ["a", "b"], ["a", "b"]]) expect(ids(await one.read())).toEqual(wanted);
  expect(asked).toEqual(["snapshot", "manifest", "snapshot", "snapshot", "manifest", "snapshot"]);
});

test("a snapshot that gets a new id between the two questions is not missed", async () => {
  const { listing: one, asked } = listing([snapshot("old")], [label("new")], [snapshot("new")]);
  expect(ids(await one.read())).toEqual(["new"]);
  expect(asked).toEqual(["snapshot", "manifest", "snapshot"]);
});

test("KLIO-REPOSITORY-DOWN when the ids change all the time; KLIO-REPOSITORY for what is no list of labels", async () => {
  const changing = listing(...Array.from({ length: 5 }, (_, n) => [[snapshot(`s${n}`)], []]).flat());
  expect(await changing.listing.read()).toMatchObject({ kind: "retryable", code: "KLIO-REPOSITORY-DOWN" });
  expect(await listing([snapshot("a")], "Error").listing.read()).toMatchObject({ code: "KLIO-REPOSITORY" });
});
