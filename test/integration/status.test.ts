// What a server says of its clusters: over its rpcs, with tier 2 away, and what it remembers of readings.
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { openChannel } from "../../src/actors/grpc/client-channel.ts";
import { serveAdmin } from "../../src/actors/grpc/serve-admin.actor.ts";
import { askOnce } from "../../src/actors/grpc/wal-call.ts";
import { walMethods } from "../../src/actors/grpc/wal-methods.ts";
import { SettingsStore } from "../../src/actors/spool/cluster-settings.ts";
import { failure } from "../../src/domain/outcome.ts";
import * as pb from "../../src/proto/generated/klio/wal/v1/wal_pb.ts";
import { readOnlyAdmin } from "../../src/roles/offload-admin.ts";
import { serverStatus } from "../../src/roles/server-status.ts";
import { backupOf } from "../support/backups.ts";
import { eventually } from "../support/eventually.ts";
import { klio, klioWith } from "../support/klio-cli.ts";
import { ListedRepository, offloadBench, SEGMENT_BYTES, wal } from "../support/offload-bench.ts";
import { temporaryDirectory } from "../support/temporary-directory.ts";
import { testLog } from "../support/test-log.ts";
import { startWalServer } from "../support/wal-server.ts";

const listed = {
  metadata: backupOf({
    name: "b1",
    clusterName: "a",
    startLsn: String(SEGMENT_BYTES + 40),
    endLsn: String(SEGMENT_BYTES + 400),
    segmentSize: SEGMENT_BYTES,
  }),
  snapshots: [],
};
const unknown = {
  measures: async () => ({}),
  exposure: () => undefined,
  gaps: async () => [],
  divergence: () => undefined,
};

test("P6: the status of its own cluster for a certificate, and of no other; readings are taken when they can be true", async () => {
  const reads: unknown[] = [];
  const status = async (cluster: string) => JSON.stringify({ clusters: [{ cluster }], queue: null });
  const onRead = async (...read: unknown[]) => void reads.push(read);
  await using server = await startWalServer({ status, onRead });
  const client = await server.client();
  expect(await client.status()).toEqual({ kind: "ok", value: '{"clusters":[{"cluster":"alpha"}],"queue":null}' });
  const read = { tier: "tier1", purpose: "restore", backup: "b", bytes: 1_000, seconds: 0.5 } as const;
  expect(await client.reportRead(read)).toEqual({ kind: "ok", value: null });
  expect(reads).toEqual([["alpha", read]]);
  for (const wrong of [
    { tier: "tier3" },
    { purpose: "guess" as "restore" },
    { seconds: 0 },
    { bytes: 0 },
    { backup: "" },
  ])
    expect(await client.reportRead({ ...read, ...wrong }), JSON.stringify(wrong)).toMatchObject({ code: "KLIO-USAGE" });
  expect(reads).toHaveLength(1);

  // The certificate of another cluster, asking for this one.
  const { cert, key } = server.certificates.client("beta");
  const tls = { serverCertPath: server.certificates.server.cert, clientCertPath: cert, clientKeyPath: key };
  const { address } = server.server;
  const { client: beta } = await openChannel(address, tls, []);
  const named = { clusterName: "alpha" };
  const asked = [
    await askOnce(beta, address, walMethods.getStatus, create(pb.GetStatusRequestSchema, named)),
    await askOnce(
      beta,
      address,
      walMethods.reportRead,
      create(pb.ReportReadRequestSchema, { ...named, tier: "tier1" }),
    ),
  ];
  beta.close();
  for (const answer of asked) expect(answer).toMatchObject({ code: "KLIO-CLUSTER-DENIED" });
  expect(reads).toHaveLength(1);
});

test("readings are remembered over a restart, each kind by itself; damaged ones count as never made", async () => {
  await using directory = await temporaryDirectory();
  const measure = { backup: "b1", bytes: 10, seconds: 2, at: 1_700_000_000 };
  const settings = new SettingsStore(directory.path);
  await Promise.all([
    settings.write("a", { sendToTier2: true }),
    settings.writeRead("a", "tier1", "verification", measure),
    settings.writeRead("a", "tier2", "verification", { ...measure, backup: "b2" }),
    settings.writeRead("a", "tier1", "restore", measure),
  ]);
  expect(await new SettingsStore(directory.path).read("a")).toEqual({
    sendToTier2: true,
    reads: {
      "tier1-verification": measure,
      "tier2-verification": { ...measure, backup: "b2" },
      "tier1-restore": measure,
    },
  });
  writeFileSync(
    join(directory.path, "a", "settings.json"),
    '{"sendToTier2":true,"reads":{"tier1-restore":{"bytes":"x"}}}',
  );
  expect(await new SettingsStore(directory.path).read("a")).toEqual({ sendToTier2: true });
});

test("both tiers, the comparison and the queue over the admin socket; a tier that is away says why", async () => {
  await using directory = await temporaryDirectory();
  await using bench = await offloadBench(directory.path);
  bench.tier1.stored.push(listed);
  const exposure = { seconds: 3, bytes: 4, heard_seconds: 0, silent: false };
  const role = await bench.start({ exposure: (_, tier) => (tier === "tier1" ? exposure : undefined) });
  await bench.segment("a", wal(1));
  await bench.segment("a", wal(2));
  await eventually(async () => (await bench.names2("a")).length === 2);
  await role.onRead("a", { tier: "tier1", purpose: "restore", backup: "b1", bytes: 10, seconds: 1 });
  await role.admin.reconcile();
  const socketPath = join(directory.path, "admin.sock");
  const log = testLog();
  const admin = await serveAdmin({ socketPath, handlers: role.admin, interceptors: [], log });
  await using _ = { [Symbol.asyncDispose]: () => admin.close(0) };
  const told = async () => JSON.parse((await klio("status", "--socket-path", socketPath, "--json")).out);
  const whole = await told();
  expect(whole).toMatchObject({
    queue: { error: "", failed_wals: 0, failed_backups: 0, paused: "" },
    exceeded: [],
    clusters: [
      {
        cluster: "a",
        divergence: { missing: 0, different: 0, foreign: 0 },
        tiers: {
          tier1: {
            error: "",
            exposure,
            recoverable: [{ backups: ["b1"], from_lsn: "0/100190", to_lsn: "0/300000", partial: "" }],
            latest_backup: { name: "b1" },
          },
          tier2: { error: "", exposure: null, recoverable: [], backup_count: 0, latest_backup: null, recovery: null },
        },
      },
    ],
  });
  expect((await klio("status", "--socket-path", socketPath, "--cluster-name", "b", "--json")).out).toContain(
    '"cluster":"b"',
  );
  bench.tier2.backups = async () => failure("KLIO-S3-DOWN", "no route to S3");
  const { tiers } = (await told()).clusters[0];
  expect(tiers.tier2).toMatchObject({ error: "no route to S3", recoverable: [] });
  expect(tiers.tier1.error).toBe("");
  const text = (await klio("status", "--socket-path", socketPath)).out;
  expect(text).toMatch(/^a\n {2}tier 1\n {4}only on the primary +3\.0 s, 4 B\n {4}recoverable +from 2023-/);
  expect(text).toMatch(/ {4}unknown +no route to S3\n/);
  const limited = await klio("status", "--socket-path", socketPath, "--max-exposure", "2", "--max-tier2-exposure", "2");
  expect(limited.status).toBe(1);
  expect(limited.err).toBe(
    "Exceeded: exposure of a on tier 1 is 3 s, the limit is 2 s\nExceeded: exposure of a on tier 2 is not known\n",
  );
});

test("a server that only reads tier 2 tells what it holds; without the timeline's history it does not guess", async () => {
  await using directory = await temporaryDirectory();
  await using bench = await offloadBench(directory.path);
  await bench.start();
  for (const name of [wal(1), wal(2), wal(3, 2)]) await bench.segment("a", name);
  await eventually(async () => (await bench.names2("a")).length === 3);
  const repository = new ListedRepository("tier2");
  repository.stored.push(listed);
  const sources = { ...unknown, tiers: () => ({ tier2: { reader: bench.reader, repository } }) };
  const admin = readOnlyAdmin(repository, (cluster) => serverStatus(sources, cluster));
  const { clusters, queue } = await admin.status();
  expect(queue).toBeNull();
  expect(clusters.map(({ cluster, tiers }) => [cluster, Object.keys(tiers), tiers.tier2?.error])).toEqual([
    ["a", ["tier2"], "00000002.history is not stored: what leads to timeline 2 is not known"],
  ]);
});

test("KLIO-USAGE: with nobody to ask, status says whom it could ask", async () => {
  await using directory = await temporaryDirectory();

  const env = { HOME: directory.path, TMPDIR: directory.path };
  const nobody = await klioWith({ env }, "status");
  expect(nobody).toMatchObject({
    status: 64,
    out: "",
    err: expect.stringContaining("Error: there is nobody to ask\nHint: "),
  });
  writeFileSync(join(directory.path, ".klio.yaml"), "tls: { cert: /x }\n");
  const server = await klioWith({ env }, "status");
  expect(server.err).toContain(`client configuration ${join(directory.path, ".klio.yaml")}: 1 fault`);
});
