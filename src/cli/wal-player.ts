// klio wal-player: WAL for tests, and WAL of a directory sent to a server.
import { type Command, Option } from "commander";
import {
  type GenerateReport,
  type GenerateRequest,
  generateDirectory,
  type PlayReport,
  type PlayRequest,
  playDirectory,
} from "../roles/wal-player.ts";
import type { CliContext } from "./context.ts";
import { loadClientConfig } from "./load-config.ts";
import { byteSize, positiveNumber, systemIdentifier, wholeNumber } from "./numbers.ts";

type Global = { config?: string; logLevel: string; json: boolean };
type Generate = Global &
  Pick<GenerateRequest, "fill" | "systemId"> & {
    segments: number;
    segmentSize: number;
    timeline: number;
    first?: string;
    pgVersion: "15" | "16" | "17" | "18";
  };
type Play = Global &
  Pick<PlayRequest, "method" | "concurrency" | "repeat"> & {
    blockSize: number;
    rate?: number;
    sendToTier2: boolean;
  };

const MIB = 1 << 20;
const versions = { 15: 15, 16: 16, 17: 17, 18: 18 } as const;

export function registerWalPlayer(program: Command, context: CliContext): void {
  const player = program
    .command("wal-player")
    .description("make WAL for tests, and send WAL of a directory to a server");
  const surroundings = ({ logLevel }: Global) => ({ stderr: context.stderr, logLevel, signal: context.signal });
  const print = (text: string) => void context.stdout.write(text);

  player
    .command("generate")
    .description("fill an empty directory with WAL segments: true page headers, invented content")
    .argument("<directory>", "an empty directory, or one that does not exist yet")
    .option("-n, --segments <n>", "how many", wholeNumber(1, 1_000_000), 16)
    .option("--segment-size <MiB>", "size of a segment: 1, 2, 4 … 1024", wholeNumber(1, 1024), 16)
    .addOption(
      new Option("--fill <kind>", "content: random bytes, or rows that repeat themselves")
        .choices(["random", "compressible"])
        .default("random"),
    )
    .option("--timeline <n>", "timeline of the segments", wholeNumber(1, 0xffff_ffff), 1)
    .option("--first <name>", "name of the first segment (default: the second one of the timeline)")
    .option("--system-id <id>", "system identifier of the cluster, decimal", systemIdentifier, "7300000000000000001")
    .addOption(
      new Option("--pg-version <version>", "version of PostgreSQL whose pages these are")
        .choices(Object.keys(versions))
        .default("17"),
    )
    .option("--json", "print JSON: directory, files, bytes, first, last, system_id", false)
    .action(async (directory: string, _: unknown, command: Command) => {
      const options = command.optsWithGlobals<Generate>();
      const timeline = options.timeline.toString(16).toUpperCase().padStart(8, "0");
      const report = await generateDirectory(
        {
          directory,
          first: options.first ?? `${timeline}0000000000000001`,
          count: options.segments,
          segmentBytes: options.segmentSize * MIB,
          fill: options.fill,
          systemId: options.systemId,
          version: versions[options.pgVersion],
        },
        surroundings(options),
      );
      print(options.json ? `${JSON.stringify(report)}\n` : generateText(report));
    });

  player
    .command("play")
    .description(
      "send the WAL of a directory (made by generate, or a copy of pg_wal) to the tier 1 server of the client configuration, and say how fast it took it",
    )
    .argument("<directory>", "directory of WAL segments and timeline histories; anything else in it is passed over")
    .addOption(
      new Option("--method <rpc>", "put: as old clients do, one answer per file; stream: as the sidecar does")
        .choices(["put", "stream"])
        .default("put"),
    )
    .option("--block-size <bytes>", "bytes per message, up to 8MB", byteSize(1024, 8 * MIB), 2 * MIB)
    .option("--concurrency <n>", "files at a time", wholeNumber(1, 1024), 1)
    .option("--repeat <n>", "how often the directory is sent", wholeNumber(1), 1)
    .option("--rate <MB/s>", "send no faster than this, all streams together", positiveNumber)
    .option("--send-to-tier2", "have the server send the files on to tier 2", false)
    .option(
      "--json",
      "print JSON: files, bytes, seconds, mb_per_second, latency_ms (p50, p90, p95, p99, max, per file), method, block_size, concurrency, repeat, skipped",
      false,
    )
    .action(async (directory: string, _: unknown, command: Command) => {
      const options = command.optsWithGlobals<Play>();
      const { method, concurrency, repeat, rate, blockSize, sendToTier2 } = options;
      const report = await playDirectory(
        {
          config: loadClientConfig(context, options.config, ["wal"]),
          directory,
          method,
          blockBytes: blockSize,
          concurrency,
          repeat,
          sendToTier2,
          ...(rate !== undefined && { bytesPerSecond: rate * 1e6 }),
        },
        surroundings(options),
      );
      print(options.json ? `${JSON.stringify(report)}\n` : playText(report));
    });
}

function generateText({ directory, files, bytes, first, last }: GenerateReport): string {
  return `${files} segments in ${directory}, ${first} to ${last}: ${(bytes / 1e6).toFixed(1)} MB\n`;
}

function playText(report: PlayReport): string {
  const { files, bytes, seconds, mb_per_second, latency_ms, skipped } = report;
  const { p50, p90, p95, p99, max } = latency_ms;
  const ms = (value: number) => `${value.toFixed(1)} ms`;
  return [
    `${files} files, ${(bytes / 1e6).toFixed(1)} MB in ${seconds.toFixed(2)} s: ${mb_per_second.toFixed(1)} MB/s`,
    `per file: p50 ${ms(p50)}, p90 ${ms(p90)}, p95 ${ms(p95)}, p99 ${ms(p99)}, max ${ms(max)}`,
    ...(skipped.length > 0 ? [`passed over: ${skipped.length} files that are no WAL to be sent`] : []),
    "",
  ].join("\n");
}
