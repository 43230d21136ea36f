// klio.source.latest_contact_time: when this server last heard of a cluster's source. A source that is down and a cluster that was
// given up look the same from here: neither is heard, and both are as exposed as klio.wal.exposure says. How long is for
// people to judge, and for alerts.
import type { Reading } from "../telemetry/instruments.ts";
import type { Telemetry } from "../telemetry/telemetry.ts";

export type SourceContact = Disposable & {
  /** A sidecar told the source's position, or sent WAL. */
  heard(cluster: string): void;
  /** Of an earlier run: when the newest WAL file was stored, which somebody must have sent. */
  known(cluster: string, newestMs: number): void;
};

/** Dispose it to end the series. */
export function watchContact(options: { telemetry: Pick<Telemetry, "observe">; now?: () => number }): SourceContact {
  const { telemetry, now = Date.now } = options;
  const heardMs = new Map<string, number>();
  const stop = telemetry.observe("klio.source.latest_contact_time", function* (): Iterable<Reading> {
    for (const [cluster, ms] of heardMs) yield { value: ms / 1000, labels: { cluster_name: cluster } };
  });
  const known = (cluster: string, ms: number) => {
    heardMs.set(cluster, Math.max(ms, heardMs.get(cluster) ?? 0));
  };
  return { known, heard: (cluster) => known(cluster, now()), [Symbol.dispose]: stop };
}
