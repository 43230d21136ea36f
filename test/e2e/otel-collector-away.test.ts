// P4 for telemetry: a collector that takes everything and never answers, and one that is not there. Commits that wait for Klio, a
// backup and its relay, start and end of both processes go on as if nobody listened; one line says so, with a count.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { createCertificates } from "../../src/demo/certificates.ts";
import { startLoad } from "../../src/demo/load.ts";
import { freePort } from "../../src/demo/local-postgres.ts";
import { giveTo, unprivileged } from "../../src/demo/run-as.ts";
import { isRelayed, isTier2Complete } from "../../src/demo/tiers.ts";
import { eventually } from "../support/eventually.ts";
import { type OtlpReceiver, otlpOverGrpc } from "../support/otlp-receiver.ts";
import { openStage } from "../support/stage.ts";

const COMMITS = 200;
/** Whoever waited for an export would not come back within the test. */
const NEVER_MS = "600000";

type Line = { msg: string; failures: number };

const failuresIn = (file: string): Line[] =>
  readFileSync(file, "utf8")
    .split("\n")
    .filter((text) => text.includes("telemetry.failed"))
    .map((text) => JSON.parse(text) as Line);

test("a mute collector of the server and an absent one of the sidecar delay nothing", async () => {
  let collector: OtlpReceiver | undefined;
  await using place = await openStage({
    async telemetry(directory) {
      const certificates = await createCertificates(join(directory, "otel"), { clusters: ["collector"] });
      await giveTo(join(directory, "otel"), unprivileged());
      collector = await otlpOverGrpc(certificates);
      collector.behave("hang");
      const { cert, key } = certificates.client("collector");
      const common = {
        OTEL_EXPORTER_OTLP_PROTOCOL: "grpc",
        OTEL_EXPORTER_OTLP_CERTIFICATE: certificates.caCert,
        OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE: cert,
        OTEL_EXPORTER_OTLP_CLIENT_KEY: key,
        OTEL_EXPORTER_OTLP_TIMEOUT: NEVER_MS,
        OTEL_BSP_EXPORT_TIMEOUT: NEVER_MS,
        OTEL_BSP_SCHEDULE_DELAY: "10",
        OTEL_METRIC_EXPORT_INTERVAL: "500",
      };
      const at = (port: number) => ({ OTEL_EXPORTER_OTLP_ENDPOINT: `https://localhost:${port}` });
      return {
        server: { ...common, ...at(collector.port), OTEL_SERVICE_NAME: "klio-server" },
        sidecar: {
          ...common,
          ...at(await freePort()),
          OTEL_SERVICE_NAME: "klio-plugin",
          OTEL_EXPORTER_OTLP_TIMEOUT: "300",
        },
      };
    },
  });
  await using _ = { [Symbol.asyncDispose]: async () => collector?.[Symbol.asyncDispose]() };
  const { stage, backup } = place;
  const { signal } = new AbortController();
  const load = await startLoad({ dsn: stage.postgres.dsn, sessions: 4, pauseMs: 1 });
  await load.reached(COMMITS, signal);
  expect((await backup("first", ["--enable-tier2-backup"])).code).toBe(0);
  await stage.postgres.query("select pg_switch_wal()");
  await eventually(() => isRelayed(stage, "first", signal), { timeoutMs: 60_000, what: "the backup on tier 2" });
  await load.reached(load.ledger.count + COMMITS, signal);
  await load.stop();
  await eventually(() => isTier2Complete(stage, signal), { timeoutMs: 60_000, what: "all WAL on tier 2" });

  const asked = collector?.requests.length ?? 0;
  expect(asked, "exports that wait for an answer").toBeGreaterThan(1);
  // Each look at the metrics is given up after its interval; what the exporter still has in hand is bounded.
  const metrics = collector?.requests.filter(({ path }) => /metrics/i.test(path)) ?? [];
  expect(metrics.length).toBeLessThanOrEqual(30);
  // By themselves, and not by the SIGKILL that would give no status.
  expect(await stage.sidecar.stop()).toBe(0);
  expect(await stage.server.stop()).toBe(0);

  for (const [file, first] of [
    ["server/server.log", /time/i],
    ["sidecar/sidecar.log", /UNAVAILABLE/],
  ] as const) {
    const lines = failuresIn(join(place.directory, file));
    expect(lines[0], file).toMatchObject({ failures: 1, msg: expect.stringMatching(first) });
    // One at once, one a minute, one at the end; every failure in a count.
    expect(lines.length, file).toBeLessThan(6);
    expect(
      lines.reduce((sum, { failures }) => sum + failures, 0),
      file,
    ).toBeGreaterThan(lines.length);
  }
}, 240_000);
