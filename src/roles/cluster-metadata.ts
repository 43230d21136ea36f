// What `get-metadata` and `reset-lsn` do: ask the server about the cluster, and make it forget the missing WAL.
import { toJsonString } from "@bufbuild/protobuf";
import { recordWholeGap } from "../actors/grpc/record-gap.actor.ts";
import { connectWal, type WalClient } from "../actors/grpc/wal-client.ts";
import { SourceHold } from "../actors/postgres/hold-source.actor.ts";
import { identify } from "../actors/postgres/identify-system.actor.ts";
import type { ClientConfig } from "../config/config.ts";
import { unwrap } from "../domain/outcome.ts";
import { KlioError } from "../errors.ts";
import { ClusterMetadataSchema } from "../proto/generated/klio/wal/v1/wal_pb.ts";
import { noTelemetry } from "../telemetry/telemetry.ts";
import { commandLog } from "./command-log.ts";

export type ClusterCommand = {
  config: ClientConfig;
  stderr: NodeJS.WritableStream & { isTTY?: boolean };
  logLevel: string;
  signal: AbortSignal;
};

function connect({ config, stderr, logLevel }: ClusterCommand): Promise<WalClient> {
  const { wal, clusterName } = config;
  if (wal?.address === undefined) throw new KlioError("KLIO-CONFIG", "client.wal.address is missing");
  return connectWal({
    address: wal.address,
    tls: wal,
    clusterName,
    telemetry: noTelemetry(),
    log: commandLog(stderr, logLevel),
  });
}

/** The cluster's metadata as JSON. Rejects with KLIO-CLUSTER-UNKNOWN when no WAL ever came. */
export async function readClusterMetadata(command: ClusterCommand): Promise<string> {
  const client = await connect(command);
  try {
    const metadata = unwrap(await client.metadata({ signal: command.signal }));
    return toJsonString(ClusterMetadataSchema, metadata, { prettySpaces: 2, alwaysEmitImplicit: true });
  } finally {
    client.close();
  }
}

export type ResetResult = { walName: string; slot: string; slotDropped: boolean };

/**
 * Records a gap up to the segment that the source writes now, then drops the slot. Rejects with KLIO-SOURCE-DOWN when the
 * slot is in use: then nothing was recorded.
 */
export async function resetStream(command: ClusterCommand): Promise<ResetResult> {
  const { source } = command.config;
  if (source === undefined) throw new KlioError("KLIO-CONFIG", "the section source is missing");
  const { slot } = source;
  const hold = new SourceHold<WalClient>({
    dsn: source.dsn,
    standardDsn: source.standardDsn,
    applicationName: "klio-reset",
    primary: false,
    connectServer: () => connect(command),
  });
  try {
    const opened = await hold.open(slot, command.signal);
    if ("kind" in opened) throw new KlioError(opened.code, opened.reason);
    const identity = unwrap(await identify(hold));
    const look = "select active from pg_replication_slots where slot_name = $1";
    const [found] = unwrap(await hold.ask(look, [slot], command.signal));
    if (found?.active === true)
      throw new KlioError("KLIO-SOURCE-DOWN", `the replication slot ${slot} is in use`, {
        hint: "stop the sidecar (or send-wal) of this cluster first; nothing was recorded",
      });
    const recorded = await recordWholeGap(hold, { slot, ...identity }, command.signal);
    return { slot, ...unwrap(recorded) };
  } finally {
    hold.close();
    await hold.closed;
  }
}
