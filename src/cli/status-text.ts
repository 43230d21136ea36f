// `klio status` for people.
import type { StatusReport } from "../roles/status.ts";

type Cluster = StatusReport["clusters"][number];
type Tier = NonNullable<Cluster["tiers"]["tier1"]>;
type Line = [label: string, text: string];

function durationText(seconds: number): string {
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7_200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172_800) return `${Math.round(seconds / 3_600)} h`;
  return `${Math.round(seconds / 86_400)} days`;
}

function sizeText(bytes: number): string {
  if (bytes < 1_000) return `${bytes} B`;
  if (bytes < 1e6) return `${(bytes / 1e3).toFixed(1)} kB`;
  return bytes < 1e9 ? `${(bytes / 1e6).toFixed(1)} MB` : `${(bytes / 1e9).toFixed(1)} GB`;
}

const tierName = { tier1: "tier 1", tier2: "tier 2" } as const;
const lacking = { tier1: "only on the primary", tier2: "not on tier 2 yet" } as const;

function exposureText({ exposure }: Tier): string {
  if (exposure === null) return "unknown: no sidecar has told where the source's WAL ends";
  const { seconds, bytes, silent, heard_seconds: heard } = exposure;
  const text = `${durationText(seconds)}, ${sizeText(bytes)}`;
  return silent ? `${text} or more: the sidecar is not heard since ${durationText(heard)}` : text;
}

function recoveryText({ recovery }: Tier): string {
  if (recovery === null) return "unknown: no backup";
  const { size, restore_seconds: seconds, basis, wal_size: wal } = recovery;
  const files =
    seconds === null
      ? `unknown (${sizeText(size)} of files; ${basis})`
      : `files about ${durationText(seconds)} (${sizeText(size)}, from the ${basis})`;
  const replay =
    wal === null ? "its WAL is not complete" : `then the replay of ${sizeText(wal)} of WAL, never measured`;
  return `${files}; ${replay}`;
}

function tierLines(name: "tier1" | "tier2", tier: Tier): Line[] {
  const lines: Line[] = [[lacking[name], exposureText(tier)]];
  if (tier.error !== "") return [...lines, ["unknown", tier.error]];
  for (const one of tier.recoverable)
    lines.push([
      "recoverable",
      `from ${one.from_time} (${one.from_lsn}) to ${one.to_lsn}${one.partial === "" ? "" : " and the start of the next segment"}, stored ${one.stored_time}; timeline ${one.timeline}, ${one.backups.length} backup(s)`,
    ]);
  if (tier.recoverable.length === 0) lines.push(["recoverable", "NOTHING"]);
  const { latest_backup: latest } = tier;
  if (latest === null) lines.push(["latest backup", "none"]);
  else
    lines.push([
      "latest backup",
      `${latest.name}, ${durationText(latest.age_seconds)} old, ${sizeText(latest.size)}, ${latest.verified_time === null ? "reading it back is not on record" : `read back ${latest.verified_time}`}; ${tier.backup_count} in all`,
    ]);
  lines.push(["recovery takes", recoveryText(tier)]);
  return lines;
}

function sourceLines({ stream, slot }: Cluster): Line[] {
  const lines: Line[] = [];
  if (stream !== null) {
    const why = stream.condition === "" ? "" : `, ${stream.condition}: ${stream.reason}`;
    const end = stream.source_end_lsn === "" ? "" : `, confirmed ${stream.flushed_lsn} of ${stream.source_end_lsn}`;
    lines.push(["stream", `${stream.state}${why}${end}`]);
    if (stream.whole_files_only) lines.push(["", "the server confirms whole files only"]);
    lines.push(["only on the primary", `${durationText(stream.exposure_seconds)}, ${sizeText(stream.exposure_bytes)}`]);
  }
  if (slot === null) return lines;
  if (!slot.present) return [...lines, ["slot", `${slot.name}: missing`]];
  const limits = [
    ...(slot.safe_bytes === null ? [] : [`${sizeText(slot.safe_bytes)} until it is lost`]),
    ...(slot.volume_free_bytes === null ? [] : [`${sizeText(slot.volume_free_bytes)} free on its volume`]),
    ...(slot.seconds_to_full === null ? [] : [`full in ${durationText(slot.seconds_to_full)}`]),
  ];
  const state = [slot.level, slot.wal_status, slot.active ? "in use" : "not in use"].filter((word) => word !== "");
  lines.push(["slot", `${slot.name}: ${state.join(", ")}; keeps ${sizeText(slot.retained_bytes)}`]);
  if (limits.length > 0) lines.push(["", limits.join(", ")]);
  return lines;
}

function clusterText(status: Cluster): string {
  const blocks: [string, Line[]][] = [];
  for (const name of ["tier1", "tier2"] as const) {
    const tier = status.tiers[name];
    if (tier !== undefined) blocks.push([tierName[name], tierLines(name, tier)]);
  }
  const source = sourceLines(status);
  if (source.length > 0) blocks.push(["source", source]);
  const rest: Line[] = status.gaps.map(({ start, end, time }) => ["gap", `${start} to ${end}, accepted ${time}`]);
  if (status.divergence !== null) {
    const { compared_time: time, missing, different, foreign } = status.divergence;
    rest.push(["tiers compared", `${time}: ${missing} missing on tier 2, ${different} different, ${foreign} foreign`]);
  }
  if (rest.length > 0) blocks.push(["archive", rest]);
  const text = blocks.map(
    ([title, lines]) => `  ${title}\n${lines.map(([label, said]) => `    ${label.padEnd(19)}  ${said}`).join("\n")}\n`,
  );
  return `${status.cluster}\n${text.join("")}`;
}

export function statusText({ clusters, queue, asked }: StatusReport): string {
  const parts = clusters.map(clusterText);
  if (clusters.length === 0) parts.push("No clusters\n");
  if (queue !== null) {
    const { error, pending_wals, pending_backups, failed_wals, failed_backups, paused } = queue;
    const said =
      error === ""
        ? `waiting: ${pending_wals} WALs, ${pending_backups} backups; given up: ${failed_wals} WALs, ${failed_backups} backups`
        : `unknown: ${error}`;
    parts.push(`queue to tier 2\n  ${said}\n${paused === "" ? "" : `  paused: ${paused}\n`}`);
  }
  const silent = asked.filter(({ error }) => error !== "");
  if (silent.length > 0)
    parts.push(`not answered\n${silent.map(({ part, error }) => `  ${part}: ${error}\n`).join("")}`);
  return parts.join("\n");
}
