import { expect, test } from "vitest";
import { SharedListing } from "../../../../src/actors/snapshots/shared-listing.ts";
import { failure, type Outcome, ok } from "../../../../src/domain/outcome.ts";
import type { CatalogueEntry } from "../../../../src/domain/snapshot-catalogue.ts";
import { settle } from "../../../support/eventually.ts";

type Answer = PromiseWithResolvers<Outcome<CatalogueEntry[]>>;

function listing() {
  const begun: Answer[] = [];
  const shared = new SharedListing(() => {
    const answer: Answer = Promise.withResolvers();
    begun.push(answer);
    return answer.promise;
  });
  return { shared, begun };
}

test("what is asked for at once is one listing", async () => {
  const { shared, begun } = listing();
  const asked = [shared.read(), shared.read()];
  await settle();
  expect(begun).toHaveLength(1);
  begun[0]?.resolve(ok([]));
  expect(await Promise.all(asked)).toEqual([ok([]), ok([])]);
});

test("who asks while one runs neither gets it nor waits for it", async () => {
  const { shared, begun } = listing();
  const hangs = shared.read();
  await settle();
  const later = shared.read();
  await settle();
  expect(begun).toHaveLength(2);
  const known = ok<CatalogueEntry[]>([]);
  begun[1]?.resolve(known);
  expect(await later).toBe(known);
  begun[0]?.resolve(failure("KLIO-S3-DOWN", "no answer"));
  expect(await hangs).toMatchObject({ code: "KLIO-S3-DOWN" });
});

test("a listing that rejects is told to who asked for it, and the next one is made", async () => {
  const { shared, begun } = listing();
  const asked = [shared.read(), shared.read()];
  await settle();
  begun[0]?.reject(new Error("no such program"));
  for (const one of asked) await expect(one).rejects.toThrow("no such program");
  const next = shared.read();
  await settle();
  begun[1]?.resolve(ok([]));
  expect(await next).toEqual(ok([]));
});
