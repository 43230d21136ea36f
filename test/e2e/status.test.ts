// klio status on real PostgreSQL, server, sidecar and S3: what it tells while all is well, and what it still tells when parts are gone.
import { join } from "node:path";
import { expect, test } from "vitest";
import { isRelayed, isTier2Complete } from "../../src/demo/tiers.ts";
import { eventually } from "../support/eventually.ts";
import { klio } from "../support/klio-cli.ts";
import { openStage } from "../support/stage.ts";

test("status tells exposure, recoverable intervals, backups, slot and queue, and names the parts that are gone", async () => {
  await using place = await openStage({ version: 17 });
  const { stage, backup, directory } = place;
  const { adminSocket, sidecarSocket, sidecarConfig } = stage.surroundings;
  const { signal } = new AbortController();
  const server = ["--socket-path", adminSocket];
  const sidecar = ["--socket", sidecarSocket];
  const client = ["--config", sidecarConfig];
  const json = async (...args: string[]) => JSON.parse((await klio("status", "--json", ...args)).out);

  expect((await backup("first", ["--enable-tier2-backup"])).code).toBe(0);
  await eventually(() => isRelayed(stage, "first", signal), { timeoutMs: 60_000, what: "the backup on tier 2" });
  await stage.postgres.query("select pg_switch_wal()");
  await eventually(() => isTier2Complete(stage, signal), { timeoutMs: 60_000, what: "all WAL on tier 2" });

  const whole = await json(...server, ...sidecar, ...client);
  // Until the sidecar's guard has looked at the slot for the first time, PostgreSQL itself is asked, too.
  expect(whole.asked.length).toBeGreaterThanOrEqual(2);
  expect(whole.asked.every(({ error }: { error: string }) => error === "")).toBe(true);
  expect(whole.queue).toMatchObject({ error: "", failed_wals: 0, failed_backups: 0, paused: "" });
  const [status] = whole.clusters;
  expect(status).toMatchObject({
    cluster: "demo",
    gaps: [],
    stream: { state: "flowing", condition: "", whole_files_only: false },
  });
  for (const tier of ["tier1", "tier2"] as const) {
    const told = status.tiers[tier];
    expect(told, tier).toMatchObject({ error: "", backup_count: 1, latest_backup: { name: "first" } });
    expect(told.latest_backup.verified_time, tier).toMatch(/^\d{4}-\d\d-\d\dT/);
    expect(told.recoverable, tier).toMatchObject([{ timeline: 1, backups: ["first"] }]);
    expect(told.recovery.restore_seconds, tier).toBeGreaterThan(0);
    expect(told.recovery.basis, tier).toMatch(/^verification of first at /);
    expect(told.recovery.wal_size, tier).toBeGreaterThan(0);
    expect(told.exposure.silent, tier).toBe(false);
  }
  await eventually(async () => {
    const { slot } = (await json(...sidecar)).clusters[0];
    return slot.told_by === "sidecar" && slot.present && slot.safe_bytes > 0 && slot.volume_free_bytes > 0;
  });
  const text = await klio("status", ...server, ...sidecar);
  expect(text).toMatchObject({ status: 0, err: "" });
  for (const words of [/only on the primary +\d/, /not on tier 2 yet +\d/, /latest backup +first, /, /read back 20/])
    expect(text.out).toMatch(words);
  expect(text.out).toMatch(
    /recovery takes +files about [\d.]+ s \(\d.*, from the verification of first at .*never measured/,
  );

  // Another host: only its own cluster, over the network; a restore there is the better measure.
  const destination = join(directory, "restored");
  const restored = await klio("restore", destination, ...client, "--json");
  expect(restored.status, restored.err).toBe(0);
  const remote = await json(...client, ...server.map((word) => word.replace("admin.sock", "none.sock")));
  expect(remote.asked[0].error).toContain("no answer on");
  expect(remote.queue).toBeNull();
  expect(remote.clusters[0].tiers.tier1.recovery.basis).toMatch(/^restore of first at /);
  expect(remote.clusters[0].slot).toMatchObject({ told_by: "postgresql", present: true, active: true });

  // Limits, for scripts.
  expect(await klio("status", ...server, "--max-backup-age", "86400", "--max-exposure", "3600")).toMatchObject({
    status: 0,
    err: "",
  });
  const old = await klio("status", ...server, "--max-backup-age", "0");
  expect(old.status).toBe(1);
  expect(old.err).toMatch(/^Exceeded: age of the latest backup of demo is \d+ s, the limit is 0 s\n$/);

  // The sidecar is gone: the server goes on counting. Then the server is gone: the client tells what it can.
  await stage.sidecar.stop();
  const alone = await eventually(async () => {
    const told = await json(...server, ...client);
    return told.clusters[0].tiers.tier1.exposure.silent && told;
  });
  expect(alone.clusters[0].tiers.tier1.exposure.seconds).toBeGreaterThan(0);
  expect(alone.clusters[0].slot).toMatchObject({ told_by: "postgresql", active: false });
  await stage.server.stop();
  const rest = await klio("status", "--json", ...client, "--max-exposure", "1000000");
  expect(rest.status).toBe(1);
  expect(rest.err).toContain("Exceeded: exposure of demo on tier 1 is not known");
  const left = JSON.parse(rest.out);
  expect(left.asked.map(({ error }: { error: string }) => error === "")).toEqual([false, false, true]);
  expect(left.clusters[0]).toMatchObject({ tiers: {}, slot: { present: true } });
  const nobody = await klio("status", ...server);
  expect(nobody).toMatchObject({
    status: 69,
    err: expect.stringContaining("nobody answered:\n  server, admin socket"),
  });
});
