import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { resolveClientConfig, resolveServerConfig } from "../../../src/config/resolve.ts";

const example = (name: string) => readFileSync(new URL(`../../../deploy/examples/${name}`, import.meta.url), "utf8");

test("the example of a server is complete and has no unknown key", () => {
  const options = { tier1: true, tier2: true, adminSocketPath: "/run/admin.sock", where: "example" };
  const { config, warnings } = resolveServerConfig(example("server.yaml"), {}, options);
  expect(warnings).toEqual([]);
  expect(config.tier2?.s3.bucketName).toBe("my-backups");
});

test("the example of a client is complete and has no unknown key", () => {
  const { config, warnings } = resolveClientConfig(example("client.yaml"), {}, ["source", "base", "wal"], "example");
  expect(warnings).toEqual([]);
  expect(config.clusterName).toBe("orders");
});
