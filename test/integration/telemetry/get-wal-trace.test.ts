// What a server tells of the WAL files that it hands out: a whole one, one that is missing, and a damaged one.
import { open, stat } from "node:fs/promises";
import { expect, test } from "vitest";
import type { WalClient } from "../../../src/actors/grpc/wal-client.ts";
import { walFile } from "../../../src/actors/spool/wal-directory.ts";
import { eventually } from "../../support/eventually.ts";
import { recordedTelemetry } from "../../support/span-tree.ts";
import { walSegment } from "../../support/wal-bytes.ts";
import { send, startWalServer } from "../../support/wal-server.ts";
import { SEGMENT_BYTES } from "../../support/wal-store.ts";

const traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const name = "000000010000000000000003";

async function takeAll(client: WalClient, file: string): Promise<void> {
  const answer = await client.get(file, { traceparent });
  if (answer.kind !== "ok" || answer.value === undefined) return;
  for await (const block of answer.value.blocks) expect(block.length).toBeGreaterThan(0);
}

test("get_wal is below the caller's span; missing is an event, damage is red", async () => {
  await using recorded = await recordedTelemetry("klio-server");
  await using server = await startWalServer({ telemetry: recorded.telemetry });
  const client = await server.client();
  expect(await send(client, walSegment(name, SEGMENT_BYTES), { walName: name })).toMatchObject({ kind: "ok" });
  const spans = () => recorded.tree().filter((span) => span.name === "get_wal");
  const shape = { name: "get_wal", tracer: "klio.wal_server", parent: "remote" };
  const attributes = (walName: string) => ({ cluster_name: "alpha", wal_name: walName, tier: "tier1" });

  await takeAll(client, name);
  expect(await eventually(() => spans().length === 1 && spans())).toEqual([{ ...shape, attributes: attributes(name) }]);
  expect(
    recorded
      .spans()
      .find((span) => span.name === "get_wal")
      ?.spanContext().traceId,
  ).toBe(traceparent.slice(3, 35));

  const absent = "000000010000000000000009";
  await takeAll(client, absent);
  expect((await eventually(() => spans().length === 2 && spans()))[1]).toEqual({
    ...shape,
    attributes: attributes(absent),
    events: ["wal.missing"],
  });

  const file = walFile(server.directory, "alpha", name);
  await using handle = await open(file, "r+");
  await handle.write(Buffer.alloc(64, 0xff), 0, 64, Math.floor((await stat(file)).size / 2));
  await takeAll(client, name).catch(() => undefined); // what the caller gets is another test's matter
  expect((await eventually(() => spans().length === 3 && spans()))[2]).toMatchObject({
    ...shape,
    status: "ERROR",
    attributes: attributes(name),
    events: [expect.stringMatching(/^exception: /)],
  });
});
