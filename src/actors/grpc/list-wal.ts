// ListWAL of the WAL service: what a tier holds of the caller's own cluster, so that a restore can tell before it starts
// whether the WAL up to its target is there.
import { create } from "@bufbuild/protobuf";
import type { Log } from "../../domain/log.ts";
import type { WalReader } from "../../domain/wal-reader.ts";
import {
  type ListWALRequest,
  type ListWALResult,
  ListWALResultSchema,
} from "../../proto/generated/klio/wal/v1/wal_pb.ts";
import { requireOwnCluster, serverStream } from "./handlers.ts";

/** The handler, for the implementation of the WAL service: `ListWAL: listWal(reader, log)`. Good for any tier. */
export function listWal(reader: Pick<WalReader, "list">, log: Log) {
  return serverStream<ListWALRequest, ListWALResult>("ListWAL", log, async function* (request, call) {
    const cluster = requireOwnCluster(call, request.clusterName);
    for (const { name, storedBytes, mtimeMs } of await reader.list(cluster))
      yield create(ListWALResultSchema, {
        name,
        storedSize: BigInt(storedBytes),
        complete: !name.endsWith(".partial"),
        storedAt: BigInt(Math.max(0, Math.trunc(mtimeMs))),
      });
  });
}
