// klio.volume.*: the room that the server's volumes have. Metrics are read from memory, so the system is asked on a timer, one
// question at a time: a network file system may not answer for long.
import { type VolumeSpace, volumeSpace } from "../actors/spool/volume-space.ts";
import type { Log } from "../domain/log.ts";
import type { Reading } from "../telemetry/instruments.ts";
import type { Telemetry } from "../telemetry/telemetry.ts";

/** What lies on it; several may be directories of one volume. */
export type VolumeName = "tier1_wal" | "tier1_base" | "tier1_cache" | "tier2_cache" | "queue";

const EVERY_MS = 10_000;
/** An answer that is older than this says nothing any more, and is absent. */
const STALE_MS = 60_000;

type Known = { space: VolumeSpace; atMs: number };

/** `paths`: of directories that are there, or will be. Returns what stops it. */
export function watchVolumes(options: {
  paths: Partial<Record<VolumeName, string>>;
  telemetry: Pick<Telemetry, "observe">;
  log: Log;
  now?: () => number;
  everyMs?: number;
}): () => void {
  const { paths, telemetry, log, now = Date.now, everyMs = EVERY_MS } = options;
  const known = new Map<string, Known>();
  const asked = new Set<string>();
  const ask = async (volume: string, path: string) => {
    if (asked.has(volume)) return;
    asked.add(volume);
    const answer = await volumeSpace(path);
    asked.delete(volume);
    if (answer.kind === "ok") known.set(volume, { space: answer.value, atMs: now() });
    else log.debug("server.volume", answer.reason, { volume });
  };
  const askAll = () => {
    for (const [volume, path] of Object.entries(paths)) void ask(volume, path);
  };
  const read = (value: (space: VolumeSpace) => number) =>
    function* (): Iterable<Reading> {
      for (const [volume, { space, atMs }] of known)
        if (now() - atMs <= STALE_MS) yield { value: value(space), labels: { volume } };
    };
  const stops = [
    telemetry.observe(
      "klio.volume.free_size",
      read(({ freeBytes }) => freeBytes),
    ),
    telemetry.observe(
      "klio.volume.size",
      read(({ totalBytes }) => totalBytes),
    ),
  ];
  const timer = setInterval(askAll, everyMs);
  askAll();
  return () => {
    clearInterval(timer);
    for (const stop of stops) stop();
  };
}
