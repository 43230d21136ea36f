// The ConfigMaps of the published page as environment of a real server and a real sidecar, against a collector that takes OTLP
// over gRPC and demands a client certificate. Replaced are only names that do not lead anywhere outside of a cluster: the
// collector's host and port, and the directories into which the page mounts certificates.
import { copyFileSync, mkdirSync, readFileSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { parseAllDocuments } from "yaml";
import { createCertificates } from "../../src/demo/certificates.ts";
import { klio } from "../../src/demo/klio-command.ts";
import { giveTo, unprivileged } from "../../src/demo/run-as.ts";
import { isRelayed } from "../../src/demo/tiers.ts";
import { type MetricName, metrics } from "../../src/telemetry/names.ts";
import { eventually } from "../support/eventually.ts";
import { type SentMetric, type SentSpan, sentMetrics, sentSpans } from "../support/otlp-decode.ts";
import { type OtlpReceiver, otlpOverGrpc } from "../support/otlp-receiver.ts";
import { treeOf } from "../support/span-tree.ts";
import { openStage, type TestStage } from "../support/stage.ts";

type Environment = Record<string, string>;
type Page = {
  kind: string;
  metadata: { name: string };
  data: Environment;
  spec: { containers: { name: string; env: { name: string; value: string }[] }[] };
};

const text = readFileSync(new URL("../support/otel-configmaps.yaml", import.meta.url), "utf8");
const documents = parseAllDocuments(text).map((document) => document.toJS() as Page);
const configMap = (name: string): Environment =>
  documents.find(({ kind, metadata }) => kind === "ConfigMap" && metadata.name === name)?.data ?? {};
const containerEnv = (name: string): Environment =>
  Object.fromEntries(
    documents
      .flatMap(({ spec }) => spec?.containers ?? [])
      .filter((container) => container.name === name)
      .flatMap(({ env }) => env.map(({ name: key, value }) => [key, value])),
  );

function reachable(env: Environment, { port, directory }: { port: number; directory: string }): Environment {
  const replaced = (value: string) =>
    value
      .replace("otel-collector:4317", `localhost:${port}`)
      .replace(/^\/(otel|projected)\//, (_, name: string) => `${join(directory, name)}/`);
  return Object.fromEntries(Object.entries(env).map(([key, value]) => [key, replaced(value)]));
}

/** What Kubernetes adds; the server's own attributes stand against it. */
const pod = (container: string) => ({
  CONTAINER_NAME: container,
  POD_NAME: `${container}-0`,
  NAMESPACE_NAME: "default",
});

let place: TestStage;
let restorer: Environment;
/** A file that a restore asks for. */
let walName: string;
let collector: OtlpReceiver;
let spans: SentSpan[];
let sent: Record<"spans" | "metrics", { resource: Record<string, unknown>; entries: unknown[] }[]>;

beforeAll(async () => {
  place = await openStage({
    async telemetry(directory) {
      const certificates = await createCertificates(join(directory, "otel-certificates"), { clusters: ["collector"] });
      const client = certificates.client("collector");
      for (const name of ["otel", "projected"]) {
        const mount = join(directory, name);
        mkdirSync(mount);
        copyFileSync(certificates.caCert, join(mount, "ca.crt"));
        copyFileSync(client.cert, join(mount, "tls.crt"));
        copyFileSync(client.key, join(mount, "tls.key"));
      }
      await giveTo(join(directory, "projected"), unprivileged());
      collector = await otlpOverGrpc(certificates);
      const at = { port: collector.port, directory };
      restorer = {
        ...reachable({ ...containerEnv("klio-restore"), ...configMap("cluster-klio-otel-config") }, at),
        ...pod("klio-restore"),
      };
      return {
        server: {
          ...reachable(configMap("klio-otel-config"), at),
          ...pod("server"),
          OTEL_RESOURCE_ATTRIBUTES: "deployment.environment=production,k8s.pod.name=mine",
        },
        sidecar: {
          ...reachable({ ...containerEnv("klio-plugin"), ...configMap("cluster-klio-otel-config") }, at),
          ...pod("klio-plugin"),
        },
      };
    },
  });
  const { stage, backup } = place;
  expect((await backup("first", ["--enable-tier2-backup"])).code).toBe(0);
  const { signal } = new AbortController();
  await eventually(() => isRelayed(stage, "first", signal), { timeoutMs: 60_000, what: "the backup on tier 2" });
  await stage.postgres.query("create table t as select 1"); // the backup has just begun a new file
  const [row] = await stage.postgres.query("select pg_walfile_name(pg_current_wal_insert_lsn()) as name");
  walName = String(row?.name);
  await stage.postgres.query("select pg_switch_wal()");
  const isSent = (name: string, attribute: string, value: string) =>
    sentSpans(collector).some(({ entries }) =>
      entries.some((span) => span.name === name && span.attributes[attribute] === value),
    );
  await eventually(() => isSent("tier2_backup", "backup.name", "first"), { timeoutMs: 60_000 });
  await eventually(() => isSent("tier2_upload", "wal_name", walName), { timeoutMs: 60_000 });
  const home = stage.clientEnv.HOME ?? "";
  for (const args of [
    ["restore", join(home, "restored")],
    ["get-wal", walName, join(home, "fetched")],
  ])
    await klio({
      program: stage.program,
      env: { ...stage.clientEnv, ...restorer },
      runAs: stage.runAs,
      args: [...args, "--config", stage.surroundings.sidecarConfig],
    });
  // Metrics go out each minute, and at the end.
  expect(await stage.sidecar.stop()).toBe(0);
  expect(await stage.server.stop()).toBe(0);
  sent = { spans: sentSpans(collector), metrics: sentMetrics(collector) };
  spans = sentSpans(collector).flatMap(({ entries }) => entries);
}, 180_000);
afterAll(async () => {
  await place[Symbol.asyncDispose]();
  await collector[Symbol.asyncDispose]();
}, 60_000);

test("nothing but the collector's address and the mounts differs from the page", () => {
  const server = configMap("klio-otel-config");
  const plugin = { ...containerEnv("klio-plugin"), ...configMap("cluster-klio-otel-config") };
  expect([Object.keys(server).length, Object.keys(plugin).length]).toEqual([20, 12]);
  for (const env of [server, plugin]) {
    const now = reachable(env, { port: 1, directory: "/x" });
    const changed = Object.keys(env).filter((key) => env[key] !== now[key]);
    expect(changed.filter((key) => !/_(ENDPOINT|CERTIFICATE|CLIENT_KEY)$/.test(key))).toEqual([]);
    expect(Object.keys(now)).toEqual(Object.keys(env));
  }
});

test("traces and metrics of both processes arrive with the client certificate, packed where the page asks for it", () => {
  const seen = new Map<string, boolean>();
  for (const { peer, isPacked, path, body } of collector.requests) {
    expect(peer).toBe("klio@collector");
    const service = ["klio-plugin", "klio-restore", "klio-server"].find((one) => body.includes(one));
    const key = `${service} ${/trace/i.test(path) ? "traces" : "metrics"}`;
    expect(seen.get(key) ?? isPacked, key).toBe(isPacked);
    seen.set(key, isPacked);
  }
  expect(Object.fromEntries(seen)).toEqual({
    "klio-server traces": true,
    "klio-server metrics": false, // the page has OTEL_EXPORTER_OTLP_TRACES_COMPRESSION only
    "klio-plugin traces": true,
    "klio-plugin metrics": true,
    "klio-restore traces": true,
    "klio-restore metrics": true,
  });
});

test("the resource has what the detectors find and Kubernetes says, and never overrides what was given", () => {
  const common = {
    "telemetry.sdk.name": "opentelemetry",
    "telemetry.sdk.language": "nodejs",
    "telemetry.sdk.version": expect.stringMatching(/^\d+\.\d+\.\d+$/),
    "host.name": hostname(),
    "os.type": process.platform,
    "process.executable.name": "main.ts",
    "k8s.namespace.name": "default",
  };
  const wanted: Record<string, Record<string, unknown>> = {
    "klio-server": {
      ...common,
      "service.name": "klio-server",
      "deployment.environment": "production",
      "k8s.container.name": "server",
      "k8s.pod.name": "mine",
    },
    "klio-plugin": {
      ...common,
      "service.name": "klio-plugin",
      "k8s.container.name": "klio-plugin",
      "k8s.pod.name": "klio-plugin-0",
    },
    "klio-restore": {
      ...common,
      "service.name": "klio-restore",
      "k8s.container.name": "klio-restore",
      "k8s.pod.name": "klio-restore-0",
    },
  };
  for (const { resource } of [...sent.spans, ...sent.metrics])
    expect(resource).toEqual(wanted[String(resource["service.name"])]);
});

test("metrics have the scope klio, and kind, unit and numbers of the contract", () => {
  const all = sent.metrics.flatMap(({ entries }) => entries) as SentMetric[];
  const ours = all.filter(({ scope }) => scope === "klio");
  expect(new Set(all.map(({ scope }) => scope))).toEqual(
    new Set(["klio", "klio.grpc", "klio.host", "@opentelemetry/instrumentation-runtime-node"]),
  );
  for (const { name, unit, kind, points, scope } of ours) {
    const row = metrics[name as MetricName];
    expect({ name, unit, kind, scope }).toEqual({ name, unit: row.unit, kind: row.kind, scope: "klio" });
    for (const { attributes, isInt } of points) {
      expect(Object.keys(attributes).sort(), name).toEqual([...row.attributes].sort());
      if (kind !== "histogram") expect(isInt, name).toBe(row.int);
    }
  }
  // Absent before the first of its kind: a failure, a tier 2 corruption.
  const absent = Object.entries(metrics)
    .filter(([name, { origin }]) => origin === "contract" && !ours.some((one) => one.name === name))
    .map(([name]) => name);
  expect(absent).toEqual(["klio.backup.latest_failure_time"]);
});

test("a backup is one trace of the sidecar, its relay one of the server, linked to it", () => {
  expect(treeOf(spans.filter(({ name }) => /^(tier2_)?backup/.test(name)))).toEqual([
    {
      name: "backup",
      tracer: "klio.backup",
      service: "klio-plugin",
      attributes: { "backup.name": "first", "backup.role": "primary" },
      children: ["backup_run", "backup_verify", "backup_maintenance"].map((name) => ({
        name,
        tracer: "klio.backup",
        service: "klio-plugin",
      })),
    },
    {
      name: "tier2_backup",
      tracer: "klio.consumer",
      service: "klio-server",
      attributes: { cluster_name: "demo", "backup.name": "first" },
      links: ["backup_run"], // which asked for it, once the WAL was complete
      children: ["tier2_backup_migrate", "tier2_backup_verify", "tier2_backup_retention"].map((name) => ({
        name,
        tracer: "klio.consumer",
        service: "klio-server",
      })),
    },
  ]);
});

test("a restore is one trace of its own", () => {
  const children = ["restore_tablespaces", "restore_data"];
  expect(treeOf(spans.filter(({ service }) => service === "klio-restore"))).toEqual([
    {
      name: "restore",
      tracer: "klio.backup",
      service: "klio-restore",
      attributes: { cluster_name: "demo", "backup.name": "first", tier: "tier1" },
      children: children.map((name) => ({ name, tracer: "klio.backup", service: "klio-restore" })),
    },
  ]);
});

test("a WAL file that a restore asks for is a span of the server", () => {
  expect(treeOf(spans.filter(({ name }) => name === "get_wal"))).toEqual([
    {
      name: "get_wal",
      tracer: "klio.wal_server",
      service: "klio-server",
      attributes: { cluster_name: "demo", wal_name: walName, tier: "tier1" },
    },
  ]);
});

test("a WAL segment is one trace over both processes, and its upload is linked to it", () => {
  const ofSegment = spans.filter(({ name, attributes }) => name !== "get_wal" && attributes.wal_name === walName);
  const attributes = { cluster_name: "demo", wal_name: walName };
  expect(treeOf(ofSegment)).toEqual([
    {
      name: "manage_wal_stream",
      tracer: "klio.wal_client",
      service: "klio-plugin",
      attributes,
      children: [{ name: "put_wal", tracer: "klio.wal_server", service: "klio-server", attributes }],
    },
    { name: "tier2_upload", tracer: "klio.consumer", service: "klio-server", attributes, links: ["put_wal"] },
  ]);
  const traceOf = (name: string) => ofSegment.find((span) => span.name === name)?.traceId;
  expect(traceOf("put_wal")).toBe(traceOf("manage_wal_stream"));
});
