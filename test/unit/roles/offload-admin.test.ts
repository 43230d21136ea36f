// What the admin methods refuse.
import { expect, test } from "vitest";
import { adminOf } from "../../../src/roles/offload-admin.ts";
import type { OffloadParts } from "../../../src/roles/offload-parts.ts";

const unused = async () => Promise.reject(new Error("not asked"));

test("P11: a cluster that only tier 2 may know is not told as unknown while tier 2 is not open", async () => {
  const store = { clusters: async () => ["orders"] };
  const refusal = (tier2: object) => {
    const parts = { store, tier2, settings: { write: unused } } as unknown as OffloadParts;
    return adminOf(parts, unused, unused, unused).setRetention("archive", "tier2", { keepLatest: 1 });
  };
  await expect(refusal({ isWanted: true, prefix: "p" })).rejects.toMatchObject({ code: "KLIO-S3-DOWN" });
  await expect(refusal({ isWanted: false, prefix: "" })).rejects.toMatchObject({ code: "KLIO-CLUSTER-UNKNOWN" });
});
