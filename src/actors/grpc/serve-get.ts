// `Get`: a WAL file as it is stored on one tier, to whoever may read the cluster. Each call is a walServing of its own.
import { create } from "@bufbuild/protobuf";
import type { Log } from "../../domain/log.ts";
import type { WalReader } from "../../domain/wal-reader.ts";
import { requireWalName } from "../../domain/wal-segment.ts";
import { errorText, KlioError } from "../../errors.ts";
import { type WalServingEvent, walServing } from "../../machines/wal-serving.machine.ts";
import {
  BlockCodec,
  type GetRequest,
  type GetResult,
  GetResultSchema,
} from "../../proto/generated/klio/wal/v1/wal_pb.ts";
import { requireOwnCluster, serverStream, signalOf, traceparentOf } from "./handlers.ts";
import type { IngestTelemetry } from "./serve-ingest.ts";

export function getMethod(options: { reader: WalReader; telemetry: Pick<IngestTelemetry, "start">; log: Log }) {
  const { reader, telemetry, log } = options;
  return serverStream<GetRequest, GetResult>("Get", log, async function* (request, call) {
    const cluster = requireOwnCluster(call, request.clusterName);
    const { name } = requireWalName(request.walName);
    const { tier } = reader;
    const actor = telemetry.start(walServing, {
      id: `walServing:${cluster}/${name}`,
      input: { cluster, name, tier, traceparent: traceparentOf(call) },
    });
    let end: WalServingEvent = { type: "shutdown.requested" }; // unless it comes to another one
    try {
      await using opened = await reader.open(cluster, name, signalOf(call));
      if (opened === undefined) throw new KlioError("KLIO-WAL-MISSING", `${tier} has no ${name} of ${cluster}`);
      const segmentSize = BigInt(opened.segmentBytes);
      const { stored } = opened;
      if (stored === undefined || !request.blockCodecs.includes(BlockCodec.ZSTD)) {
        for await (const walBlock of opened.blocks) yield create(GetResultSchema, { walBlock, segmentSize });
        yield create(GetResultSchema, { segmentSize });
      } else {
        for await (const { bytes: walBlock, packedFrom } of stored.blocks)
          yield create(GetResultSchema, {
            walBlock,
            segmentSize,
            ...(packedFrom !== undefined && { codec: BlockCodec.ZSTD, rawSize: BigInt(packedFrom) }),
          });
        yield create(GetResultSchema, { segmentSize, sha256: stored.sha256() ?? new Uint8Array() });
      }
      end = { type: "file.served" };
    } catch (error) {
      const isMissing = error instanceof KlioError && error.code === "KLIO-WAL-MISSING";
      if (!call.cancelled)
        end = isMissing ? { type: "file.missing" } : { type: "reading.failed", reason: errorText(error) };
      throw error;
    } finally {
      actor.send(end);
    }
  });
}
