import { expect, test } from "vitest";
import { parseAttributes, resourceAttributes } from "../../../src/telemetry/resource.ts";

const named = { OTEL_SERVICE_NAME: "klio-server" };
const of = (env: Record<string, string>) => resourceAttributes(env, "klio-server", "3.1.0");

test("without detectors only the service is known", () => {
  expect(of(named)).toEqual({ attributes: { "service.name": "klio-server" }, warnings: [] });
});

test("a service without a name gets that of its role, with a warning", () => {
  const { attributes, warnings } = of({ OTEL_TRACES_EXPORTER: "none" });
  expect(attributes).toEqual({ "service.name": "klio-server" });
  expect(warnings).toEqual(["OTEL_SERVICE_NAME is not set; klio-server is reported as the name of the service"]);
  expect(of({ OTEL_RESOURCE_ATTRIBUTES: "service.name=mine" })).toEqual({
    attributes: { "service.name": "mine" },
    warnings: [],
  });
});

test("Kubernetes names are added one by one and never against a given value", () => {
  const env = { ...named, POD_NAME: "pod-0", NAMESPACE_NAME: "", CONTAINER_NAME: "c" };
  expect(of({ ...env, OTEL_RESOURCE_ATTRIBUTES: "k8s.pod.name=mine" }).attributes).toEqual({
    "service.name": "klio-server",
    "k8s.pod.name": "mine",
    "k8s.container.name": "c",
  });
});

test("every detector of the contract finds its attributes; an unknown one is told and costs only itself", () => {
  const ids =
    "telemetry.sdk,host,host.id,os.type,os.description,process.pid,process.executable.name,process.executable.path,process.command.args,process.owner,process.runtime.name,process.runtime.version,process.runtime.description,container,nonsense";
  const { attributes, warnings } = of({ ...named, OTEL_RESOURCE_DETECTORS: ids });
  expect(attributes).toMatchObject({
    "telemetry.sdk.name": "opentelemetry",
    "telemetry.sdk.language": "nodejs",
    "host.name": expect.any(String),
    "os.type": process.platform,
    "os.description": expect.stringContaining("("),
    "process.pid": process.pid,
    "process.executable.name": expect.stringMatching(/\S/),
    "process.executable.path": process.execPath,
    "process.command_args": expect.arrayContaining([expect.any(String)]),
    "process.owner": expect.any(String),
    "process.runtime.name": "nodejs",
    "process.runtime.version": process.versions.node,
    "process.runtime.description": expect.stringContaining("Node.js"),
  });
  expect(warnings).toHaveLength(1);
  expect(warnings[0]).toContain("nonsense is not supported; supported are telemetry.sdk, host");
});

test("a bad entry of OTEL_RESOURCE_ATTRIBUTES costs only itself", () => {
  expect(parseAttributes("a=b,bad,c=d=e, f = g%20h ,=x,i=%zz,,")).toEqual({
    attributes: { a: "b", c: "d=e", f: "g h", i: "%zz" },
    bad: ["bad", "=x"],
  });
});
