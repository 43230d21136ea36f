// One trace per WAL segment: from PostgreSQL's socket to the server's disk, and by a link to tier 2; and what a tier 2 that was
// away leaves in it.
import { join } from "node:path";
import { expect, test } from "vitest";
import { serveWal } from "../../../src/actors/grpc/serve-wal.actor.ts";
import { createCertificates } from "../../../src/demo/certificates.ts";
import { startPostgres } from "../../../src/demo/local-postgres.ts";
import { KlioError } from "../../../src/errors.ts";
import { eventually } from "../../support/eventually.ts";
import { offloadBench } from "../../support/offload-bench.ts";
import { recordedTelemetry, type SpanNode, treeText } from "../../support/span-tree.ts";
import { startStream, streamConfig, switchSegment } from "../../support/streaming.ts";
import { temporaryDirectory } from "../../support/temporary-directory.ts";

const refuse = async (): Promise<never> => {
  throw new KlioError("KLIO-TIER-MISSING", "not part of this test");
};

/** The segment's name and the port of this run taken out. */
const expectTree = (tree: readonly SpanNode[], name: string, golden: string) =>
  expect(
    treeText(tree)
      .replaceAll(name, "<segment>")
      .replace(/(127\.0\.0\.1|localhost):\d+/g, "$1:<port>"),
  ).toMatchFileSnapshot(`../../golden/spans/${golden}.txt`);

/** PostgreSQL, a stream, a WAL service and the way to tier 2, all telling one recorder. */
async function scene() {
  const stack = new AsyncDisposableStack();
  const directory = stack.use(await temporaryDirectory());
  const recorded = stack.use(await recordedTelemetry("klio-server"));
  const { telemetry } = recorded;
  const postgres = stack.use(
    await startPostgres({ directory: join(directory.path, "pg"), version: 18, walSegmentMiB: 1 }),
  );
  const certificates = await createCertificates(join(directory.path, "tls"), { clusters: ["alpha"] });
  const bench = stack.use(await offloadBench(directory.path));
  const role = await bench.start({ telemetry });
  stack.defer(() => role.stop());
  const server = await serveWal({
    reader: bench.store,
    store: bench.store,
    tls: { ...certificates.server, clientCaCert: certificates.caCert },
    listenAddress: "127.0.0.1:0",
    telemetry,
    log: bench.log,
    closeBackup: refuse,
    openRepository: refuse,
    maintainBackups: refuse,
    onStored: (fact) => role.onStored(fact),
    onInterrupted: (fact) => role.onStored(fact),
  });
  stack.defer(() => server.close(500));
  const config = { ...streamConfig(postgres, { server, certificates }), tier2BackupEnabled: true };
  stack.use(await startStream(config, { telemetry }));
  return Object.assign(stack, { recorded, postgres, bench });
}

/** Top-level spans of one segment, in the order of their starts. */
function spansOf(recorded: Awaited<ReturnType<typeof recordedTelemetry>>, walName: string) {
  return recorded.tree().filter(({ attributes }) => attributes?.wal_name === walName);
}

async function nextWhole(place: Awaited<ReturnType<typeof scene>>): Promise<string> {
  const [row] = await place.postgres.query("select pg_walfile_name(pg_current_wal_insert_lsn()) as name");
  await switchSegment(place.postgres);
  return String(row?.name);
}

test("socket to disk is one trace, and the way to tier 2 is linked to it", async () => {
  await using place = await scene();
  const { recorded } = place;
  await eventually(async () => (await place.postgres.query("select 1 from pg_stat_replication")).length > 0);
  const name = await nextWhole(place);
  const tree = await eventually(() => {
    const spans = spansOf(recorded, name);
    return spans.some((span) => span.name === "tier2_upload") && spans;
  });
  await expectTree(tree, name, "segment-good");
});

test("a tier 2 that was away: retries are events, the attempt that gave up is red, the one that came through is not", async () => {
  await using place = await scene();
  const { recorded, bench } = place;
  await eventually(async () => (await place.postgres.query("select 1 from pg_stat_replication")).length > 0);
  const first = await nextWhole(place);
  await eventually(() => spansOf(recorded, first).some((span) => span.name === "tier2_upload"));
  await bench.s3.s3.stop();
  const name = await nextWhole(place);
  await eventually(() => bench.log.events().includes("offload.paused"), { what: "the pause" });
  await bench.s3.s3.start();
  await eventually(async () => (await bench.names2("alpha")).includes(name), {
    timeoutMs: 60_000,
    what: "the file on tier 2",
  });
  const uploads = await eventually(() => {
    const spans = spansOf(recorded, name).filter((span) => span.name === "tier2_upload");
    return spans.length > 0 && spans.at(-1)?.outcome === undefined && spans;
  });
  // How many attempts fell into the time without S3 is chance; the first gave up, the last came through.
  const rest = spansOf(recorded, name).filter((span) => span.name !== "tier2_upload");
  await expectTree([...rest, ...uploads.slice(0, 1), ...uploads.slice(-1)], name, "segment-tier2-recovered");
});
