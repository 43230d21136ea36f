// The text a Prometheus server scrapes, as an OpenTelemetry Go exporter writes it: names with unit and `_total`, scope
// labels, numbers in Go's shortest form, families and labels in order. Both formats: text 0.0.4 and OpenMetrics 1.0.0.
import { DataPointType, type MetricData, type ResourceMetrics } from "@opentelemetry/sdk-metrics";

export type TextFormat = "text" | "openmetrics";
type Kind = "counter" | "gauge" | "histogram" | "updown";
type Label = readonly [name: string, value: string];
type Sample = { suffix: string; labels: readonly Label[]; value: number };
type Family = { name: string; kind: Kind; help: string; samples: Sample[] };

const UNITS: Record<string, string> = {
  d: "days",
  h: "hours",
  min: "minutes",
  s: "seconds",
  ms: "milliseconds",
  us: "microseconds",
  ns: "nanoseconds",
  By: "bytes",
  KiBy: "kibibytes",
  MiBy: "mebibytes",
  GiBy: "gibibytes",
  TiBy: "tibibytes",
  KBy: "kilobytes",
  MBy: "megabytes",
  GBy: "gigabytes",
  TBy: "terabytes",
  m: "meters",
  V: "volts",
  A: "amperes",
  J: "joules",
  W: "watts",
  g: "grams",
  Cel: "celsius",
  Hz: "hertz",
  "1": "",
  "%": "percent",
};
const PER: Record<string, string> = {
  s: "second",
  m: "minute",
  h: "hour",
  d: "day",
  w: "week",
  mo: "month",
  y: "year",
};

const wordsOf = (text: string) => text.split(/[^A-Za-z0-9:]+/).filter(Boolean);
const unitWord = (unit: string, map: Record<string, string>) =>
  /[{}]/.test(unit) ? "" : wordsOf(map[unit] ?? unit).join("_");

/** The unit's word unless the name has it, then `_total` for counters; `{…}` is an annotation and no unit. */
export function prometheusName(name: string, unit: string, kind: Kind): string {
  let parts = wordsOf(name);
  const slash = unit.indexOf("/");
  const main = unitWord((slash < 0 ? unit : unit.slice(0, slash)).trim(), UNITS);
  const per = slash < 0 ? "" : unitWord(unit.slice(slash + 1).trim(), PER);
  if (main !== "" && !parts.includes(main)) parts.push(main);
  if (per !== "" && !parts.includes(`per_${per}`)) parts.push(`per_${per}`);
  if (kind === "counter") parts = [...parts.filter((part) => part !== "total"), "total"];
  if (kind === "gauge" && unit === "1") parts = [...parts.filter((part) => part !== "ratio"), "ratio"];
  const joined = parts.join("_");
  return /^[0-9]/.test(joined) ? `_${joined}` : joined;
}

/** Go's `%g` with the fewest digits: an exponent below 1e-04 and from 1e+06 on. OpenMetrics marks floats by ".0". */
export function goNumber(value: number, format: TextFormat = "text"): string {
  if (Number.isNaN(value)) return "NaN";
  if (!Number.isFinite(value)) return value > 0 ? "+Inf" : "-Inf";
  const [mantissa = "0", exponent = "0"] = value.toExponential().split("e");
  const power = Number(exponent);
  if (power < -4 || power >= 6) return exponential(mantissa, power);
  const plain = String(value);
  return format === "openmetrics" && !plain.includes(".") ? `${plain}.0` : plain;
}

function exponential(mantissa: string, power: number): string {
  return `${mantissa}e${power < 0 ? "-" : "+"}${String(Math.abs(power)).padStart(2, "0")}`;
}

const escaped = (text: string) => text.replace(/\\/g, "\\\\").replace(/\n/g, "\\n");
const quoted = (text: string) => `"${escaped(text).replace(/"/g, '\\"')}"`;

function labelName(name: string): string {
  const clean = name.replace(/[^A-Za-z0-9_]/g, "_");
  return /^[0-9]/.test(clean) ? `key_${clean}` : clean;
}

/** Sorted by name, since that is how an exporter with a registry writes them. Names that become equal are joined by ";". */
function labelsOf(attributes: Record<string, unknown>, scope: readonly Label[] = []): Label[] {
  const labels = new Map<string, string>(scope);
  const sorted = Object.entries(attributes).sort(([a], [b]) => (a < b ? -1 : 1));
  for (const [key, value] of sorted) {
    if (value === undefined) continue;
    const name = labelName(key);
    const text = typeof value === "string" ? value : JSON.stringify(value);
    const before = labels.get(name);
    labels.set(name, before === undefined ? text : `${before};${text}`);
  }
  return [...labels].sort(([a], [b]) => (a < b ? -1 : 1));
}

function kindOf(metric: MetricData): Kind {
  if (metric.dataPointType === DataPointType.GAUGE) return "gauge";
  if (metric.dataPointType === DataPointType.SUM) return metric.isMonotonic ? "counter" : "updown";
  return "histogram";
}

function samplesOf(metric: MetricData, scope: readonly Label[]): Sample[] {
  if (metric.dataPointType === DataPointType.EXPONENTIAL_HISTOGRAM) return [];
  if (metric.dataPointType !== DataPointType.HISTOGRAM)
    return metric.dataPoints.map(({ attributes, value }) => ({
      suffix: "",
      labels: labelsOf(attributes, scope),
      value,
    }));
  return metric.dataPoints.flatMap(({ attributes, value: { buckets, count, sum } }) => {
    const labels = labelsOf(attributes, scope);
    let below = 0;
    const counted = buckets.boundaries.map((bound, i): Sample => {
      below += buckets.counts[i] ?? 0;
      return { suffix: "_bucket", labels: [...labels, ["le", String(bound)]], value: below };
    });
    return [
      ...counted,
      { suffix: "_bucket", labels: [...labels, ["le", "+Inf"]], value: count },
      { suffix: "_sum", labels, value: sum ?? 0 },
      { suffix: "_count", labels, value: count },
    ];
  });
}

/** All metrics as families; the second of two that would share a name but not a kind is left out, as in Go. */
function familiesOf({ resource, scopeMetrics }: ResourceMetrics): Family[] {
  const families = new Map<string, Family>();
  for (const { scope, metrics } of scopeMetrics) {
    const scopeLabels: Label[] = [
      ["otel_scope_name", scope.name],
      ["otel_scope_schema_url", scope.schemaUrl ?? ""],
      ["otel_scope_version", scope.version ?? ""],
    ];
    for (const metric of metrics) {
      const kind = kindOf(metric);
      const { name: given, unit, description } = metric.descriptor;
      const name = prometheusName(given, unit, kind);
      const family = families.get(name) ?? { name, kind, help: description, samples: [] };
      if (family.kind !== kind) continue;
      families.set(name, family);
      family.samples.push(...samplesOf(metric, scopeLabels));
    }
  }
  const target: Sample = { suffix: "", labels: labelsOf(resource.attributes), value: 1 };
  families.set("target_info", { name: "target_info", kind: "gauge", help: "Target metadata", samples: [target] });
  return [...families.values()].filter(({ samples }) => samples.length > 0).sort((a, b) => (a.name < b.name ? -1 : 1));
}

const labelKey = (labels: readonly Label[]) => labels.filter(([name]) => name !== "le").join("\u0001");

function lineOf(family: string, { suffix, labels, value }: Sample, format: TextFormat): string {
  const shown = labels.map(([name, text]) =>
    name === "le" && text !== "+Inf" ? `le="${goNumber(Number(text), format)}"` : `${name}=${quoted(text)}`,
  );
  const isCount = suffix === "_bucket" || suffix === "_count";
  const number = isCount && format === "openmetrics" ? String(value) : goNumber(value, format);
  return `${family}${suffix}${shown.length === 0 ? "" : `{${shown.join(",")}}`} ${number}\n`;
}

/** The whole page. `extra`: families of the handler itself. */
export function prometheusText(resourceMetrics: ResourceMetrics, format: TextFormat, extra: Family[] = []): string {
  const families = [...familiesOf(resourceMetrics), ...extra].sort((a, b) => (a.name < b.name ? -1 : 1));
  let page = "";
  for (const { name, kind, help, samples } of families) {
    // OpenMetrics names the family of a counter without the suffix of its sample.
    const family = format === "openmetrics" && kind === "counter" ? name.replace(/_total$/, "") : name;
    page += `# HELP ${family} ${format === "openmetrics" ? escaped(help).replace(/"/g, '\\"') : escaped(help)}\n`;
    page += `# TYPE ${family} ${kind === "updown" ? "gauge" : kind}\n`;
    const sorted = samples
      .map((sample) => ({ sample, key: labelKey(sample.labels) }))
      .sort((a, b) => (a.key < b.key ? -1 : a.key > b.key ? 1 : 0));
    for (const { sample } of sorted) page += lineOf(name, sample, format);
  }
  return format === "openmetrics" ? `${page}# EOF\n` : page;
}

/** A counter of the scrape handler, as `promhttp` has it. */
export function handlerErrors(counts: { gathering: number; encoding: number }): Family {
  return {
    name: "promhttp_metric_handler_errors_total",
    kind: "counter",
    help: "Total number of internal errors encountered by the promhttp metric handler.",
    samples: Object.entries(counts).map(([cause, value]) => ({ suffix: "", labels: [["cause", cause]], value })),
  };
}
