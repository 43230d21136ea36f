import { expect, test } from "vitest";
import { eventually } from "../support/eventually.ts";
import { offloadBench, wal } from "../support/offload-bench.ts";
import { recordedTelemetry } from "../support/span-tree.ts";
import { temporaryDirectory } from "../support/temporary-directory.ts";

const traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

test("tier2_upload is a trace of its own, linked through the queue to the one that stored the file; amounts are metrics", async () => {
  await using directory = await temporaryDirectory();
  await using bench = await offloadBench(directory.path);
  await using recorded = await recordedTelemetry();
  const role = await bench.start({ telemetry: recorded.telemetry });
  await bench.segment("a", wal(1), false);
  role.onStored({ cluster: "a", name: wal(1), sendToTier2: true, traceparent });
  const span = await eventually(() => recorded.spans().find(({ name }) => name === "tier2_upload"));
  expect(span.attributes).toMatchObject({ cluster_name: "a", wal_name: wal(1) });
  expect(span.links.map(({ context }) => `00-${context.traceId}-${context.spanId}-01`)).toContain(traceparent);
  expect(span.spanContext().traceId).not.toBe(traceparent.slice(3, 35));
  const values = await eventually(async () => {
    const read = await recorded.values();
    return read["klio.queue.messages"] !== undefined && read;
  });
  const [object] = await bench.reader.list("a");
  expect(values["klio.consumer.written{cluster_name=a}"]).toBe(1);
  expect(values["klio.consumer.written_size{cluster_name=a}"]).toBe(object?.storedBytes);
  expect(values["klio.consumer.latest_written_time{cluster_name=a}"]).toBeGreaterThan(1_700_000_000);
  await role.stop();
});
