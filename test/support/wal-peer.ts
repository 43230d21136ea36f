// A WAL server on a true socket whose files a test holds in its hands: also such that a real server would not send.
import { create } from "@bufbuild/protobuf";
import { type ServerWritableStream, status, type UntypedServiceImplementation } from "@grpc/grpc-js";
import { statusOf } from "../../src/actors/grpc/classify.ts";
import { unary } from "../../src/actors/grpc/handlers.ts";
import { listWal } from "../../src/actors/grpc/list-wal.ts";
import { serveGrpc } from "../../src/actors/grpc/serve-grpc.ts";
import { WAL_SERVICE, walDefinition } from "../../src/actors/grpc/wal-methods.ts";
import { type Certificates, createCertificates } from "../../src/demo/certificates.ts";
import type { StoredWal } from "../../src/domain/wal-reader.ts";
import { KlioError } from "../../src/errors.ts";
import {
  ClusterMetadataSchema,
  type GetRequest,
  type GetResult,
  GetResultSchema,
} from "../../src/proto/generated/klio/wal/v1/wal_pb.ts";
import { testLog } from "./test-log.ts";

type PeerFile = {
  bytes: Buffer;
  /** Told to the client; default: the bytes' length. */
  segmentBytes?: number;
  /** After so many bytes: says nothing more, or ends the call with this status. */
  cut?: { after: number; how: "stall" | number };
  /** Held back until this is resolved. */
  gate?: Promise<void>;
};

export type WalPeer = AsyncDisposable & {
  address: string;
  files: Map<string, PeerFile>;
  /** Names asked for with Get, in order. */
  asked: string[];
  /** Calls that are being answered now. */
  active(): number;
  setDown(down: boolean): void;
};

const BLOCK = 64 << 10;

export async function startWalPeer(certificates: Certificates, listenAddress = "127.0.0.1:0"): Promise<WalPeer> {
  const files = new Map<string, PeerFile>();
  const asked: string[] = [];
  const log = testLog();
  let active = 0;
  let isDown = false;
  const reader = {
    list: async (): Promise<StoredWal[]> => {
      if (isDown) throw new KlioError("KLIO-STORE-IO", "the volume is away");
      return [...files]
        .sort()
        .map(([name, { bytes }]) => ({ name, storedBytes: bytes.length, mtimeMs: 1_700_000_000_000.5 }));
    },
  };
  const get = (call: ServerWritableStream<GetRequest, GetResult>) => {
    const run = async () => {
      const { walName } = call.request;
      asked.push(walName);
      const file = files.get(walName);
      if (isDown) throw new KlioError("KLIO-STORE-IO", "the volume is away");
      if (file === undefined) throw new KlioError("KLIO-WAL-MISSING", `${walName} is not stored`);
      await file.gate;
      const { bytes, segmentBytes = bytes.length, cut } = file;
      const end = cut?.after ?? bytes.length;
      for (let at = 0; at < end && !call.cancelled; at += BLOCK) {
        const walBlock = bytes.subarray(at, Math.min(at + BLOCK, end));
        const isTaken = call.write(create(GetResultSchema, { walBlock, segmentSize: BigInt(segmentBytes) }));
        if (!isTaken) await new Promise((resolve) => call.once("drain", resolve));
      }
      if (cut?.how === "stall") return;
      if (typeof cut?.how === "number") call.emit("error", { code: cut.how, details: "cut", metadata: undefined });
      else {
        call.write(create(GetResultSchema, { segmentSize: BigInt(segmentBytes) }));
        call.end();
      }
    };
    active += 1;
    let isOver = false;
    const over = () => {
      if (!isOver) active -= 1;
      isOver = true;
    };
    call.once("cancelled", over).once("finish", over).once("error", over);
    run().catch((error: unknown) => call.emit("error", statusOf(error)));
  };
  const implementation: UntypedServiceImplementation = {
    Get: get as never,
    ListWAL: listWal(reader, log) as never,
    GetMetadata: unary("GetMetadata", log, async () => create(ClusterMetadataSchema, { systemId: "1" })) as never,
  };
  const names = ["Get", "ListWAL", "GetMetadata"];
  const server = await serveGrpc({
    listenAddress,
    tls: {
      cert: certificates.server.cert,
      key: certificates.server.key,
      clientCaCert: certificates.caCert,
    },
    services: [
      {
        name: WAL_SERVICE,
        definition: Object.fromEntries(Object.entries(walDefinition).filter(([name]) => names.includes(name))),
        implementation,
      },
    ],
    interceptors: [],
    log,
  });
  return {
    address: `127.0.0.1:${server.port}`,
    files,
    asked,
    active: () => active,
    setDown(down) {
      isDown = down;
    },
    [Symbol.asyncDispose]: () => server.close(0),
  };
}

export { createCertificates, status };

/** Files for `connectWal` and for the configuration of a client. */
export function clientTls(certificates: Certificates, cluster: string) {
  const { cert, key } = certificates.client(cluster);
  return { serverCertPath: certificates.caCert, clientCertPath: cert, clientKeyPath: key };
}
