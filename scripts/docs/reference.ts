// The reference pages that follow from tables of the sources: errors, telemetry, options.
import { clientOptions, type OptionSpec, serverOptions, variableOf } from "../../src/config/options.ts";
import { errorTable, exitStatus, grpcStatus } from "../../src/errors.ts";
import { logEvents, type MetricRow, metrics, type SpanRow, spans } from "../../src/telemetry/names.ts";
import { prometheusName } from "../../src/telemetry/prometheus-text.ts";
import type { MachineDoc } from "./machines.ts";
import { code, generatedFrom, page, table } from "./markdown.ts";

const nameOf = (numbers: Record<string, number>, value: number) =>
  Object.entries(numbers).find(([, number]) => number === value)?.[0] ?? "";

const EXIT_MEANINGS: Record<keyof typeof exitStatus, string> = {
  done: "done",
  failed: "the restore is refused: nothing was written",
  walMissing: "`get-wal`: no tier has the WAL file (PostgreSQL then ends its recovery there)",
  usage: "configuration or command line",
  corruption: "stored data is damaged",
  source: "PostgreSQL is away, refuses, or is not the one that was expected",
  unavailable: "a peer is away or refuses",
  bug: "a bug",
  tryAgain: "the same command may succeed later",
};

export function errorsPage(): string {
  const rows = Object.entries(errorTable).map(([name, row]) => [
    `<a id="${name.toLowerCase()}"></a>${code(name)}`,
    row.kind,
    String(row.exit),
    code(nameOf(grpcStatus, row.grpc)),
    code(row.reason),
    row.cure,
  ]);
  return page(
    generatedFrom("src/errors.ts"),
    "# Errors",
    "An error that ends an operation has a code. Commands print `Error: <what was wrong>` and `Hint: <what to do>`; log lines and gRPC trailers carry the code.",
    "**retryable**: the same call may succeed later, and Klio tries again by itself where it runs for long. **fatal**: only a person or a change of configuration helps; it is never tried again. **bug**: an invariant is broken; the process ends with it.",
    table(["code", "kind", "exit", "gRPC", "reason in Kubernetes", "what to do"], rows),
    "## Exit statuses",
    table(
      ["status", "meaning"],
      Object.entries(exitStatus).map(([name, status]) => [
        String(status),
        EXIT_MEANINGS[name as keyof typeof exitStatus],
      ]),
    ),
    "`klio` ends with 130 when it is interrupted for the third time.",
  );
}

type Use = { machine: string; state: string };

/** States of all machines whose telemetry names `name`. */
function usesOf(name: string, machines: readonly MachineDoc[]): Use[] {
  return machines.flatMap(({ id, states }) =>
    states
      .filter(({ telemetry = {} }) => {
        const { span, running, latestStart, latestEnd, duration, count } = telemetry;
        return [span, running, latestStart, latestEnd, duration, ...[count ?? []].flat()].includes(name);
      })
      .map((state) => ({ machine: id, state: state.path })),
  );
}

const useText = (uses: readonly Use[]) =>
  uses.map(({ machine, state }) => code(state === "" ? machine : `${machine}.${state}`)).join(", ");
const list = (names: readonly string[]) => names.map(code).join(", ");
const originText = ({ origin }: { origin: "contract" | "own" }) => (origin === "contract" ? "contract" : "own");

function spanRow([name, row]: [string, SpanRow], machines: readonly MachineDoc[]): string[] {
  return [
    code(name),
    code(row.tracer),
    originText(row),
    list(row.attributes),
    row.description,
    useText(usesOf(name, machines)),
  ];
}

function metricRow([name, row]: [string, MetricRow], machines: readonly MachineDoc[]): string[] {
  return [
    `${code(name)}<br>${code(prometheusName(name, row.unit, row.kind))}`,
    row.kind,
    code(row.unit),
    list(row.attributes),
    row.roles.join(", "),
    originText(row),
    `${row.description}${row.zeroAtStart ? " Present with 0 from the start." : ""}`,
    useText(usesOf(name, machines)),
  ];
}

export function telemetryPage(machines: readonly MachineDoc[]): string {
  return page(
    generatedFrom("src/telemetry/names.ts and the machines"),
    "# Telemetry",
    'Nothing is collected, and OpenTelemetry is not loaded, unless an `OTEL_*` variable is set (and `OTEL_SDK_DISABLED` is not `true`). Spans go where `OTEL_TRACES_EXPORTER` says, metrics where `OTEL_METRICS_EXPORTER` says; `prometheus` opens port 9464. "contract" marks what other tools rely on; "own" is added beside it.',
    "## Spans",
    "A span lives exactly as long as the state that has it. Its status is ERROR only after a failure that nothing but a person can mend; a failure that is tried again is an event on it.",
    table(
      ["span", "tracer", "origin", "attributes", "what", "state"],
      Object.entries(spans).map((row) => spanRow(row, machines)),
    ),
    "## Metrics",
    "Instruments of the meter `klio`: name for OTLP, below it the name that Prometheus scrapes. *State*: a state of a machine moves it; the others follow facts (amounts) or are read when they are collected.",
    table(
      ["metric", "kind", "unit", "attributes", "service", "origin", "what", "state"],
      Object.entries(metrics).map((row) => metricRow(row, machines)),
    ),
    "Beside them: `rpc.server.*` and `rpc.client.*` durations of gRPC calls, `process.*`, `system.*` and the runtime metrics of Node.js, under the names of OpenTelemetry's conventions.",
    "## Log events",
    "A log line is one JSON object with `event`; the first word of an event says what it is about.",
    table(
      ["first word", "about"],
      Object.entries(logEvents).map(([name, about]) => [code(name), about]),
    ),
  );
}

function optionRow(option: OptionSpec): string[] {
  const fallback = option.default;
  return [
    code(option.key),
    code(variableOf(option)),
    `${option.accepts}${option.unit === undefined ? "" : ` (${option.unit})`}`,
    fallback === undefined ? "" : code(fallback === "" ? '""' : String(fallback)),
    option.required === true ? "yes" : "",
    [
      option.help,
      option.secret === true ? "**Secret**: never shown." : "",
      option.aliases === undefined ? "" : `Also ${list(option.aliases)}.`,
    ]
      .filter((part) => part !== "")
      .join(" "),
  ];
}

export function optionsPage(): string {
  const head = ["key", "environment variable", "accepts", "default", "required", "what"];
  return page(
    generatedFrom("src/config/options.ts"),
    "# Options",
    "Keys are paths in the YAML file that `--config` names (default `~/.klio.yaml`): `tier1.wal.path` is `path` below `wal` below `tier1`. An environment variable wins over the file; an empty one counts as unset. All faults are reported together, before anything starts. *Required* holds when the section is used: a tier that is served, a connection that the command needs.",
    "Secrets are given as paths of files wherever that is possible; they are read at the start and at each new connection, so that they can be replaced while Klio runs.",
    "## Server",
    "`klio server start`",
    table(head, serverOptions.map(optionRow)),
    "## Client",
    "`klio sidecar`, `send-wal`, `backup`, `restore`, `get-wal`, `get-metadata`, `reset-lsn`, `retention`",
    table(head, clientOptions.map(optionRow)),
  );
}
