// A real Prometheus: scrapes what its configuration names, and answers queries.
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { stringify } from "yaml";
import { findTool } from "../../src/config/tools.ts";
import { freePort } from "../../src/demo/local-postgres.ts";
import { startManaged } from "../../src/demo/managed-process.ts";

type Sample = { labels: Record<string, string>; value: number };
export type PrometheusServer = AsyncDisposable & {
  /** `data` of an answer of the HTTP API: `api("rules")` asks /api/v1/rules. Rejects with the error that it tells. */
  api<T>(path: string, parameters?: Record<string, string>): Promise<T>;
  /** The series of an instant query, `__name__` among their labels. */
  query(expression: string): Promise<Sample[]>;
};

type Vector = { result: { metric: Record<string, string>; value: [number, string] }[] };

/** `config`: the document of prometheus.yml. */
export async function startPrometheus(options: { directory: string; config: unknown }): Promise<PrometheusServer> {
  const { directory, config } = options;
  mkdirSync(directory, { recursive: true });
  const configFile = join(directory, "prometheus.yml");
  writeFileSync(configFile, stringify(config));
  const url = `http://127.0.0.1:${await freePort()}`;
  const managed = await startManaged({
    name: "prometheus",
    command: findTool("prometheus", process.env),
    args: [
      `--config.file=${configFile}`,
      `--storage.tsdb.path=${join(directory, "data")}`,
      `--web.listen-address=${new URL(url).host}`,
    ],
    env: {},
    runAs: {},
    cwd: directory,
    logFile: join(directory, "prometheus.log"),
    isReady: async () => {
      try {
        return (await fetch(`${url}/-/ready`)).ok;
      } catch {
        return false; // not listening yet
      }
    },
    readyWithinMs: 30_000,
    tell: (text) => {
      throw new Error(text);
    },
  });
  async function api<T>(path: string, parameters: Record<string, string> = {}): Promise<T> {
    const response = await fetch(`${url}/api/v1/${path}?${new URLSearchParams(parameters)}`);
    const answer = (await response.json()) as { status: string; data: T; error?: string };
    if (answer.status !== "success") throw new Error(`${path}: ${answer.error}`);
    return answer.data;
  }
  return {
    api,
    async query(expression) {
      const { result } = await api<Vector>("query", { query: expression });
      return result.map(({ metric, value: [, text] }) => ({ labels: metric, value: Number(text) }));
    },
    async [Symbol.asyncDispose]() {
      await managed.stop();
    },
  };
}
