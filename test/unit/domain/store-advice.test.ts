import { expect, test } from "vitest";
import { adviseStore, type Probe, type ProbeName, type ProbeResult } from "../../../src/domain/store-advice.ts";

const names: ProbeName[] = [
  "clock",
  "crc32",
  "sha256",
  "writeOnce",
  "replaceByTag",
  "tags",
  "list",
  "read",
  "range",
  "parts",
  "abortParts",
  "remove",
];
const probes = (results: Partial<Record<ProbeName, ProbeResult>>): Probe[] =>
  names.map((name) => ({ name, result: results[name] ?? "ok", detail: `${name}: ${results[name] ?? "ok"}` }));
const usual = { checksum: "crc32", conditionalWrites: true } as const;

test("what a setting can make up for is no reason to turn a store down; what none can is", () => {
  const verdicts = names.map((name) => [name, adviseStore(probes({ [name]: "refused" }), usual).verdict]);
  expect(Object.fromEntries(verdicts)).toEqual({
    clock: "unfit",
    crc32: "change",
    sha256: "fit",
    writeOnce: "change",
    replaceByTag: "change",
    tags: "unfit",
    list: "unfit",
    read: "unfit",
    range: "unfit",
    parts: "unfit",
    abortParts: "fit",
    remove: "unfit",
  });
});

test("a store that verifies no checksum at all is unfit, and the settings say why", () => {
  const advice = adviseStore(probes({ crc32: "ignored", sha256: "ignored", writeOnce: "ignored" }), usual);
  expect(advice.verdict).toBe("unfit");
  expect(advice.settings.map(({ key, value, why }) => `${key}=${value}: ${why}`)).toEqual([
    "tier2.s3.checksum=sha256: the store verifies nothing: damage on the way would be stored",
    "tier2.s3.conditional_writes=false: the store does not (writeOnce: ignored): Klio looks before it writes, and no second server may use this prefix",
  ]);
});

test("with the advised settings a store that needed a change is fit", () => {
  for (const results of [{ crc32: "ignored" }, { writeOnce: "ignored" }, { replaceByTag: "refused" }] as const) {
    const { settings } = adviseStore(probes(results), usual);
    const [checksum, conditional] = settings;
    const advised = {
      checksum: checksum?.value === "sha256" ? "sha256" : "crc32",
      conditionalWrites: conditional?.value === "true",
    } as const;
    expect(adviseStore(probes(results), advised).verdict).toBe("fit");
  }
});
