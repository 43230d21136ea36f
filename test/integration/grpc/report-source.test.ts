import { expect, test } from "vitest";
import { startWalServer } from "../../support/wal-server.ts";
import { SEGMENT_BYTES } from "../../support/wal-store.ts";

test("where the source's WAL ends is told for the own cluster only, with a size that can be", async () => {
  const heard: unknown[] = [];
  await using server = await startWalServer({ onSource: (cluster, report) => heard.push([cluster, report]) });
  const client = await server.client();
  const report = { endLsn: 2n ** 63n + 7n, flushedLsn: 5n, segmentBytes: SEGMENT_BYTES };
  expect(await client.reportSource(report)).toEqual({ kind: "ok", value: null });
  expect(heard).toEqual([["alpha", { end: 2n ** 63n + 7n, flushed: 5n, segmentBytes: SEGMENT_BYTES }]]);
  expect(await client.reportSource({ ...report, segmentBytes: 3 })).toMatchObject({
    kind: "fatal",
    code: "KLIO-USAGE",
    reason: expect.stringMatching(/size: 3/),
  });
  expect(heard.length).toBe(1);
});
