// A metrics page as a result: what depends on the machine, the moment or the path is taken out, so that two runs can be compared.

/** Values that a fixed scenario fixes; all others are amounts, times and durations. */
const FIXED =
  /^klio_(backup_(running|successes_total|failures_total|verifications_total|verification_failures_total|verification_coverage_ratio)|base_snapshots|consumer_(backup_verification_\w+|relayed_total)|queue_dead_letters|child_restarts_total)$/;
/** How many series there are of these depends on the machine, or on who was called how often until it answered. */
const COLLAPSED = /^(nodejs|v8js|system|process|rpc)_/;

/** Comes and goes with the load of the moment. */
const FLEETING = "klio_slot_time_to_full_seconds";

type Line = { name: string; labels: [string, string][]; value: string };

function parsed(line: string): Line {
  const [, name = "", text = "", value = ""] = /^(\w+)(?:\{(.*)\})? (\S+)$/.exec(line) ?? [];
  const labels = [...text.matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)].map(([, key = "", said = ""]): [string, string] => [
    key,
    said,
  ]);
  return { name, labels, value };
}

/**
 * Comments as they are; one line per series, its value replaced by `<n>` unless the scenario fixes it, `directory` by
 * `<dir>`. Buckets are one line with all bounds; of runtime, host and gRPC the label keys remain.
 */
export function normalisedScrape(page: string, directory: string): string {
  const bounds = new Map<string, string[]>();
  const lines = page
    .trimEnd()
    .split("\n")
    .filter((line) => !line.includes(FLEETING))
    .map((line) => {
      if (line.startsWith("#")) return line;
      const { name, labels, value } = parsed(line.replaceAll(directory, "<dir>"));
      if (COLLAPSED.test(name)) {
        const keys = labels.map(([key]) => key).filter((key) => key !== "error_type");
        return `${name}{${keys.join(",")}} <n>`;
      }
      const rest = labels.filter(([key]) => key !== "le").map(([key, said]) => `${key}="${said}"`);
      const le = labels.find(([key]) => key === "le")?.[1];
      const series = `${name}{${rest.join(",")}}`;
      if (le !== undefined) bounds.set(series, [...(bounds.get(series) ?? []), le]);
      return `${series} ${FIXED.test(name) ? value : "<n>"}`;
    });
  const unique = [...new Set(lines)];
  return `${unique
    .map((line) => {
      const le = bounds.get(line.slice(0, line.lastIndexOf(" ")));
      return le === undefined ? line : `${line} le ${le.join(" ")}`;
    })
    .join("\n")}\n`;
}
