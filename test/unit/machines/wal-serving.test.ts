import { expect, test } from "vitest";
import { type WalServingEvent, type WalServingInput, walServing } from "../../../src/machines/wal-serving.machine.ts";
import { recordedTelemetry, treeText } from "../../support/span-tree.ts";
import { checkTransitionTable } from "../../support/transition-table.ts";

const input: WalServingInput = {
  cluster: "alpha",
  name: "000000010000000000000001",
  tier: "tier2",
  traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
};
const failed: WalServingEvent = { type: "reading.failed", reason: "frame 3 is damaged" };

test("every state answers every event as the table says", () => {
  checkTransitionTable(
    walServing,
    { ...input, reason: "" },
    {
      serving: {
        "file.served": "served",
        "file.missing": "missing",
        "reading.failed": "failed",
        "shutdown.requested": "withdrawn",
      },
    },
    {
      "file.served": { type: "file.served" },
      "file.missing": { type: "file.missing" },
      "reading.failed": failed,
      "shutdown.requested": { type: "shutdown.requested" },
    },
  );
});

test("GW1, GW2: one span below the caller's; only what could not be read is red", async () => {
  await using recorded = await recordedTelemetry("klio-server");
  const ends: WalServingEvent[] = [
    { type: "file.served" },
    { type: "file.missing" },
    failed,
    { type: "shutdown.requested" },
  ];
  for (const end of ends) recorded.telemetry.start(walServing, { id: "walServing/1", input }).send(end);
  await expect(treeText(recorded.tree())).toMatchFileSnapshot("../../golden/spans/get-wal.txt");
});
