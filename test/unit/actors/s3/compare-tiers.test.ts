// What holds a connection or a file open is given back, however a comparison of the tiers ends.
import { expect, test } from "vitest";
import type { ObjectStore } from "../../../../src/actors/s3/object-store.ts";
import { segmentUploader } from "../../../../src/actors/s3/upload-segment.actor.ts";
import type { OpenWal, WalReader } from "../../../../src/domain/wal-reader.ts";
import { KlioError } from "../../../../src/errors.ts";
import { testLog } from "../../../support/test-log.ts";

const NAME = "000000010000000000000001";
type File = { segmentBytes?: number; content: string | KlioError };

/** A reader of one file that counts how many are open. */
function readerOf(file: File | KlioError | undefined) {
  let isOpen = 0;
  const open: WalReader["open"] = async () => {
    if (file === undefined) return undefined;
    if (file instanceof KlioError) throw file;
    const { segmentBytes = 16, content } = file;
    isOpen++;
    const blocks = async function* () {
      if (typeof content !== "string") throw content;
      yield Buffer.from(content);
    };
    const opened: OpenWal = {
      segmentBytes,
      complete: true,
      blocks: blocks(),
      async [Symbol.asyncDispose]() {
        isOpen--;
      },
    };
    return opened;
  };
  return { open, opened: () => isOpen };
}

const damage = new KlioError("KLIO-WAL-DAMAGED", "not ours");
const broken = new KlioError("KLIO-STORE-IO", "no such device");

test.each<[string, File | KlioError | undefined, File | undefined, unknown]>([
  ["the same bytes", { content: "ab" }, { content: "ab" }, "same"],
  ["other bytes", { content: "ab" }, { content: "cd" }, "different"],
  ["another segment size", { content: "ab", segmentBytes: 32 }, { content: "ab" }, "different"],
  ["an object that is damaged", { content: damage }, { content: "ab" }, "different"],
  ["a file that tier 1 no longer has", { content: "ab" }, undefined, "alone"],
  ["an object that is gone", undefined, { content: "ab" }, "gone"],
  ["a file that is damaged", { content: "ab" }, { content: damage }, "different"],
  ["a store that does not answer", { content: broken }, { content: "ab" }, broken],
])("%s: nothing stays open", async (_, there, here, expected) => {
  const tier2 = readerOf(there);
  const tier1 = readerOf(here);
  const { relationOf } = segmentUploader({
    exportFile: async () => undefined,
    tier1,
    tier2,
    objects: {} as ObjectStore, // not asked
    prefix: "p",
    log: testLog(),
  });
  const relation = await relationOf("main", NAME).catch((error: unknown) => error);
  expect(relation).toBe(expected);
  expect([tier1.opened(), tier2.opened()]).toEqual([0, 0]);
});
